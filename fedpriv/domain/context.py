"""What every ticket of one approved study works with at one domain: its keys, its folder, its limits, its clock."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.domain.approval import limits_now
from fedpriv.domain.folder import DomainConfig
from fedpriv.domain.keyroom import KeyRoom
from fedpriv.domain.ledger import Ledger
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.domain.traffic import Traffic
from fedpriv.errors import RefusedError, UntrustedError
from fedpriv.protection import IdentityKeys, MaskSource, Scales, fingerprint, first_scales, useful_workers
from fedpriv.study import Identity, Limits, Plan, Progress, RequestDecision
from fedpriv.study.averaging import Turn, alike, trained_tensors, turns_of
from fedpriv.training.adapter import Layout, adapter_digest, layout_of, load_state
from fedpriv.transport import BlobChannel

Adapter = dict[str, np.ndarray]
_PROGRESS_SECONDS = 0.5
_LONG_TRANSFER_SECONDS = 2.0


@dataclass(kw_only=True)
class StudyContext:
    """One approved study at one domain.

    Attributes
    ----------
    folder : StudyFolder
        Where everything about this study is kept.
    stored : StoredRequest
        The frozen request.
    decision : Callable[[], RequestDecision]
        Reads the data owner's newest decision from disk.
    blobs : BlobChannel
        The way to and from the researcher's blobs.
    on_progress, notify : Callable
        Called with where a ticket is, for the researcher; with a sentence, for people at this domain. The first returns
        the seconds that telling the researcher took the last time, where it is known.
    seconds : dict of str to float
        Wall clock of the parts of the ticket at work.
    traffic : Traffic
        What it moved to and from the store.
    """

    config: DomainConfig
    keys: IdentityKeys
    folder: StudyFolder
    stored: StoredRequest
    decision: Callable[[], RequestDecision]
    ledger: Ledger
    blobs: BlobChannel
    on_progress: Callable[[Progress], float | None]
    notify: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    _shown_s: float = 0.0
    _masks: tuple[tuple[Identity, ...], MaskSource] | None = field(default=None, repr=False)
    _digests: dict[int, tuple[tuple[int, ...], str]] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        return self.stored.request.plan

    @property
    def study(self) -> str:
        return self.stored.request.study

    @property
    def member(self) -> str:
        """This domain's address."""
        return self.config.email

    @property
    def researcher(self) -> str:
        return self.stored.researcher

    def limits(self) -> Limits:
        """Return what the data owner allows at this moment, read anew from disk.

        Raises
        ------
        RevokedError, RefusedError
            If nothing is allowed any more, or not yet.
        """
        return limits_now(self.decision())

    def minimum_cohort(self) -> int:
        """Return the fewest domains in a round and a sum: the larger of the policy's and this approval's."""
        return max(self.config.policy.minimum_cohort, self.limits().minimum_cohort)

    @property
    def key_room(self) -> KeyRoom:
        return KeyRoom(
            folder=self.folder,
            keys=self.keys,
            stored=self.stored,
            member=self.member,
            ledger=self.ledger,
            blobs=self.blobs,
        )

    def masks(self, members: tuple[str, ...]) -> MaskSource:
        """Return this domain's masks for a round in which exactly ``members`` seal."""
        identities = self.folder.identities()
        sealing = tuple(identities[member] for member in members)
        if self._masks is None or self._masks[0] != sealing:  # agreeing on a secret with each takes a while
            self._masks = sealing, self.key_room.masks(identities, members)
        return self._masks[1]

    def adapter(self, round_number: int) -> Adapter:
        """Return the adapter after a round."""
        return load_state(self.folder.adapter(round_number))

    def adapter_digest(self, round_number: int) -> str:
        """Return the digest of the adapter after a round, read from the disk again only if the file has changed."""
        path = self.folder.adapter(round_number)
        stat = path.stat()
        version = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        known = self._digests.get(round_number)
        if known is None or known[0] != version:
            known = self._digests[round_number] = (version, adapter_digest(self.adapter(round_number)))
        return known[1]

    @functools.cached_property
    def layout(self) -> Layout:
        """Names and shapes of the adapter's tensors, the same after every round."""
        return layout_of(self.adapter(0))

    def sent_layout(self, round_number: int) -> Layout:
        """Return names and shapes of the tensors that a round trains and sends."""
        return {name: self.layout[name] for name in trained_tensors(self.plan.averaging, self.layout, round_number)}

    def sent(self, adapter: Adapter, round_number: int) -> Adapter:
        """Return the tensors of an adapter that a round trains and sends; all others do not change in it."""
        return {name: adapter[name] for name in self.sent_layout(round_number)}

    def turns(self) -> dict[str, Turn]:
        """Return the turn of each tensor that the study ever trains and sends, by name."""
        return turns_of(self.plan.averaging, self.layout)

    def tensors(self) -> dict[str, int]:
        """Return the number of parameters of each tensor that the study ever sends, by name."""
        return {name: math.prod(self.layout[name]) for name in self.turns()}

    def workers(self) -> int:
        """Return how many processes seal and open: as many threads as this study may use, if the adapter is large."""
        return useful_workers(self.config.resources.threads, sum(self.tensors().values()))

    def scales(self, round_number: int) -> Scales:
        """Return the scales of a round, which the sum of the round before gave; of the first, which the plan gives.

        Raises
        ------
        RefusedError
            If this domain has not opened that sum.
        """
        if round_number == 1:
            return first_scales(self.plan.first_clip, self.tensors())
        opened = self.folder.opened(round_number - 1)
        if opened is None:
            raise RefusedError(
                f"This domain has not opened the sum of round {round_number - 1}", todo="send it with the ticket"
            )
        return opened.scales

    def residual(self, round_number: int) -> Path | None:
        """Return what sealing left out when the round's tensors last entered a sum from this domain, or None.

        Whatever was sealed and never added stays out of it, so that no change is lost and none is sent twice.
        """
        source = self.last_sum(round_number)
        opened = self.folder.opened(source)
        if opened is None:
            return None
        path = self.folder.residual_path(source, opened.attempt)
        return path if path.exists() else None

    def last_sum(self, round_number: int) -> int:
        """Return the last round before this one that sent the same tensors and whose sum holds our update, or 0."""
        for number in range(round_number - 1, 0, -1):
            if not alike(self.plan.averaging, number, round_number):
                continue
            opened = self.folder.opened(number)
            if opened is not None and self.member in opened.members:
                return number
        return 0

    def require_members(self, members: tuple[str, ...]) -> None:
        """Refuse a set of members that is not of this study's cohort, or smaller than this data owner allows.

        Raises
        ------
        RefusedError
            In words.
        """
        limit = self.minimum_cohort()
        strangers = sorted(set(members) - set(self.plan.emails))
        if strangers:
            raise RefusedError(f"{', '.join(strangers)} is not in the plan's cohort", kept="Nothing was run")
        if list(members) != sorted(set(members)):
            raise RefusedError("A ticket's members are not in order, each once", kept="Nothing was run")
        if self.member not in members:
            raise RefusedError("This domain is not among the members of this round", kept="Nothing was run")
        if len(members) < limit:
            raise RefusedError(
                f"Only {len(members)} domains take part in this round; this domain's data owner wants {limit}",
                kept="Nothing was run",
                todo="ask the data owner, or go on with more domains",
            )

    # -- telling people and measuring ------------------------------------------------------------------------------

    def show(self, state: str, round_number: int, step: int = 0, steps: int = 0) -> None:
        """Show progress, at most twice a second within one state."""
        now = time.monotonic()
        if step and step != steps and now - self._shown_s < _PROGRESS_SECONDS:
            return
        self._shown_s = now
        value = {"study": self.study, "round": round_number, "state": state, "step": step, "steps": steps}
        self.traffic.small_put(self.on_progress(Progress.model_validate(value)) or 0.0)

    def moved(self, state: str, round_number: int) -> Callable[[int, int], None]:
        """Return what shows how far a transfer is, in per cent, once it has taken two seconds."""
        started = time.monotonic()

        def show(done_bytes: int, total_bytes: int) -> None:
            if time.monotonic() - started >= _LONG_TRANSFER_SECONDS:
                self.show(state, round_number, step=100 * done_bytes // total_bytes, steps=100)

        return show

    def start_measuring(self) -> None:
        """Forget what the ticket before took."""
        self.seconds, self.traffic = {}, Traffic()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the wall clock of the block to ``seconds``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def pinned_identities(plan: Plan, identities: tuple[Identity, ...]) -> dict[str, Identity]:
    """Return the cohort's public keys by address, if they are exactly the ones that the plan pins.

    Raises
    ------
    UntrustedError
        If one is missing, or has another fingerprint.
    """
    by_email = {identity.email: identity for identity in identities}
    if sorted(by_email) != list(plan.emails) or len(identities) != len(by_email):
        raise UntrustedError("The ticket does not bring the keys of the plan's cohort", kept="Nothing was run")
    for email, identity in by_email.items():
        if fingerprint(identity) != plan.fingerprint_of(email):
            raise UntrustedError(f"The keys of {email} are not the ones pinned in the plan", kept="Nothing was run")
    return by_email
