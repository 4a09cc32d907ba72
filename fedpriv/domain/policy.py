"""The policy: what is checked on every request, and what a data owner agrees to without being asked."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Literal

from fedpriv.domain.folder import STOCK_RECIPE, DomainConfig, StandingApproval, Terms
from fedpriv.errors import RefusedError
from fedpriv.study import CodeRequest, Limits, Plan, RequestDecision, TaskChoice
from fedpriv.study.plan import REQUIRED_METRICS, MetricName
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE
from fedpriv.training.recipe import stock_recipe


def review(
    config: DomainConfig, request: CodeRequest, researcher: str, *, fingerprint: str, stock: str
) -> RequestDecision:
    """Check a request against the domain's limits and decide, or leave it pending for a person.

    A request that breaks a limit is rejected whatever the policy. Within the limits it is approved if a standing
    approval names its code (by the digest of every file of it), its researcher, and terms that the plan keeps;
    otherwise a person decides.

    Parameters
    ----------
    researcher : str
        The authenticated sender.
    fingerprint : str
        This domain's own fingerprint.
    stock : str
        The text of the stock recipe.
    """
    checked, wrong = [], []
    for passed, sentence in checks(config, request, researcher, fingerprint):
        (checked if passed else wrong).append(sentence)

    def decide(decision: Literal["pending", "rejected"], reason: str) -> RequestDecision:
        return RequestDecision(
            study=request.study, member=config.email, decision=decision, reason=reason, checked=tuple(checked)
        )

    if wrong:
        return decide("rejected", "; ".join(f"not so: {sentence}" for sentence in wrong))
    misses = []
    for standing in config.policy.standing:
        miss = _misses(standing, request, researcher, stock)
        if miss is None:
            checked.append(_code_in_words(standing, request))
            reason = f"standing approval {standing.name}"
            return approve(config, request, checked=tuple(checked), reason=reason, terms=standing)
        misses.append(f"{standing.name}: {miss}")
    return decide("pending", "; ".join(["a data owner will read it", *misses])[:2000])


def _misses(standing: StandingApproval, request: CodeRequest, researcher: str, stock: str) -> str | None:
    """Return why a standing approval does not fit a request, or None if it does."""
    plan = request.plan
    fits = (
        (not standing.researchers or researcher in standing.researchers, f"it is not for {researcher}"),
        (
            _is_its_code(standing, request, stock),
            "the code is not what it names, to the byte and without another file",
        ),
        (_is_its_task(standing, request), f"it is not for the task {plan.task.kind} with these texts"),
        (
            standing.rounds is None or plan.training.rounds <= standing.rounds,
            f"it is for at most {standing.rounds} rounds",
        ),
        (
            standing.minimum_cohort is None or plan.smallest_sum >= standing.minimum_cohort,
            f"it is for at least {standing.minimum_cohort} domains in every sum, and {_smallest_in_words(plan)}",
        ),
        (
            standing.epsilon is None or plan.privacy is not None,
            f"it is for studies with differential privacy, of at most epsilon {standing.epsilon or 0:g}",
        ),
        (
            standing.metrics is None or set(plan.leaving_metrics) <= set(standing.metrics),
            f"it lets only {', '.join(standing.metrics or ())} leave",
        ),
    )
    return next((words for fit, words in fits if not fit), None)


def _is_its_task(standing: StandingApproval, request: CodeRequest) -> bool:
    """Say whether a standing approval is for a request's task; one for a whole request, by its id, is."""
    if standing.code == request.study:
        return True
    task = request.plan.task
    return task == TaskChoice() if standing.tasks is None else task.kind in standing.tasks


def _is_its_code(standing: StandingApproval, request: CodeRequest, stock: str) -> bool:
    if standing.code == STOCK_RECIPE:
        return is_stock(request, stock)
    return standing.code in (request.code, request.study)


def _code_in_words(standing: StandingApproval, request: CodeRequest) -> str:
    if standing.code == STOCK_RECIPE:
        digest = hashlib.sha256(request.files[RECIPE_FILE].encode()).hexdigest()[:12]
        return f"the code is the stock recipe to the byte (SHA-256 {digest}…) and there is no other file"
    what = "request" if standing.code == request.study else "code"
    return f"the {what} has the digest {standing.code[:12]}…, over every file"


def approve(
    config: DomainConfig,
    request: CodeRequest,
    *,
    checked: tuple[str, ...],
    reason: str,
    terms: Terms | None = None,
    now_s: float | None = None,
) -> RequestDecision:
    """Return the approval of a request, with limits that are never wider than the plan and the policy.

    Raises
    ------
    RefusedError
        If the terms leave out a number without which no round can be run, or limit what the plan does not have.
    """
    terms, plan, policy = terms or Terms(), request.plan, config.policy
    _require_fitting(terms, plan)
    metrics: tuple[MetricName, ...] = tuple(
        name for name in plan.leaving_metrics if terms.metrics is None or name in terms.metrics
    )
    if missing := sorted(REQUIRED_METRICS - set(metrics)):
        raise RefusedError(
            f"Without {', '.join(missing)} no round can be weighed and judged",
            kept="It was not approved",
            todo=f"let {', '.join(missing)} leave too, or reject the request",
        )
    now_s = time.time() if now_s is None else now_s
    limits = Limits(
        rounds=min(terms.rounds or plan.training.rounds, plan.training.rounds, policy.max_rounds),
        metrics=metrics,
        minimum_cohort=max(terms.minimum_cohort or 2, policy.minimum_cohort),
        epsilon=terms.epsilon,
        expires_s=None if terms.days is None else round(now_s + terms.days * 86_400.0),
        seconds=terms.seconds and min(terms.seconds, plan.training.max_seconds),
        hours=terms.hours,
        release=policy.release == "after-study" if terms.release is None else terms.release,
    )
    return RequestDecision(
        study=request.study, member=config.email, decision="approved", reason=reason, checked=checked, limits=limits
    )


def _require_fitting(terms: Terms, plan: Plan) -> None:
    """Refuse terms that would assure of something and limit nothing, or with which no round could ever be run."""
    if terms.epsilon is not None and plan.privacy is None:
        raise RefusedError(
            "This plan has no differential privacy: an epsilon would limit nothing",
            kept="It was not approved",
            todo="ask for a study with differential privacy, or approve without --epsilon",
        )
    least = terms.minimum_cohort
    if least is not None and least > plan.smallest_sum:
        raise RefusedError(
            f"You ask for at least {least} domains in every sum, and {_smallest_in_words(plan)}: "
            "such a round would never be carried out here",
            kept="It was not approved",
            todo=f"ask for a plan whose sums hold {least}, or approve with --minimum-cohort of at most "
            f"{plan.smallest_sum}",
        )


def _smallest_in_words(plan: Plan) -> str:
    """Return how few updates make a sum of a plan, and where it says so, as a part of a sentence."""
    schedule = plan.schedule
    where = f"schedule > {'buffer' if schedule.is_buffered else 'quorum'}"
    if schedule.buffer or schedule.quorum:
        return f"this plan lets {plan.smallest_sum} make one ({where})"
    return f"this plan has {len(plan.cohort)}"


def is_stock(request: CodeRequest, stock: str, *, besides: str | None = None) -> bool:
    """Say whether the bundle is a plan and the stock recipe and nothing else, ``besides`` the template, if named."""
    names = {PLAN_FILE, RECIPE_FILE, *filter(None, [besides])}
    return set(request.files) == names and request.files[RECIPE_FILE] == stock


def checks(config: DomainConfig, request: CodeRequest, researcher: str, fingerprint: str) -> Iterator[tuple[bool, str]]:
    """Yield each limit of the domain as a sentence, with whether the request keeps it; see :func:`review`."""
    plan, policy = request.plan, config.policy
    pinned = {member.email: member.fingerprint for member in config.researchers}
    named = plan.researcher
    yield (
        named.email == researcher and pinned.get(named.email) == named.fingerprint,
        f"the plan's researcher is {researcher}, with the fingerprint pinned in domain.yaml",
    )
    mine = {member.email: member.fingerprint for member in plan.cohort}
    yield mine.get(config.email) == fingerprint, "this domain is in the cohort, with its own fingerprint"
    yield len(plan.cohort) >= policy.minimum_cohort, f"at least {policy.minimum_cohort} domains take part"
    if plan.schedule.buffer or plan.schedule.quorum:
        yield (
            plan.smallest_sum >= policy.minimum_cohort,
            f"at least {policy.minimum_cohort} domains are in every sum: {_smallest_in_words(plan)}",
        )
    yield plan.dataset == config.data.dataset, f"the dataset is {config.data.dataset}"
    yield plan.training.rounds <= policy.max_rounds, f"at most {policy.max_rounds} rounds"
    yield plan.training.steps <= policy.max_steps, f"at most {policy.max_steps} steps a round"
    yield plan.training.max_seconds <= policy.max_seconds, f"at most {policy.max_seconds} seconds a round"
    allowed = ", ".join(policy.protection)
    yield plan.protection.level in policy.protection, f"updates leave only protected as one of: {allowed}"
    for number, rule in enumerate(plan.protection.rules, 1):
        about = f"rule {number} of the plan's protection ({rule.level} for {rule.in_words()})"
        yield rule.level in policy.protection, f"{about} keeps to one of: {allowed}"
    yield from _privacy_checks(policy.epsilon, request)


def _privacy_checks(budget: float | None, request: CodeRequest) -> Iterator[tuple[bool, str]]:
    """Yield what a privacy section and a privacy budget ask for; whether enough is left is checked round by round."""
    privacy = request.plan.privacy
    if privacy is not None and privacy.unit == "patient":
        yield (
            is_stock(request, stock_recipe(), besides=request.plan.task.template),
            "the code is the unchanged stock recipe, in whose place fedpriv trains privately",
        )
    if budget is not None:
        yield (
            privacy is not None and privacy.epsilon <= budget,
            f"the study has a privacy section, with an epsilon of at most {budget:g}, the budget of these data",
        )
