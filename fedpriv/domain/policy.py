"""The policy: what is checked on every request, and what a data owner agrees to without being asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

from fedpriv.domain.folder import DomainConfig
from fedpriv.study import CodeRequest, RequestDecision
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE
from fedpriv.training.recipe import stock_recipe


def review(
    config: DomainConfig, request: CodeRequest, researcher: str, *, fingerprint: str, stock: str
) -> RequestDecision:
    """Check a request against the domain's limits and decide, or leave it pending for a person.

    A request that breaks a limit is rejected whatever the policy. Within the limits, ``ask`` leaves it pending and
    ``stock-recipe`` approves it if its code is the stock recipe to the byte and the bundle holds nothing else.

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
    if config.policy.approve == "ask":
        return decide("pending", "a data owner will read it")
    if not is_stock(request, stock):
        return decide("pending", "the code is not the unchanged stock recipe: a data owner will read it")
    digest = hashlib.sha256(stock.encode()).hexdigest()[:12]
    checked.append(f"the code is the stock recipe to the byte (SHA-256 {digest}…) and there is no other file")
    return approve(config, request, checked=tuple(checked), reason="standing policy: stock recipe")


def approve(
    config: DomainConfig,
    request: CodeRequest,
    *,
    checked: tuple[str, ...],
    reason: str,
    max_rounds: int | None = None,
    release: bool | None = None,
) -> RequestDecision:
    """Return the approval of a request with its limits."""
    return RequestDecision(
        study=request.study,
        member=config.email,
        decision="approved",
        reason=reason,
        checked=checked,
        max_rounds=min(max_rounds or request.plan.training.rounds, config.policy.max_rounds),
        release=config.policy.release == "after-study" if release is None else release,
    )


def is_stock(request: CodeRequest, stock: str) -> bool:
    """Say whether the bundle is a plan and the stock recipe and nothing else."""
    return set(request.files) == {PLAN_FILE, RECIPE_FILE} and request.files[RECIPE_FILE] == stock


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
            is_stock(request, stock_recipe()),
            "the code is the unchanged stock recipe, in whose place fedpriv trains privately",
        )
    if budget is not None:
        yield (
            privacy is not None and privacy.epsilon <= budget,
            f"the study has a privacy section, with an epsilon of at most {budget:g}, the budget of these data",
        )
