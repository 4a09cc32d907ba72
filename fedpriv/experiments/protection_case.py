"""One case of the protection benchmark: a cohort with keys and seeded updates, the same ones for every scheme."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedpriv.protection import (
    IdentityKeys,
    MaskSource,
    SealedFile,
    make_study_key,
    scales_digest,
    sealer_for,
)
from fedpriv.protection.levels import packing_of, shape_of
from fedpriv.protection.scales import Scales, deviations
from fedpriv.protection.sealing import CHUNK
from fedpriv.study.messages import SignedUpdate, UpdateHeader
from fedpriv.study.protection_choice import QUANTISED, ProtectionChoice, ProtectionLevel, SecurityLevel

STUDY = "5" * 64
_SEED = 20
_DEVIATIONS = (1e-3, 2e-3, 3e-3, 4e-3)
"""Standard deviation of each tensor's update; more than one, so that a mixed-up scale is seen."""

_CLIP_UNQUANTISED = 5.5
"""Standard deviations, at levels that do not round: tuned CKKS's noise and clip together cost least here."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured in one row.

    Attributes
    ----------
    scheme : str
        A level of protection.
    parameters, clients, bits : int
        Size of the update; ``K``; bits of a value, 0 where nothing is quantised.
    measured : int
        How many of the parameters are really protected; fewer where the cost is strictly by block.
    security : str
        Of the encryption.
    """

    scheme: ProtectionLevel
    parameters: int
    clients: int
    bits: int
    measured: int
    security: SecurityLevel = "tc192"

    @property
    def clip(self) -> float:
        """Where values are clipped, in standard deviations of their tensor."""
        return deviations(self.bits) if self.bits else _CLIP_UNQUANTISED


class Cohort:
    """The members of a case.

    Attributes
    ----------
    case : Case
        What it was made for.
    tensors : dict of str to int
        Parameters of each tensor.
    scales : tuple of float
        The clip of each tensor.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        sizes = [part.size for part in np.array_split(np.empty(case.measured, bool), len(_DEVIATIONS))]
        self.tensors = {f"tensor-{number}": size for number, size in enumerate(sizes)}
        self.scales: Scales = tuple(case.clip * deviation for deviation in _DEVIATIONS)
        self.protection = ProtectionChoice(level=case.scheme, bits=case.bits or 10, security=case.security)
        self.key = make_study_key(self.protection, tensors=self.tensors, clients=case.clients, study=STUDY)
        emails = (f"domain-{number:02d}@example.org" for number in range(case.clients))
        self.keys = tuple(IdentityKeys.create(email, "domain", "0" * 64) for email in emails)
        self._starts = np.cumsum([0, *sizes]).tolist()

    @cached_property
    def deviation(self) -> np.ndarray:
        """The standard deviation of each parameter's update: float32, shape (P,)."""
        return np.repeat(np.array(_DEVIATIONS, np.float32), list(self.tensors.values()))

    def update(self, member: int) -> np.ndarray:
        """Return a member's update: normally distributed, float32, shape (P,)."""
        values = np.random.default_rng((_SEED, member)).standard_normal(self.case.measured, np.float32)
        for number, deviation in enumerate(_DEVIATIONS):
            values[self._starts[number] : self._starts[number + 1]] *= np.float32(deviation)
        return values

    def masks(self, member: int) -> MaskSource:
        """Return a member's masks."""
        return MaskSource.of_cohort(self.keys[member], (keys.identity for keys in self.keys), study=STUDY)

    def header(self, member: int, masks: MaskSource) -> UpdateHeader:
        """Return the header of a member's update; the weight is 1."""
        return UpdateHeader(
            study=STUDY,
            round=1,
            attempt=1,
            member=self.keys[member].email,
            cohort=masks.cohort,
            bits=self.protection.bits,
            level=self.case.scheme,
            weight=1.0,
            nonce=f"{member:032x}",
            key_id=self.key.key_id,
            layout="0" * 64,
            scales=scales_digest(self.scales),
            parameters=self.case.measured,
        )

    def seal(self, member: int, masks: MaskSource, update: np.ndarray, path: Path, *, workers: int) -> SealedFile:
        """Seal as a domain does, the residual of the next round included; the rounding can be repeated."""
        sealer = sealer_for(
            self.protection, self.key, self.tensors, masks=masks, workers=workers, seed=self._seed(member)
        )
        header = self.header(member, masks)
        return sealer.seal(
            header, update, path, scales=self.scales, residual_out=path.with_name(f"residual-{member % 4}")
        )

    def levels(self, member: int, update: np.ndarray) -> np.ndarray:
        """Return an update's quantised values, computed without sealing: int64, shape (P,), in ``-h .. h``."""
        packing = packing_of(self.key.parameters, 0)
        levels = np.empty(self.case.measured, np.int64)
        values = np.empty(self.case.measured, np.float32)
        for number, scale in enumerate(self.scales):
            part = slice(self._starts[number], self._starts[number + 1])
            np.divide(update[part], np.float32(scale), out=values[part])
        for first, part in self._chunks():
            digits, _, _ = packing.quantise(values[part], np.random.default_rng((*self._seed(member), 0, first)))
            levels[part] = digits.astype(np.int64) - packing.half
        return levels

    def levels_of(self, total: np.ndarray) -> np.ndarray:
        """Return the integers that an opened sum (float32, shape (P,)) stands for; float32 tells them apart."""
        return np.rint(total / self._steps).astype(np.int64)

    def floats_of(self, levels: np.ndarray) -> np.ndarray:
        """Return what quantised values stand for: float64, shape (P,)."""
        return levels * self._steps

    @property
    def _steps(self) -> np.ndarray:
        half = packing_of(self.key.parameters, 0).half
        return np.repeat(np.array(self.scales) / half, list(self.tensors.values()))

    @property
    def quantised(self) -> bool:
        """Whether the sum is one of integers, and updates have masks."""
        return self.case.scheme in QUANTISED

    def _seed(self, member: int) -> tuple[int, ...]:
        return (_SEED, member, 1)

    def _chunks(self) -> Iterator[tuple[int, slice]]:
        width = shape_of(self.key.parameters, 0).width
        for first in range(0, -(-self.case.measured // width), CHUNK):
            yield first, slice(first * width, (first + CHUNK) * width)


def case_as_json(case: Case) -> dict[str, Any]:
    """Return a case as JSON values; ``Case(**values)`` reads it."""
    return dict(vars(case))


def signed_as_json(updates: list[tuple[SignedUpdate, Path]]) -> list[list[Any]]:
    """Return signed updates and their files as JSON values."""
    return [[signed.model_dump(mode="json"), str(path)] for signed, path in updates]
