"""What a study looks like at a moment, made of its events alone: the same for the terminal and for widgets.

:func:`after` is the only way from one state to the next. It knows no clock, no screen and no file, so that a state that
was read again from a history is the state that was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from fedpriv.researcher.event_words import sentence
from fedpriv.researcher.events import (
    AdapterReleased,
    Decided,
    DomainCaughtUp,
    DomainExcluded,
    DomainJoined,
    DomainMissed,
    DomainProgress,
    DomainReadmitted,
    Event,
    KeyRenewed,
    LinkMeasured,
    Paused,
    ResultReceived,
    RoundFinished,
    RoundSkipped,
    RoundStarted,
    StudyFinished,
    StudyStarted,
    TicketSent,
    TrackerStopped,
    Unpaused,
    UpdateReceived,
    Waiting,
    Weighed,
)

Phase = Literal["new", "deciding", "preparing", "running", "paused", "finished", "released"]

MOST_LINES = 200
"""Of the log that is kept; the history has all of it."""

MOST_ROUNDS = 256
"""Rounds that are kept; of more, every second one of the older half, again and again: memory does not grow."""

_QUIET = (TicketSent, DomainProgress, UpdateReceived, LinkMeasured, Waiting)
_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class DomainState:
    """One domain of the cohort.

    Attributes
    ----------
    doing : str
        What it does, in words.
    step, steps : int
        Of what it does; 0 where that has no steps.
    since_s, seen_s : float
        Seconds since the epoch: since when it does that, and when it was heard of last. 0 where it never was.
    decision, reason : str
        What its data owner decided on the request, and why.
    excluded : str or None
        Why it is not waited for any more.
    missed : int or None
        The last round that went on without it, until it caught up.
    heldout_loss, train_loss : float or None
        At the last round that it answered: of the adapter that the round began with, and of its own training.
    share : float or None
        Of the last sum that was weighed.
    up_mbps, down_mbps, latency_s : float or None
        Its link.
    update_bytes : int or None
        Size of its last sealed update.
    examples : int or None
        That it trains on, as it said.
    bandwidth : float or None
        Its upload rate over the cohort's median, when updates were weighed last.
    trained, trained_to : int
        In how many rounds it has trained, and the last of them.
    """

    email: str
    doing: str = "not asked yet"
    step: int = 0
    steps: int = 0
    since_s: float = 0.0
    seen_s: float = 0.0
    decision: str = ""
    reason: str = ""
    excluded: str | None = None
    missed: int | None = None
    heldout_loss: float | None = None
    train_loss: float | None = None
    share: float | None = None
    up_mbps: float | None = None
    down_mbps: float | None = None
    latency_s: float | None = None
    update_bytes: int | None = None
    examples: int | None = None
    bandwidth: float | None = None
    trained: int = 0
    trained_to: int = 0


@dataclass(frozen=True, kw_only=True)
class RoundState:
    """One round that was summed; losses by domain are those of the domains that answered.

    ``heldout`` and ``train`` are the domains' own numbers, the rest as :class:`fedpriv.researcher.events.RoundFinished`
    has it.
    """

    round: int
    train_loss: float | None
    heldout_loss: float
    weights: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    parameters: int
    seconds: Mapping[str, float]
    quality: Mapping[str, float]
    heldout: Mapping[str, float]
    train: Mapping[str, float]
    bits: int | None = None


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line of the log: when, whom it is about if about a domain, what happened in words, and whether it is bad."""

    time_s: float
    domain: str
    text: str
    grave: bool = False


@dataclass(frozen=True, kw_only=True)
class StudyState:
    """A study at a moment.

    Attributes
    ----------
    phase : str
        What all of it does.
    at_round, of_rounds : int
        The round at work, 0 before the first, and how many there are in all; 0 where it is not known yet.
    domains : mapping of str to DomainState
        By address, in sorted order.
    rounds : tuple of RoundState
        Those summed, in their order; of more than :data:`MOST_ROUNDS`, only some of the older ones.
    summed : int
        How many there are in all.
    rule, alpha : str and float or None
        How the last sum was weighed.
    log : tuple of LogLine
        The newest last, :data:`MOST_LINES` at the most.
    warning : LogLine or None
        What went wrong last, until a round is summed in spite of it.
    finished, released : event or None
        How it ended.
    """

    study: str = ""
    phase: Phase = "new"
    at_round: int = 0
    of_rounds: int = 0
    domains: Mapping[str, DomainState] = field(default_factory=dict)
    rounds: tuple[RoundState, ...] = ()
    summed: int = 0
    rule: str = ""
    alpha: float | None = None
    bits: int | None = None
    log: tuple[LogLine, ...] = ()
    warning: LogLine | None = None
    finished: StudyFinished | None = None
    released: AdapterReleased | None = None


def replayed(events: Iterable[Event]) -> StudyState:
    """Return the state after these events, from nothing."""
    state = StudyState()
    for event in events:
        state = after(state, event)
    return state


def after(state: StudyState, event: Event) -> StudyState:
    """Return the state after one more event; the one before stays as it is."""
    state = replace(state, study=event.study or state.study)
    domain = getattr(event, "domain", "")
    if domain:
        known = state.domains.get(domain, DomainState(email=domain))
        state = _with(state, _domain_after(known, event))
    state = _study_after(state, event)
    if isinstance(event, RoundFinished | StudyFinished):
        state = replace(state, warning=None)
    if is_quiet(event):
        return state
    line = _line(event)
    state = replace(state, log=(*state.log, line)[-MOST_LINES:])
    return replace(state, warning=line) if line.grave else state


def _with(state: StudyState, domain: DomainState) -> StudyState:
    return replace(state, domains=dict(sorted({**state.domains, domain.email: domain}.items())))


def _line(event: Event) -> LogLine:
    domain = getattr(event, "domain", "")
    return LogLine(time_s=event.time_s, domain=domain, text=sentence(event), grave=_is_grave(event))


def _is_grave(event: Event) -> bool:
    """Say whether a person may have to do something about it."""
    match event:
        case ResultReceived():
            return event.status != "done"
        case Decided():
            return event.decision in ("rejected", "revoked")
    return isinstance(event, DomainMissed | KeyRenewed | RoundSkipped | TrackerStopped)


def is_quiet(event: Event) -> bool:
    """Say whether an event is not worth a line: it follows from another one, or comes too often."""
    if isinstance(event, ResultReceived):  # confirm follows each update
        return event.kind == "confirm" and event.status == "done"
    return isinstance(event, _QUIET)


def _domain_after(domain: DomainState, event: Event) -> DomainState:  # noqa: PLR0911 - one for each kind of event
    now = event.time_s
    heard = replace(domain, seen_s=now)
    match event:
        case Waiting():
            return domain if domain.steps else _doing(domain, f"waited for: {event.what}", now)
        case TicketSent():
            return _doing(domain, f"asked to {event.kind}", now)
        case DomainProgress():
            progress = event.progress
            return _doing(heard, progress.state, now, progress.step, progress.steps)
        case Decided():
            return _doing(replace(heard, decision=event.decision, reason=event.reason), event.decision, now)
        case ResultReceived():
            return _doing(_with_metrics(heard, event), f"{event.kind} {event.status}", now)
        case UpdateReceived():
            return _doing(replace(heard, update_bytes=event.size_bytes), "update received", now)
        case LinkMeasured():
            return replace(heard, up_mbps=event.up_mbps, down_mbps=event.down_mbps, latency_s=event.latency_s)
        case DomainExcluded():
            return _doing(replace(domain, excluded=event.reason, share=None), "excluded", now)
        case DomainReadmitted():
            return _doing(replace(domain, excluded=None), "takes part from the next round on", now)
        case DomainJoined():
            return _doing(heard, "takes part from the next round on", now)
        case DomainMissed():
            return _doing(replace(domain, missed=event.round), f"missed round {event.round}", now)
        case DomainCaughtUp():
            return _doing(replace(heard, missed=None), f"caught up with round {event.round}", now)
    return domain


def _doing(domain: DomainState, what: str, now: float, step: int = 0, steps: int = 0) -> DomainState:
    since = domain.since_s if domain.doing == what and domain.since_s else now
    return replace(domain, doing=what, since_s=since, step=step, steps=steps)


def _with_metrics(domain: DomainState, event: ResultReceived) -> DomainState:
    if event.status != "done" or event.kind not in ("prepare", "train"):
        return domain
    is_new = event.kind == "train" and event.round > domain.trained_to
    return replace(
        domain,
        trained=domain.trained + is_new,
        trained_to=event.round if is_new else domain.trained_to,
        heldout_loss=event.metrics.get("heldout_loss", domain.heldout_loss),
        train_loss=event.metrics.get("train_loss", domain.train_loss),
        examples=int(event.metrics["examples"]) if "examples" in event.metrics else domain.examples,
    )


def _study_after(state: StudyState, event: Event) -> StudyState:  # noqa: PLR0911 - one for each kind of event
    match event:
        case StudyStarted():
            unknown = [email for email in event.domains if email not in state.domains]
            for email in unknown:
                state = _with(state, DomainState(email=email))
            phase: Phase = "deciding" if not state.rounds else "running"
            return replace(state, of_rounds=event.rounds, phase=phase, finished=None)
        case DomainJoined() if state.phase in ("new", "deciding"):
            return replace(state, phase="preparing")
        case RoundStarted():
            return replace(state, at_round=event.round, bits=event.bits, phase="running")
        case Weighed():
            state = replace(state, rule=event.rule, alpha=event.alpha)
            for email, domain in state.domains.items():
                bandwidth = event.bandwidths.get(email, domain.bandwidth)
                state = _with(state, replace(domain, share=event.shares.get(email), bandwidth=bandwidth))
            return state
        case RoundFinished():
            earlier = _before(state.rounds, event.round)  # summed again, it takes its own place
            summed = state.summed - (len(state.rounds) - len(earlier)) + 1
            return replace(state, rounds=_thinned((*earlier, _round_of(state, event))), summed=summed)
        case RoundSkipped():
            rounds = tuple(past for past in state.rounds if past.round != event.round)
            return replace(state, rounds=rounds, summed=state.summed - (len(state.rounds) - len(rounds)))
        case Paused():
            return replace(state, phase="paused")
        case Unpaused():
            return replace(state, phase="running")
        case StudyFinished():
            return replace(state, phase="finished", finished=event)
        case AdapterReleased():
            return replace(state, phase="released", released=event)
    return state


def _before(rounds: tuple[RoundState, ...], number: int) -> tuple[RoundState, ...]:
    return tuple(past for past in rounds if past.round < number)


def _thinned(rounds: tuple[RoundState, ...]) -> tuple[RoundState, ...]:
    """Return fewer rounds where there are too many; the first and the newer half are kept."""
    if len(rounds) <= MOST_ROUNDS:
        return rounds
    half = len(rounds) // 2
    return (*rounds[:half:2], *rounds[half:])


def _round_of(state: StudyState, event: RoundFinished) -> RoundState:
    there = {email: domain for email, domain in state.domains.items() if email in event.weights}
    return RoundState(
        round=event.round,
        train_loss=event.train_loss,
        heldout_loss=event.heldout_loss,
        weights=event.weights,
        bytes_up=event.bytes_up,
        bytes_down=event.bytes_down,
        parameters=event.parameters,
        seconds=event.seconds,
        quality=event.quality,
        heldout={email: loss for email, domain in there.items() if (loss := domain.heldout_loss) is not None},
        train={email: loss for email, domain in there.items() if (loss := domain.train_loss) is not None},
        bits=state.bits,
    )
