"""Pairwise masks: noise that hides each update from everybody and vanishes in the cohort's sum.

Bonawitz et al. 2017, *Practical Secure Aggregation for Privacy-Preserving Machine Learning*, with a full graph: each
pair of domains derives the same stream; the one whose address sorts first adds it, the other subtracts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedpriv.errors import ProtectionError
from fedpriv.files import canonical_json
from fedpriv.protection.keys import IdentityKeys, derive, pairwise_secret
from fedpriv.study.messages import Identity, UpdateHeader


class MaskStream:
    """The masks of one update, in consecutive pieces; made by :meth:`MaskSource.stream`."""

    def __init__(self, signed_keys: list[tuple[bool, bytes]]) -> None:
        self._streams = [
            (adds, Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()) for adds, key in signed_keys
        ]

    def next(self, number: int) -> np.ndarray:
        """Return the next ``number`` masks.

        Returns
        -------
        ndarray of uint64, shape (number,)
            Uniform modulo 2^64, hence also modulo every smaller power of two.
        """
        total = np.zeros(number, np.uint64)
        zeros = bytes(8 * number)
        for adds, cipher in self._streams:
            mask = np.frombuffer(cipher.update(zeros), np.dtype("<u8"))
            if adds:
                total += mask
            else:
                total -= mask
        return total


class MaskSource:
    """One member's masks in one study.

    *Guarantee*: with at least one other member that keeps its secret, a masked update is uniform noise to everybody
    else, key holders included; the masks of all members sum to zero.
    *Assumption*: the secrets come from pinned identities; (study, round, attempt) is never used for two different
    updates; exactly these members' updates are added.

    Parameters
    ----------
    member : str
        The member's own address.
    study : str
        The study's id.
    secrets : mapping of str to bytes
        What it shares with each other member of the sum (:func:`fedpriv.protection.pairwise_secret`), by address.

    Raises
    ------
    ProtectionError
        If there is no other member.
    """

    def __init__(self, member: str, *, study: str, secrets: Mapping[str, bytes]) -> None:
        if not secrets or member in secrets:
            raise ProtectionError("masks need at least two members with different addresses")
        self.member = member
        self.study = study
        self.members = tuple(sorted([member, *secrets]))
        self._secrets = dict(secrets)

    @classmethod
    def of_cohort(cls, keys: IdentityKeys, identities: Iterable[Identity], *, study: str) -> MaskSource:
        """Derive a member's masks from its keys and the pinned identities of all members of the sum.

        Parameters
        ----------
        keys : IdentityKeys
            The member's own keys.
        identities : iterable of Identity
            All members of the sum; the member itself may be among them.
        study : str
            The study's id.

        Raises
        ------
        ProtectionError
            If there is no other member, or two have the same address or agreement key.
        UntrustedError
            If an agreement key is unusable.
        """
        own = keys.identity
        others = [identity for identity in identities if identity != own]
        secrets = {other.email: pairwise_secret(keys, other, study) for other in others}
        if len(secrets) != len(others):
            raise ProtectionError("two members of a sum have the same address")
        return cls(keys.email, study=study, secrets=secrets)

    def stream(self, header: UpdateHeader) -> MaskStream:
        """Return the masks for the update with this header, from the start.

        Raises
        ------
        ProtectionError
            If the header is of another member or study.
        """
        if header.member != self.member or header.study != self.study:
            raise ProtectionError("the masks belong to another member or study", kept="Nothing was sealed")
        shared = header.model_dump(mode="json", exclude={"member", "weight"})
        keys: list[tuple[bool, bytes]] = []
        for other, secret in self._secrets.items():
            pair = sorted([self.member, other])
            info = b"fedpriv 1 mask\n" + canonical_json([shared, list(self.members), pair])
            keys.append((self.member < other, derive(secret, info, 32)))
        return MaskStream(keys)
