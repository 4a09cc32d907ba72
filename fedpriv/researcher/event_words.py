"""Events in plain words: who, and what happened, for terminals and reports."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

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

_SAID_ELSEWHERE = frozenset({"study", "time_s", "domain"})


def who(event: Event) -> str:
    """Return the domain that an event is about, or nothing where it is about the study."""
    return str(getattr(event, "domain", ""))


def words(event: Event) -> str:
    """Return what happened, as the rest of a sentence that :func:`who` begins.

    An event without words of its own is named as its class is, with its fields. Text of other parties is in it as it
    came: whoever shows it makes it visible first.
    """
    return _WORDS.get(type(event), _by_its_fields)(event)


def sentence(event: Event) -> str:
    """Return what happened with whom it happened to."""
    return f"{who(event)}: {words(event)}" if who(event) else words(event)


def _by_its_fields(event: Any) -> str:
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(event).__name__).lower()
    fields = (field.name for field in dataclasses.fields(event) if field.name not in _SAID_ELSEWHERE)
    known = [f"{field.replace('_', ' ')} {value}" for field in fields if (value := _short(getattr(event, field)))]
    return f"{name} ({', '.join(known)})" if known else name


def _short(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.6g}"
        case dict():
            return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
        case tuple() | list():
            return ", ".join(map(_short, value))
    return str(value)


def _in_round(event: Any) -> str:
    return f", round {event.round}" if event.round else ""


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _started(event: StudyStarted) -> str:
    return "going on where the study stopped" if event.resumed else f"{event.rounds} rounds begin"


def _renewed(event: KeyRenewed) -> str:
    refused = ", ".join(event.retired_by)
    return f"a new study key was made; round {event.round} is summed again ({refused} refused its sum)"


def _round(event: RoundFinished) -> str:
    again = "" if event.attempt == 1 else " again"
    if event.train_loss is None:  # with differential privacy no loss of training patients leaves a domain
        told = f"held-out loss {event.heldout_loss:.4f} at its start"
    else:
        told = f"train loss {event.train_loss:.4f}"
    return f"round {event.round} is summed{again}: {told}{_quality(event.quality)}"


def quality_in_words(quality: Mapping[str, float]) -> str:
    """Return how well questions are answered, in words; empty if it is not known."""
    parts = []
    if "auroc" in quality:
        parts.append(f"AUROC {quality['auroc']:.3f} ({quality['auroc_low']:.3f} to {quality['auroc_high']:.3f}, 95 %)")
    parts += [f"{name[:5]} F1 {quality[name]:.3f}" for name in ("micro_f1", "macro_f1") if name in quality]
    return ", ".join(parts)


def _quality(quality: Mapping[str, float]) -> str:
    words = quality_in_words(quality)
    return f"; {words}" if words else ""


def link_in_words(up_mbps: float | None, down_mbps: float | None, latency_s: float | None) -> str:
    """Return what is known of a link in a few words; nothing is known of one that was never measured."""
    parts = [f"{_mbps(rate)} Mbit/s {way}" for rate, way in ((up_mbps, "up"), (down_mbps, "down")) if rate is not None]
    if latency_s is not None:
        parts.append(f"{1000 * latency_s:.0f} ms a message")
    return ", ".join(parts) or "not measured"


def _mbps(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _begun(event: RoundStarted) -> str:
    steps = f", {min(event.steps.values())} to {max(event.steps.values())} steps" if event.steps else ""
    bits = f", {event.bits} bits" if event.bits else ""
    return f"round {event.round} begins with {len(event.domains)} domain{'s'[: len(event.domains) > 1]}{steps}{bits}"


def _weighed(event: Weighed) -> str:
    shares = ", ".join(f"{email} {share:.0%}" for email, share in event.shares.items())
    stale = ", ".join(f"{email} {rounds}" for email, rounds in event.staleness.items())
    return f"round {event.round} is weighed ({event.rule}): {shares}" + (f"; rounds late: {stale}" if stale else "")


def _missed(event: DomainMissed) -> str:
    later = "; a late update comes with its next one" if event.carried else ""
    return f"round {event.round} goes on without it{_because(event.reason)}{later}"


_WORDS: dict[type[Event], Callable[[Any], str]] = {
    StudyStarted: _started,
    Waiting: lambda e: f"is waited for: {e.what}",
    Decided: lambda e: f"{e.decision}{_because(e.reason)}",
    DomainCaughtUp: lambda e: f"opened what it had missed, up to round {e.round}",
    DomainJoined: lambda e: "prepared, and takes part from the next round on",
    DomainMissed: _missed,
    DomainReadmitted: lambda e: "takes part again from the next round on",
    LinkMeasured: lambda e: link_in_words(e.up_mbps, e.down_mbps, e.latency_s),
    Paused: lambda e: f"paused before round {e.round}; fedpriv study resume goes on",
    RoundSkipped: lambda e: f"round {e.round} was skipped: it has no sum, and the adapter stays as it was",
    RoundStarted: _begun,
    Unpaused: lambda e: f"going on with round {e.round}",
    Weighed: _weighed,
    DomainExcluded: lambda e: f"excluded{_because(e.reason)}",
    KeyRenewed: _renewed,
    TicketSent: lambda e: f"asked to {e.kind}{_in_round(e)}",
    DomainProgress: lambda e: f"{e.progress.state} {e.progress.step}/{e.progress.steps}",
    ResultReceived: lambda e: f"{e.kind} {e.status}{_in_round(e)}",
    UpdateReceived: lambda e: f"update of {e.size_bytes / 2**20:.2f} MiB is here{_in_round(e)}",
    RoundFinished: _round,
    StudyFinished: lambda e: f"held-out loss {e.loss_before:.4f} before, {e.loss_after:.4f} after{_quality(e.quality)}",
    AdapterReleased: lambda e: f"the adapter was written to {e.folder}",
    TrackerStopped: lambda e: f"{e.tracker} gets no more: {e.reason}; the study goes on without it",
}
