"""From a study's events to the numbers that a tracker draws: one row a round, and one at the end."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedpriv.researcher.events import Event, LinkMeasured, ResultReceived, RoundFinished, StudyFinished, Weighed
from fedpriv.study import Plan

MARK = "loss/heldout"
"""Is in every row; a sink writes it last, so that a row which has it is whole."""

_MOST_NAMES = 64  # of one mapping, as members of a cohort: a domain chooses the names of its seconds
_ROUND_NAMES = {"train_loss": "loss/train", "heldout_loss": MARK, "weights": "weight"}
_NOT_DRAWN = frozenset({"study", "time_s", "round"})
_LOCAL_KINDS = ("prepare", "train")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is logged at once.

    Attributes
    ----------
    step : int
        The round; one past the last round for the final adapter.
    time_s : float
        When it happened, in seconds since the epoch: the same whenever it is logged.
    values : dict[str, float]
        Finite numbers by name.
    final : bool
        Whether the study is finished with it.
    """

    step: int
    time_s: float
    values: dict[str, float]
    final: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Step and time in milliseconds: what tells a row from the same round's when it is summed again."""
        return self.step, round(self.time_s * 1000)


def rows(events: Iterable[Event], labels: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows that events come to, each as soon as its round is finished.

    Parameters
    ----------
    events : iterable of Event
        In the order of the history.
    labels : mapping of str to str
        Short name of each domain by its address; see :func:`short_names`.
    """
    local: dict[str, float] = {}
    last = 0
    for event in events:
        match event:
            case ResultReceived() if event.kind in _LOCAL_KINDS and event.status == "done":
                local |= _local(event, labels)
            case LinkMeasured():
                link = {"up_mbps": event.up_mbps, "down_mbps": event.down_mbps, "latency_s": event.latency_s}
                local |= _flat(f"link/{_clean(event.domain, labels)}", link, labels)
            case Weighed():
                local |= _flat("alpha", event.alpha, labels) | _flat("staleness", event.staleness, labels)
            case RoundFinished():
                last = event.round
                yield Row(step=last, time_s=event.time_s, values=local | _of_round(event, labels))
                local = {}
            case StudyFinished():
                yield Row(step=last + 1, time_s=event.time_s, values=_at_the_end(event, labels), final=True)


def _local(event: ResultReceived, labels: Mapping[str, str]) -> dict[str, float]:
    name = f"domain/{_clean(event.domain, labels)}"
    return _flat(name, event.metrics, labels) | _flat(f"{name}/seconds", event.seconds, labels)


def _of_round(event: RoundFinished, labels: Mapping[str, str]) -> dict[str, float]:
    """Return every number of the event, whichever fields its class has; ``bytes_up`` becomes ``bytes/up``."""
    values: dict[str, float] = {}
    for field in dataclasses.fields(event):
        if field.name not in _NOT_DRAWN:
            name = _ROUND_NAMES.get(field.name, re.sub("^bytes_", "bytes/", field.name))
            values |= _flat(name, getattr(event, field.name), labels)
    return values


def _at_the_end(event: StudyFinished, labels: Mapping[str, str]) -> dict[str, float]:
    values = {"final/loss_before": event.loss_before, "final/loss_after": event.loss_after, MARK: event.loss_after}
    for domain, loss in event.loss_after_by_domain.items():
        values[f"domain/{_clean(domain, labels)}/heldout_loss"] = loss
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _flat(name: str, value: Any, labels: Mapping[str, str]) -> dict[str, float]:
    """Return a number, or a mapping of numbers, by name; what is neither is left out."""
    if isinstance(value, Mapping):
        first = sorted(value.items())[:_MOST_NAMES]
        return {n: v for key, item in first for n, v in _flat(f"{name}/{_clean(key, labels)}", item, labels).items()}
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return {name: float(value)} if is_number else {}


def _clean(key: Any, labels: Mapping[str, str]) -> str:
    """Return a part of a name that every tracker takes."""
    return labels.get(str(key)) or re.sub(r"[^A-Za-z0-9_.-]", "_", str(key))[:100]


def short_names(emails: Collection[str]) -> dict[str, str]:
    """Return a name for each address that no other one has: what stands before its @ if that will do."""
    for shorten in (lambda e: e.partition("@")[0], lambda e: e.replace("@", "-at-")):
        names = {email: _clean(shorten(email), {}) for email in sorted(emails)}
        if len(set(names.values())) == len(names):
            return names
    return {email: f"domain-{number}" for number, email in enumerate(sorted(emails), 1)}


def parameters(plan: Plan) -> dict[str, str | int | float | bool]:
    """Return a plan as names and values, without addresses, fingerprints and digests.

    Lists are JSON, and sections that are not there are left out.
    """
    found: dict[str, str | int | float | bool] = {"domains": ", ".join(short_names(plan.emails).values())}
    leave_out = {"researcher": True, "cohort": True, "base_model": {"digest"}}
    _flatten("", plan.model_dump(mode="json", exclude=leave_out), found)
    return found


def _flatten(prefix: str, value: Any, found: dict[str, str | int | float | bool]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{prefix}.{key}" if prefix else key, item, found)
    elif isinstance(value, list):
        found[prefix] = json.dumps(value)
    elif value is not None:
        found[prefix] = value
