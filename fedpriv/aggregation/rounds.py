"""One synchronous round at the aggregator: check whose updates these are, add them, say what went in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from fedpriv.errors import ContainerError, UntrustedError
from fedpriv.protection import adder_for, verify_updates
from fedpriv.study.messages import AggregateManifest, Identity, SignedUpdate, Unlocked


def verify_round(
    public: bytes,
    updates: Sequence[SignedUpdate],
    identities: Mapping[str, Identity],
    *,
    study: str,
    round: int,
    attempt: int,
    expected_members: Collection[str],
    weights: Mapping[str, float],
) -> tuple[SignedUpdate, ...]:
    """Check the updates of one round before their members are asked to confirm them.

    *Guarantee*: one update of each expected member, each as its member signed it, with the weight its ticket gave, all
    for the key of ``public``; and nothing else.
    *Assumption*: ``identities`` are the pinned ones.

    Parameters
    ----------
    public : bytes
        The study key's public bytes.
    updates : sequence of SignedUpdate
        What the domains published; in any order.
    identities : mapping of str to Identity
        Pinned identities by address.
    study, round, attempt : str, int, int
        Which round this is.
    expected_members : collection of str
        The domains whose updates are to be added.
    weights : mapping of str to float
        What each was told to multiply its update with.

    Returns
    -------
    tuple of SignedUpdate
        Sorted by member.

    Raises
    ------
    SignatureError
        If an update was not signed by its pinned member.
    ContainerError
        If one container stands among them twice.
    UntrustedError
        If members, weights, study, round, attempt, cohort, level, key, scales or layout differ.
    """
    ordered = tuple(sorted(updates, key=lambda update: update.header.member))
    first = verify_updates(
        ordered,
        identities,
        study=study,
        round=round,
        attempt=attempt,
        expected_members=expected_members,
        weights=weights,
    )
    if first.key_id != adder_for(public).key_id:
        raise UntrustedError("the updates were sealed for another key", kept="Nothing was added")
    if len({signed.container_sha256 for signed in ordered}) != len(ordered):
        raise ContainerError("two members published the same container", kept="Nothing was added")
    return ordered


def aggregate_round(
    public: bytes,
    updates: Sequence[tuple[SignedUpdate, Path]],
    identities: Mapping[str, Identity],
    *,
    study: str,
    round: int,
    attempt: int,
    expected_members: Collection[str],
    weights: Mapping[str, float],
    path: Path,
    unlocked: Unlocked | None = None,
) -> AggregateManifest:
    """Add the sealed updates of one round and return the manifest of what went in.

    *Guarantee*: the aggregate holds exactly the updates that :func:`verify_round` passes. No key is held, so no update
    and no sum is read (level masked: the sum).
    *Assumption*: ``identities`` are the pinned ones; the containers lie where only this user can write.

    Parameters
    ----------
    public, identities, study, round, attempt, expected_members, weights
        As :func:`verify_round`.
    updates : sequence of (SignedUpdate, Path)
        What the domains published, and where their containers lie; in any order.
    path : Path
        Where the aggregate goes.
    unlocked : Unlocked, optional
        The combined unlocks of the members, where the levels have masks.

    Returns
    -------
    AggregateManifest
        With the updates sorted by member, so that the same updates always give the same manifest.

    Raises
    ------
    SignatureError, UntrustedError
        As :func:`verify_round`.
    ContainerError
        If a container is not the one that was signed.
    """
    ordered = verify_round(
        public,
        [signed for signed, _ in updates],
        identities,
        study=study,
        round=round,
        attempt=attempt,
        expected_members=expected_members,
        weights=weights,
    )
    files = {signed.header.member: file for signed, file in updates}
    digest, _ = adder_for(public).add([(signed, files[signed.header.member]) for signed in ordered], path)
    return AggregateManifest(
        study=study,
        round=round,
        attempt=attempt,
        updates=ordered,
        aggregate_sha256=digest,
        unlocked=unlocked or Unlocked(),
    )
