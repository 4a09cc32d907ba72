"""Masks: noise that hides each update from everybody, and comes off the sum of exactly the updates that were agreed on.

Bonawitz et al. 2017, *Practical Secure Aggregation for Privacy-Preserving Machine Learning* (CCS), on a full graph.
Each pair of members derives the same stream; the one whose address sorts first adds it, the other subtracts it, so the
pairwise masks vanish in the sum over all who sealed. Each member also adds a self mask from a seed of its own. After
sealing, every member is shown exactly the updates that will be added, and answers once, with an :class:`Unlock`:

- its own seed, locked with one secret for each other member of the sum, bound to exactly these updates;
- its part of every other member's lock;
- for every member that sealed but is not in the sum, the mask key that it shares with it in this round.

The last is the recovery exchange for a member that disappeared. Why its late update stays unreadable: whoever holds the
study key, all updates and all unlocks can take the pairwise masks off the late update, but not its self mask. That
seed opens only when the late member itself and every other member of one set with it have unlocked that same set; the
survivors unlocked another one, and a member unlocks one set a round. Bonawitz et al. let a threshold of members release
the seeds, which tolerates one that disappears while unlocking and trusts that fewer than the threshold collude. Here
all members of the sum must unlock it: nothing has to be assumed about how many collude, and a round whose member
disappears in that moment waits for it.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedpriv.errors import ProtectionError, UntrustedError
from fedpriv.files import canonical_json, sha256_hex
from fedpriv.protection.bitplanes import WORDS
from fedpriv.protection.headers import shared_facts
from fedpriv.protection.keys import KEY_BYTES, IdentityKeys, derive, key_of, pairwise_secret
from fedpriv.protection.streams import StreamBuffer, StreamReader
from fedpriv.study.messages import Identity, SignedUpdate, Unlock, Unlocked, UpdateHeader


@dataclass(frozen=True)
class MaskStreams:
    """Streams that are added and subtracted; plain data, so that worker processes can have it.

    Attributes
    ----------
    added, subtracted : tuple of bytes
        Keys of 32 bytes.
    """

    added: tuple[bytes, ...] = field(repr=False)
    subtracted: tuple[bytes, ...] = field(repr=False)

    def words(self, first: int, blocks: int) -> np.ndarray:
        """Return the sum of the streams in some blocks; see :meth:`MaskReader.words`."""
        return MaskReader(self).words(first, blocks)


class MaskReader:
    """Reads the sum of streams, fastest from the first block to the last.

    Parameters
    ----------
    streams : MaskStreams
        What is added and subtracted.
    """

    def __init__(self, streams: MaskStreams) -> None:
        self._streams = streams
        self._added: list[StreamReader] = []
        self._subtracted: list[StreamReader] = []
        self._next = -1
        self._buffer = StreamBuffer()

    def words(self, first: int, blocks: int) -> np.ndarray:
        """Return the sum of the streams in some blocks.

        Returns
        -------
        ndarray of uint64, shape (blocks, 4096)
            Modulo 2^64, hence also right modulo every smaller power of two.
        """
        if first != self._next:
            self._added = [StreamReader(key, first, self._buffer) for key in self._streams.added]
            self._subtracted = [StreamReader(key, first, self._buffer) for key in self._streams.subtracted]
        total = np.zeros((blocks, WORDS), np.uint64)
        for row in total:
            for reader in self._added:
                np.add(row, reader.read(), row)
            for reader in self._subtracted:
                np.subtract(row, reader.read(), row)
        self._next = first + blocks
        return total


class MaskSource:
    """One member's masks in one study.

    *Guarantee*: a masked update is uniform noise to everybody else, holders of the study key included, as long as one
    other member of every set that this member unlocks keeps its secrets; then only the sum over that set is known.
    *Assumption*: the secrets come from pinned identities; (study, round, attempt) is never used for two different
    updates; a member unlocks one set in a round (the domain keeps a record of it).

    Parameters
    ----------
    member : str
        The member's own address.
    study : str
        The study's id.
    own : bytes
        32 bytes that only this member has; its self masks are derived from it.
    secrets : mapping of str to bytes
        What it shares with each other member that seals (:func:`fedpriv.protection.pairwise_secret`), by address.

    Raises
    ------
    ProtectionError
        If there is no other member.
    """

    def __init__(self, member: str, *, study: str, own: bytes, secrets: Mapping[str, bytes]) -> None:
        if not secrets or member in secrets:
            raise ProtectionError("masks need at least two members with different addresses")
        self.member = member
        self.study = study
        self.members = tuple(sorted([member, *secrets]))
        self.cohort = cohort_digest(self.members)
        self._own = own
        self._secrets = dict(secrets)

    @classmethod
    def of_cohort(cls, keys: IdentityKeys, identities: Iterable[Identity], *, study: str) -> MaskSource:
        """Derive a member's masks from its keys and the pinned identities of all members that seal.

        Parameters
        ----------
        keys : IdentityKeys
            The member's own keys.
        identities : iterable of Identity
            All members that seal in the round; the member itself may be among them.
        study : str
            The study's id.

        Raises
        ------
        ProtectionError
            If there is no other member, or two have the same address or agreement key.
        UntrustedError
            If an agreement key is unusable.
        """
        mine = keys.identity
        others = [identity for identity in identities if identity != mine]
        secrets = {other.email: pairwise_secret(keys, other, study) for other in others}
        if len(secrets) != len(others):
            raise ProtectionError("two members of a sum have the same address")
        return cls(keys.email, study=study, own=keys.own_secret(b"self masks", study), secrets=secrets)

    def streams(self, header: UpdateHeader) -> MaskStreams:
        """Return the masks of the update with this header: one self mask, and one for each pair.

        Raises
        ------
        ProtectionError
            If the header is of another member, study or cohort.
        """
        self._require_own(header)
        facts = shared_facts(header)
        pairs = {other: self._pair_key(facts, other) for other in self._secrets}
        return MaskStreams(
            added=(self._seed(header), *(key for other, key in pairs.items() if self.member < other)),
            subtracted=tuple(key for other, key in pairs.items() if self.member > other),
        )

    def shared_with(self, header: UpdateHeader) -> bytes:
        """Return the key of the mask on another member's update that this member has, too (SECRET).

        The one of the two whose address sorts first adds the stream, the other subtracts it.

        Raises
        ------
        ProtectionError
            If the header is this member's own, or of another study or cohort.
        """
        if header.member not in self._secrets or (header.study, header.cohort) != (self.study, self.cohort):
            raise ProtectionError("the update is not of another member that sealed together with this one")
        return self._pair_key(shared_facts(header), header.member)

    def unlock(self, updates: Sequence[SignedUpdate]) -> Unlock:
        """Return what opens the sum of exactly these updates, together with what the other members of it give.

        *Guarantee*: useless for any other set of updates; the masks towards a dropped member are given, its self mask
        never is.
        *Assumption*: the caller verified the updates, and has kept a record that this member unlocks no other set in
        this round.

        Parameters
        ----------
        updates : sequence of SignedUpdate
            Exactly what will be added, this member's own update among them.

        Raises
        ------
        ProtectionError
            If its own update is not among them, there is no other, or one is not of a member that sealed.
        """
        headers = {update.header.member: update.header for update in updates}
        if self.member not in headers or len(headers) < 2 or not set(headers) <= set(self.members):
            raise ProtectionError("the updates are not of members that sealed together", kept="Nothing was unlocked")
        header = headers[self.member]
        self._require_own(header)
        facts, digest = shared_facts(header), updates_digest(updates)
        others = [member for member in headers if member != self.member]
        locks = [self._lock(facts, digest, owner=self.member, holder=other) for other in others]
        dropped = [member for member in self.members if member not in headers]
        return Unlock(
            share=_text(functools.reduce(_xor, locks, self._seed(header))),
            shares={other: _text(self._lock(facts, digest, owner=other, holder=self.member)) for other in others},
            dropped={member: _text(self._pair_key(facts, member)) for member in dropped},
        )

    def _require_own(self, header: UpdateHeader) -> None:
        if (header.member, header.study, header.cohort) != (self.member, self.study, self.cohort):
            raise ProtectionError("the masks belong to another member, study or cohort", kept="Nothing was sealed")

    def _seed(self, header: UpdateHeader) -> bytes:
        info = canonical_json([shared_facts(header), header.nonce])
        return derive(self._own, b"fedpriv 3 self mask\n" + info, KEY_BYTES)

    def _pair_key(self, facts: dict[str, Any], other: str) -> bytes:
        info = canonical_json([facts, sorted([self.member, other])])
        return derive(self._secrets[other], b"fedpriv 2 pair mask\n" + info, KEY_BYTES)

    def _lock(self, facts: dict[str, Any], digest: str, *, owner: str, holder: str) -> bytes:
        """Return the part of ``owner``'s lock that ``holder`` can give; both can derive it, nobody else."""
        other = holder if owner == self.member else owner
        info = canonical_json([facts, digest, owner, holder])
        return derive(self._secrets[other], b"fedpriv 2 lock\n" + info, KEY_BYTES)


def combine_unlocks(updates: Sequence[SignedUpdate], unlocks: Mapping[str, Unlock]) -> Unlocked:
    """Combine the unlocks of all members of a sum; the researcher's half, which needs no secret.

    *Guarantee*: none for wrong shares: they give wrong masks, which the tag of the opened sum catches.

    Parameters
    ----------
    updates : sequence of SignedUpdate
        What is added.
    unlocks : mapping of str to Unlock
        What each member of the sum gave, by address.

    Raises
    ------
    UntrustedError
        If a member's unlock is missing, or is for other members.
    """
    members = sorted(update.header.member for update in updates)
    if sorted(unlocks) != members:
        odd = ", ".join(sorted(set(unlocks) ^ set(members)))
        raise UntrustedError(f"the unlocks are not of exactly the sum's members ({odd})", kept="Nothing was opened")
    dropped = set(unlocks[members[0]].dropped)
    for member, unlock in unlocks.items():
        if set(unlock.shares) != set(members) - {member} or set(unlock.dropped) != dropped:
            raise UntrustedError(f"{member} unlocked another set of members", kept="Nothing was opened")
    seeds = {
        member: _text(
            functools.reduce(
                _xor,
                (key_of(unlocks[other].shares[member]) for other in members if other != member),
                key_of(unlocks[member].share),
            )
        )
        for member in members
    }
    pairs = {gone: {member: unlocks[member].dropped[gone] for member in members} for gone in sorted(dropped)}
    return Unlocked(self_masks=seeds, dropped=pairs)


def remaining_masks(members: Iterable[str], unlocked: Unlocked) -> MaskStreams:
    """Return what is still on the sum of ``members``' updates: self masks, and pairwise masks with dropped members.

    Raises
    ------
    UntrustedError
        If the seeds or keys are not of exactly these members.
    """
    members = set(members)
    odd = set(unlocked.self_masks) != members or any(set(pairs) != members for pairs in unlocked.dropped.values())
    if odd or members & set(unlocked.dropped):
        raise UntrustedError("the sum was unlocked for other members than its own", kept="Nothing was opened")
    pairs = [(m < gone, key_of(key)) for gone, keys in unlocked.dropped.items() for m, key in keys.items()]
    return MaskStreams(
        added=(*map(key_of, unlocked.self_masks.values()), *(key for adds, key in pairs if adds)),
        subtracted=tuple(key for adds, key in pairs if not adds),
    )


def cohort_digest(members: Iterable[str]) -> str:
    """Return the SHA-256 (hex) of the addresses of members that seal together."""
    return sha256_hex(b"fedpriv 2 cohort\n" + canonical_json(sorted(members)))


def updates_digest(updates: Sequence[SignedUpdate]) -> str:
    """Return the SHA-256 (hex) of exactly these signed updates, in the order of their members."""
    ordered = sorted(updates, key=lambda update: update.header.member)
    return sha256_hex(b"fedpriv 2 updates\n" + canonical_json([update.model_dump(mode="json") for update in ordered]))


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _text(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()
