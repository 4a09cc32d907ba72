"""A domain's state as JSON for a screen, and as a few lines for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedpriv.widgets.owner_audit_view import audit_view
from fedpriv.widgets.owner_review_view import review_view
from fedpriv.widgets.owner_state import OwnerState


def owner_view(state: OwnerState) -> dict[str, Any]:
    """Return all that is to be seen. Times are seconds since the epoch, so that nothing changes by the clock alone."""
    whole = state.model_dump(
        mode="json", exclude={"review", "form", "audit", "audit_page", "requests", "releases", "service"}
    )
    review = None if state.review is None else review_view(state.review, state.form, state.opened)
    audited = None if state.audit is None else audit_view(state.audit, Path(state.audit_page))
    return whole | {
        "service": state.service.model_dump(mode="json"),
        "serve_command": f"fedpriv domain serve {shlex.quote(state.folder)}",
        "to_decide": state.to_decide,
        "requests": [row.model_dump(mode="json") for row in state.requests],
        "releases": [row.model_dump(mode="json") | {"to_decide": row.is_to_decide} for row in state.releases],
        "review": review,
        "audit": audited,
        "problem": "",
    }


def owner_text(state: OwnerState) -> str:
    """Return the same in a few lines."""
    return "\n".join(_lines(state))


def _lines(state: OwnerState) -> Iterator[str]:
    running = "runs" if state.service.running else "does not run"
    yield f"{state.name} ({state.email}): the service {running}; {state.service.doing}"
    for row in state.requests[:20]:
        yield f"{row.study[:12]}  {row.decision:<9} {row.title} ({row.researcher})"
    for row in state.releases:
        yield f"{row.study[:12]}  adapter {row.adapter_sha256[:12]}: {row.decision}"
    if state.budget is not None and state.budget.budget is not None:
        yield f"Epsilon spent: {state.budget.spent:.3g} of {state.budget.budget:g}"
    yield f"{state.ledger.total} ledger entries"
