"""The review: everything that a data owner looks at before deciding about a request, as one value for any screen."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fedpriv.clinical.stock_templates import stock_template
from fedpriv.domain.difference import Difference, code_difference
from fedpriv.domain.domain import Domain
from fedpriv.domain.dry_run import DryRun, last_dry_run
from fedpriv.domain.estimates import DataScope, Estimates, data_scope, estimates_of, tensor_sizes
from fedpriv.domain.finding import Finding
from fedpriv.domain.policy import checks, is_stock
from fedpriv.domain.privacy_budget import PrivacyBudget, PrivacyCost
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.static_check import findings
from fedpriv.domain.summary import Sentence, summary_of
from fedpriv.study import CodeRequest, Plan, RequestDecision
from fedpriv.study.names import Email, Sha256, Title
from fedpriv.study.request import RECIPE_FILE
from fedpriv.study.section import Section
from fedpriv.training.recipe import stock_recipe


class Check(Section):
    """One limit of ``domain.yaml``, and whether the request keeps it."""

    passed: bool
    sentence: str


class Predecessor(Section):
    """A request of the same researcher and title that this domain approved before.

    Attributes
    ----------
    study : str
        Its id.
    difference : Difference
        What changed since then, in the plan and in the code.
    """

    study: Sha256
    difference: Difference


class Review(Section):
    """One request as its data owner sees it.

    Attributes
    ----------
    study, code : str
        Digests of the whole bundle, and of every file but the plan.
    title, researcher, received_s
        What it is called, who sent it (the signer, not a name inside it), and when (seconds since the epoch).
    summary : tuple of Sentence
        In plain words.
    checks : tuple of Check
        The domain's limits.
    findings : tuple of Finding
        Of the static check, the most severe first.
    is_stock : bool
        Whether the code is the stock recipe to the byte and there is no other file.
    difference : Difference
        The code against the stock recipe.
    template : Difference or None
        How an admission is told, against the stock template of the task; None where it is the stock one.
    predecessor : Predecessor or None
        What changed since the last approved request of this kind.
    scope, estimates : DataScope and Estimates
        The numbers behind the summary.
    dry_run : DryRun or None
        What the last dry run showed.
    decision : RequestDecision
        The standing decision.
    files : dict of str to str
        Every file as it was frozen. A view has to make its text harmless, with :func:`~fedpriv.domain.finding.visible`.
    """

    study: Sha256
    code: Sha256
    title: Title
    researcher: Email
    received_s: float
    summary: tuple[Sentence, ...]
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    is_stock: bool
    difference: Difference
    template: Difference | None = None
    predecessor: Predecessor | None = None
    scope: DataScope
    estimates: Estimates
    dry_run: DryRun | None = None
    decision: RequestDecision
    files: dict[str, str] = Field(repr=False)

    @property
    def within_limits(self) -> bool:
        """Whether the request could be approved without a change of ``domain.yaml``."""
        return all(check.passed for check in self.checks)


def review_of(domain: Domain, stored: StoredRequest, *, cache: Path | None = None) -> Review:
    """Gather everything about a request; nothing is run, fetched or written.

    Parameters
    ----------
    cache : Path, optional
        Where base models are; by default fedpriv's cache.
    """
    request, plan = stored.request, stored.request.plan
    code = {name: text for name, text in request.files.items() if name != plan.task.template}
    difference = code_difference({RECIPE_FILE: stock_recipe()}, code, against="the stock recipe")
    scope = data_scope(domain)
    estimates = estimates_of(plan, threads=domain.config.resources.threads, cache=cache)
    dry_run = last_dry_run(domain, request.study)
    limits = checks(domain.config, request, stored.researcher, domain.keys.fingerprint)
    return Review(
        study=request.study,
        code=request.code,
        title=plan.title,
        researcher=stored.researcher,
        received_s=stored.received_s,
        summary=summary_of(
            plan,
            request.files,
            member=domain.config.email,
            difference=difference,
            scope=scope,
            estimates=estimates,
            dry_run=dry_run,
            tensors=tensor_sizes(plan, cache=cache),
            cost=_cost(domain, plan, scope.patients),
        ),
        checks=tuple(Check(passed=passed, sentence=sentence) for passed, sentence in limits),
        findings=findings(request.files),
        is_stock=is_stock(request, stock_recipe()),
        difference=difference,
        template=_template(request),
        predecessor=_predecessor(domain, stored),
        scope=scope,
        estimates=estimates,
        dry_run=dry_run,
        decision=stored.decision,
        files=dict(request.files),
    )


def _template(request: CodeRequest) -> Difference | None:
    """Return what a request's template changes; its name is its own, so the stock one is shown under the same."""
    task = request.plan.task
    if task.template is None:
        return None
    stock = {task.template: stock_template(task.kind)}
    return code_difference(stock, {task.template: request.files[task.template]}, against="the stock template")


def _cost(domain: Domain, plan: Plan, patients: int) -> PrivacyCost | None:
    """Return what the plan's privacy comes to here; None without it, or before there are patients to hide among."""
    if plan.privacy is None or patients < 2:
        return None
    config = domain.config
    return PrivacyBudget(domain.ledger).cost(plan, config.data.dataset, patients, config.policy.epsilon)


def _predecessor(domain: Domain, stored: StoredRequest) -> Predecessor | None:
    """Return the newest approved request with the same researcher and title that came before this one."""
    mine = stored.request
    before = [
        other
        for other in domain.requests.all()
        if other.request.study != mine.study
        and other.decision.decision == "approved"
        and (other.researcher, other.request.plan.title) == (stored.researcher, mine.plan.title)
        and other.received_s <= stored.received_s
    ]
    if not before:
        return None
    last = max(before, key=lambda other: other.received_s).request
    difference = code_difference(
        last.files, mine.files, against=f"request {last.study[:12]}", plans=(last.plan, mine.plan)
    )
    return Predecessor(study=last.study, difference=difference)
