"""The service's log for machines: one JSON object a line, made of fixed words, numbers and addresses.

People read sentences, which quote reasons, titles and what an error said. Logs travel further: into an archive, to a
provider. So nothing here takes a text: an event has fields of known form, everything else is left out, and the number
of the ledger's entry says where the reason stands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from fedpriv.study.messages import TicketKind
from fedpriv.study.names import Email

Level = Literal["info", "warning", "error"]
_WARNINGS = ("ticket.refused", "job.refused", "round.stopped", "code.tried", "round.skipped")
_ERRORS = ("aggregate.refused", "key.retired", "message.refused")

_Number = Annotated[int, Field(ge=0, le=2**62)]
_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_FIELDS: dict[str, TypeAdapter[Any]] = {
    "study": TypeAdapter(Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]),
    "ticket": TypeAdapter(TicketKind),
    "round": TypeAdapter(_Number),
    "attempt": TypeAdapter(_Number),
    "peer": TypeAdapter(Email),
    "researcher": TypeAdapter(Email),
    "seconds": TypeAdapter(_Seconds),
    "ledger": TypeAdapter(_Number),
    "error": TypeAdapter(Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,40}Error$")]),
    "where": TypeAdapter(Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}\.py:[0-9]{1,5}$")]),
    "pid": TypeAdapter(_Number),
    "port": TypeAdapter(_Number),
    "up_bytes": TypeAdapter(_Number),
    "down_bytes": TypeAdapter(_Number),
}
"""Every field that a line may have beside its time, level, domain and event, in this order."""

_EVENT = TypeAdapter(Annotated[str, StringConstraints(pattern=r"^[a-z]{1,24}\.[a-z-]{1,24}$")])


class ServiceLog:
    """Writes events as lines of JSON, or nothing at all.

    *Guarantee*: a line is printable ASCII and holds, beside its time, level, domain and event, only values of the forms
    above: no text of a person, a peer or an error can be in it. A value of another form is left out, silently.

    Parameters
    ----------
    domain : str
        The domain's address.
    write : Callable[[str], None], optional
        Takes a line without its end; None: there is no log.
    """

    def __init__(self, domain: str, write: Callable[[str], None] | None = None) -> None:
        self._domain, self._write = domain, write

    def event(self, event: str, *, level: Level = "info", **facts: object) -> None:
        """Write one event with those of its facts that a log may hold."""
        if self._write is None or not _is(_EVENT, event):
            return
        now = time.time()
        line: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z",
            "level": level,
            "domain": self._domain,
            "event": event,
        }
        line |= {name: facts[name] for name, form in _FIELDS.items() if name in facts and _is(form, facts[name])}
        self._write(json.dumps(line, ensure_ascii=True, allow_nan=False))

    def entry(self, number: int, kind: str, facts: Mapping[str, object]) -> None:
        """Write what was entered in the ledger, without its reasons."""
        level: Level = "error" if kind in _ERRORS else "warning" if kind in _WARNINGS else "info"
        shown = {name: facts[name] for name in ("ticket", "round", "attempt", "peer", "researcher") if name in facts}
        study = facts.get("study")
        if isinstance(study, str):
            shown["study"] = study[:12]
        self.event(kind, level=level, ledger=number, **shown)


def _is(form: TypeAdapter[Any], value: object) -> bool:
    try:
        form.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True
