"""Level ``sealed``: quantised, packed, masked, encrypted with BFV. The sum is exact and the only thing that opens.

A block is one ciphertext: 4095 coefficients of ``v`` values each, and the constant 1 in the last, all under pairwise
masks modulo 2^m. The aggregator adds ``c0`` modulo ``q`` and passes the seeds on.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fedpriv.errors import ContainerError, ProtectionError, UntrustedError
from fedpriv.files import sha256_hex
from fedpriv.protection.bfv import DEGREE, PRIME, SEED_BYTES, BfvContext, BfvDecryptor, BfvEncryptor, add_modular
from fedpriv.protection.codec import Codec, plan_codec
from fedpriv.protection.container import Container, Stream, open_container, write_container
from fedpriv.protection.manifest import (
    require_aggregate_header,
    require_alike,
    require_manifest,
    require_update_header,
)
from fedpriv.protection.masks import MaskSource
from fedpriv.protection.roles import (
    KeyParameters,
    SealedFile,
    StudyKey,
    aggregate_header,
    make_public,
    read_parameters,
    require_choice,
    require_header,
    update_header,
    weighted,
)
from fedpriv.study.messages import MAX_BLOB_BYTES, AggregateManifest, SignedUpdate, UpdateHeader
from fedpriv.study.plan import ProtectionChoice

_COUNT = DEGREE - 1
"""Index of the coefficient that counts updates."""

_ROWS = 32
"""Blocks that the aggregator holds at a time."""

_KEPT = "Nothing was added or opened"


def make_sealed_key(protection: ProtectionChoice, *, clients: int, study: str) -> StudyKey:
    """Make a secret key; the public bytes hold the parameters and a commitment to it.

    *Guarantee*: refused here, before any round, if sums of ``clients`` updates could be inexact.

    Raises
    ------
    ProtectionError
        If so many clients with so many bits cannot be summed exactly.
    """
    codec = plan_codec(bits=protection.bits, clip=protection.clip, clients=clients)
    secret = BfvContext(codec.plain_bits).new_secret()
    public = make_public(protection, clients=clients, study=study, scheme=_scheme(codec, _commitment(secret)))
    return StudyKey(level="sealed", public=public, secret=secret)


class SealedSealer:
    """A domain's sealer.

    *Guarantee*: the container is indistinguishable from random to whoever lacks the study key (Ring-LWE), and so is
    what a key holder decrypts from it, unless all other members collude (pairwise masks).
    *Assumption*: each (study, round, attempt) seals one update only.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's section.
    key : StudyKey
        The study's key.
    masks : MaskSource
        The member's masks for exactly the members of the sum.
    rng : numpy.random.Generator, optional
        For stochastic rounding; of the system by default.
    """

    def __init__(
        self, protection: ProtectionChoice, key: StudyKey, masks: MaskSource, *, rng: np.random.Generator | None = None
    ) -> None:
        parameters, self.codec = _require_key(key)
        require_choice(parameters, protection)
        if masks.study != parameters.study or len(masks.members) > parameters.clients:
            raise ProtectionError("the masks and the study key do not belong together", kept="Nothing was sealed")
        self._study = parameters.study
        self._key_id = key.key_id
        self._masks = masks
        self._rng = rng or np.random.default_rng()
        self._encryptor = BfvEncryptor(BfvContext(self.codec.plain_bits), key.secret)

    def seal(
        self, header: UpdateHeader, update: np.ndarray, path: Path, *, residual: np.ndarray | None = None
    ) -> SealedFile:
        """Quantise, mask, encrypt and write one update; see :class:`fedpriv.protection.Sealer`."""
        require_header(header, level="sealed", key_id=self._key_id, study=self._study)
        values = weighted(header, update, residual)
        left = np.empty_like(values)
        seeds: list[np.ndarray] = []
        clipped: list[int] = []

        def blocks() -> Iterator[np.ndarray]:
            masks = self._masks.stream(header)
            width = _values_in_block(self.codec)
            for start in range(0, values.size, width):
                part = slice(start, start + width)
                digits, left[part], beyond = self.codec.quantise(values[part], self._rng)
                c0, seed = self._encryptor.encrypt(masked_block(self.codec, digits, masks.next(DEGREE)))
                seeds.append(seed)
                clipped.append(beyond)
                yield c0[np.newaxis]

        def all_seeds() -> Iterator[np.ndarray]:
            yield np.stack(seeds)

        number = _blocks(self.codec, values.size)
        arrays = {
            "c0": Stream("uint64", (number, DEGREE), blocks()),
            "seeds": Stream("uint8", (number, SEED_BYTES), all_seeds()),
        }
        digest, size = write_container(path, update_header(header), arrays)
        return SealedFile(sha256=digest, size_bytes=size, residual=left, clipped=sum(clipped))


class SealedAdder:
    """Adds ``c0`` modulo ``q`` and collects the seeds, with numpy alone."""

    def __init__(self, key_id: str, public: bytes) -> None:
        self.key_id = key_id
        parameters = read_parameters(public)
        self._study = parameters.study
        self._codec = _codec_of(parameters)

    def add(self, updates: Sequence[tuple[SignedUpdate, Path]], path: Path) -> tuple[str, int]:
        """Add updates; see :class:`fedpriv.protection.Adder`."""
        headers = [signed.header for signed, _ in updates]
        first = require_alike(headers)
        require_header(first, level="sealed", key_id=self.key_id, study=self._study)
        if len(updates) > self._codec.clients:
            raise ProtectionError(f"the study key is for sums of {self._codec.clients} updates, not {len(updates)}")
        number = _blocks(self._codec, first.parameters)
        with contextlib.ExitStack() as stack:
            containers = [stack.enter_context(_open_update(signed, file, number)) for signed, file in updates]
            seeds = np.stack([container.rows("seeds", 0, number) for container in containers], axis=1)
            _require_fresh(seeds)
            arrays = {"c0": Stream("uint64", (number, DEGREE), _sums(containers, number)), "seeds": seeds}
            return write_container(path, aggregate_header(headers), arrays)


class SealedOpener:
    """Opens sums of exactly the updates in a manifest."""

    def __init__(self, protection: ProtectionChoice, key: StudyKey, clients: int) -> None:
        parameters, self.codec = _require_key(key)
        require_choice(parameters, protection)
        if parameters.clients != clients:
            raise ProtectionError(f"the study key is for {parameters.clients} domains, not {clients}")
        self._study = parameters.study
        self._key_id = key.key_id
        self._decryptor = BfvDecryptor(BfvContext(self.codec.plain_bits), key.secret)

    def open(self, path: Path, *, manifest: AggregateManifest) -> np.ndarray:
        """Open an aggregate; see :class:`fedpriv.protection.Opener`."""
        number = len(manifest.updates)
        return self.codec.dequantise(self.open_sums(path, manifest=manifest), number)

    def open_sums(self, path: Path, *, manifest: AggregateManifest) -> np.ndarray:
        """Open an aggregate and return the exact sums of the quantised updates, offset included.

        Returns
        -------
        ndarray of uint64, shape (P,)

        Raises
        ------
        ContainerError, ProtectionError
            As :meth:`open`.
        """
        first = require_manifest(manifest)
        require_header(first, level="sealed", key_id=self._key_id, study=self._study)
        clients = len(manifest.updates)
        number, width = _blocks(self.codec, first.parameters), _values_in_block(self.codec)
        if not 2 <= clients <= self.codec.clients:
            what = f"a sum of {clients} updates is not opened with a key for {self.codec.clients} domains"
            raise ProtectionError(what, kept="Nothing was opened")
        sums = np.empty(first.parameters, np.uint64)
        with open_container(path, max_bytes=MAX_BLOB_BYTES, expect_sha256=manifest.aggregate_sha256) as container:
            require_aggregate_header(container.header, manifest)
            container.require({"c0": ("uint64", (number, DEGREE)), "seeds": ("uint8", (number, clients, SEED_BYTES))})
            seeds = container.rows("seeds", 0, number)
            _require_fresh(seeds)
            for index in range(number):
                c0 = _residues(container, index, index + 1)[0]
                coefficients = self._decryptor.decrypt_sum(c0, seeds[index])
                if int(coefficients[_COUNT]) != clients:
                    what = "the sum does not hold the updates that its manifest lists, or the key is another"
                    raise ProtectionError(what, kept="It was not used", todo="stop the study and make a new key")
                part = sums[index * width : (index + 1) * width]
                part[:] = self.codec.unpack(coefficients[:_COUNT], part.size)
        return sums


def masked_block(codec: Codec, digits: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return one block's plaintext: packed digits, the count 1, plus masks modulo 2^m.

    Parameters
    ----------
    codec : Codec
        The study's.
    digits : ndarray of uint64, shape (n,)
        At most ``4095 v``.
    masks : ndarray of uint64, shape (4096,)
        Uniform.

    Returns
    -------
    ndarray of uint64, shape (4096,)
        Uniform below ``2^m`` to whoever does not know the masks.
    """
    packed = codec.pack(digits)
    block = np.zeros(DEGREE, np.uint64)
    block[: packed.size] = packed
    block[_COUNT] = 1
    block += masks
    block &= np.uint64(2**codec.plain_bits - 1)
    return block


def _values_in_block(codec: Codec) -> int:
    return codec.digits * _COUNT


def _blocks(codec: Codec, parameters: int) -> int:
    return -(-parameters // _values_in_block(codec))


def _scheme(codec: Codec, commitment: str) -> dict[str, int | str]:
    return {
        "name": "bfv",
        "degree": DEGREE,
        "prime": str(PRIME),
        "digits": codec.digits,
        "plain_bits": codec.plain_bits,
        "commitment": commitment,
    }


def _commitment(secret: bytes) -> str:
    return sha256_hex(b"fedpriv 1 study key\n" + secret)


def _codec_of(parameters: KeyParameters) -> Codec:
    codec = plan_codec(bits=parameters.bits, clip=parameters.clip, clients=parameters.clients)
    if parameters.scheme != _scheme(codec, str(parameters.scheme.get("commitment"))):
        raise ProtectionError("the study key is of other parameters", kept="It was not used", todo="upgrade fedpriv")
    return codec


def _require_key(key: StudyKey) -> tuple[KeyParameters, Codec]:
    """Return the key's parameters and codec after checking that its secret is the one that its public bytes name."""
    parameters = key.parameters
    codec = _codec_of(parameters)
    if not hmac.compare_digest(str(parameters.scheme["commitment"]), _commitment(key.secret)):
        raise UntrustedError("the public and the secret half of the study key do not fit", kept="It was not used")
    return parameters, codec


@contextlib.contextmanager
def _open_update(signed: SignedUpdate, path: Path, blocks: int) -> Iterator[Container]:
    size = signed.container_bytes
    with open_container(path, max_bytes=size, expect_bytes=size, expect_sha256=signed.container_sha256) as container:
        require_update_header(container.header, signed.header)
        container.require({"c0": ("uint64", (blocks, DEGREE)), "seeds": ("uint8", (blocks, SEED_BYTES))})
        yield container


def _residues(container: Container, start: int, stop: int) -> np.ndarray:
    c0 = container.rows("c0", start, stop)
    if int(c0.max()) >= PRIME:
        raise ContainerError("a ciphertext has a coefficient out of range", kept=_KEPT)
    return c0


def _sums(containers: Sequence[Container], blocks: int) -> Iterator[np.ndarray]:
    for start in range(0, blocks, _ROWS):
        stop = min(start + _ROWS, blocks)
        total = _residues(containers[0], start, stop)
        for container in containers[1:]:
            add_modular(total, _residues(container, start, stop))
        yield total


def _require_fresh(seeds: np.ndarray) -> None:
    """Check that no seed stands twice; shape (blocks, K, 64)."""
    flat = np.ascontiguousarray(seeds).reshape(-1, SEED_BYTES)
    if len({seed.tobytes() for seed in flat}) != len(flat):
        raise ContainerError("a ciphertext's seed was used twice", kept=_KEPT)
