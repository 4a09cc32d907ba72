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
from fedpriv.leakage.readings import Secrets, readings, secrets_of
from fedpriv.protection.container import open_container
from fedpriv.protection.groups import groups_of, live
from fedpriv.protection.levels import blocks_of, describe, shape_of
from fedpriv.protection.manifest import require_update_header
from fedpriv.protection.masks import MaskSource
from fedpriv.protection.places import Places
from fedpriv.protection.scales import Scales
from fedpriv.protection.study_key import StudyKey, read_parameters
from fedpriv.study.averaging import Turn, is_live
from fedpriv.study.messages import SignedUpdate, Unlocked
from fedpriv.study.protection_choice import ProtectionChoice
from fedpriv.training.adapter import Layout

AGGREGATOR = "the aggregator"
STORE = "the store"


@dataclass(frozen=True, kw_only=True)
class View:
    """What one party holds of one update.

    Attributes
    ----------
    party : str
        Whose view it is, in words.
    levels : dict of str
        How each tensor is protected from this party: a level of the plan, ``sum``, or ``opened`` where a key holder
        reads it in full.
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
    unlocked: Unlocked | None = None,
    party: str = AGGREGATOR,
) -> View:
    """Read a published update as the aggregator can, or anybody who has its container and no secret, such as the store.

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
    unlocked : Unlocked, optional
        The round's combined unlocks, which the aggregator has once the sum is made: the masks in them are taken off.
    party : str
        Whose view it is, in words.

    Raises
    ------
    ContainerError
        If the container is not the one that was signed, or malformed.
    ProtectionError
        If it is of another key or plan.
    """
    secrets = secrets_of(signed.header, unlocked=unlocked)
    return _view(
        signed,
        path,
        secrets,
        public=public,
        protection=protection,
        layout=layout,
        scales=scales,
        turns=turns,
        party=party,
    )


def domain_view(
    signed: SignedUpdate,
    path: Path,
    *,
    key: StudyKey,
    sources: Sequence[MaskSource] = (),
    protection: ProtectionChoice,
    layout: Layout,
    scales: Scales | None = None,
    turns: Mapping[str, Turn] | None = None,
    unlocked: Unlocked | None = None,
    party: str = "a domain that reads the store",
) -> View:
    """Read another domain's single update as a domain can that gets hold of it, from the store or the aggregator.

    Every domain has the study key, so every ciphertext opens. At levels ``ckks`` and ``ckks-tuned`` that is the update.
    At ``sealed`` and ``masked`` it is words under masks: of these, each domain that colludes takes off the one that it
    shares with the update's own domain, and after the round everybody takes off the self mask. One honest domain more
    leaves one mask.

    Parameters
    ----------
    signed, path, protection, layout, scales, turns, party
        As for :func:`aggregator_view`; domains know the scales of every round.
    key : StudyKey
        The study key, with its secrets.
    sources : sequence of MaskSource
        The masks of each domain that colludes, not those of the update's own domain.
    unlocked : Unlocked, optional
        The round's combined unlocks, which travel to every domain with the sum.

    Raises
    ------
    ContainerError
        If the container is not the one that was signed, or malformed.
    ProtectionError
        If it is of another key or plan, or a source is of the update's own domain.
    TamperedError
        If what it holds is not of this key (levels ckks and ckks-tuned).
    """
    secrets = secrets_of(signed.header, key=key, sources=sources, unlocked=unlocked)
    return _view(
        signed,
        path,
        secrets,
        public=key.public,
        protection=protection,
        layout=layout,
        scales=scales,
        turns=turns,
        party=party,
    )


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


def _view(
    signed: SignedUpdate,
    path: Path,
    secrets: Secrets,
    *,
    public: bytes,
    protection: ProtectionChoice,
    layout: Layout,
    scales: Scales | None,
    turns: Mapping[str, Turn] | None,
    party: str,
) -> View:
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
    blocks = {i: blocks_of(parameters, i) for i in places.groups}
    container.require({f"group-{i}": (blocks[i], shape_of(parameters, i).row_bytes) for i in places.groups})
    flat, levels = np.empty(places.size), {}
    for index, group in places.groups.items():
        rows = container.rows(f"group-{index}", 0, blocks[index])
        values = readings(rows, header, public, index, secrets)
        for place in places.of(index, 0, group.parameters):
            scale = 1.0 if scales is None else scales[place.tensor]
            flat[place.update] = values[place.within] * scale
        levels |= {span.name: secrets.level(group.level) for span in group.spans}
    return View(party=party, levels=levels, tensors=_by_tensor(flat, _sent(layout, turns, header.round)))


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
