"""From an aggregate to the sum of its updates: every block is checked before any of it is used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.errors import ProtectionError
from fedpriv.protection.blocks import BlockOpener
from fedpriv.protection.container import Container, open_container
from fedpriv.protection.groups import Group
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
from fedpriv.study.messages import MAX_BLOB_BYTES, AggregateManifest
from fedpriv.study.plan import QUANTISED, ProtectionChoice


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An opened sum.

    Attributes
    ----------
    sum : ndarray of float32, shape (P,)
        ``Σ_k w_k d_k``, the weighted sum of the updates as they were rounded.
    next_scales : tuple of float
        The scale of each tensor for the next round.
    """

    sum: np.ndarray = field(repr=False)
    next_scales: Scales


class UpdateOpener:
    """A domain's half that opens a sum, and nothing but a sum; made by :func:`opener_for`."""

    def __init__(self, key: StudyKey, groups: tuple[Group, ...], workers: int) -> None:
        self._key, self._groups, self._workers = key, groups, workers
        self._parameters = key.parameters
        self._places = Places(groups)

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
        shapes = {f"group-{i}": self._shape(i, clients) for i in range(len(self._groups))}
        container = open_container(path, max_bytes=MAX_BLOB_BYTES, expect_sha256=manifest.aggregate_sha256)
        require_aggregate_header(container.header, manifest)
        container.require(shapes)
        blocks = [number for number, _ in shapes.values()]
        for index, group in enumerate(self._groups):
            if group.level in QUANTISED:
                for start in range(0, blocks[index], CHUNK):
                    rows = container.rows(f"group-{index}", start, min(start + CHUNK, blocks[index]))
                    sent_words(packing_of(self._parameters, index), rows)
        return self._opened(container, manifest, scales, blocks)

    def _opened(
        self, container: Container, manifest: AggregateManifest, scales: Scales, blocks: Sequence[int]
    ) -> Opened:
        headers = {update.header.member: update.header for update in manifest.updates}
        masks = MaskStreams(added=(), subtracted=())
        if any(group.level in QUANTISED for group in self._groups):
            masks = remaining_masks(headers, manifest.unlocked)
        total = np.empty(manifest.updates[0].header.parameters, np.float32)
        with shared_vector(total, workers=self._workers) as shared:
            make = functools.partial(
                _Work,
                openers=tuple(block_opener(self._key, i, headers, masks) for i in range(len(self._groups))),
                widths=tuple(shape_of(self._parameters, i).width for i in range(len(self._groups))),
                sizes=tuple(group.parameters for group in self._groups),
                blocks=blocks,
                places=self._places,
                scales=scales,
                container=container,
                total=shared,
            )
            tasks = [(i, start) for i, number in enumerate(blocks) for start in range(0, number, CHUNK)]
            energies = dict.fromkeys(range(len(scales)), 0)
            for part in ordered_map(make, tasks, number=len(tasks), workers=self._workers):
                for tensor, value in part.energies:
                    energies[tensor] += value
                for span in part.away:
                    shared.take(span)
        return Opened(sum=total, next_scales=self._next(scales, energies, manifest))

    def _shape(self, index: int, clients: int) -> tuple[int, int]:
        return blocks_of(self._parameters, index), shape_of(self._parameters, index).sum_row_bytes(clients)

    def _next(self, scales: Scales, energies: Mapping[int, int], manifest: AggregateManifest) -> Scales:
        """Return the next scales; those of approximate or unscaled levels stay as they are."""
        weight = sum(update.header.weight for update in manifest.updates)
        following = list(scales)
        for index, group in enumerate(self._groups):
            if group.level not in QUANTISED:
                continue
            for span, tensor in zip(group.spans, self._places.tensors(index), strict=True):
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
        Number of parameters of each tensor, by name.
    workers : int
        Worker processes; 1 opens in this process.

    Raises
    ------
    ProtectionError
        If the key is for another protection.
    """
    return UpdateOpener(key, require_key(key, protection, tensors), workers)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What opening a chunk gave: the energy of each tensor's part in it, and what lies with a worker."""

    energies: list[tuple[int, int]]
    away: list[slice]


@dataclass(kw_only=True)
class _Work:
    """What one process needs to open blocks of one sum; everything in it can be sent to a worker."""

    openers: Sequence[Callable[[], BlockOpener]]
    widths: Sequence[int]
    sizes: Sequence[int]
    blocks: Sequence[int]
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
