"""What an audit found, as JSON for a screen: the page has more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedpriv.audit.result import AttackName, LeakageAudit
from fedpriv.audit.words import ASKS, PARTIES, WHO, between, headline, percent, tone, verdict


def audit_view(audit: LeakageAudit, page: Path) -> dict[str, Any]:
    """Return its headline, who can tell what from an update of one note, and what follows.

    Parameters
    ----------
    page : Path
        Where all of it stands.
    """
    return {
        "study": audit.study,
        "made_s": audit.made_s,
        "tone": tone(audit),
        "headline": headline(audit),
        "not_measured": list(audit.not_measured),
        "tables": [
            {"asks": asks, "rows": rows} for attack, asks in ASKS.items() if (rows := list(_rows(audit, attack)))
        ],
        "advice": [advice.text for advice in audit.advice],
        "notes": list(audit.notes),
        "page": str(page),
    }


def _rows(audit: LeakageAudit, attack: AttackName) -> Iterator[dict[str, Any]]:
    for party in PARTIES:
        measure = audit.of(party, attack=attack)
        if measure is not None:
            found = measure.found
            yield {
                "who": WHO[party],
                "found": "" if found is None else percent(found.value),
                "interval": "" if found is None else between(found.low, found.high),
                "verdict": verdict(measure),
                "leaks": measure.leaks,
                "why_not": measure.why_not,
            }
