"""What a data owner asks for on a screen: the same calls as the commands, each carried out on the domain's folder."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from fedpriv.domain import Domain, Terms
from fedpriv.domain.approval import limits_in_words
from fedpriv.errors import RefusedError, UntrustedError
from fedpriv.study.names import Sha256
from fedpriv.study.section import Section
from fedpriv.study.validation import validate_section
from fedpriv.widgets.owner_state import Opened, Verified
from fedpriv.widgets.service_process import start_service, stop_service
from fedpriv.widgets.trial_process import start_trial

_Reason = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"\S")]
_TOLD_LATER = " The service does not run; it tells the researcher as soon as it does."


class Open(Section):
    """Show a request; without a study, the list."""

    do: Literal["open"]
    study: Sha256 | Literal[""]


class Read(Section):
    """Show one file of the open request: the page with a line, or a page by its number from 0."""

    do: Literal["read"]
    file: str = Field(min_length=1, max_length=400)
    line: int = Field(default=0, ge=0)
    page: int = Field(default=0, ge=0)


class Compare(Section):
    """Show one difference of the open request."""

    do: Literal["compare"]
    change: str = Field(min_length=1, max_length=420)
    page: int = Field(default=0, ge=0)


class Approve(Section):
    """Approve a request with limits, as :class:`fedpriv.domain.Terms` has them."""

    do: Literal["approve"]
    study: Sha256
    terms: dict[str, Any]


class Reject(Section):
    """Reject a request; the researcher reads the reason."""

    do: Literal["reject"]
    study: Sha256
    reason: _Reason


class Revoke(Section):
    """Withdraw an approval."""

    do: Literal["revoke"]
    study: Sha256
    reason: _Reason


class Release(Section):
    """Agree to hand over the adapter that was seen, and no other."""

    do: Literal["release"]
    study: Sha256
    adapter_sha256: Sha256


class Withhold(Section):
    """Keep the adapter; the researcher reads the reason."""

    do: Literal["withhold"]
    study: Sha256
    adapter_sha256: Sha256
    reason: _Reason


class TryOut(Section):
    """Run a request's code on made-up patients, in the sandbox."""

    do: Literal["try"]
    study: Sha256


class Audit(Section):
    """Measure by attack what updates of the domain's own notes would tell under a request's plan."""

    do: Literal["audit"]
    study: Sha256


class Verify(Section):
    """Check the ledger."""

    do: Literal["verify"]


class Serve(Section):
    """Start the domain's service."""

    do: Literal["serve"]


class StopService(Section):
    """End the domain's service."""

    do: Literal["stop"]


Action = (
    Open
    | Read
    | Compare
    | Approve
    | Reject
    | Revoke
    | Release
    | Withhold
    | TryOut
    | Audit
    | Verify
    | Serve
    | StopService
)
ACTIONS: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="do")])


class OwnerDesk:
    """What a data owner has in front of them at one domain, between the threads of a panel.

    Attributes
    ----------
    root : Path
        The domain's folder.
    opened : Opened
        What is open on the screen; replaced as a whole.
    verified : Verified or None
        What the last verification of the ledger showed.
    changed : threading.Event
        Set when something was done, so that it is looked at at once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened = Opened()
        self.verified: Verified | None = None
        self.changed = threading.Event()
        self._trial: subprocess.Popen[bytes] | None = None
        self._service: subprocess.Popen[bytes] | None = None

    @property
    def is_starting_service(self) -> bool:
        """Whether a service that was started here lives; processes that ended are put away."""
        if self._trial is not None:
            self._trial.poll()
        return self._service is not None and self._service.poll() is None

    def carry_out(self, action: Action) -> str:
        """Do what was asked, and say in a sentence what came of it.

        Raises
        ------
        FedprivError
            If it cannot be done.
        """
        try:
            if isinstance(action, Open | Read | Compare):
                return self._show(action)
            return self._done(Domain.open(self.root), action)  # domain.yaml may have been changed by hand
        finally:
            self.changed.set()

    def _show(self, action: Open | Read | Compare) -> str:
        match action:
            case Open(study=study):
                self.opened = Opened(study=study)
            case Read(file=file, line=line, page=page):
                update = {"file": file, "file_line": line, "file_page": page}
                self.opened = self.opened.model_copy(update=update)
            case Compare(change=change, page=page):
                self.opened = self.opened.model_copy(update={"change": change, "change_page": page})
        return ""

    def _done(self, domain: Domain, action: Action) -> str:  # noqa: PLR0911 - one for each kind of action
        match action:
            case Approve(study=study, terms=terms):
                limits = domain.approve(study, validate_section(Terms, terms, source="the form")).limits
                phrases = "; ".join(limits_in_words(limits)) if limits else ""
                return f"Approved: {phrases}.{_later(domain)}"
            case Reject(study=study, reason=reason):
                domain.reject(study, reason)
                return f"Rejected; the researcher reads the reason.{_later(domain)}"
            case Revoke(study=study, reason=reason):
                domain.revoke(study, reason)
                return f"The approval is withdrawn: nothing further is run or sent for it.{_later(domain)}"
            case Release(study=study, adapter_sha256=digest):
                self._require_adapter(domain, study, digest)
                domain.release(study)
                return f"You agreed to hand over the adapter {digest[:12]} once enough domains agree.{_later(domain)}"
            case Withhold(study=study, adapter_sha256=digest, reason=reason):
                self._require_adapter(domain, study, digest)
                domain.withhold(study, reason)
                return f"The adapter {digest[:12]} stays here; the researcher reads the reason.{_later(domain)}"
            case TryOut(study=study):
                self._trial = start_trial(domain, domain.requests.get(study).request.study, "try")
                return "The dry run goes on by itself; its result appears here."
            case Audit(study=study):
                self._trial = start_trial(domain, domain.requests.get(study).request.study, "audit")
                return "The audit goes on by itself, for some minutes; its result appears here."
            case Verify():
                return self._verify(domain)
            case Serve():
                self._service = start_service(domain)
                return "The service starts; it serves in some seconds, and goes on when this notebook is closed."
            case StopService():
                stop_service(domain)
                return "The service ends as soon as it can; what it was doing is taken up at its next start."
        raise RefusedError("This is nothing that can be done at a domain", kept="Nothing was changed")

    def _require_adapter(self, domain: Domain, study: str, digest: str) -> None:
        """Refuse a word on an adapter that is not the one asked for any more: it was not seen."""
        asked = domain.requests.release(study)
        if asked is not None and asked.adapter_sha256 != digest:
            raise RefusedError(
                "The researcher asks for another adapter now than the one on the screen",
                kept="Nothing was decided",
                todo="look at the releases again",
            )

    def _verify(self, domain: Domain) -> str:
        known = self.verified.digest if self.verified is not None else ""
        try:
            entries = domain.ledger.verified(holds=known)
        except UntrustedError as error:
            self.verified = Verified(whole=False, at_s=time.time(), text=str(error), digest=known)
            raise
        digest = entries[-1].digest if entries else ""
        text = f"The ledger is whole: {len(entries)} entries, each chained to the one before and signed."
        if not entries:
            text = "The ledger is empty: if this domain was in use, it was removed. Next: compare with your backup."
        self.verified = Verified(whole=bool(entries), at_s=time.time(), text=text, entries=len(entries), digest=digest)
        return text


def _later(domain: Domain) -> str:
    return "" if domain.service()["running"] else _TOLD_LATER
