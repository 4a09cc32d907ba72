"""Level ``ckks``: approximate homomorphic encryption with TenSEAL, as others run it. The HE-FL baseline.

N = 8192, primes of 60, 40 and 40 bits, scale 2^40, 4096 slots a ciphertext, encrypted with the public key: about 57
bytes a parameter. The last slot of each block holds the constant 1, so that the opened sum counts its updates.

*Assumption*: decrypted sums are shared with no one outside the cohort: CKKS results are approximate, and whoever sees
many of them together with their ciphertexts can find the key (Li and Micciancio 2021). There are no pairwise masks: a
member that gets another's container can open it. Both are why ``sealed`` is the default.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedpriv.errors import ContainerError, ProtectionError, UntrustedError
from fedpriv.protection.container import Container, Stream, open_container, write_container
from fedpriv.protection.manifest import (
    require_aggregate_header,
    require_alike,
    require_manifest,
    require_update_header,
)
from fedpriv.protection.roles import (
    SealedFile,
    StudyKey,
    aggregate_header,
    make_public,
    public_material,
    read_parameters,
    require_choice,
    require_header,
    update_header,
    weighted,
)
from fedpriv.study.messages import MAX_BLOB_BYTES, AggregateManifest, SignedUpdate, UpdateHeader
from fedpriv.study.plan import ProtectionChoice

DEGREE = 8192
PRIME_BITS = (60, 40, 40)
SCALE_BITS = 40
VALUES = DEGREE // 2 - 1
"""Parameters in a block: one slot less than there are, for the count."""

_RAW_BYTES = 2 * DEGREE * 2 * 8
_MAX_BLOCK_BYTES = _RAW_BYTES + 4096
_MIN_BLOCK_BYTES = _RAW_BYTES * 3 // 4
_COUNT_TOLERANCE = 1e-3
_KEPT = "Nothing was added or opened"


def make_ckks_key(protection: ProtectionChoice, *, clients: int, study: str) -> StudyKey:
    """Make a key pair; the public bytes hold the public key, and no secret, relinearisation or rotation keys."""
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(PRIME_BITS))
    context.global_scale = 2.0**SCALE_BITS
    scheme: dict[str, int | str] = {"name": "ckks", "degree": DEGREE, "scale_bits": SCALE_BITS}
    public = make_public(protection, clients=clients, study=study, scheme=scheme, material=_save(context, secret=False))
    return StudyKey(level="ckks", public=public, secret=_save(context, secret=True))


class CkksSealer:
    """Encrypts blocks of :data:`VALUES` parameters and one count with the public key.

    *Guarantee*: without the secret key, nothing but the number of parameters is learned (IND-CPA).
    *Assumption*: see the module.
    """

    def __init__(self, protection: ProtectionChoice, key: StudyKey) -> None:
        self._study = _require_key(protection, key)
        self._key_id = key.key_id
        self._context = load_public(key.public)

    def seal(
        self, header: UpdateHeader, update: np.ndarray, path: Path, *, residual: np.ndarray | None = None
    ) -> SealedFile:
        """Encrypt and write one update; see :class:`fedpriv.protection.Sealer`."""
        require_header(header, level="ckks", key_id=self._key_id, study=self._study)
        blocks = self._encrypted(weighted(header, update, residual))
        digest, size = _write_blocks(path, update_header(header), blocks)
        return SealedFile(sha256=digest, size_bytes=size)

    def _encrypted(self, values: np.ndarray) -> Iterator[bytes]:
        import tenseal as ts

        for start in range(0, values.size, VALUES):
            yield ts.ckks_vector(self._context, [*values[start : start + VALUES].tolist(), 1.0]).serialize()


class CkksAdder:
    """Adds ciphertexts with the public context."""

    def __init__(self, key_id: str, public: bytes) -> None:
        self.key_id = key_id
        self._study = read_parameters(public).study
        self._context = load_public(public)

    def add(self, updates: Sequence[tuple[SignedUpdate, Path]], path: Path) -> tuple[str, int]:
        """Add updates; see :class:`fedpriv.protection.Adder`."""
        headers = [signed.header for signed, _ in updates]
        first = require_alike(headers)
        require_header(first, level="ckks", key_id=self.key_id, study=self._study)
        with contextlib.ExitStack() as stack:
            containers = [stack.enter_context(_open_update(signed, file)) for signed, file in updates]
            return _write_blocks(path, aggregate_header(headers), self._sums(containers, first.parameters))

    def _sums(self, containers: Sequence[Container], parameters: int) -> Iterator[bytes]:
        readers = [_read_blocks(container, parameters) for container in containers]
        for parts in zip(*readers, strict=True):
            total: Any = None
            for size, block in parts:
                vector = load_vector(self._context, block, size)
                total = vector if total is None else total + vector
            yield total.serialize()


class CkksOpener:
    """Decrypts sums."""

    def __init__(self, protection: ProtectionChoice, key: StudyKey, clients: int) -> None:
        self._study = _require_key(protection, key)
        if key.parameters.clients != clients:
            raise ProtectionError(f"the study key is for {key.parameters.clients} domains, not {clients}")
        self._key_id = key.key_id
        self._context = _load_secret(key)

    def open(self, path: Path, *, manifest: AggregateManifest) -> np.ndarray:
        """Decrypt an aggregate; see :class:`fedpriv.protection.Opener`."""
        first = require_manifest(manifest)
        require_header(first, level="ckks", key_id=self._key_id, study=self._study)
        if len(manifest.updates) < 2:
            raise ProtectionError("a single update is not opened", kept="Nothing was opened")
        opened = np.empty(first.parameters, np.float64)
        with open_container(path, max_bytes=MAX_BLOB_BYTES, expect_sha256=manifest.aggregate_sha256) as container:
            require_aggregate_header(container.header, manifest)
            start = 0
            for size, block in _read_blocks(container, first.parameters):
                *values, count = load_vector(self._context, block, size).decrypt()
                if not abs(count - len(manifest.updates)) < _COUNT_TOLERANCE:
                    what = "the sum does not hold the updates that its manifest lists, or the key is another"
                    raise ProtectionError(what, kept="It was not used")
                opened[start : start + len(values)] = values
                start += len(values)
        if not np.isfinite(opened).all():
            raise ProtectionError("the opened sum holds values that are not finite", kept="It was not used")
        return opened


def load_public(public: bytes) -> Any:
    """Return the TenSEAL context of a study key's public bytes.

    *Guarantee*: it holds no secret key.

    Raises
    ------
    UntrustedError
        If it cannot be read, or holds a secret key.
    """
    import tenseal as ts

    try:
        context = ts.context_from(public_material(public))
        private, scale = context.is_private(), context.global_scale
    except (RuntimeError, ValueError, TypeError) as error:
        raise UntrustedError(f"the public CKKS key cannot be read ({error})", kept="It was not used") from error
    if private or scale != 2.0**SCALE_BITS:
        raise UntrustedError("the public CKKS key is of other parameters, or not only public", kept="It was not used")
    return context


def load_vector(context: Any, block: bytes, size: int) -> Any:
    """Return the ciphertext vector of ``size`` slots in ``block``.

    Raises
    ------
    ContainerError
        If it is not one.
    """
    import tenseal as ts

    try:
        vector = ts.ckks_vector_from(context, block)
        if vector.size() != size:
            raise ValueError(f"{vector.size()} slots in place of {size}")
    except (RuntimeError, ValueError, TypeError) as error:
        raise ContainerError(f"a CKKS block cannot be read ({error})", kept=_KEPT) from error
    return vector


def _load_secret(key: StudyKey) -> Any:
    import tenseal as ts

    try:
        context = ts.context_from(key.secret)
        private = context.is_private()
    except (RuntimeError, ValueError, TypeError) as error:
        raise UntrustedError(f"the CKKS key cannot be read ({error})", kept="It was not used") from error
    probe = ts.ckks_vector(load_public(key.public), [1.0, -2.0]).serialize()
    if not private or not np.allclose(load_vector(context, probe, 2).decrypt(), [1.0, -2.0], atol=_COUNT_TOLERANCE):
        raise UntrustedError("the public and the secret half of the CKKS key do not fit", kept="It was not used")
    return context


def _require_key(protection: ProtectionChoice, key: StudyKey) -> str:
    parameters = key.parameters
    require_choice(parameters, protection)
    if parameters.scheme != {"name": "ckks", "degree": DEGREE, "scale_bits": SCALE_BITS}:
        raise ProtectionError("the CKKS key is of other parameters", kept="It was not used", todo="upgrade fedpriv")
    return parameters.study


def _save(context: Any, *, secret: bool) -> bytes:
    return context.serialize(
        save_public_key=True, save_secret_key=secret, save_galois_keys=False, save_relin_keys=False
    )


def _block_sizes(parameters: int) -> list[int]:
    """Return the number of slots in use in each block, the count's included."""
    return [min(VALUES, parameters - start) + 1 for start in range(0, parameters, VALUES)]


def _write_blocks(path: Path, header: dict[str, Any], blocks: Iterator[bytes]) -> tuple[str, int]:
    sizes: list[int] = []

    def data() -> Iterator[np.ndarray]:
        for block in blocks:
            sizes.append(len(block))
            yield np.frombuffer(block, np.uint8)

    def lengths() -> Iterator[np.ndarray]:
        yield np.array(sizes, np.uint64)

    arrays = {"blocks": Stream("uint8", (-1,), data()), "sizes": Stream("uint64", (-1,), lengths())}
    return write_container(path, header, arrays)


def _read_blocks(container: Container, parameters: int) -> Iterator[tuple[int, bytes]]:
    """Yield (slots in use, ciphertext) of each block, after checking that all sizes are possible and add up."""
    slots = _block_sizes(parameters)
    container.require({"blocks": ("uint8", (-1,)), "sizes": ("uint64", (len(slots),))})
    lengths = [int(length) for length in container.rows("sizes", 0, len(slots))]
    if not all(_MIN_BLOCK_BYTES <= length <= _MAX_BLOCK_BYTES for length in lengths):
        raise ContainerError("a CKKS block has an impossible size", kept=_KEPT)
    if sum(lengths) != container.shape("blocks")[0]:
        raise ContainerError("the sizes of the CKKS blocks do not add up", kept=_KEPT)
    start = 0
    for size, length in zip(slots, lengths, strict=True):
        yield size, container.rows("blocks", start, start + length).tobytes()
        start += length


@contextlib.contextmanager
def _open_update(signed: SignedUpdate, path: Path) -> Iterator[Container]:
    size = signed.container_bytes
    with open_container(path, max_bytes=size, expect_bytes=size, expect_sha256=signed.container_sha256) as container:
        require_update_header(container.header, signed.header)
        yield container
