"""From an aggregate to the sum of its updates: every block is checked before any of it is used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.errors import ProtectionError
from fedpriv.protection.blocks import BlockOpener
from fedpriv.protection.container import Container, open_container
from fedpriv.protection.groups import Group, live
from fedpriv.protection.levels import block_opener, blocks_of, packing_of, shape_of
from fedpriv.protection.manifest import require_aggregate_header, require_manifest
from fedpriv.protection.masks import MaskStreams, remaining_masks
from fedpriv.protection.packed import sent_words
from fedpriv.protection.parallel import ordered_map
from fedpriv.protection.places import Places
from fedpriv.protection.scales import Scales, energy, next_scale
from fedpriv.protection.sealing import CHUNK, require_header, require_key
from fedpriv.protection.study_key import StudyKey
from fedpriv.protection.vectors import SharedVector, shared_vector
from fedpriv.study.averaging import Turn
from fedpriv.study.messages import MAX_BLOB_BYTES, AggregateManifest
from fedpriv.study.protection_choice import QUANTISED, ProtectionChoice


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An opened sum.

    Attributes
    ----------
    sum : ndarray of float32, shape (P,)
        ``Σ_k w_k d_k``, the weighted sum of the updates as they were rounded: of the tensors that the round sent.
    next_scales : tuple of float
        The scale of each tensor for the next round; those of tensors that were not sent stay.
    """

    sum: np.ndarray = field(repr=False)
    next_scales: Scales


class UpdateOpener:
    """A domain's half that opens a sum, and nothing but a sum; made by :func:`opener_for`."""

    def __init__(self, key: StudyKey, groups: tuple[Group, ...], workers: int) -> None:
        self._key, self._groups, self._workers = key, groups, workers
        self._parameters = key.parameters

    def open(self, path: Path, *, manifest: AggregateManifest, scales: Scales) -> Opened:
        """Open an aggregate.

        *Guarantee*: the aggregate is the file that the manifest names, it holds as many updates as it lists, and every
        word of every block is the exact sum of what those members sealed (levels sealed and masked). The form of every
        block is checked before any is decrypted.
        *Assumption*: the caller verified the manifest (:func:`fedpriv.protection.verify_manifest`), and retires the key
        if the sum was tampered with.

        Parameters
        ----------
        path : Path
            The aggregate's container.
        manifest : AggregateManifest
            What went into it, and the unlocks of its members.
        scales : tuple of float
            The scales that its updates were sealed with.

        Raises
        ------
        ContainerError
            If the file is not the one in the manifest, or malformed.
        ProtectionError
            If the key or the scales are others than the updates'.
        TamperedError
            If the sum does not hold what its members sealed.
        """
        header = require_manifest(manifest)
        require_header(header, self._key, scales)
        clients = len(manifest.updates)
        if not 2 <= clients <= self._parameters.clients:
            what = f"a sum of {clients} updates is not opened with a key for {self._parameters.clients} domains"
            raise ProtectionError(what, kept="Nothing was opened")
        places = Places(self._groups, live(self._parameters.groups, header.round, header.bits))
        if header.parameters != places.size:
            what = f"the study key is for {places.size} parameters in that round, not {header.parameters}"
            raise ProtectionError(what, kept="Nothing was opened")
        shapes = {f"group-{i}": self._shape(i, clients) for i in places.groups}
        container = open_container(path, max_bytes=MAX_BLOB_BYTES, expect_sha256=manifest.aggregate_sha256)
        require_aggregate_header(container.header, manifest)
        container.require(shapes)
        blocks = {i: blocks_of(self._parameters, i) for i in places.groups}
        for index, group in places.groups.items():
            if group.level in QUANTISED:
                for start in range(0, blocks[index], CHUNK):
                    rows = container.rows(f"group-{index}", start, min(start + CHUNK, blocks[index]))
                    sent_words(packing_of(self._parameters, index), rows)
        return self._opened(container, manifest, scales, places, blocks)

    def _opened(
        self,
        container: Container,
        manifest: AggregateManifest,
        scales: Scales,
        places: Places,
        blocks: Mapping[int, int],
    ) -> Opened:
        headers = {update.header.member: update.header for update in manifest.updates}
        masks = MaskStreams(added=(), subtracted=())
        if any(group.level in QUANTISED for group in places.groups.values()):
            masks = remaining_masks(headers, manifest.unlocked)
        total = np.empty(places.size, np.float32)
        with shared_vector(total, workers=self._workers) as shared:
            make = functools.partial(
                _Work,
                openers={i: block_opener(self._key, i, headers, masks) for i in places.groups},
                widths={i: shape_of(self._parameters, i).width for i in places.groups},
                sizes={i: group.parameters for i, group in places.groups.items()},
                blocks=blocks,
                places=places,
                scales=scales,
                container=container,
                total=shared,
            )
            tasks = [(i, start) for i, number in blocks.items() for start in range(0, number, CHUNK)]
            energies = dict.fromkeys(range(len(scales)), 0)
            for part in ordered_map(make, tasks, number=len(tasks), workers=self._workers):
                for tensor, value in part.energies:
                    energies[tensor] += value
                for span in part.away:
                    shared.take(span)
        return Opened(sum=total, next_scales=_next_scales(scales, energies, manifest, places))

    def _shape(self, index: int, clients: int) -> tuple[int, int]:
        return blocks_of(self._parameters, index), shape_of(self._parameters, index).sum_row_bytes(clients)


def _next_scales(scales: Scales, energies: Mapping[int, int], manifest: AggregateManifest, places: Places) -> Scales:
    """Return the next scales; those of approximate or unscaled levels, and of tensors that were not sent, stay."""
    weight = sum(update.header.weight for update in manifest.updates)
    following = list(scales)
    for index, group in places.groups.items():
        if group.level not in QUANTISED:
            continue
        for span, tensor in zip(group.spans, places.tensors(index), strict=True):
            following[tensor] = next_scale(
                scales[tensor],
                energy=energies[tensor],
                size=span.size,
                total_weight=weight,
                clients=len(manifest.updates),
                bits=group.bits,
            )
    return tuple(following)


def opener_for(
    protection: ProtectionChoice,
    key: StudyKey,
    tensors: Mapping[str, int],
    *,
    turns: Mapping[str, Turn] | None = None,
    workers: int = 1,
) -> UpdateOpener:
    """Return a domain's opener of sums.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's section.
    key : StudyKey
        The study's key.
    tensors : mapping of str to int
        Number of parameters of each tensor that is ever sent, by name.
    turns : mapping of str to int, optional
        The turn of each of them; by default all are sent in every round.
    workers : int
        Worker processes; 1 opens in this process.

    Raises
    ------
    ProtectionError
        If the key is for another protection.
    """
    return UpdateOpener(key, require_key(key, protection, tensors, turns), workers)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What opening a chunk gave: the energy of each tensor's part in it, and what lies with a worker."""

    energies: list[tuple[int, int]]
    away: list[slice]


@dataclass(kw_only=True)
class _Work:
    """What one process needs to open blocks of one sum; everything in it can be sent to a worker."""

    openers: Mapping[int, Callable[[], BlockOpener]]
    widths: Mapping[int, int]
    sizes: Mapping[int, int]
    blocks: Mapping[int, int]
    places: Places
    scales: Scales
    container: Container
    total: SharedVector

    def __post_init__(self) -> None:
        self._made: dict[int, BlockOpener] = {}

    def __call__(self, group: int, first: int) -> _Part:
        """Open a chunk of blocks into the vector."""
        if group not in self._made:
            self._made = {group: self.openers[group]()}
        stop = min(first + CHUNK, self.blocks[group])
        start, end = first * self.widths[group], min(stop * self.widths[group], self.sizes[group])
        values = self._made[group].open(first, self.container.rows(f"group-{group}", first, stop), end - start)
        places = list(self.places.of(group, start, end))
        for place in places:
            self.total.write(place.update, values[place.within] * self.scales[place.tensor])
        return _Part(
            energies=[(place.tensor, energy(values[place.within])) for place in places],
            away=[place.update for place in places] if self.total.away else [],
        )
