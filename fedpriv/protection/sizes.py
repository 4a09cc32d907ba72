"""How many bytes an update of a plan takes, known before any key is made."""

from __future__ import annotations

from collections.abc import Mapping

from fedpriv.protection.groups import groups_of
from fedpriv.protection.levels import blocks_of, describe, shape_of
from fedpriv.protection.study_key import KeyParameters
from fedpriv.study.plan import ProtectionChoice

_NOBODY = "0" * 64
_HEADER_BYTES = 1024


def update_bytes(protection: ProtectionChoice, *, tensors: Mapping[str, int], clients: int) -> int:
    """Return about how many bytes one protected update has: its blocks exactly, and about 1 KiB for its header.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's section.
    tensors : mapping of str to int
        Number of parameters of each tensor of the adapter, by name.
    clients : int
        How many domains the cohort has, 2 to 256.

    Raises
    ------
    ProtectionError
        If no exact sum of so many updates can be planned, or a rule names no tensor.
    """
    groups = groups_of(protection, tensors)
    parameters = KeyParameters(
        study=_NOBODY,
        generation=1,
        clients=clients,
        security=protection.security,
        groups=tuple(describe(group, clients=clients, security=protection.security) for group in groups),
        commitment=_NOBODY,
    )
    blocks = (blocks_of(parameters, index) * shape_of(parameters, index).row_bytes for index in range(len(groups)))
    return sum(blocks) + _HEADER_BYTES
