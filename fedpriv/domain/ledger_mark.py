"""A domain's mark on the store: how far its ledger was, so that a domain that was set back notices before it works.

A domain's promises, and its privacy budget, are remembered by its own files alone. Whoever starts an old backup, or a
second machine with the same keys, has forgotten some of them. The mark is the witness for that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import Field, ValidationError

from fedpriv.domain.domain import Domain
from fedpriv.domain.ledger import Place
from fedpriv.errors import RefusedError, UntrustedError
from fedpriv.files import canonical_json
from fedpriv.protection import verify_bytes
from fedpriv.study.messages import Base64Signature
from fedpriv.study.names import Sha256
from fedpriv.study.section import Section
from fedpriv.transport import Store

MARK_FILE = "ledger.json"
_LABEL = b"fedpriv 1 ledger mark\n"
_MAX_BYTES = 4096


class LedgerMark(Section):
    """How many entries a ledger had, and the digest of the newest of them."""

    entries: int = Field(ge=1)
    digest: Sha256


class _Signed(Section):
    mark: LedgerMark
    signature: Base64Signature


@dataclass(kw_only=True)
class MarkKeeper:
    """Puts a domain's mark on the store, and compares it with the ledger.

    *Guarantee*: if the store shows the newest mark, or any that the ledger here does not know, the domain refuses to
    serve. The mark tells others how many entries there are, and nothing of what is in them.
    *Assumption*: a store that hides the mark, or shows an old one, can hide that a domain was set back. It cannot have
    one refused that was not: marks are signed.
    """

    domain: Domain
    _place: Place = field(default_factory=Place)

    def publish(self) -> None:
        """Put the mark of the ledger as it is now, if it is another one than was put last."""
        entries, place = self.domain.ledger.after(self._place)
        if not entries:
            return
        mark = LedgerMark(entries=place.number, digest=entries[-1].digest)
        signature = self.domain.keys.sign_bytes(_LABEL + canonical_json(mark.model_dump(mode="json")))
        signed = _Signed(mark=mark, signature=signature)
        self._store().put(self._key, canonical_json(signed.model_dump(mode="json")))
        self._place = place

    def shown(self) -> LedgerMark | None:
        """Return the mark that the store shows; None if there is none that this domain signed."""
        try:
            data = self._store().get(self._key, max_bytes=_MAX_BYTES)
            if data is None:
                return None
            signed = _Signed.model_validate_json(data)
            body = _LABEL + canonical_json(signed.mark.model_dump(mode="json"))
            verify_bytes(self.domain.keys.identity, signed.signature, body, what="a mark of the ledger")
        except (ValidationError, UntrustedError):
            return None  # the store could hide it as well
        return signed.mark

    def check(self) -> None:
        """Refuse to serve with a ledger that lacks what the mark says it had.

        Raises
        ------
        RefusedError
            If it does, and nobody accepted the loss.
        TransportError
            If the store cannot be reached.
        """
        mark = self.shown()
        if mark is None or self._knows(mark) or self.domain.ledger.has(_once(mark)):
            return
        raise RefusedError(
            f"The store shows that this domain's ledger had {mark.entries} entries; here are "
            f"{len(self.domain.ledger.entries())}, without that one: the folder was set back to an older state, or "
            "another machine serves with the same keys",
            kept="Nothing was carried out",
            todo="stop the other machine, or restore the newest backup; if what came after is lost for good, run "
            f"`fedpriv domain accept-loss {self.domain.folder.root}` (docs/keys.md)",
        )

    def accept_loss(self) -> tuple[str, ...]:
        """Go on without what the ledger lacks, and revoke every approval: what was promised in it is forgotten.

        Returns
        -------
        tuple of str
            The studies whose approval was revoked.

        Raises
        ------
        RefusedError
            If nothing is lost.
        """
        mark = self.shown()
        if mark is None or self._knows(mark) or self.domain.ledger.has(_once(mark)):
            raise RefusedError("The store shows no loss", kept="Nothing was changed", todo="start the service")
        approved = [
            study for study in self.domain.requests.studies() if self.domain.requests.decision(study).limits is not None
        ]
        for study in approved:
            self.domain.revoke(study, "this domain was set back to an older state")
        self.domain.ledger.append("domain.set-back", once=_once(mark), lost_after=mark.entries, lost_sha256=mark.digest)
        return tuple(approved)

    def _knows(self, mark: LedgerMark) -> bool:
        entries = self.domain.ledger.entries()
        return len(entries) >= mark.entries and entries[mark.entries - 1].digest == mark.digest

    @property
    def _key(self) -> str:
        return f"{self.domain.config.email}/{MARK_FILE}"

    def _store(self) -> Store:
        return Store.from_url(self.domain.config.store)


def _once(mark: LedgerMark) -> str:
    return f"set-back/{mark.digest}"
