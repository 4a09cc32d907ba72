"""A small cohort that seals, adds, unlocks and opens, and a few statistics, for the tests of this folder."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedpriv.protection import (
    IdentityKeys,
    MaskSource,
    Opened,
    Scales,
    StudyKey,
    adder_for,
    combine_unlocks,
    first_scales,
    make_study_key,
    needs_unlock,
    opener_for,
    scales_digest,
    sealer_for,
    sign_update,
)
from fedpriv.protection.bfv import DEGREE, BfvContext, add_modular
from fedpriv.protection.study_key import KeyParameters, commitment, public_bytes
from fedpriv.study import AggregateManifest, SignedUpdate, UpdateHeader
from fedpriv.study.averaging import is_live
from fedpriv.study.messages import Unlocked
from fedpriv.study.protection_choice import ProtectionChoice

STUDY = "5" * 64
LAYOUT = "b" * 64
CLIP = 0.05


def identity_keys(email: str) -> IdentityKeys:
    return IdentityKeys.create(email, "house", "0" * 64)


def fixed_keys(email: str) -> IdentityKeys:
    """Return the same keys for the same address each time, so that statistics of masks repeat."""
    raw = [hashlib.sha256(f"{email} {use}".encode()).digest() for use in ("sign", "agree")]
    return IdentityKeys(
        email=email,
        name="house",
        transport_key="0" * 64,
        _signing=Ed25519PrivateKey.from_private_bytes(raw[0]),
        _agreement=X25519PrivateKey.from_private_bytes(raw[1]),
    )


@dataclass
class Part:
    """One member's sealed update, and what it left out."""

    signed: SignedUpdate
    path: Path
    update: np.ndarray
    residual: np.ndarray
    clipped: int

    @property
    def sent(self) -> np.ndarray:
        """What the container stands for, float64: the weighted update without what was left out."""
        return self.update.astype(np.float64) * self.signed.header.weight - self.residual


@dataclass
class Cohort:
    protection: ProtectionChoice
    tensors: Mapping[str, int]
    keys: dict[str, IdentityKeys]
    key: StudyKey
    folder: Path
    scales: Scales = field(default=())
    turns: Mapping[str, int] | None = None

    @property
    def members(self) -> list[str]:
        return sorted(self.keys)

    @property
    def identities(self):
        return {email: keys.identity for email, keys in self.keys.items()}

    @property
    def size(self) -> int:
        return self.size_in(1)

    def size_in(self, number: int) -> int:
        """How many parameters a round sends."""
        return sum(
            size for name, size in self.tensors.items() if self.turns is None or is_live(self.turns[name], number)
        )

    def masks(self, email: str, members: Sequence[str] | None = None) -> MaskSource:
        sealing = [self.keys[member].identity for member in members or self.members]
        return MaskSource.of_cohort(self.keys[email], sealing, study=STUDY)

    def header(self, email: str, *, members: Sequence[str] | None = None, **changes) -> UpdateHeader:
        values = {
            "study": STUDY,
            "round": 1,
            "attempt": 1,
            "member": email,
            "cohort": self.masks(email, members).cohort,
            "level": self.protection.level,
            "bits": self.protection.bits,
            "weight": 1 / len(self.keys),
            "nonce": hashlib.sha256(email.encode()).hexdigest()[:32],
            "key_id": self.key.key_id,
            "layout": LAYOUT,
            "scales": scales_digest(self.scales),
            "parameters": self.size_in(changes.get("round", 1)),
        }
        return UpdateHeader(**(values | changes))

    def sealer(self, email: str, *, members: Sequence[str] | None = None, workers: int = 1, seed=(1,)):
        masks = self.masks(email, members)
        return sealer_for(
            self.protection, self.key, self.tensors, turns=self.turns, masks=masks, workers=workers, seed=seed
        )

    def seal(self, email: str, update: np.ndarray, *, name: str = "", residual: Path | None = None, **changes) -> Part:
        options = {option: changes.pop(option) for option in ("members", "workers", "seed") if option in changes}
        header = self.header(email, members=options.get("members"), **changes)
        path = self.folder / (name or f"{email}.fedpriv")
        out = path.with_suffix(".residual")
        sealed = self.sealer(email, **options).seal(
            header, update, path, scales=self.scales, residual=residual, residual_out=out
        )
        signed = sign_update(self.keys[email], header, sealed.sha256, sealed.size_bytes)
        return Part(signed, path, update, np.fromfile(out, "<f4"), sealed.clipped)

    def seal_all(self, *, size: float = CLIP / 2, **changes) -> dict[str, Part]:
        rng = np.random.default_rng(7)
        number = self.size_in(changes.get("round", 1))
        updates = {email: rng.normal(0, size, number).astype(np.float32) for email in self.members}
        return {email: self.seal(email, update, **changes) for email, update in updates.items()}

    def unlocked(self, parts: Sequence[Part], members: Sequence[str] | None = None) -> Unlocked:
        signed = [part.signed for part in parts]
        if not needs_unlock(self.protection):
            return Unlocked()
        unlocks = {s.header.member: self.masks(s.header.member, members).unlock(signed) for s in signed}
        return combine_unlocks(signed, unlocks)

    def add(self, parts: Sequence[Part], name: str = "sum") -> tuple[Path, str]:
        path = self.folder / name
        return path, adder_for(self.key.public).add([(part.signed, part.path) for part in parts], path)[0]

    def manifest(self, parts: Sequence[Part], digest: str, **changes) -> AggregateManifest:
        first = parts[0].signed.header
        values = {
            "study": first.study,
            "round": first.round,
            "attempt": first.attempt,
            "updates": tuple(part.signed for part in parts),
            "aggregate_sha256": digest,
        }
        if "unlocked" not in changes:
            values["unlocked"] = self.unlocked(parts)
        return AggregateManifest(**(values | changes))

    def open(self, path: Path, manifest: AggregateManifest, *, workers: int = 1) -> Opened:
        opener = opener_for(self.protection, self.key, self.tensors, turns=self.turns, workers=workers)
        return opener.open(path, manifest=manifest, scales=self.scales)


def make_cohort(
    folder: Path,
    level: str = "sealed",
    *,
    clients: int = 3,
    bits: int = 10,
    tensors: Mapping[str, int] | None = None,
    turns: Mapping[str, int] | None = None,
    security: str = "tc192",
    rules=(),
    bits_choices=(),
    keys: Callable[[str], IdentityKeys] = identity_keys,
) -> Cohort:
    tensors = tensors or {"a": 700, "b": 300}
    protection = ProtectionChoice(level=level, bits=bits, security=security, rules=rules, bits_choices=bits_choices)
    members = {email: keys(email) for email in (f"d{number:02}@example.org" for number in range(clients))}
    key = make_study_key(protection, tensors=tensors, turns=turns, clients=clients, study=STUDY)
    return Cohort(protection, tensors, members, key, folder, first_scales(CLIP, tensors), turns)


def with_fixed_key(cohort: Cohort) -> Cohort:
    """Return the cohort with the same study key each time; only for levels without encryption."""
    secrets = {"tag": bytes(range(32))}
    parameters = cohort.key.parameters.model_copy(update={"commitment": commitment(secrets)})
    cohort.key = StudyKey(public=public_bytes(KeyParameters.model_validate(parameters.model_dump())), secrets=secrets)
    return cohort


def least_p(words: np.ndarray, bits: int) -> float:
    """Return the smallest p-value of: as many ones as zeros in each bit plane, and even highest and lowest bytes.

    Parameters
    ----------
    words : ndarray of uint64, shape (n,)
    bits : int
        How many bits of each are in use; at least 8.
    """
    planes = [(words >> np.uint64(bit)) & np.uint64(1) for bit in range(bits)]
    ones = [abs(int(plane.sum()) - words.size / 2) / (math.sqrt(words.size) / 2) for plane in planes]
    low, high = words & np.uint64(255), (words >> np.uint64(bits - 8)) & np.uint64(255)
    return min(*(math.erfc(z / math.sqrt(2)) for z in ones), *(_chi_square_p(byte) for byte in (low, high)))


def _chi_square_p(values: np.ndarray) -> float:
    """Return the p-value of evenness over 256 bins, by Wilson and Hilferty's approximation."""
    expected, freedom = values.size / 256, 255
    statistic = float(((np.bincount(values.astype(np.int64), minlength=256) - expected) ** 2).sum() / expected)
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return math.erfc(z / math.sqrt(2)) / 2


def decrypted_raw(context: BfvContext, secret: np.ndarray, c0: np.ndarray, c1: np.ndarray) -> np.ndarray:
    """Return what SEAL itself decrypts of any pair of polynomials: the oracle that nobody may have."""
    from tenseal import sealapi

    key, plain = sealapi.SecretKey(), sealapi.Plaintext()
    context.bridge.load(key, context.seal, context.bridge.saved(context.transformed(secret)))
    sealapi.Decryptor(context.seal, key).decrypt(context.pair(c0, c1), plain)
    return context.words(plain)


def stolen_secret(context: BfvContext, secret: np.ndarray) -> np.ndarray:
    """Return what the ciphertext (0, floor(q/t)) decrypts to: the secret polynomial itself, int64."""
    scale = np.zeros(DEGREE, np.uint64)
    scale[0] = context.prime >> context.plain_bits
    found = decrypted_raw(context, secret, np.zeros(DEGREE, np.uint64), scale).astype(np.int64)
    return np.where(found >= 2 ** (context.plain_bits - 1), found - 2**context.plain_bits, found)


def phase(prime: int, c0: np.ndarray, c1: np.ndarray, polynomial: np.ndarray) -> list[int]:
    """Return ``c0 + c1 s`` modulo ``X^4096 + 1`` and ``q``, by schoolbook multiplication, without SEAL."""
    total = c0.copy()
    negated = np.where(c1 == 0, c1, np.uint64(prime) - c1)
    both = np.concatenate([negated, c1])  # shifting to the right brings in the negated end
    for place, factor in enumerate(polynomial.tolist()):
        shifted = both[DEGREE - place : 2 * DEGREE - place]
        for _ in range(abs(factor)):
            add_modular(total, shifted if factor > 0 else np.where(shifted == 0, shifted, prime - shifted), prime)
    return total.tolist()


class CreatedMemory:
    """Memory for vectors that is created while the test runs."""

    def __init__(self, monkeypatch) -> None:
        self._files: list[tuple[int, int]] = []
        create = os.memfd_create

        def recorded(name: str, *flags: int) -> int:
            descriptor = create(name, *flags)
            if name == "fedpriv-vector":
                self._files.append((descriptor, os.fstat(descriptor).st_ino))
            return descriptor

        monkeypatch.setattr(os, "memfd_create", recorded)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def is_gone(self) -> bool:
        """Whether there was some, and this process has let go of all of it."""
        return len(self) > 0 and not any(self._is_open(*file) for file in self._files)

    @staticmethod
    def _is_open(descriptor: int, inode: int) -> bool:
        try:
            return os.fstat(descriptor).st_ino == inode
        except OSError:
            return False


class Squares:
    """Work for :mod:`fedpriv.protection.parallel`: squares numbers; a task of -1 kills the worker that gets it."""

    def __init__(self, home: int, factor: int = 1) -> None:
        self._home, self._factor = home, factor

    def __call__(self, number: int) -> tuple[int, int]:
        if number < 0:
            if os.getpid() == self._home:
                time.sleep(0.2)  # let a worker take the next one
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._factor * number**2, os.getpid()
