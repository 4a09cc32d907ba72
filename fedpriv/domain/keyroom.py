"""The key room: the homomorphic key of a study is made by one domain and reaches the others sealed and signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedpriv.domain.ledger import Ledger
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import ProtectionError, RefusedError, SignatureError, UntrustedError
from fedpriv.files import canonical_json, sha256_hex, write_atomic
from fedpriv.protection import (
    IdentityKeys,
    MaskSource,
    StudyKey,
    make_study_key,
    open_sealed,
    seal_to,
    verify_bytes,
)
from fedpriv.study import BlobRef, Identity
from fedpriv.transport import BlobChannel

_SIGNATURE_CHARACTERS = 88


@dataclass(frozen=True, kw_only=True)
class KeyRoom:
    """Makes, takes and keeps the study key of one study at one domain.

    Guarantee: the researcher relays the sealed key but cannot open it; a member takes a key only if the plan's key
    maker, pinned by fingerprint, signed it for this study and this member.
    Assumption: the members of the cohort do not hand the key to the researcher; if one does, pairwise masks still hide
    every single update (level ``sealed``).
    """

    folder: StudyFolder
    keys: IdentityKeys
    stored: StoredRequest
    member: str
    ledger: Ledger
    blobs: BlobChannel

    def make(self, identities: dict[str, Identity]) -> dict[str, Any]:
        """Make the study key once, keep it (0600), and leave a sealed copy for each other member with the researcher.

        Returns
        -------
        dict
            The fields ``key_blobs`` and ``public_context_blob`` of the result.
        """
        plan, study = self.stored.request.plan, self.stored.request.study
        if self.folder.key_path.exists():
            key = self.load()
        else:
            key = make_study_key(plan.protection, clients=len(plan.cohort), study=study)
            write_atomic(self.folder.key_path, key.to_bytes())
        self.ledger.append("key.made", once=f"{study}/key", study=study, key_id=key.key_id, level=key.level)
        blobs = {
            email: self.blobs.send(self.stored.researcher, name, self._seal(key, identities[email]))
            for email, name in self._blob_names(identities).items()
        }
        facts: dict[str, Any] = {"key_blobs": blobs}
        if key.public:
            facts["public_context_blob"] = self.blobs.send(self.stored.researcher, f"public-{study[:16]}", key.public)
        return facts

    def forget(self, identities: dict[str, Identity]) -> None:
        """Remove the sealed copies that we left on the store as the key maker; the members hold theirs by now."""
        if self.member == self.stored.request.plan.key_maker:
            for name in (*self._blob_names(identities).values(), f"public-{self.stored.request.study[:16]}"):
                self.blobs.remove(self.stored.researcher, name)

    def _blob_names(self, identities: dict[str, Identity]) -> dict[str, str]:
        others = [email for email in sorted(identities) if email != self.member]
        return {email: f"key-{self.stored.request.study[:16]}-{n:02d}" for n, email in enumerate(others)}

    def take(self, blob: BlobRef, identities: dict[str, Identity]) -> None:
        """Fetch, verify and keep the study key that the key maker sealed to us; one that we hold is kept.

        Raises
        ------
        SignatureError, UntrustedError
            If it is not from the key maker, not for us, or not for this study.
        """
        if self.folder.key_path.exists():
            return
        plan, study = self.stored.request.plan, self.stored.request.study
        path = self.blobs.receive(self.stored.researcher, blob, self.folder.root / "keys" / "sealed.key")
        data = path.read_bytes()
        if len(data) <= _SIGNATURE_CHARACTERS:
            raise UntrustedError("The sealed study key is too short", kept="It was not used")
        signature, sealed = data[:_SIGNATURE_CHARACTERS].decode("ascii", errors="replace"), data[_SIGNATURE_CHARACTERS:]
        maker = identities[plan.key_maker]
        verify_bytes(maker, signature, _statement(study, self.member, sealed), what="the study key")
        key = StudyKey.from_bytes(open_sealed(self.keys, sealed, context=_context(study, maker.email, self.member)))
        if key.level != plan.protection.level or (key.public and key.parameters.study != study):
            raise SignatureError("The study key is for another study or level", kept="It was not used")
        write_atomic(self.folder.key_path, key.to_bytes())
        path.unlink()
        self.ledger.append("key.received", once=f"{study}/key", study=study, key_id=key.key_id, maker=maker.email)

    def load(self) -> StudyKey:
        """Return the study key.

        Raises
        ------
        RefusedError
            If this domain does not hold it yet.
        """
        if not self.folder.key_path.exists():
            raise RefusedError("This domain does not hold the study's key yet", todo="send the key with the ticket")
        return StudyKey.from_bytes(self.folder.key_path.read_bytes())

    def masks(self, identities: dict[str, Identity]) -> MaskSource:
        """Return what pairwise masks of this study are derived from."""
        if self.member not in identities:
            raise ProtectionError("This domain is not in its own cohort")
        return MaskSource.of_cohort(self.keys, identities.values(), study=self.stored.request.study)

    def _seal(self, key: StudyKey, recipient: Identity) -> bytes:
        study = self.stored.request.study
        sealed = seal_to(recipient, key.to_bytes(), context=_context(study, self.member, recipient.email))
        return self.keys.sign_bytes(_statement(study, recipient.email, sealed)).encode("ascii") + sealed


def _context(study: str, maker: str, member: str) -> bytes:
    return canonical_json(["study key", study, maker, member])


def _statement(study: str, member: str, sealed: bytes) -> bytes:
    return b"fedpriv 1 study-key\n" + canonical_json([study, member, sha256_hex(sealed)])
