"""``RoundControl``: the researcher's panel on one study, from its draft to its release."""

from __future__ import annotations

import threading
import time
from typing import Any

import traitlets

from fedpriv.researcher import Study
from fedpriv.widgets.panel import Panel
from fedpriv.widgets.round_view import charts_of, view_of
from fedpriv.widgets.study_actions import study_actions
from fedpriv.widgets.study_facts import FactsReader, StudyFacts
from fedpriv.widgets.study_state import StudyState
from fedpriv.widgets.study_watch import StudyWatch

_FACTS_EVERY_S = 0.5


class RoundControl(Panel):
    """Shows a study as it is just now, and steers it.

    The rounds run in a process of their own: the kernel stays free, and closing the notebook or restarting its kernel
    stops nothing. A new panel on the same study shows the same.

    Parameters
    ----------
    study : Study
        Draft, running in any process, or finished.

    Examples
    --------
    >>> RoundControl(Study.open(researcher, "icu"))  # doctest: +SKIP
    """

    script = "round_control.js"

    charts = traitlets.Dict().tag(sync=True)

    def __init__(self, study: Study, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._name = study.folder.root.name
        self._reader = FactsReader(study)
        self._state, self._trouble = StudyState(), ""
        self._facts, self._read_s = self._reader.read(), time.monotonic()
        self._drawn: object = None
        self._drawing = threading.Lock()
        self._draw()
        self._actions = study_actions(study, self.show_answer)
        self._watch = StudyWatch(study, self._on_state, self._on_trouble, self._on_look)
        self._watch.start()
        self.listen(self._actions)

    def _end(self) -> None:
        self._watch.close()
        self._actions.close()

    def as_text(self) -> str:
        """Return the study in a few lines."""
        view = self.view
        lines = [
            f"Study {view['name']} ({view['title']}): {view['phase']}, {view['summed']} of {view['rounds']} rounds"
        ]
        lines += [f"  {card['email']}: {card['doing']}" for card in view["domains"]]
        return "\n".join([*lines, *filter(None, [view["problem"], view["next"]])])

    # -- from the watch's thread ---------------------------------------------------------------------------------------

    def _on_state(self, state: StudyState) -> None:
        self._state = state

    def _on_trouble(self, sentence: str) -> None:
        self._trouble = sentence
        self._draw()

    def _on_look(self) -> None:
        if time.monotonic() - self._read_s >= _FACTS_EVERY_S:
            self._facts, self._read_s = self._reader.read(), time.monotonic()
        self._draw()

    def _draw(self) -> None:
        """Set the traits, where anything changed."""
        seen: tuple[StudyState, StudyFacts, str] = (self._state, self._facts, self._trouble)
        with self._drawing:
            if seen == self._drawn:
                return
            self._drawn = seen
            charts = charts_of(self._state, self._facts)
            if charts != self.charts:
                self.charts = charts
            self.view = view_of(self._state, self._facts, name=self._name, now_s=time.time(), trouble=self._trouble)
