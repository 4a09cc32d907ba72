"""From sealed updates to their aggregate: block by block, without a key, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedpriv.errors import ProtectionError
from fedpriv.files import sha256_hex
from fedpriv.protection.container import Container, new_container, open_container
from fedpriv.protection.groups import live
from fedpriv.protection.headers import aggregate_header
from fedpriv.protection.levels import block_adder, blocks_of, shape_of
from fedpriv.protection.manifest import require_alike, require_update_header
from fedpriv.protection.sealing import CHUNK
from fedpriv.protection.study_key import read_parameters
from fedpriv.study.messages import SignedUpdate


class UpdateAdder:
    """The aggregator's half; made from public bytes, so it cannot read what it adds. Made by :func:`adder_for`.

    Attributes
    ----------
    key_id : str
        The id of the study key whose updates it can add.
    """

    def __init__(self, public: bytes) -> None:
        self.key_id = sha256_hex(public)
        self._public = public
        self._parameters = read_parameters(public)
        for index in range(len(self._parameters.groups)):
            shape_of(self._parameters, index)

    def add(self, updates: Sequence[tuple[SignedUpdate, Path]], path: Path) -> tuple[str, int]:
        """Add sealed updates into one aggregate.

        *Guarantee*: needs and holds no key; every container is compared with its signed digest before it is parsed.
        *Assumption*: the signatures were verified by the caller (:func:`fedpriv.aggregation.aggregate_round`).

        Parameters
        ----------
        updates : sequence of (SignedUpdate, Path)
            Updates of one round, and where their containers lie.
        path : Path
            Where the aggregate goes.

        Returns
        -------
        tuple of str and int
            SHA-256 (hex) and size in bytes of the aggregate.

        Raises
        ------
        ContainerError
            If a container is not what was signed, or of other parameters.
        ProtectionError
            If the updates are for another key, or more than it is for.
        """
        headers = [signed.header for signed, _ in updates]
        first = require_alike(headers)
        parameters = self._parameters
        groups = live(parameters.groups, first.round, first.bits)
        size = sum(parameters.groups[index].parameters for index in groups)
        if (first.key_id, first.study, first.parameters) != (self.key_id, parameters.study, size):
            raise ProtectionError("the updates were sealed for another study key", kept="Nothing was added")
        if len(updates) > parameters.clients:
            raise ProtectionError(f"the study key is for sums of {parameters.clients} updates, not {len(updates)}")
        shapes = {
            f"group-{i}": (blocks_of(parameters, i), shape_of(parameters, i).sum_row_bytes(len(updates)))
            for i in groups
        }
        containers = [self._open(signed, file, groups) for signed, file in updates]
        with new_container(path, aggregate_header(headers), shapes) as draft:
            for index, (name, (blocks, _)) in zip(groups, shapes.items(), strict=True):
                adder = block_adder(self._public, parameters, index)
                for start in range(0, blocks, CHUNK):
                    stop = min(start + CHUNK, blocks)
                    draft.write(name, start, adder.add(container.rows(name, start, stop) for container in containers))
        return draft.sha256, draft.size_bytes

    def _open(self, signed: SignedUpdate, path: Path, groups: Sequence[int]) -> Container:
        size = signed.container_bytes
        container = open_container(path, max_bytes=size, expect_bytes=size, expect_sha256=signed.container_sha256)
        require_update_header(container.header, signed.header)
        shapes = {i: (blocks_of(self._parameters, i), shape_of(self._parameters, i).row_bytes) for i in groups}
        container.require({f"group-{i}": shape for i, shape in shapes.items()})
        return container


def adder_for(public: bytes) -> UpdateAdder:
    """Return the aggregator's adder, made of public bytes.

    *Guarantee*: what it returns holds no secret, because nothing secret went in.

    Raises
    ------
    UntrustedError
        If the bytes are malformed.
    ProtectionError
        If they are of another version's parameters.
    """
    return UpdateAdder(public)
