"""Reads a domain's folder for a screen, again and again: what did not change on disk is not read again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedpriv.audit.keeping import last_audit, numbers_path, page_path
from fedpriv.audit.result import LeakageAudit
from fedpriv.domain import Domain, Terms
from fedpriv.domain.budget_gauge import BudgetGauge, budget_gauge
from fedpriv.domain.finding import visible
from fedpriv.domain.ledger import Entry, Place
from fedpriv.domain.ledger_export import facts_in_words, words_of
from fedpriv.domain.policy import approve, checks
from fedpriv.domain.privacy_budget import CHARGED
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.review import Review, review_of
from fedpriv.domain.waiting import waits
from fedpriv.errors import FedprivError, RefusedError
from fedpriv.protection import fingerprint_words
from fedpriv.study.plan import REQUIRED_METRICS
from fedpriv.training.base_model import default_cache
from fedpriv.widgets.owner_state import (
    MOST_ENTRIES,
    MOST_ROWS,
    ApprovalForm,
    LedgerLine,
    LedgerState,
    Metric,
    Opened,
    OwnerState,
    ReleaseRow,
    RequestRow,
    ServiceState,
    Verified,
    Waiting,
)
from fedpriv.widgets.service_process import last_error
from fedpriv.widgets.trial_process import trying

Stamp = tuple[object, ...]
_LONGEST_FACT = 200
_PROPOSED_DAYS = 30


@dataclass(kw_only=True)
class _Requests:
    """What was made of the requests, of their files as they were then."""

    stamp: Stamp = ()
    rows: tuple[RequestRow, ...] = ()
    releases: tuple[ReleaseRow, ...] = ()
    waiting: tuple[Waiting, ...] = ()


@dataclass(kw_only=True)
class _Tail:
    """What was read of the ledger: the newest lines, and what of all of them counts elsewhere."""

    place: Place = field(default_factory=Place)
    newest: deque[LedgerLine] = field(default_factory=lambda: deque(maxlen=MOST_ENTRIES))
    charged: int = 0
    prepared: int = 0
    handed_over: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class OwnerReader:
    """Looks at one domain; used by one thread at a time.

    Parameters
    ----------
    root : Path
        The domain's folder.
    cache : Path, optional
        Where base models are; by default fedpriv's cache.
    """

    root: Path
    cache: Path | None = None
    _config: Stamp = ()
    _domain: Domain = field(init=False)
    _read: dict[str, tuple[Stamp, RequestRow]] = field(default_factory=dict)
    _requests: _Requests = field(default_factory=_Requests)
    _tail: _Tail = field(default_factory=_Tail)
    _reviewed: tuple[Stamp, Review | None, ApprovalForm | None, str] = ((), None, None, "")
    _audited: tuple[Stamp, LeakageAudit | None] = ((), None)
    _budget: tuple[Stamp, BudgetGauge | None, str] = ((), None, "")

    def look(
        self, opened: Opened, verified: Verified | None = None, *, starting: bool = False, gauge: bool = True
    ) -> OwnerState:
        """Return the domain as it is now, with what is open on the screen.

        Parameters
        ----------
        starting : bool, default False
            Whether a process that was started from here is about to serve the domain.
        gauge : bool, default True
            Whether to add up the privacy budget, which takes seconds the first time; what was added up is kept.

        Raises
        ------
        FedprivError
            If it is no domain any more, or ``domain.yaml`` or the ledger cannot be read.
        """
        self._open()
        domain = self._domain
        self._follow_ledger()
        self._look_at_requests()
        review, form, problem = self._review(opened.study)
        budget, budget_problem = self._gauge() if gauge else self._budget[1:]
        return OwnerState(
            name=domain.config.name,
            email=domain.config.email,
            folder=str(domain.folder.root),
            words=fingerprint_words(domain.keys.fingerprint),
            service=self._service(starting),
            waiting=self._requests.waiting,
            requests=self._requests.rows[:MOST_ROWS],
            more_requests=max(0, len(self._requests.rows) - MOST_ROWS),
            opened=opened,
            review=review,
            form=form,
            review_problem=problem,
            audit=self._audit(opened.study),
            audit_page=str(page_path(domain.folder, opened.study)) if opened.study else "",
            trying=trying(domain.folder),
            releases=self._requests.releases,
            budget=budget,
            budget_problem=budget_problem,
            ledger=LedgerState(
                total=self._tail.place.number, newest=tuple(reversed(self._tail.newest)), verified=verified
            ),
        )

    def _open(self) -> None:
        stamp = _stamp([self.root / "domain.yaml"])
        if stamp != self._config:
            self._domain = Domain.open(self.root)
            self._config = stamp

    # -- the service ---------------------------------------------------------------------------------------------

    def _service(self, starting: bool) -> ServiceState:
        found, folder = self._domain.service(), self._domain.folder
        return ServiceState(
            running=found["running"],
            doing=visible(str(found["state"])),
            since_s=found.get("since_s"),
            older_than_config=found["older_than_config"],
            starting=starting and not found["running"],
            problem="" if found["running"] or starting else last_error(folder),
        )

    # -- the ledger ----------------------------------------------------------------------------------------------

    def _follow_ledger(self) -> None:
        entries, place = self._domain.ledger.after(self._tail.place)
        if not entries and place == self._tail.place:
            return
        if place.number != self._tail.place.number + len(entries):
            self._tail = _Tail()  # another file, such as one from a backup, from its beginning
        tail = self._tail
        tail.place = place
        tail.newest.extend(_line(entry) for entry in entries[-MOST_ENTRIES:])
        tail.charged += sum(entry.kind == CHARGED for entry in entries)
        tail.prepared += sum(entry.kind == "dataset.prepared" for entry in entries)
        given = (str(entry.facts.get("study")) for entry in entries if entry.kind == "adapter.released")
        tail.handed_over |= frozenset(given)

    # -- the requests --------------------------------------------------------------------------------------------

    def _look_at_requests(self) -> None:
        book, folder, tail = self._domain.requests, self._domain.folder, self._tail
        folders = sorted(path for path in folder.requests.iterdir() if path.is_dir())
        stamps = {path.name: (self._config, *_stamps_below(path)) for path in folders}
        results = _stamp(folder.study(name) / "results" for name in stamps)
        stamp = (tuple(stamps.items()), results, tail.handed_over)
        if stamp == self._requests.stamp:
            return
        rows, releases = [], []
        for study in reversed(book.studies()):
            known = self._read.get(study)
            if known is None or known[0] != stamps.get(study):
                known = self._read[study] = (stamps.get(study, ()), self._row(study))
            rows.append(known[1])
            if (release := self._release(known[1])) is not None:
                releases.append(release)
        rows.sort(key=lambda row: row.decision != "pending")
        waiting = tuple(
            Waiting(who=wait.who, what=visible(wait.what, 300), since_s=wait.since_s) for wait in waits(folder, book)
        )
        self._requests = _Requests(stamp=stamp, rows=tuple(rows), releases=tuple(releases), waiting=waiting)

    def _row(self, study: str) -> RequestRow:
        domain = self._domain
        try:
            stored = domain.requests.get(study)
        except FedprivError as error:
            decision = domain.requests.decision(study).decision
            return RequestRow(
                study=study,
                title="(its frozen copy was changed)",
                researcher="",
                received_s=(domain.folder.requests / study / "received.json").stat().st_mtime,
                decision=decision,
                problem=visible(str(error), 500),
            )
        plan = stored.request.plan
        kept = checks(domain.config, stored.request, stored.researcher, domain.keys.fingerprint)
        return RequestRow(
            study=study,
            title=visible(plan.title),
            researcher=visible(stored.researcher),
            received_s=stored.received_s,
            decision=stored.decision.decision,
            within_limits=all(passed for passed, _ in kept),
            rounds=plan.training.rounds,
            private=plan.privacy is not None,
            ends_s=None if stored.decision.limits is None else stored.decision.limits.expires_s,
        )

    def _release(self, row: RequestRow) -> ReleaseRow | None:
        book = self._domain.requests
        asked, limits = book.release(row.study), book.decision(row.study).limits
        if asked is None:
            return None
        return ReleaseRow(
            study=row.study,
            title=row.title,
            researcher=row.researcher,
            adapter_sha256=asked.adapter_sha256,
            asked_s=asked.asked_s,
            decision=asked.decision,
            reason=visible(asked.reason, 2000),
            private=row.private,
            in_advance=limits is not None and limits.release,
            handed_over=row.study in self._tail.handed_over,
        )

    # -- the request that is open --------------------------------------------------------------------------------

    def _review(self, study: str) -> tuple[Review | None, ApprovalForm | None, str]:
        if not study:
            return None, None, ""
        tail = self._tail
        models = _stamp([(self.cache or default_cache()) / "models"])  # with the base model here, sizes are known
        stamp = (study, self._requests.stamp, self._config, tail.charged, tail.prepared, models)
        if stamp != self._reviewed[0]:
            self._reviewed = (stamp, *self._made(study))
        return self._reviewed[1:]

    def _audit(self, study: str) -> LeakageAudit | None:
        folder = self._domain.folder
        stamp = (study, _stamp([numbers_path(folder, study)]) if study else ())
        if stamp != self._audited[0]:
            self._audited = (stamp, last_audit(folder, study) if study else None)
        return self._audited[1]

    def _made(self, study: str) -> tuple[Review | None, ApprovalForm | None, str]:
        try:
            stored = self._domain.requests.get(study)
            return review_of(self._domain, stored, cache=self.cache), _form(self._domain, stored), ""
        except FedprivError as error:
            return None, None, visible(str(error), 1000)

    def _gauge(self) -> tuple[BudgetGauge | None, str]:
        stamp = (self._config, self._tail.charged, self._tail.place.inode)
        if stamp != self._budget[0]:
            try:
                self._budget = (stamp, budget_gauge(self._domain), "")
            except FedprivError as error:
                self._budget = (stamp, None, visible(str(error), 1000))
        return self._budget[1:]


def _line(entry: Entry) -> LedgerLine:
    return LedgerLine(
        number=entry.number,
        time_s=entry.time_s,
        kind=visible(entry.kind),
        words=visible(words_of(entry.kind)),
        facts=tuple((visible(name), visible(text, _LONGEST_FACT)) for name, text in facts_in_words(entry)),
        digest=visible(entry.digest),
    )


def _form(domain: Domain, stored: StoredRequest) -> ApprovalForm:
    """Return the limits that stand, or else those to propose: the plan's own, and a last day."""
    config, plan = domain.config, stored.request.plan
    epsilon = None if plan.privacy is None else plan.privacy.epsilon
    terms = Terms(seconds=plan.training.max_seconds, epsilon=epsilon, days=_PROPOSED_DAYS)
    proposed = approve(config, stored.request, checked=(), reason="", terms=terms).limits
    limits = stored.decision.limits or proposed
    if limits is None:
        raise RefusedError("The request cannot be approved", kept="Nothing was changed")
    return ApprovalForm(
        limits=limits,
        metrics=tuple(Metric(name=name, required=name in REQUIRED_METRICS) for name in plan.leaving_metrics),
        rounds_most=min(plan.training.rounds, config.policy.max_rounds),
        seconds_most=plan.training.max_seconds,
        cohort_least=max(2, config.policy.minimum_cohort),
        cohort_most=plan.smallest_sum,
        epsilon_most=epsilon,
    )


def _stamp(paths: Iterable[Path]) -> Stamp:
    """Return what changes when a file or the list of a folder's files does."""
    stamps: list[object] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)


def _stamps_below(folder: Path) -> Iterator[object]:
    """Yield a stamp of every file below a folder."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from _stamps_below(Path(entry.path))
            else:
                status = entry.stat(follow_symlinks=False)
                yield entry.name, status.st_mtime_ns, status.st_size, status.st_ino
