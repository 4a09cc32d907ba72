"""What containers say about themselves: the signed header of an update, and what an aggregate's updates share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedpriv.study.messages import UpdateHeader


def update_header(header: UpdateHeader) -> dict[str, Any]:
    """Return the header of one sealed update's container."""
    return {"kind": "update", **header.model_dump(mode="json")}


def aggregate_header(headers: Sequence[UpdateHeader]) -> dict[str, Any]:
    """Return the header of the aggregate of these updates: what they share, and whose they are."""
    common = headers[0].model_dump(mode="json", exclude={"member", "weight"})
    members = {header.member: header.weight for header in headers}
    return {"kind": "aggregate", **common, "members": members}
