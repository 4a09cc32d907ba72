"""What containers say about themselves: the signed header of an update, and what an aggregate's updates share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedpriv.study.messages import UpdateHeader

OF_ONE_MEMBER = frozenset({"member", "weight", "nonce"})
"""What the headers of one sum need not share: whose update it is, how much it counts, which sealing it was."""


def update_header(header: UpdateHeader) -> dict[str, Any]:
    """Return the header of one sealed update's container."""
    return {"kind": "update", **header.model_dump(mode="json")}


def aggregate_header(headers: Sequence[UpdateHeader]) -> dict[str, Any]:
    """Return the header of the aggregate of these updates: what they share, and whose they are."""
    members = {header.member: header.weight for header in headers}
    return {"kind": "aggregate", **shared_facts(headers[0]), "members": members}


def shared_facts(header: UpdateHeader) -> dict[str, Any]:
    """Return what the headers of one sum share; every mask, lock, tag and encryption is bound to it."""
    return header.model_dump(mode="json", exclude=set(OF_ONE_MEMBER))
