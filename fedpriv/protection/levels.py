"""The levels of protection behind one interface: for each, its sizes, a key, and the three roles that work on blocks.

=============  ==========================================================  ===========================
level          what an update is                                           module
=============  ==========================================================  ===========================
sealed         quantised, packed, tagged, masked, encrypted with BFV       :mod:`fedpriv.protection.packed`
masked         the same without encryption: the aggregator sees the sum    :mod:`fedpriv.protection.packed`
ckks           CKKS as others run it (baseline)                            :mod:`fedpriv.protection.ckks`
ckks-tuned     the smallest CKKS we know (baseline)                        :mod:`fedpriv.protection.ckks_tuned`
plain          float32 (baseline)                                          :mod:`fedpriv.protection.plain`
=============  ==========================================================  ===========================
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Mapping, Sequence

from fedpriv.errors import ProtectionError
from fedpriv.protection.bfv import BfvKeys
from fedpriv.protection.blocks import BlockAdder, BlockOpener, BlockSealer, BlockShape
from fedpriv.protection.ckks import CkksAdder, CkksOpener, CkksSealer, CkksShape, make_ckks_keys
from fedpriv.protection.ckks_tuned import (
    CkksTunedAdder,
    CkksTunedOpener,
    CkksTunedSealer,
    CkksTunedShape,
    make_ckks_tuned_key,
    require_room,
)
from fedpriv.protection.groups import Group, groups_of
from fedpriv.protection.keys import KEY_BYTES
from fedpriv.protection.masks import MaskStreams
from fedpriv.protection.packed import PackedAdder, PackedKeys, PackedOpener, PackedSealer, PackedShape
from fedpriv.protection.packing import Packing, plan_packing
from fedpriv.protection.plain import PlainAdder, PlainOpener, PlainSealer, PlainShape
from fedpriv.protection.study_key import (
    GroupParameters,
    KeyParameters,
    StudyKey,
    commitment,
    public_bytes,
    public_material,
    secret_name,
)
from fedpriv.protection.tags import TagKeys
from fedpriv.study.averaging import Turn
from fedpriv.study.messages import UpdateHeader
from fedpriv.study.protection_choice import QUANTISED, ProtectionChoice, SecurityLevel


def needs_unlock(protection: ProtectionChoice) -> bool:
    """Return whether updates have masks, so that a sum opens only after every member of it gave its unlock."""
    return any(level in QUANTISED for level in protection.levels)


def make_study_key(
    protection: ProtectionChoice,
    *,
    tensors: Mapping[str, int],
    turns: Mapping[str, Turn] | None = None,
    clients: int,
    study: str,
    generation: int = 1,
) -> StudyKey:
    """Make one generation of a study's key; the key maker calls this once for each.

    *Guarantee*: refused here, before any round, if sums of ``clients`` updates could be inexact.

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
    study : str
        The study's id.
    generation : int
        1 for the first, one more for each that replaces a retired one.

    Raises
    ------
    ProtectionError
        If so many clients with so many bits cannot be summed exactly, or a rule names no tensor.
    """
    groups = [
        describe(group, clients=clients, security=protection.security)
        for group in groups_of(protection, tensors, turns)
    ]
    material, parts = b"", {"tag": secrets.token_bytes(KEY_BYTES)}
    for index, group in enumerate(groups):
        match group.level:
            case "sealed":
                parts[secret_name(index)] = secrets.token_bytes(KEY_BYTES)
            case "ckks":
                material, parts[secret_name(index)] = make_ckks_keys()
            case "ckks-tuned":
                parts[secret_name(index)] = make_ckks_tuned_key()
            case "masked" | "plain":
                pass
    parameters = KeyParameters(
        study=study,
        generation=generation,
        clients=clients,
        security=protection.security,
        groups=tuple(groups),
        commitment=commitment(parts),
    )
    return StudyKey(public=public_bytes(parameters, material), secrets=parts)


def describe(group: Group, *, clients: int, security: SecurityLevel) -> GroupParameters:
    """Return the public parameters of one group, planned for sums of ``clients`` updates.

    Raises
    ------
    ProtectionError
        If such sums could be inexact.
    """
    facts = {"digits": 0, "plain_bits": 0, "dropped_bits": 0, "prime": "0"}
    if group.level in QUANTISED:
        packing = plan_packing(bits=group.bits, clients=clients, security=security if group.level == "sealed" else None)
        facts = {name: getattr(packing, name) for name in facts} | {"prime": str(packing.prime)}
    elif group.level == "ckks-tuned":
        require_room(clients)
    names = ("level", "bits", "turn", "choice", "parameters")
    return GroupParameters.model_validate({name: getattr(group, name) for name in names} | facts)


def packing_of(parameters: KeyParameters, index: int) -> Packing:
    """Return the packing of a sealed or masked group, planned again and compared with what the key says.

    Raises
    ------
    ProtectionError
        If this version of fedpriv plans another one.
    """
    group = parameters.groups[index]
    security = parameters.security if group.level == "sealed" else None
    packing = plan_packing(bits=group.bits, clients=parameters.clients, security=security)
    planned = (packing.digits, packing.plain_bits, packing.dropped_bits, str(packing.prime))
    if planned != (group.digits, group.plain_bits, group.dropped_bits, group.prime):
        raise ProtectionError(
            "the study key is of other parameters",
            kept="It was not used",
            todo="run the same version of fedpriv at all parties",
        )
    return packing


def shape_of(parameters: KeyParameters, index: int) -> BlockShape:
    """Return the sizes of a group's blocks."""
    match parameters.groups[index].level:
        case "sealed" | "masked":
            return PackedShape(packing_of(parameters, index))
        case "ckks":
            return CkksShape()
        case "ckks-tuned":
            return CkksTunedShape()
        case "plain":
            return PlainShape()


def blocks_of(parameters: KeyParameters, index: int) -> int:
    """Return how many blocks a group has."""
    return -(-parameters.groups[index].parameters // shape_of(parameters, index).width)


def block_sealer(
    key: StudyKey, index: int, header: UpdateHeader, masks: MaskStreams, seed: tuple[int, ...] | None
) -> Callable[[], BlockSealer]:
    """Return what makes the sealer of a group for one update; picklable, for worker processes."""
    parameters = key.parameters
    secret = key.secrets.get(secret_name(index), b"")
    match parameters.groups[index].level:
        case "sealed" | "masked":
            keys = _packed_keys(key, index, [header], masks)
            return functools.partial(PackedSealer, packing_of(parameters, index), keys, seed and (*seed, index))
        case "ckks":
            return functools.partial(CkksSealer, public_material(key.public))
        case "ckks-tuned":
            return functools.partial(CkksTunedSealer, secret)
        case "plain":
            return PlainSealer


def block_adder(public: bytes, parameters: KeyParameters, index: int) -> BlockAdder:
    """Return the adder of a group, made of public bytes only."""
    match parameters.groups[index].level:
        case "sealed" | "masked":
            return PackedAdder(packing_of(parameters, index))
        case "ckks":
            return CkksAdder(public_material(public))
        case "ckks-tuned":
            return CkksTunedAdder()
        case "plain":
            return PlainAdder()


def block_opener(
    key: StudyKey, index: int, headers: Mapping[str, UpdateHeader], masks: MaskStreams
) -> Callable[[], BlockOpener]:
    """Return what makes the opener of a group for one sum; picklable, for worker processes."""
    parameters = key.parameters
    secret = key.secrets.get(secret_name(index), b"")
    clients = len(headers)
    match parameters.groups[index].level:
        case "sealed" | "masked":
            keys = _packed_keys(key, index, list(headers.values()), masks)
            return functools.partial(PackedOpener, packing_of(parameters, index), keys, clients)
        case "ckks":
            return functools.partial(CkksOpener, public_material(key.public), secret, clients)
        case "ckks-tuned":
            return functools.partial(CkksTunedOpener, secret, clients)
        case "plain":
            return functools.partial(PlainOpener, clients)


def _packed_keys(key: StudyKey, index: int, headers: Sequence[UpdateHeader], masks: MaskStreams) -> PackedKeys:
    """Return the secrets of a sealed or masked group: for the update of one header, or the sum of all."""
    encrypted = key.parameters.groups[index].level == "sealed"
    return PackedKeys(
        bfv=BfvKeys.of(key.secrets.get(secret_name(index), b""), headers, index) if encrypted else None,
        masks=masks,
        offset=mask_offset(key.parameters, index),
        tags=TagKeys.of(key.secrets["tag"], headers, index),
    )


def mask_offset(parameters: KeyParameters, index: int) -> int:
    """Return a group's first block in the mask streams, which run on from group to group."""
    return sum(blocks_of(parameters, before) for before in range(index))
