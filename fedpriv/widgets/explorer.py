"""A cohort's mock data, being fetched: a state, and a thread that listens to the process that fetches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import ValidationError

from fedpriv.clinical.statement import needed_columns
from fedpriv.errors import FedprivError, StudyError
from fedpriv.researcher import Researcher, Study
from fedpriv.study.plan import MemberChoice
from fedpriv.widgets.explorer_state import ExplorerState, of_cohort, with_mock, with_statements, with_words
from fedpriv.widgets.mock_child import MockChild, News, Wish

Change = Callable[[ExplorerState], ExplorerState]


class Explorer:
    """Holds what is known of a cohort's data.

    *Guarantee*: nothing but mock sides and signed statements is asked for or shown: no domain gives anything else.

    Parameters
    ----------
    researcher : Researcher
        Who asks.
    cohort : sequence of MemberChoice
        Whom.
    dataset : str
        Of what.
    study : Study, optional
        Whose domains' statements are shown, too.
    on_change : Callable[[], None]
        Called from any thread after the state changed.
    """

    def __init__(
        self,
        researcher: Researcher,
        cohort: Sequence[MemberChoice],
        dataset: str,
        study: Study | None,
        on_change: Callable[[], None],
    ) -> None:
        self._researcher, self._cohort, self._study, self._on_change = researcher, tuple(cohort), study, on_change
        self._changing, self._closed = threading.Lock(), False
        self._child: MockChild | None = None
        self.state = of_cohort(dataset, [member.email for member in cohort])
        self.look()

    def change(self, how: Change) -> None:
        """Take a new state."""
        with self._changing:
            self.state = how(self.state)
        self._on_change()

    def look(self) -> None:
        """Fetch the mock sides, in a process of its own.

        Raises
        ------
        StudyError
            If they are being fetched.
        """
        if self.state.looking:
            raise StudyError("The mock data are being fetched", kept="What is there is shown", todo="wait for them")
        self.change(lambda state: replace(self._told(state), looking=True))
        threading.Thread(target=self._listen, name=f"mock data {self.state.dataset}", daemon=True).start()

    def close(self) -> None:
        """End the process that fetches, if there is one."""
        self._closed = True
        self._end_child()

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def _told(self, state: ExplorerState) -> ExplorerState:
        """Return the state with what the study's domains said of their shards until now."""
        if self._study is None:
            return state
        request = self._study.folder.draft()
        needed = needed_columns(request.plan.task, request.files)
        return replace(with_statements(state, self._study.folder.shards()), needed=needed)

    def _listen(self) -> None:
        wish = Wish(home=str(self._researcher.root), dataset=self.state.dataset, cohort=self._cohort)
        try:
            child = self._child = MockChild(wish)
            for news in () if self._closed else child.news():
                self.change(lambda state, news=news: _after(state, news))
        except (FedprivError, OSError, ValueError, ValidationError) as error:
            words = f"The mock data could not be read ({type(error).__name__})"
            self.change(lambda state: _all(state, words))
        finally:
            self._end_child()
            self.change(lambda state: replace(state, looking=False))


def _after(state: ExplorerState, news: News) -> ExplorerState:
    if news.mock is not None:
        return with_mock(state, news.domain, news.mock)
    return with_words(state, news.domain, news.words)


def _all(state: ExplorerState, words: str) -> ExplorerState:
    for email, domain in state.domains.items():
        if domain.mock is None:
            state = with_words(state, email, words)
    return state
