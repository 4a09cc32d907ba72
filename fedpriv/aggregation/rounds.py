"""One synchronous round at the aggregator: check whose updates these are, add them, say what went in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from fedpriv.errors import ContainerError, UntrustedError
from fedpriv.protection import adder_for, verify_updates
from fedpriv.study.messages import AggregateManifest, Identity, SignedUpdate
from fedpriv.study.plan import ProtectionLevel


def aggregate_round(
    public: bytes,
    level: ProtectionLevel,
    updates: Sequence[tuple[SignedUpdate, Path]],
    identities: Mapping[str, Identity],
    *,
    study: str,
    round: int,
    attempt: int,
    expected_members: Collection[str],
    weights: Mapping[str, float],
    path: Path,
) -> AggregateManifest:
    """Add the sealed updates of one round and return the manifest of what went in.

    *Guarantee*: the aggregate holds one update of each expected member, each as its member signed it, with the weight
    its ticket gave, and nothing else. No key is held, so no update and no sum is read.
    *Assumption*: ``identities`` are the pinned ones; the containers lie where only this user can write.

    Parameters
    ----------
    public : bytes
        The study key's public bytes; empty for level plain.
    level : str
        The plan's level of protection.
    updates : sequence of (SignedUpdate, Path)
        What the domains published; in any order.
    identities : mapping of str to Identity
        Pinned identities by address.
    study, round, attempt : str, int, int
        Which round this is.
    expected_members : collection of str
        The domains that were asked.
    weights : mapping of str to float
        What each was told to multiply its update with.
    path : Path
        Where the aggregate goes.

    Returns
    -------
    AggregateManifest
        With the updates sorted by member, so that the same updates always give the same manifest.

    Raises
    ------
    SignatureError
        If an update was not signed by its pinned member.
    ContainerError
        If a container is not the one that was signed.
    UntrustedError
        If members, weights, study, round, attempt, level, key or layout differ.
    """
    ordered = sorted(updates, key=lambda update: update[0].header.member)
    first = verify_updates(
        [signed for signed, _ in ordered],
        identities,
        study=study,
        round=round,
        attempt=attempt,
        expected_members=expected_members,
        weights=weights,
    )
    adder = adder_for(level, public)
    if first.level != level or first.key_id != adder.key_id:
        raise UntrustedError("the updates were sealed at another level or for another key", kept="Nothing was added")
    if len({signed.container_sha256 for signed, _ in ordered}) != len(ordered):
        raise ContainerError("two members published the same container", kept="Nothing was added")
    digest, _ = adder.add(ordered, path)
    return AggregateManifest(
        study=study,
        round=round,
        attempt=attempt,
        updates=tuple(signed for signed, _ in ordered),
        aggregate_sha256=digest,
    )
