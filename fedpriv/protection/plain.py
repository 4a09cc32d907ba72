"""Level ``plain``: updates as they are. The federated-learning baseline of experiments; it protects nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fedpriv.errors import ContainerError, ProtectionError
from fedpriv.protection.container import Container, Stream, open_container, write_container
from fedpriv.protection.manifest import (
    require_aggregate_header,
    require_alike,
    require_manifest,
    require_update_header,
)
from fedpriv.protection.roles import SealedFile, aggregate_header, require_header, update_header, weighted
from fedpriv.study.messages import MAX_BLOB_BYTES, AggregateManifest, SignedUpdate, UpdateHeader

_ROWS = 2**18


class PlainSealer:
    """Writes the weighted update as float32, 4 bytes a parameter.

    *Guarantee*: none; whoever has the container has the update.
    """

    def seal(
        self, header: UpdateHeader, update: np.ndarray, path: Path, *, residual: np.ndarray | None = None
    ) -> SealedFile:
        """Write one update; see :class:`fedpriv.protection.Sealer`."""
        require_header(header, level="plain", key_id="", study=None)
        arrays = {"count": np.ones(1, np.uint64), "values": weighted(header, update, residual)}
        digest, size = write_container(path, update_header(header), arrays)
        return SealedFile(sha256=digest, size_bytes=size)


class PlainAdder:
    """Adds in float64, writes float32."""

    key_id = ""

    def add(self, updates: Sequence[tuple[SignedUpdate, Path]], path: Path) -> tuple[str, int]:
        """Add updates; see :class:`fedpriv.protection.Adder`."""
        headers = [signed.header for signed, _ in updates]
        first = require_alike(headers)
        require_header(first, level="plain", key_id="", study=None)
        with contextlib.ExitStack() as stack:
            containers = [stack.enter_context(_open_update(signed, file)) for signed, file in updates]
            count = np.array([len(containers)], np.uint64)
            values = Stream("float32", (first.parameters,), _sums(containers, first.parameters))
            return write_container(path, aggregate_header(headers), {"count": count, "values": values})


class PlainOpener:
    """Reads the sum."""

    def open(self, path: Path, *, manifest: AggregateManifest) -> np.ndarray:
        """Read an aggregate; see :class:`fedpriv.protection.Opener`."""
        first = require_manifest(manifest)
        require_header(first, level="plain", key_id="", study=None)
        with open_container(path, max_bytes=MAX_BLOB_BYTES, expect_sha256=manifest.aggregate_sha256) as container:
            require_aggregate_header(container.header, manifest)
            container.require({"count": ("uint64", (1,)), "values": ("float32", (first.parameters,))})
            if int(container.rows("count", 0, 1)[0]) != len(manifest.updates):
                raise ProtectionError(
                    "the sum does not hold the updates that its manifest lists", kept="It was not used"
                )
            values = container.rows("values", 0, first.parameters)
        _require_finite(values)
        return values.astype(np.float64)


@contextlib.contextmanager
def _open_update(signed: SignedUpdate, path: Path) -> Iterator[Container]:
    size = signed.container_bytes
    with open_container(path, max_bytes=size, expect_bytes=size, expect_sha256=signed.container_sha256) as container:
        require_update_header(container.header, signed.header)
        container.require({"count": ("uint64", (1,)), "values": ("float32", (signed.header.parameters,))})
        if int(container.rows("count", 0, 1)[0]) != 1:
            raise ContainerError(f"the container of {signed.header.member} does not hold one update")
        yield container


def _sums(containers: Sequence[Container], parameters: int) -> Iterator[np.ndarray]:
    for start in range(0, parameters, _ROWS):
        total = np.zeros(min(_ROWS, parameters - start), np.float64)
        for container in containers:
            values = container.rows("values", start, start + total.size)
            _require_finite(values)
            total += values
        yield total.astype(np.float32)


def _require_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ContainerError(
            "a plain update or sum holds values that are not finite", kept="Nothing was added or opened"
        )
