"""What a data owner's domain looks like at a moment, as one frozen value that knows no Jupyter, clock or file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedpriv.audit.result import LeakageAudit
from fedpriv.domain.budget_gauge import BudgetGauge
from fedpriv.domain.dry_run import DryRun
from fedpriv.domain.review import Review
from fedpriv.study import Limits
from fedpriv.study.names import Sha256
from fedpriv.study.plan import MetricName
from fedpriv.study.section import Section

Decision = Literal["pending", "approved", "rejected", "revoked"]


class ServiceState(Section):
    """The domain's service, which runs in a process of its own.

    Attributes
    ----------
    running : bool
        Whether a living process serves the domain.
    doing : str
        What it last said it does.
    since_s : float or None
        Since when, in seconds since the epoch.
    older_than_config : bool
        Whether ``domain.yaml`` was changed after it began, so that it keeps to the limits from before.
    starting : bool
        Whether it was started from here and does not serve yet.
    problem : str
        Why it ended, if it was started from here and ended with an error.
    """

    running: bool
    doing: str
    since_s: float | None = None
    older_than_config: bool = False
    starting: bool = False
    problem: str = ""


class Waiting(Section):
    """One thing that is waited for; see :class:`fedpriv.domain.waiting.Wait`."""

    who: str
    what: str
    since_s: float


class RequestRow(Section):
    """One code request in the list.

    Attributes
    ----------
    within_limits : bool or None
        Whether it could be approved without a change of ``domain.yaml``; None where its copy is damaged.
    rounds : int
        Of the plan.
    private : bool
        Whether the plan has differential privacy.
    ends_s : float or None
        When its approval ends by itself, in seconds since the epoch.
    problem : str
        Why it cannot be read: its frozen copy was changed on disk. It can only be rejected then.
    """

    study: Sha256
    title: str
    researcher: str
    received_s: float
    decision: Decision
    within_limits: bool | None = None
    rounds: int = 0
    private: bool = False
    ends_s: float | None = None
    problem: str = ""


class ReleaseRow(Section):
    """One adapter that a researcher asked for.

    Attributes
    ----------
    decision : str
        ``pending``, ``approved`` or ``withheld``.
    private : bool
        Whether the plan has differential privacy.
    in_advance : bool
        Whether the approval of the request allows the release already, so that there is nothing to decide.
    handed_over : bool
        Whether the researcher has it: that cannot be taken back.
    """

    study: Sha256
    title: str
    researcher: str
    adapter_sha256: Sha256
    asked_s: float
    decision: Literal["pending", "approved", "withheld"]
    reason: str = ""
    private: bool = False
    in_advance: bool = False
    handed_over: bool = False

    @property
    def is_to_decide(self) -> bool:
        """Whether it waits for the data owner."""
        return self.decision == "pending" and not self.in_advance and not self.handed_over


class Metric(Section):
    """A number that the plan lets leave; without a required one no round can be run."""

    name: MetricName
    required: bool


class ApprovalForm(Section):
    """What an approval would say if nothing is changed in it, and how far each limit can go.

    Attributes
    ----------
    limits : Limits
        Those given now, or the plan's own numbers within the policy.
    metrics : tuple of Metric
        That the plan lists.
    rounds_most, seconds_most, cohort_least, cohort_most : int
        The range that the plan and the policy leave; of the cohort, up to the plan's smallest sum.
    epsilon_most : float or None
        Epsilon of the plan; None without a privacy section.
    """

    limits: Limits
    metrics: tuple[Metric, ...]
    rounds_most: int
    seconds_most: int
    cohort_least: int
    cohort_most: int
    epsilon_most: float | None = None


TrialKind = Literal["try", "audit"]
"""A dry run on made-up patients; or a measurement of what updates of the domain's own notes would tell."""


class Trying(Section):
    """A dry run or an audit that goes on in a process of its own, or ended without a result.

    Attributes
    ----------
    running : bool
        Whether its process lives.
    stage : str
        What it is doing.
    step, steps : int
        Of that; 0 of 0 before it begins.
    problem : str
        Why it ended without a result.
    """

    study: str
    kind: TrialKind = "try"
    running: bool
    started_s: float
    stage: str = ""
    step: int = 0
    steps: int = 0
    problem: str = ""


class LedgerLine(Section):
    """One entry of the ledger in words; ``facts`` are pairs of a name and a value."""

    number: int
    time_s: float
    kind: str
    words: str
    facts: tuple[tuple[str, str], ...]
    digest: str


class Verified(Section):
    """What the last verification of the ledger showed.

    Attributes
    ----------
    whole : bool
        Whether no entry was changed, removed or moved.
    text : str
        It in a sentence.
    entries : int
        How many were found whole.
    digest : str
        Of the newest of them.
    """

    whole: bool
    at_s: float
    text: str
    entries: int = 0
    digest: str = ""


class LedgerState(Section):
    """The newest entries, newest first, of so many in all."""

    total: int = 0
    newest: tuple[LedgerLine, ...] = ()
    verified: Verified | None = None


class Opened(Section):
    """What is open on the screen: a request, a page of one of its files, and a page of one of its changes.

    ``file_line`` is the line that was jumped to, whose page is shown then; 0 is none. ``change`` is a comparison and a
    name: ``stock:train.py``.
    """

    study: str = ""
    file: str = ""
    file_line: int = Field(default=0, ge=0)
    file_page: int = Field(default=0, ge=0)
    change: str = ""
    change_page: int = Field(default=0, ge=0)


class OwnerState(Section):
    """A domain at a moment.

    Attributes
    ----------
    folder : str
        Its path, for the commands that are named.
    words : str
        Its fingerprint, to be read out over the phone.
    requests : tuple of RequestRow
        Newest first, :data:`MOST_ROWS` at the most, those that wait for a decision among them.
    more_requests : int
        How many older ones are not in the list.
    review : Review or None
        The request that is open; with ``form`` if it may be approved. ``review_problem`` says why it cannot be shown.
    audit : LeakageAudit or None
        What the last audit of the open request found; all of it is on ``audit_page``.
    """

    name: str
    email: str
    folder: str
    words: str
    service: ServiceState
    waiting: tuple[Waiting, ...] = ()
    requests: tuple[RequestRow, ...] = ()
    more_requests: int = 0
    opened: Opened = Opened()
    review: Review | None = None
    form: ApprovalForm | None = None
    review_problem: str = ""
    audit: LeakageAudit | None = None
    audit_page: str = ""
    trying: Trying | None = None
    releases: tuple[ReleaseRow, ...] = ()
    budget: BudgetGauge | None = None
    budget_problem: str = ""
    ledger: LedgerState = LedgerState()

    @property
    def dry_run(self) -> DryRun | None:
        """What the last dry run of the open request showed."""
        return None if self.review is None else self.review.dry_run

    @property
    def to_decide(self) -> int:
        """How many requests and releases wait for the data owner."""
        return sum(row.decision == "pending" for row in self.requests) + sum(row.is_to_decide for row in self.releases)


MOST_ROWS = 200
"""Of the list of requests."""

MOST_ENTRIES = 100
"""Of the ledger that a screen shows; an export has all of it."""
