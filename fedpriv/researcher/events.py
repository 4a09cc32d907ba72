"""What happens in a study, as typed events; the progress view, the history file and widgets are subscribers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from fedpriv.study import Progress


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes
    ----------
    study : str
        The study id.
    time_s : float
        Seconds since the epoch at the researcher.
    """

    study: str
    time_s: float = field(default_factory=lambda: round(time.time(), 3))

    def as_record(self) -> dict[str, Any]:
        """Return the event as a JSON object with its ``event`` name."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class StudyStarted(Event):
    """Rounds begin, or go on after a stop."""

    domains: tuple[str, ...]
    rounds: int
    resumed: bool


@dataclass(frozen=True, kw_only=True)
class Waiting(Event):
    """Nothing moves until somebody else does something."""

    domain: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Decided(Event):
    """A data owner decided on the request."""

    domain: str
    decision: str
    reason: str
    checked: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DomainExcluded(Event):
    """A domain is not waited for any more; from the next round on it takes no part."""

    domain: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DomainReadmitted(Event):
    """A domain that was excluded takes part again from the next round on."""

    domain: str


@dataclass(frozen=True, kw_only=True)
class DomainJoined(Event):
    """A domain is prepared: it takes part from the next round on."""

    domain: str


@dataclass(frozen=True, kw_only=True)
class DomainMissed(Event):
    """A round goes on without a domain that was asked.

    Attributes
    ----------
    carried : bool
        Whether its late update will be in the next sum that it takes part in.
    """

    domain: str
    round: int
    reason: str
    carried: bool


@dataclass(frozen=True, kw_only=True)
class DomainCaughtUp(Event):
    """A domain opened the sums of rounds that it had missed, up to this one."""

    domain: str
    round: int


@dataclass(frozen=True, kw_only=True)
class RoundSkipped(Event):
    """A round was left without a sum: the adapter after it is the one before it."""

    round: int


@dataclass(frozen=True, kw_only=True)
class RoundStarted(Event):
    """Domains are asked to train.

    Attributes
    ----------
    steps : dict[str, int]
        Optimiser steps of each one where they are not the plan's.
    bits : int or None
        That all seal with, where they are not the plan's.
    """

    round: int
    attempt: int
    domains: tuple[str, ...]
    steps: dict[str, int]
    bits: int | None = None


@dataclass(frozen=True, kw_only=True)
class Weighed(Event):
    """It is decided how much each update of a round counts.

    Attributes
    ----------
    shares : dict[str, float]
        They sum to 1.
    bandwidths : dict[str, float]
        Each domain's upload rate over the median one, where it was measured.
    staleness : dict[str, int]
        Rounds between the adapter that an update was trained from and the newest, where that is not 0.
    """

    round: int
    rule: str
    alpha: float
    shares: dict[str, float]
    bandwidths: dict[str, float]
    staleness: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class LinkMeasured(Event):
    """What is known of a domain's link after one more ticket; None for what was never measured."""

    domain: str
    up_mbps: float | None
    down_mbps: float | None
    latency_s: float | None


@dataclass(frozen=True, kw_only=True)
class Paused(Event):
    """The study was asked to pause: the next round is not begun."""

    round: int


@dataclass(frozen=True, kw_only=True)
class Unpaused(Event):
    """The study goes on after a pause with this round."""

    round: int


@dataclass(frozen=True, kw_only=True)
class KeyRenewed(Event):
    """A new study key was made in place of one that was retired.

    Attributes
    ----------
    generation : int
        Of the new key; 1 was the study's first.
    round : int
        The round that is summed again with it.
    retired_by : tuple of str
        The domains that refused the sum.
    """

    generation: int
    round: int
    retired_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TicketSent(Event):
    """A domain was asked to do something."""

    domain: str
    kind: str
    round: int


@dataclass(frozen=True, kw_only=True)
class DomainProgress(Event):
    """A domain says where it is. Not kept in the history."""

    domain: str
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class ResultReceived(Event):
    """A domain answered a ticket; ``status`` is done, refused or failed."""

    domain: str
    kind: str
    round: int
    metrics: dict[str, float]
    seconds: dict[str, float]
    status: str = "done"


@dataclass(frozen=True, kw_only=True)
class UpdateReceived(Event):
    """A sealed update arrived.

    Attributes
    ----------
    size_bytes : int
        Size of the container.
    seconds : float
        Wall clock of fetching and checking it.
    """

    domain: str
    round: int
    size_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RoundFinished(Event):
    """All updates of a round are added up.

    Attributes
    ----------
    attempt : int
        1, or more when the round was summed again with a new key; the last one counts.
    train_loss : float or None
        Mean over the domains, token-weighted; None where no domain gives it, as with differential privacy.
    heldout_loss : float
        Of the adapter the round started from, token-weighted over the domains.
    weights : dict[str, float]
        Share of each domain's update in the mean; they sum to 1.
    bytes_up, bytes_down : int
        Mean size of a sealed update; size of the aggregate.
    seconds : dict[str, float]
        ``train``, ``seal``, ``open``, ``transfer``: mean over domains; ``confirm``, ``aggregate`` and ``wall`` of
        the round.
    quality : dict[str, float]
        How well questions are answered, see :func:`fedpriv.researcher.answers.quality`; of the same adapter.
    """

    round: int
    attempt: int
    train_loss: float | None
    heldout_loss: float
    weights: dict[str, float]
    bytes_up: int
    bytes_down: int
    parameters: int
    seconds: dict[str, float]
    quality: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StudyFinished(Event):
    """The last aggregate was opened by every domain.

    Attributes
    ----------
    loss_before, loss_after : float
        Held-out loss of the base model and of the federated adapter, token-weighted over the domains.
    loss_after_by_domain : dict[str, float]
        Held-out loss of the federated adapter on each domain's own held-out examples.
    heldout_tokens : dict[str, float]
        How many tokens of each domain that is a mean over.
    quality_before, quality : dict[str, float]
        How well questions are answered by the base model and by the federated adapter; empty without questions.
    """

    loss_before: float
    loss_after: float
    loss_after_by_domain: dict[str, float]
    heldout_tokens: dict[str, float]
    adapter_sha256: str
    seconds: dict[str, float]
    quality_before: dict[str, float] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AdapterReleased(Event):
    """The plain adapter was written."""

    folder: str
    adapter_sha256: str


@dataclass(frozen=True, kw_only=True)
class TrackerStopped(Event):
    """A tracker failed and gets no more; the study goes on without it."""

    tracker: str
    reason: str


Subscriber = Callable[[Event], None]
"""Called for each event on the event loop's thread: it returns at once, and raises nothing."""


@runtime_checkable
class Closing(Protocol):
    """A subscriber that is told when no more events of this run come."""

    def close(self) -> None:
        """Take the end of a run; called once, after the last event, also when the run failed."""
        ...
