"""How many bytes an update of a plan takes, known before any key is made."""

from __future__ import annotations

from collections.abc import Mapping

from fedpriv.protection.container import MAX_HEADER_BYTES
from fedpriv.protection.groups import groups_of, live
from fedpriv.protection.levels import blocks_of, describe, shape_of
from fedpriv.protection.study_key import KeyParameters
from fedpriv.study.averaging import Turn
from fedpriv.study.protection_choice import ProtectionChoice

_NOBODY = "0" * 64
_HEADER_BYTES = 1024


def update_bytes(
    protection: ProtectionChoice,
    *,
    tensors: Mapping[str, int],
    turns: Mapping[str, Turn] | None = None,
    clients: int,
    round_number: int = 1,
    bits: int | None = None,
) -> int:
    """Return about how many bytes one protected update has: its blocks exactly, and about 1 KiB for its header.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's section.
    tensors : mapping of str to int
        Number of parameters of each tensor that is ever sent, by name.
    turns : mapping of str to int, optional
        The turn of each of them; by default all are sent in every round.
    clients : int
        How many domains the cohort has, 2 to 256.
    round_number : int
        Which round's update.
    bits : int, optional
        The bits that the round chose; by default those of the plan.

    Raises
    ------
    ProtectionError
        If no exact sum of so many updates can be planned, or a rule names no tensor.
    """
    groups = groups_of(protection, tensors, turns)
    parameters = KeyParameters(
        study=_NOBODY,
        generation=1,
        clients=clients,
        security=protection.security,
        groups=tuple(describe(group, clients=clients, security=protection.security) for group in groups),
        commitment=_NOBODY,
    )
    return update_bytes_of_key(parameters, round_number, bits or protection.bits)


def most_bytes_of_key(parameters: KeyParameters, round_number: int, bits: int, *, updates: int = 0) -> int:
    """Return the most bytes that an update of a round can have, or, with ``updates``, a sum of so many."""
    shapes = {i: shape_of(parameters, i) for i in live(parameters.groups, round_number, bits)}
    rows = {i: shape.sum_row_bytes(updates) if updates else shape.row_bytes for i, shape in shapes.items()}
    return sum(blocks_of(parameters, i) * row_bytes for i, row_bytes in rows.items()) + MAX_HEADER_BYTES


def update_bytes_of_key(parameters: KeyParameters, round_number: int, bits: int) -> int:
    """Return about how many bytes an update of a round has, from a study key's public parameters alone."""
    sizes = (
        blocks_of(parameters, i) * shape_of(parameters, i).row_bytes
        for i in live(parameters.groups, round_number, bits)
    )
    return sum(sizes) + _HEADER_BYTES
