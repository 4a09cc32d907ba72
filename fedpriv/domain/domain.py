"""A domain as its commands and its service see it: configuration, keys, ledger, requests."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fedpriv.domain.folder import DomainConfig, DomainFolder, Terms
from fedpriv.domain.ledger import Ledger
from fedpriv.domain.owner import require_owner, require_place
from fedpriv.domain.policy import approve, checks
from fedpriv.domain.requests import ReleaseDecision, RequestBook
from fedpriv.domain.waiting import waits
from fedpriv.errors import (
    ConfigError,
    InputError,
    RefusedError,
    SignatureError,
    TransportError,
    UnreachableError,
    UntrustedError,
)
from fedpriv.files import private_folder, read_json, stale_lock_pid
from fedpriv.protection import IdentityKeys, parse_identity, verify_bytes
from fedpriv.study import Identity, RequestDecision
from fedpriv.transport import checked_address, create_transport_keys, read_identity

_LEDGER_LABEL = b"fedpriv 2 ledger\n"


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One data owner's domain on this machine.

    Attributes
    ----------
    folder : DomainFolder
        Its paths.
    config : DomainConfig
        ``domain.yaml``.
    keys : IdentityKeys
        Its private keys.
    """

    folder: DomainFolder
    config: DomainConfig
    keys: IdentityKeys

    @classmethod
    def create(cls, root: Path, config: DomainConfig) -> Domain:
        """Make a domain: its folder, its keys, the first entry of its ledger.

        A store's relative path counts from the current folder, once: ``domain.yaml`` has the whole one.

        Raises
        ------
        ExistsError
            If there is one already.
        ConfigError
            If the store's address cannot be one, or root would make it in another user's folder; nothing is made.
        """
        folder = DomainFolder(root.resolve())
        require_place(folder.root)
        config = config.model_copy(update={"store": checked_address(config.store)})
        folder.create(config)
        return cls._with_new_keys(folder, config)

    @classmethod
    def adopt(cls, root: Path) -> Domain:
        """Make the keys of a folder that holds a ``domain.yaml`` which a person wrote, and nothing of ours yet.

        A domain whose making was broken off is made to its end.

        Raises
        ------
        ExistsError
            If it is a domain already, with a ``state`` of its own.
        ConfigError
            If its ``domain.yaml`` cannot be used, or root would make it in another user's folder.
        """
        folder = DomainFolder(root.resolve())
        require_place(folder.root)
        if folder.state.exists() and not folder.is_unfinished():
            raise folder.taken()
        config = folder.load_config()
        private_folder(folder.state)
        return cls._with_new_keys(folder, config)

    @classmethod
    def _with_new_keys(cls, folder: DomainFolder, config: DomainConfig) -> Domain:
        if folder.identity_path.exists():  # whole: only the ledger's first entry is missing
            keys = IdentityKeys.load(folder.identity_path, email=config.email)
        else:
            folder.transport_keys_path.unlink(missing_ok=True)  # half written, perhaps; nobody has seen them
            transport_key = create_transport_keys(config.email, folder.transport_keys_path)
            keys = IdentityKeys.create(config.email, config.name, transport_key)
            keys.save(folder.identity_path)
        domain = cls(folder=folder, config=config, keys=keys)
        domain.ledger.append("domain.created", email=config.email, fingerprint=keys.fingerprint)
        return domain

    @classmethod
    def open(cls, root: Path) -> Domain:
        """Open a domain's folder.

        Raises
        ------
        ConfigError
            If it is no domain, is another user's, or its configuration or keys cannot be used.
        """
        folder = DomainFolder(root.resolve())
        require_owner(folder.root, state=folder.state)
        config = folder.load_config()
        if _is_missing(folder.identity_path) and folder.is_unfinished():
            raise ConfigError(
                f"The making of the domain {folder.root} was broken off before it had its keys",
                kept="Nothing was changed",
                todo=f"run `fedpriv domain init {folder.root}` again",
            )
        return cls(folder=folder, config=config, keys=IdentityKeys.load(folder.identity_path, email=config.email))

    @functools.cached_property
    def ledger(self) -> Ledger:
        identity = self.keys.identity

        def check(data: bytes, signature: str) -> bool:
            try:
                verify_bytes(identity, signature, _LEDGER_LABEL + data, what="an entry of the ledger")
            except SignatureError:
                return False
            return True

        return Ledger(self.folder.ledger_path, lambda data: self.keys.sign_bytes(_LEDGER_LABEL + data), check)

    @property
    def requests(self) -> RequestBook:
        return RequestBook(self.folder.requests, self.config.email)

    def approve(self, study: str, terms: Terms | None = None) -> RequestDecision:
        """Approve a request, as a person; the running service tells the researcher at its next poll.

        Approving again changes the terms that are given and keeps the others, the last day included.

        Raises
        ------
        RefusedError
            If the request breaks a limit of ``domain.yaml``: change the limit there first, on purpose. If the terms
            limit what the plan does not have.
        """
        stored = self.requests.get(study)
        found = list(checks(self.config, stored.request, stored.researcher, self.keys.fingerprint))
        wrong = [sentence for passed, sentence in found if not passed]
        if wrong:
            raise RefusedError(
                f"The request is outside this domain's limits; not so: {'; '.join(wrong)}",
                kept="It was not approved",
                todo=f"change {self.folder.config_path} first if you mean it",
            )
        terms, before = terms or Terms(), stored.decision.limits
        if before is not None:
            gone = {"expires_s"} if stored.request.plan.privacy is not None else {"expires_s", "epsilon"}
            earlier = before.model_dump(exclude=gone) | terms.model_dump(exclude_none=True)
            terms = Terms.model_validate(earlier)
        checked = tuple(sentence for _, sentence in found)
        decision = approve(self.config, stored.request, checked=checked, reason="a person decided", terms=terms)
        if before is not None and terms.days is None and decision.limits is not None:
            limits = decision.limits.model_copy(update={"expires_s": before.expires_s})
            decision = decision.model_copy(update={"limits": limits})
        return self._decide(decision)

    def reject(self, study: str, reason: str) -> RequestDecision:
        """Reject a request that was not approved; an approval is withdrawn with :meth:`revoke`.

        It works on a request whose frozen copy was changed on disk, too.

        Raises
        ------
        RefusedError
            If it is approved.
        """
        whole = self.requests.find(study)
        if self.requests.decision(whole).decision == "approved":
            raise RefusedError(
                "The request is approved",
                kept="The approval stands",
                todo="withdraw it with `fedpriv domain revoke`",
            )
        return self._decide(self._no(whole, "rejected", reason))

    def revoke(self, study: str, reason: str) -> RequestDecision:
        """Withdraw an approval: a service that trains for it stops at its next poll, and nothing more leaves.

        Raises
        ------
        RefusedError
            If it is not approved.
        """
        whole = self.requests.find(study)
        state = self.requests.decision(whole).decision
        if state != "approved":
            raise RefusedError(
                f"The request is {state}, so that there is no approval to withdraw",
                kept="Nothing was changed",
                todo="reject it with `fedpriv domain reject` if it is pending",
            )
        return self._decide(self._no(whole, "revoked", reason))

    def release(self, study: str) -> ReleaseDecision:
        """Consent to handing over the adapter that the researcher asked for.

        Raises
        ------
        RefusedError
            If nobody asked yet: approve it with the release instead.
        """
        return self._decide_release(study, "approved", "")

    def withhold(self, study: str, reason: str) -> ReleaseDecision:
        """Keep the adapter that the researcher asked for; they read the reason.

        Raises
        ------
        RefusedError
            If nobody asked for it.
        """
        return self._decide_release(study, "withheld", reason)

    def _decide_release(self, study: str, verdict: Literal["approved", "withheld"], reason: str) -> ReleaseDecision:
        study = self.requests.find(study)
        asked = self.requests.release(study)
        if asked is None:
            raise RefusedError(
                "The researcher has not asked for the adapter of this study yet",
                kept="Nothing was changed",
                todo="to allow it in advance, run `fedpriv domain approve --release`",
            )
        said = _said(reason) if verdict == "withheld" else ""
        decision = asked.model_copy(update={"decision": verdict, "reason": said})
        self.requests.decide_release(study, decision)
        self.ledger.append(
            f"release.{verdict}",
            study=study,
            adapter_sha256=decision.adapter_sha256,
            reason=decision.reason,
        )
        return decision

    def _no(self, study: str, verdict: Literal["rejected", "revoked"], reason: str) -> RequestDecision:
        return RequestDecision(study=study, member=self.config.email, decision=verdict, reason=_said(reason))

    def record_decision(self, decision: RequestDecision) -> None:
        """Keep a decision and enter it in the ledger."""
        self.requests.decide(decision)
        self.ledger.append(
            f"request.{decision.decision}",
            study=decision.study,
            reason=decision.reason,
            checked=list(decision.checked),
            limits=None if decision.limits is None else decision.limits.model_dump(mode="json"),
        )

    def _decide(self, decision: RequestDecision) -> RequestDecision:
        self.record_decision(decision)
        return decision

    def service(self) -> dict[str, Any]:
        """Return what the service last said it was doing, whether it runs, and whether it knows ``domain.yaml``."""
        path = self.folder.status_path
        state: dict[str, Any] = read_json(path) if path.exists() else {"state": "never started"}
        running = self.folder.lock_path.exists() and stale_lock_pid(self.folder.lock_path) is None
        state["running"] = running
        times = [path.stat().st_mtime_ns for path in (self.folder.config_path, self.folder.lock_path) if path.exists()]
        # the lock is written when the service begins
        state["older_than_config"] = running and len(times) == 2 and times[0] > times[1]
        if not running and "since_s" in state:
            state["state"] = "stopped"
        return state

    def status(self) -> dict[str, Any]:
        """Return what :meth:`service` does, and what is waited for since when."""
        return self.service() | {"waiting": [asdict(wait) for wait in waits(self.folder, self.requests)]}

    def pinned_researchers(self, on_refusal: Callable[[str, str], None]) -> dict[str, Identity]:
        """Return the verified keys of the researchers in ``domain.yaml`` who are on the store.

        Parameters
        ----------
        on_refusal : Callable[[str, str], None]
            Called with the address of one whose keys there cannot be used or read, such as others than the pinned ones,
            and why; who is left out so keeps no other one waiting.

        Raises
        ------
        TransportError
            If the store does not answer, or lets nobody's keys be read.
        """
        found: dict[str, Identity] = {}
        unread: dict[str, TransportError] = {}
        for member in self.config.researchers:
            try:
                data = read_identity(self.config.store, member.email)
                if data is not None:
                    found[member.email] = parse_identity(data, member.email, member.fingerprint)
            except UnreachableError:
                raise
            except TransportError as error:
                unread[member.email] = error
            except UntrustedError as error:
                on_refusal(member.email, error.what)
        for email, error in unread.items():
            if len(unread) == len(self.config.researchers):
                raise error
            on_refusal(email, error.what)
        return found


def _is_missing(path: Path) -> bool:
    """Say whether nothing is there; not, where this user may not look."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _said(reason: str) -> str:
    """Return a reason that a researcher can read; an empty one says nothing to them."""
    if not reason.strip():
        raise InputError("The reason is empty", kept="Nothing was changed", todo="say what the researcher should know")
    return reason.strip()[:2000]


def since(seconds: float) -> str:
    """Return how long ago a time was, in words."""
    age = max(0, int(time.time() - seconds))
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("hours", 3600, 48)):
        if age < length * most:
            return f"{age // length} {unit}"
    return f"{age // 86_400} days"
