"""``StudyBuilder``: the researcher's panel on a study that is being written, as a form and as text, in step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedpriv.errors import PlanError
from fedpriv.researcher import Researcher, Study
from fedpriv.study import Plan
from fedpriv.study.plan import MemberChoice
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE
from fedpriv.widgets.action_queue import ActionQueue
from fedpriv.widgets.builder import Builder
from fedpriv.widgets.builder_actions import ACTIONS, carry_out
from fedpriv.widgets.builder_files import first_files
from fedpriv.widgets.builder_view import sheet_of, view_of
from fedpriv.widgets.panel import Panel
from fedpriv.widgets.pump import Pump, ShownAsSheet
from fedpriv.widgets.sheet import Sheet


class StudyBuilder(ShownAsSheet, Panel):
    """Writes a study: a form on one side, ``plan.yaml`` and ``train.py`` as text on the other.

    What is typed is on the disk at once, and comes back with the same name after a restart of the kernel. Nothing is
    sent before it is submitted.

    Parameters
    ----------
    researcher : Researcher
        Whose study.
    name : str
        The study's. If there is one, or a draft of one, it is shown, and the other parameters are not looked at.
    cohort : sequence of MemberChoice
        Its domains: each address with the fingerprint that its data owner told you.
    base_model : str
        See ``fedpriv model list``; one that is not on this machine is fetched.
    plan : Plan, optional
        To begin with, in place of the plan's defaults for ``cohort`` and ``base_model``.
    recipe : str, optional
        The text of ``train.py``; by default the stock recipe.

    Examples
    --------
    >>> builder = StudyBuilder(researcher, name="icu", cohort=cohort)  # doctest: +SKIP
    >>> RoundControl(builder.study)                                    # doctest: +SKIP
    """

    script = "study_builder.js"

    def __init__(
        self,
        researcher: Researcher,
        name: str,
        cohort: Sequence[MemberChoice] = (),
        base_model: str = "smollm2-135m-instruct",
        *,
        plan: Plan | None = None,
        recipe: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._pump = Pump(self._draw, f"view {name}")

        def files() -> dict[str, str]:
            members = cohort if plan is None else plan.cohort
            found = first_files(researcher, members, base_model, recipe)
            return found if plan is None else {PLAN_FILE: plan.to_yaml(), RECIPE_FILE: found[RECIPE_FILE]}

        self._builder = Builder.open(researcher, name, files, self._pump.wake)
        self.view = view_of(self._builder.state)
        self._actions = ActionQueue(
            ACTIONS, lambda action: carry_out(self._builder, action), self.show_answer, name=f"builder {name}"
        )
        self.listen(self._actions)
        self._pump.start()

    @property
    def plan(self) -> Plan:
        """The plan as it stands here.

        Raises
        ------
        PlanError
            If the text is none just now.
        """
        plan = self._builder.state.draft.plan
        if plan is None:
            raise PlanError("The text is no plan just now", kept="It is kept", todo="correct what the panel names")
        return plan

    @property
    def study(self) -> Study:
        """The study as it was saved.

        Raises
        ------
        StudyError
            If it was not saved yet.
        """
        return self._builder.study

    def save(self) -> Study:
        """Save what stands here, as the button does, and return the study.

        Raises
        ------
        PlanError
            If the text is no plan just now.
        ExistsError, StudyError
            If it was submitted already, or its files were changed meanwhile.
        """
        return self._builder.save()

    def _end(self) -> None:
        self._actions.close()
        self._builder.leave(self._pump.wake)
        self._pump.close()

    def sheet(self) -> Sheet:
        """Return it as a sheet."""
        return sheet_of(self._builder.state)

    def _draw(self) -> None:
        view = view_of(self._builder.state)
        if view != self.view:
            self.view = view
