"""Which updates may be added, and which sums may be opened: the same checks on both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fedpriv.errors import ContainerError, SignatureError, UntrustedError
from fedpriv.files import canonical_json
from fedpriv.protection.headers import OF_ONE_MEMBER, aggregate_header, update_header
from fedpriv.protection.keys import verify_update
from fedpriv.study.messages import AggregateManifest, Identity, SignedUpdate, UpdateHeader

_SHARED = tuple(name for name in UpdateHeader.model_fields if name not in OF_ONE_MEMBER)

_KEPT = "Nothing was added or opened"


def require_alike(headers: Sequence[UpdateHeader]) -> UpdateHeader:
    """Check that updates can be added to each other, and return the first header.

    Raises
    ------
    UntrustedError
        If there is none, a member stands in it twice, or anything but member, weight and nonce differs: study, round,
        attempt, cohort, level, key, layout, scales or size.
    """
    if not headers:
        raise UntrustedError("there is no update to add", kept=_KEPT)
    members = [header.member for header in headers]
    repeated = sorted({member for member in members if members.count(member) > 1})
    if repeated:
        raise UntrustedError(f"{', '.join(repeated)} stands in one sum twice", kept=_KEPT)
    for header in headers[1:]:
        for name in _SHARED:
            if getattr(header, name) != getattr(headers[0], name):
                what = f"the updates of {headers[0].member} and {header.member} differ in {name.replace('_', ' ')}"
                raise UntrustedError(what, kept=_KEPT)
    return headers[0]


def verify_updates(
    updates: Sequence[SignedUpdate],
    identities: Mapping[str, Identity],
    *,
    study: str,
    round: int,
    attempt: int,
    expected_members: Collection[str],
    weights: Mapping[str, float] | None = None,
) -> UpdateHeader:
    """Check that these are exactly the expected members' updates of one round, each signed by its member.

    *Guarantee*: one update of each expected member and none of anybody else, alike in everything that must be alike.
    *Assumption*: ``identities`` are the pinned ones.

    Parameters
    ----------
    updates : sequence of SignedUpdate
        As received.
    identities : mapping of str to Identity
        Pinned identities by address.
    study, round, attempt : str, int, int
        What the updates must be of.
    expected_members : collection of str
        The addresses that were asked.
    weights : mapping of str to float, optional
        What each member was told to multiply with.

    Returns
    -------
    UpdateHeader
        The first header, for what all share.

    Raises
    ------
    SignatureError
        If a signature does not match, or a member has no pinned identity.
    UntrustedError
        If anything else differs.
    """
    for update in updates:
        identity = identities.get(update.header.member)
        if identity is None:
            raise SignatureError(f"{update.header.member} has no pinned identity", kept=_KEPT)
        verify_update(update, identity)
    first = require_alike([update.header for update in updates])
    if (first.study, first.round, first.attempt) != (study, round, attempt):
        raise UntrustedError(f"the updates are not of round {round}, attempt {attempt}, of this study", kept=_KEPT)
    given, expected = {update.header.member for update in updates}, set(expected_members)
    if given != expected:
        odd = ", ".join(sorted(given ^ expected))
        raise UntrustedError(f"the sum does not hold exactly the expected members ({odd})", kept=_KEPT)
    for update in updates:
        if weights is not None and update.header.weight != weights.get(update.header.member):
            raise UntrustedError(f"{update.header.member} used another weight than its ticket's", kept=_KEPT)
    return first


def verify_manifest(
    manifest: AggregateManifest,
    identities: Mapping[str, Identity],
    *,
    study: str,
    round: int,
    attempt: int,
    expected_members: Collection[str],
    weights: Mapping[str, float] | None = None,
) -> UpdateHeader:
    """Check a manifest before its aggregate is opened; parameters and errors as :func:`verify_updates`.

    *Guarantee*: as :func:`verify_updates`, and no container stands in it twice.
    """
    if (manifest.study, manifest.round, manifest.attempt) != (study, round, attempt):
        raise UntrustedError(f"the manifest is not of round {round}, attempt {attempt}, of this study", kept=_KEPT)
    digests = {update.container_sha256 for update in manifest.updates}
    if len(digests) != len(manifest.updates):
        raise UntrustedError("one container stands in a manifest twice", kept=_KEPT)
    return verify_updates(
        manifest.updates,
        identities,
        study=study,
        round=round,
        attempt=attempt,
        expected_members=expected_members,
        weights=weights,
    )


def require_manifest(manifest: AggregateManifest) -> UpdateHeader:
    """Check that a manifest agrees with the headers in it, and return what they share.

    Raises
    ------
    UntrustedError
        If it does not.
    """
    first = require_alike([update.header for update in manifest.updates])
    if (first.study, first.round, first.attempt) != (manifest.study, manifest.round, manifest.attempt):
        raise UntrustedError("the manifest and its updates are of different rounds", kept=_KEPT)
    return first


def require_update_header(claimed: Mapping[str, Any], header: UpdateHeader) -> None:
    """Check that a container's own header is the signed one.

    Raises
    ------
    ContainerError
        If it is not.
    """
    if canonical_json(dict(claimed)) != canonical_json(update_header(header)):
        raise ContainerError(f"the container of {header.member} has another header than was signed", kept=_KEPT)


def require_aggregate_header(claimed: Mapping[str, Any], manifest: AggregateManifest) -> None:
    """Check that an aggregate's own header is what its manifest says.

    Raises
    ------
    ContainerError
        If what all updates share, members or weights differ.
    """
    if canonical_json(dict(claimed)) != canonical_json(aggregate_header([u.header for u in manifest.updates])):
        raise ContainerError("the aggregate has another header than its manifest", kept=_KEPT)
