"""The key room: one domain makes the study key, the others get it sealed and signed; once doubted, it is retired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedpriv.domain.ledger import Ledger
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import ProtectionError, RefusedError, SignatureError, UntrustedError
from fedpriv.files import canonical_json, sha256_hex, sync_folder, write_atomic
from fedpriv.protection import (
    IdentityKeys,
    MaskSource,
    StudyKey,
    make_study_key,
    open_sealed,
    seal_to,
    verify_bytes,
)
from fedpriv.protection.study_key import MAX_SEALED_KEY_BYTES
from fedpriv.study import BlobRef, Identity
from fedpriv.study.averaging import Turn
from fedpriv.transport import BlobChannel

_SIGNATURE_CHARACTERS = 88
_RETIRED = "a sum did not hold what its members sealed"
_REPLACED = "the key maker made another one in its place"


@dataclass(frozen=True, kw_only=True)
class KeyRoom:
    """Makes, takes, keeps and retires the study key of one study at one domain.

    A study has one key at a time; each has a generation, 1 for the first. A retired key is renamed and kept, and no
    ticket can bring it back, because only a key of a higher generation than any that was held is taken.

    Guarantee: the researcher relays the sealed key but cannot open it; a member takes a key only if the plan's key
    maker, pinned by fingerprint, signed it for this study and this member.
    Assumption: the members of the cohort do not hand the key to the researcher; if one does, the masks still hide
    every single update (levels ``sealed`` and ``masked``).
    """

    folder: StudyFolder
    keys: IdentityKeys
    stored: StoredRequest
    member: str
    ledger: Ledger
    blobs: BlobChannel

    def make(
        self,
        identities: dict[str, Identity],
        tensors: Mapping[str, int],
        *,
        turns: Mapping[str, Turn] | None = None,
        generation: int,
    ) -> dict[str, Any]:
        """Make one generation of the key once, keep it (0600), and leave a sealed copy for each other member.

        Parameters
        ----------
        identities : dict of str to Identity
            The cohort's verified public keys.
        tensors : mapping of str to int
            Number of parameters of each tensor that is ever sent.
        turns : mapping of str to int, optional
            The turn of each of them; by default all are sent in every round.
        generation : int
            1 when the study is prepared; the one after the retired key's later.

        Returns
        -------
        dict
            The fields ``key_blobs`` and ``public_context_blob`` of the result.

        Raises
        ------
        RefusedError
            If this domain is not the plan's key maker, or it is not the turn of that generation.
        """
        plan, study = self.stored.request.plan, self.stored.request.study
        if self.member != plan.key_maker:
            raise RefusedError("This domain is not the key maker of the plan", kept="No key was made")
        key = self._current()
        if key is None or key.generation != generation:
            if generation != self._highest_generation() + 1:
                raise RefusedError(
                    f"Generation {generation} of the study's key is not the next one", kept="No key was made"
                )
            self.retire(_REPLACED)
            key = make_study_key(
                plan.protection,
                tensors=tensors,
                turns=turns,
                clients=len(plan.cohort),
                study=study,
                generation=generation,
            )
            write_atomic(self.folder.key_path, key.to_bytes())
        self.ledger.append(
            "key.made",
            once=f"{study}/key/{generation}",
            study=study,
            key_id=key.key_id,
            generation=generation,
            level=plan.protection.level,
        )
        blobs = {
            email: self.blobs.send(self.stored.researcher, name, self._seal(key, identities[email]))
            for email, name in self._blob_names(identities, generation).items()
        }
        public = self.blobs.send(self.stored.researcher, self._public_name(generation), key.public)
        return {"key_blobs": blobs, "public_context_blob": public}

    def forget(self, identities: dict[str, Identity]) -> None:
        """Remove the sealed copies that we left on the store as the key maker; the members hold theirs by now."""
        if self.member == self.stored.request.plan.key_maker:
            for generation in range(1, self._highest_generation() + 1):
                names = self._blob_names(identities, generation).values()
                for name in (*names, self._public_name(generation)):
                    self.blobs.remove(self.stored.researcher, name)

    def take(self, blob: BlobRef, identities: dict[str, Identity]) -> None:
        """Fetch, verify and keep the study key that the key maker sealed to us, in place of the one that we held.

        Raises
        ------
        SignatureError, UntrustedError
            If it is not from the key maker, not for us, not for this study, or not newer than any key that we held.
        """
        plan, study = self.stored.request.plan, self.stored.request.study
        path = self.folder.root / "keys" / "sealed.key"
        self.blobs.receive(self.stored.researcher, blob, path, max_bytes=MAX_SEALED_KEY_BYTES)
        data = path.read_bytes()
        if len(data) <= _SIGNATURE_CHARACTERS:
            raise UntrustedError("The sealed study key is too short", kept="It was not used")
        signature, sealed = data[:_SIGNATURE_CHARACTERS].decode("ascii", errors="replace"), data[_SIGNATURE_CHARACTERS:]
        maker = identities[plan.key_maker]
        verify_bytes(maker, signature, _statement(study, self.member, sealed), what="the study key")
        key = StudyKey.from_bytes(open_sealed(self.keys, sealed, context=_context(study, maker.email, self.member)))
        if key.parameters.study != study or key.parameters.clients != len(plan.cohort):
            raise SignatureError("The study key is for another study or cohort", kept="It was not used")
        current = self._current()
        if current is None or current.key_id != key.key_id:
            if key.generation <= self._highest_generation():
                raise UntrustedError(
                    f"The study key is of generation {key.generation}, which this domain held before",
                    kept="It was not used",
                    todo="have the key maker make a new one with `fedpriv study resume`",
                )
            self.retire(_REPLACED)
            write_atomic(self.folder.key_path, key.to_bytes())
        self.ledger.append(
            "key.received",
            once=f"{study}/key/{key.generation}",
            study=study,
            key_id=key.key_id,
            generation=key.generation,
            maker=maker.email,
        )
        path.unlink()

    def load(self) -> StudyKey:
        """Return the study key in use.

        Raises
        ------
        RefusedError
            If this domain does not hold one: not yet, or not any more.
        """
        key = self._current()
        if key is None and self.folder.retired_generations():
            raise RefusedError(
                f"This domain retired the study's key, because {_RETIRED}",
                kept="Nothing is sealed or opened with it any more",
                todo="make a new key with `fedpriv study resume`",
            )
        if key is None:
            raise RefusedError("This domain does not hold the study's key yet", todo="send the key with the ticket")
        return key

    def retire(self, reason: str = _RETIRED) -> None:
        """Put the key in use aside for good: renamed, kept, recorded; without a key nothing happens."""
        key = self._current()
        if key is None:
            return
        study = self.stored.request.study
        self.ledger.append(
            "key.retired",
            once=f"{study}/key/{key.generation}/retired",
            study=study,
            key_id=key.key_id,
            generation=key.generation,
            reason=reason,
        )
        self.folder.key_path.replace(self.folder.retired_key_path(key.generation))
        sync_folder(self.folder.key_path.parent)

    def retired_key(self) -> str:
        """Return the id of the key that this domain will not open with any more, or nothing while it holds a key."""
        generations = self.folder.retired_generations()
        if self.folder.key_path.exists() or not generations:
            return ""
        return StudyKey.from_bytes(self.folder.retired_key_path(generations[-1]).read_bytes()).key_id

    def masks(self, identities: dict[str, Identity], members: tuple[str, ...]) -> MaskSource:
        """Return this domain's masks for a round in which exactly ``members`` seal."""
        if self.member not in members:
            raise ProtectionError("This domain is not among the members that seal")
        return MaskSource.of_cohort(
            self.keys, [identities[member] for member in members], study=self.stored.request.study
        )

    def _current(self) -> StudyKey | None:
        path = self.folder.key_path
        return StudyKey.from_bytes(path.read_bytes()) if path.exists() else None

    def _highest_generation(self) -> int:
        current = self._current()
        return max([0, *self.folder.retired_generations(), *([current.generation] if current else [])])

    def _blob_names(self, identities: dict[str, Identity], generation: int) -> dict[str, str]:
        others = [email for email in sorted(identities) if email != self.member]
        study = self.stored.request.study[:16]
        return {email: f"key-{study}-{generation:04d}-{n:02d}" for n, email in enumerate(others)}

    def _public_name(self, generation: int) -> str:
        return f"public-{self.stored.request.study[:16]}-{generation:04d}"

    def _seal(self, key: StudyKey, recipient: Identity) -> bytes:
        study = self.stored.request.study
        sealed = seal_to(recipient, key.to_bytes(), context=_context(study, self.member, recipient.email))
        return self.keys.sign_bytes(_statement(study, recipient.email, sealed)).encode("ascii") + sealed


def _context(study: str, maker: str, member: str) -> bytes:
    return canonical_json(["study key", study, maker, member])


def _statement(study: str, member: str, sealed: bytes) -> bytes:
    return b"fedpriv 1 study-key\n" + canonical_json([study, member, sha256_hex(sealed)])
