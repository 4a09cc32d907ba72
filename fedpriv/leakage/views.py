"""Views: exactly what a party holds of one update, as numbers by tensor, made from the bytes that it really gets.

An attack is only as honest as what it is given. So a view is read from the container that a domain published, or from
a sum that was opened, and from nothing else. What stands under masks or encryption is read as somebody reads it who has
neither: as though the masks and the secret key were zero. Where the protection is sound, these numbers are noise; where
it were not, the update would show in them, and the attacks would find it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.errors import ProtectionError
from fedpriv.files import sha256_hex
from fedpriv.leakage.pursuit import Float64
from fedpriv.protection.container import Container, open_container
from fedpriv.protection.groups import groups_of, live
from fedpriv.protection.levels import blocks_of, describe, packing_of, shape_of
from fedpriv.protection.manifest import require_update_header
from fedpriv.protection.packed import sent_words
from fedpriv.protection.packing import Packing
from fedpriv.protection.places import Places
from fedpriv.protection.scales import Scales
from fedpriv.protection.study_key import KeyParameters, read_parameters
from fedpriv.study.averaging import Turn, is_live
from fedpriv.study.messages import SignedUpdate
from fedpriv.study.protection_choice import ProtectionChoice
from fedpriv.training.adapter import Layout


@dataclass(frozen=True, kw_only=True)
class View:
    """What one party holds of one update.

    Attributes
    ----------
    party : str
        Whose view it is, in words.
    levels : dict of str
        How each tensor is protected from this party: a level of the plan, or ``sum``.
    tensors : dict of ndarray of float64
        The numbers that the party can make of it, by tensor, in the tensor's shape. Tensors that were not sent are
        missing.
    """

    party: str
    levels: Mapping[str, str]
    tensors: Mapping[str, Float64] = field(repr=False)


def aggregator_view(
    signed: SignedUpdate,
    path: Path,
    *,
    public: bytes,
    protection: ProtectionChoice,
    layout: Layout,
    scales: Scales | None = None,
    turns: Mapping[str, Turn] | None = None,
) -> View:
    """Read a published update as the aggregator can, or anybody who has its container and no secret.

    Parameters
    ----------
    signed : SignedUpdate
        The update's signed header.
    path : Path
        Its container.
    public : bytes
        The study key's public bytes.
    protection, layout, turns
        The plan's section, names and shapes of all tensors that are ever sent, and the turn of each.
    scales : tuple of float, optional
        One for each tensor. The aggregator knows those of round 1, from the plan; later ones only domains know, and
        numbers are then in units of them.

    Raises
    ------
    ContainerError
        If the container is not the one that was signed, or malformed.
    ProtectionError
        If it is of another key or plan, or a tensor is at a level (CKKS) of which no view can be made yet.
    """
    parameters = read_parameters(public)
    header = signed.header
    groups = groups_of(protection, {name: int(np.prod(shape)) for name, shape in layout.items()}, turns)
    planned = tuple(describe(group, clients=parameters.clients, security=protection.security) for group in groups)
    if header.key_id != sha256_hex(public) or planned != parameters.groups:
        raise ProtectionError("The update was sealed for another study key or plan", kept="No view was made")
    places = Places(groups, live(groups, header.round, header.bits))
    size = signed.container_bytes
    container = open_container(path, max_bytes=size, expect_bytes=size, expect_sha256=signed.container_sha256)
    require_update_header(container.header, header)
    shapes = {i: (blocks_of(parameters, i), shape_of(parameters, i).row_bytes) for i in places.groups}
    container.require({f"group-{i}": shape for i, shape in shapes.items()})
    flat, levels = np.empty(places.size), {}
    for index, group in places.groups.items():
        values = _readings(container, parameters, index)
        for place in places.of(index, 0, group.parameters):
            scale = 1.0 if scales is None else scales[place.tensor]
            flat[place.update] = values[place.within] * scale
        levels |= {span.name: group.level for span in group.spans}
    return View(party="the aggregator", levels=levels, tensors=_by_tensor(flat, _sent(layout, turns, header.round)))


def sum_view(
    total: np.ndarray,
    *,
    layout: Layout,
    known: Sequence[np.ndarray] = (),
    party: str = "a domain",
) -> View:
    """Read an opened sum as a domain can, alone or together with others who put their own updates beside it.

    With the updates of all members but one, what is left is that one's update as it was quantised.

    Parameters
    ----------
    total : ndarray, shape (P,)
        :attr:`fedpriv.protection.Opened.sum`.
    layout : dict
        Names and shapes of the tensors that the round sent.
    known : sequence of ndarray, each of shape (P,)
        What members who collude have put into the sum; taken off.
    party : str
        Whose view it is, in words.

    Raises
    ------
    ProtectionError
        If a vector is not of the layout's size.
    """
    size = sum(int(np.prod(shape)) for shape in layout.values())
    left = np.array(total, np.float64)
    if any(vector.shape != (size,) for vector in (left, *known)):
        raise ProtectionError(f"A sum of other than {size} parameters is not of this layout", kept="No view was made")
    for vector in known:
        left -= vector
    return View(party=party, levels=dict.fromkeys(layout, "sum"), tensors=_by_tensor(left, layout))


def _sent(layout: Layout, turns: Mapping[str, Turn] | None, number: int) -> Layout:
    return {name: shape for name, shape in layout.items() if turns is None or is_live(turns[name], number)}


def _by_tensor(flat: Float64, layout: Layout) -> dict[str, Float64]:
    """Cut a flattened update, tensors in sorted-name order, into its tensors."""
    tensors, start = {}, 0
    for name in sorted(layout):
        stop = start + int(np.prod(layout[name]))
        tensors[name] = flat[start:stop].reshape(layout[name])
        start = stop
    return tensors


def _readings(container: Container, parameters: KeyParameters, index: int) -> Float64:
    """Return the values of a group in units of its tensors' scales, read without a secret: (parameters,)."""
    group = parameters.groups[index]
    rows = container.rows(f"group-{index}", 0, blocks_of(parameters, index))
    match group.level:
        case "plain":
            return rows.reshape(-1).view("<f4")[: group.parameters].astype(np.float64)
        case "sealed" | "masked":
            packing = packing_of(parameters, index)
            return read_without_secrets(packing, sent_words(packing, rows))[: group.parameters]
        case _:
            raise ProtectionError(
                f"No view of level {group.level} can be made yet", todo="choose sealed, masked or plain"
            )


def read_without_secrets(packing: Packing, words: np.ndarray) -> Float64:
    """Return the values that words stand for if no mask and no secret key is in them.

    A ciphertext is ``c0 = round(q x / 2^m) + a s + e``: with ``s = 0`` it decrypts to ``round(2^m c0 / q)``.

    Parameters
    ----------
    packing : Packing
        The group's.
    words : ndarray of uint64, shape (blocks, 4096)
        From :func:`fedpriv.protection.packed.sent_words`.

    Returns
    -------
    ndarray of float64, shape (blocks * width,)
        In units of the tensors' scales: within ±1 if the words are of one update, without masks and key.
    """
    words = words[:, : packing.value_words]
    if packing.prime:  # exact integers of Python's: the product has more than 64 bits
        scaled = (words.astype(object) * 2 ** (packing.plain_bits + 1) + packing.prime) // (2 * packing.prime)
        words = (scaled % 2**packing.plain_bits).astype(np.uint64)
    rest = words.reshape(-1).copy()
    digits = np.empty((rest.size, packing.digits))
    for column in range(packing.digits):
        digits[:, column] = rest % np.uint64(packing.radix)
        rest //= np.uint64(packing.radix)
    return (digits.reshape(-1) - packing.half) / packing.half
