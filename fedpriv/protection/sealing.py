"""From an update to its container: weigh, scale and protect, block by block, in one process or several."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpriv.errors import GatekeeperError, ProtectionError
from fedpriv.protection.blocks import BlockSealer
from fedpriv.protection.container import Draft, new_container
from fedpriv.protection.groups import Group, groups_of, live
from fedpriv.protection.headers import update_header
from fedpriv.protection.levels import block_sealer, blocks_of, describe, shape_of
from fedpriv.protection.masks import MaskSource, MaskStreams
from fedpriv.protection.parallel import ordered_map
from fedpriv.protection.places import Place, Places
from fedpriv.protection.scales import Scales, scales_digest
from fedpriv.protection.study_key import StudyKey
from fedpriv.protection.vectors import SharedVector, VectorFile, new_vector, open_vector, shared_vector
from fedpriv.study.averaging import Turn
from fedpriv.study.messages import UpdateHeader
from fedpriv.study.protection_choice import QUANTISED, ProtectionChoice

CHUNK = 4
"""Blocks that are worked on at a time: about 65 000 values at 10 bits."""

FLUSH_CHUNKS = 16
"""After so many chunks, about a million values, what was written is sent to the disk."""

_KEPT = "Nothing was sealed"


@dataclass(frozen=True, kw_only=True)
class SealedFile:
    """What sealing an update gives.

    Attributes
    ----------
    sha256 : str
        Digest of the container (hex).
    size_bytes : int
        Its size.
    clipped : int
        How many parameters were beyond their tensor's scale; what was cut off is in the residual.
    """

    sha256: str
    size_bytes: int
    clipped: int


class UpdateSealer:
    """A domain's half that turns one update into one container; made by :func:`sealer_for`."""

    def __init__(
        self,
        key: StudyKey,
        groups: tuple[Group, ...],
        masks: MaskSource | None,
        workers: int,
        seed: tuple[int, ...] | None,
    ) -> None:
        self._key, self._groups, self._masks = key, groups, masks
        self._parameters = key.parameters
        self._workers, self._seed = workers, seed

    def seal(
        self,
        header: UpdateHeader,
        update: np.ndarray,
        path: Path,
        *,
        scales: Scales,
        residual: Path | None = None,
        residual_out: Path | None = None,
    ) -> SealedFile:
        """Weigh, protect and write one update.

        *Guarantee*: what is written is ``header.weight * update + residual``, rounded, at the levels of the key's
        groups, no more; memory does not grow with the update.
        *Assumption*: a domain publishes one update only for each (study, round, attempt): masks are never used twice.

        Parameters
        ----------
        header : UpdateHeader
            What the update claims; goes into the container.
        update : ndarray of float32, shape (P,)
            The change of the tensors that the round sends, in sorted-name order.
        path : Path
            Where the container goes.
        scales : tuple of float
            One for each tensor of the study, also of those that the round does not send.
        residual : Path, optional
            What the last sealing of the same tensors left out: float32, ``P`` values.
        residual_out : Path, optional
            Where to write what this one leaves out.

        Raises
        ------
        GatekeeperError
            If the update has a wrong shape, type or a value that is not finite.
        ProtectionError
            If header, key, masks, scales and residual do not belong together.
        """
        places = Places(self._groups, live(self._parameters.groups, header.round, header.bits))
        masks = self._require(header, update, scales, places)
        shapes = {
            f"group-{i}": (blocks_of(self._parameters, i), shape_of(self._parameters, i).row_bytes)
            for i in places.groups
        }
        left = open_vector(residual, places.size) if residual else None
        with contextlib.ExitStack() as stack:
            rest = stack.enter_context(new_vector(residual_out, places.size)) if residual_out else None
            beside = stack.enter_context(ThreadPoolExecutor(1))
            draft = stack.enter_context(new_container(path, update_header(header), shapes))
            shared = stack.enter_context(shared_vector(update, workers=self._workers))
            make = functools.partial(
                _Work,
                sealers={i: block_sealer(self._key, i, header, masks, self._seed) for i in places.groups},
                widths={i: shape_of(self._parameters, i).width for i in places.groups},
                places=places,
                update=shared,
                weight=header.weight,
                scales=scales,
                residual=left,
                rest=rest,
                draft=draft,
            )
            blocks, clipped = {i: blocks_of(self._parameters, i) for i in places.groups}, 0
            number = sum(-(-each // CHUNK) for each in blocks.values())
            results = ordered_map(make, self._tasks(blocks, places, shared), number=number, workers=self._workers)
            for done, found in enumerate(results, 1):
                clipped += found
                # The disk works meanwhile, and does not have it all to do at the end. An error of it shows again there:
                # the system reports a failed write to every descriptor of the file.
                if done % FLUSH_CHUNKS == 0:
                    beside.submit(draft.flush)
                    if rest is not None:
                        beside.submit(rest.flush)
        return SealedFile(sha256=draft.sha256, size_bytes=draft.size_bytes, clipped=clipped)

    def _tasks(self, blocks: Mapping[int, int], places: Places, update: SharedVector) -> Iterator[tuple[int, int]]:
        """Yield group and first block of each chunk, once its values can be seen by all workers."""
        for group, number in blocks.items():
            width = shape_of(self._parameters, group).width
            for first in range(0, number, CHUNK):
                for place in places.of(group, first * width, (first + CHUNK) * width):
                    update.show(place.update)
                yield group, first

    def _require(self, header: UpdateHeader, update: np.ndarray, scales: Scales, places: Places) -> MaskStreams:
        require_header(header, self._key, scales)
        size = places.size
        if header.parameters != size:
            raise ProtectionError(f"the study key is for {size} parameters, not {header.parameters}", kept=_KEPT)
        if update.dtype != np.float32 or update.shape != (size,):
            what = f"the update is {update.dtype} {update.shape}, not float32 ({size},)"
            raise GatekeeperError(what, kept=_KEPT)
        if len(scales) != places.tensors_in_all:
            raise ProtectionError("there is not one scale for each tensor", kept=_KEPT)
        if self._masks is None:
            return MaskStreams(added=(), subtracted=())
        if len(self._masks.members) > self._parameters.clients:
            raise ProtectionError("more members seal than the study key is for", kept=_KEPT)
        return self._masks.streams(header)


def sealer_for(
    protection: ProtectionChoice,
    key: StudyKey,
    tensors: Mapping[str, int],
    *,
    turns: Mapping[str, Turn] | None = None,
    masks: MaskSource | None = None,
    workers: int = 1,
    seed: tuple[int, ...] | None = None,
) -> UpdateSealer:
    """Return a domain's sealer.

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
    masks : MaskSource, optional
        The member's masks; levels sealed and masked need them.
    workers : int
        Worker processes; 1 seals in this process.
    seed : sequence of int, optional
        Makes the rounding repeatable, for tests and benchmarks; of the system by default.

    Raises
    ------
    ProtectionError
        If the key is for another protection, or masks are missing.
    """
    groups = require_key(key, protection, tensors, turns)
    if masks is None and any(group.level in QUANTISED for group in groups):
        raise ProtectionError("levels sealed and masked need the masks of the member")
    return UpdateSealer(key, groups, masks, workers, seed)


def require_key(
    key: StudyKey, protection: ProtectionChoice, tensors: Mapping[str, int], turns: Mapping[str, Turn] | None
) -> tuple[Group, ...]:
    """Return the groups of a plan after checking that the key was made for them.

    Raises
    ------
    ProtectionError
        If levels, bits, turns, security or sizes differ.
    """
    parameters = key.parameters
    groups = groups_of(protection, tensors, turns)
    planned = tuple(describe(group, clients=parameters.clients, security=protection.security) for group in groups)
    if parameters.groups != planned or parameters.security != protection.security:
        raise ProtectionError("the study key was made for another protection than the plan's", kept="It was not used")
    return groups


def require_header(header: UpdateHeader, key: StudyKey, scales: Scales) -> None:
    """Check that an update's header is for this key and these scales.

    Raises
    ------
    ProtectionError
        Naming what differs.
    """
    if header.key_id != key.key_id:
        raise ProtectionError("an update was sealed for another study key", kept="It was not used")
    if header.study != key.parameters.study:
        raise ProtectionError("the study key belongs to another study", kept="It was not used")
    if header.scales != scales_digest(scales):
        raise ProtectionError("an update was sealed with other scales than this domain's", kept="It was not used")


@dataclass(kw_only=True)
class _Work:
    """What one process needs to seal blocks of one update; everything in it can be sent to a worker."""

    sealers: Mapping[int, Callable[[], BlockSealer]]
    widths: Mapping[int, int]
    places: Places
    update: SharedVector
    weight: float
    scales: Scales
    residual: VectorFile | None
    rest: VectorFile | None
    draft: Draft

    def __post_init__(self) -> None:
        self._made: dict[int, BlockSealer] = {}

    def __call__(self, group: int, first: int) -> int:
        """Seal a chunk of blocks, write it and what it leaves out, and return how many values were clipped."""
        if group not in self._made:
            self._made = {group: self.sealers[group]()}
        start = first * self.widths[group]
        places = list(self.places.of(group, start, start + CHUNK * self.widths[group]))
        values = np.concatenate([self._values(place) for place in places])
        if not np.isfinite(values).all():
            raise GatekeeperError("the weighted update holds values that are not finite", kept=_KEPT)
        sealed = self._made[group].seal(first, values)
        self.draft.write(f"group-{group}", first, sealed.rows)
        if self.rest is not None and sealed.residual is not None:
            for place in places:
                self.rest.write(
                    place.update.start, sealed.residual[place.within] * np.float32(self.scales[place.tensor])
                )
        return sealed.clipped

    def _values(self, place: Place) -> np.ndarray:
        """Return ``(w d + e) / scale``, float32."""
        with np.errstate(over="ignore", invalid="ignore"):  # found by the caller
            part = self.update.read(place.update) * np.float32(self.weight)
            if self.residual is not None:
                part += self.residual.read(place.update.start, place.update.stop)
            part /= np.float32(self.scales[place.tensor])
        return part
