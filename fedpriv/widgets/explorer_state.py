"""What can be known of a cohort's data without seeing any: mock sides, and what domains said of their shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedpriv.clinical.mock_reading import MockSide
from fedpriv.errors import StudyError
from fedpriv.study.shard import ShardStatement, differences


@dataclass(frozen=True, kw_only=True)
class DomainData:
    """One domain.

    Attributes
    ----------
    email : str
        Its address.
    words : str
        What is waited for, or why there is no mock side.
    mock : MockSide or None
        Its mock side, once it was fetched and checked.
    told : ShardStatement or None
        What it said of its shard, signed, when the study was prepared.
    """

    email: str
    words: str = "not asked yet"
    mock: MockSide | None = None
    told: ShardStatement | None = None


@dataclass(frozen=True, kw_only=True)
class ExplorerState:
    """A cohort's data, as far as they can be known.

    Attributes
    ----------
    dataset : str
        Its name.
    domains : mapping of str to DomainData
        By address, in sorted order.
    needed : mapping of str to sequence of str
        The tables that the study's task reads, each to its columns; empty without a study.
    looking : bool
        Whether mock sides are being fetched.
    shown, text : str and int
        Whose sample text is shown, and which, from 0.
    """

    dataset: str
    domains: Mapping[str, DomainData]
    needed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    looking: bool = False
    shown: str = ""
    text: int = 0

    @property
    def differences(self) -> list[str]:
        """How shards differ, by what their domains said."""
        told = {email: domain.told for email, domain in self.domains.items() if domain.told is not None}
        return differences(told, self.needed) if len(told) > 1 else []


def of_cohort(dataset: str, emails: Sequence[str]) -> ExplorerState:
    """Return the state in which nothing is known of a cohort's data."""
    return ExplorerState(dataset=dataset, domains={email: DomainData(email=email) for email in sorted(emails)})


def with_words(state: ExplorerState, email: str, words: str) -> ExplorerState:
    """Return the state after it became known what a domain's mock side waits for."""
    return _with(state, replace(state.domains[email], words=words)) if email in state.domains else state


def with_mock(state: ExplorerState, email: str, mock: MockSide) -> ExplorerState:
    """Return the state after a domain's mock side was fetched; the first one's first text is shown."""
    if email not in state.domains:
        return state
    state = _with(state, replace(state.domains[email], words="", mock=mock))
    return state if state.shown or not mock.texts else replace(state, shown=email)


def with_statements(state: ExplorerState, statements: Mapping[str, ShardStatement]) -> ExplorerState:
    """Return the state with what domains said of their shards; their signatures were checked when they came."""
    for email, told in statements.items():
        if email in state.domains:
            state = _with(state, replace(state.domains[email], told=told))
    return state


def with_text(state: ExplorerState, email: str, number: int) -> ExplorerState:
    """Return the state in which another sample text is shown.

    Raises
    ------
    StudyError
        If there is none of this number.
    """
    mock = state.domains[email].mock if email in state.domains else None
    if mock is None or not 0 <= number < len(mock.texts):
        raise StudyError("There is no such sample text", kept="The one before is shown", todo="choose another")
    return replace(state, shown=email, text=number)


def _with(state: ExplorerState, domain: DomainData) -> ExplorerState:
    return replace(state, domains={**state.domains, domain.email: domain})
