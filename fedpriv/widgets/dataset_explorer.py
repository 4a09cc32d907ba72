"""``DatasetExplorer``: the researcher's panel on what can be known of a cohort's data without seeing any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedpriv.errors import ConfigError
from fedpriv.researcher import Researcher, Study
from fedpriv.study.plan import MemberChoice, Plan
from fedpriv.widgets.action_queue import ActionQueue
from fedpriv.widgets.explorer import Explorer
from fedpriv.widgets.explorer_actions import ACTIONS, carry_out
from fedpriv.widgets.explorer_view import sheet_of, view_of
from fedpriv.widgets.panel import Panel
from fedpriv.widgets.pump import Pump, ShownAsSheet
from fedpriv.widgets.sheet import Sheet


class DatasetExplorer(ShownAsSheet, Panel):
    """Shows each domain's mock data, which are made up, and what it said of its shard, signed and rounded down.

    Parameters
    ----------
    whose : Study or Researcher
        A study, for its cohort; or a researcher, with a ``cohort``.
    cohort : sequence of MemberChoice
        Domains, where there is no study yet.
    dataset : str
        The dataset's name, where there is no study yet.

    Examples
    --------
    >>> DatasetExplorer(study)               # doctest: +SKIP
    >>> DatasetExplorer(researcher, cohort)  # doctest: +SKIP
    """

    script = "dataset_explorer.js"

    def __init__(
        self,
        whose: Study | Researcher,
        cohort: Sequence[MemberChoice] = (),
        *,
        dataset: str = Plan.model_fields["dataset"].default,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        study = whose if isinstance(whose, Study) else None
        researcher = whose.researcher if isinstance(whose, Study) else whose
        if study is not None:
            cohort, dataset = study.plan.cohort, study.plan.dataset
        if not cohort:
            raise ConfigError("No domain was named", todo="give a study, or cohort=[MemberChoice(...), ...]")
        self._pump = Pump(self._draw, f"view {dataset}")
        self._explorer = Explorer(researcher, cohort, dataset, study, self._pump.wake)
        self.view = view_of(self._explorer.state)
        self._actions = ActionQueue(
            ACTIONS, lambda action: carry_out(self._explorer, action), self.show_answer, name=f"explorer {dataset}"
        )
        self.listen(self._actions)
        self._pump.start()

    def _end(self) -> None:
        self._actions.close()
        self._explorer.close()
        self._pump.close()

    def sheet(self) -> Sheet:
        """Return it as a sheet."""
        return sheet_of(self._explorer.state)

    def _draw(self) -> None:
        view = view_of(self._explorer.state)
        if view != self.view:
            self.view = view
