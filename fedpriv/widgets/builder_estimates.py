"""What a plan would cost, before it is submitted: bytes, time and epsilon, each with how it was got."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from fedpriv.domain.estimates import estimates_of, tensor_sizes
from fedpriv.domain.privacy_budget import delta_of, planned_epsilon, planned_mechanism
from fedpriv.domain.summary import in_bytes, in_time
from fedpriv.domain.trial import DryRun
from fedpriv.errors import FedprivError, ProtectionError
from fedpriv.protection.sizes import update_bytes
from fedpriv.study import Plan
from fedpriv.study.averaging import turns_of
from fedpriv.study.protection_choice import QUANTISED, ProtectionLevel

PATIENTS = (100, 1_000, 10_000)
"""What epsilon is said for, since no domain has told its number of patients before it approves."""

LINKS_MBPS = (1, 10, 100)
_PLAIN_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number in words, and how it was got."""

    name: str
    value: str
    how: str


@dataclass(frozen=True, kw_only=True)
class LevelBytes:
    """Bytes of one update of the plan, were its tensors at another level."""

    level: str
    bits: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """What a plan would cost.

    Attributes
    ----------
    sizes, times, privacy : tuple of Estimate
        In the order in which they are shown.
    levels : tuple of LevelBytes
        The update at every level; ``fp32`` first, which protects nothing.
    """

    sizes: tuple[Estimate, ...] = ()
    times: tuple[Estimate, ...] = ()
    privacy: tuple[Estimate, ...] = ()
    levels: tuple[LevelBytes, ...] = ()


def sizes_of(plan: Plan) -> tuple[tuple[Estimate, ...], tuple[LevelBytes, ...]]:
    """Return what an update and all of them weigh, from the planner that domains seal with."""
    found = estimates_of(plan, threads=1)
    if found.update_bytes is None or found.total_bytes is None or not found.sent:
        why = "the base model is not on this machine yet" if not found.parameters else "no exact sum can be planned"
        return (Estimate(name="an update", value="not known", how=why),), ()
    update, plain = found.update_bytes, _PLAIN_BYTES * found.sent
    planned = f"planned by the protection layer for {len(plan.cohort)} domains, with 1 KiB for its header"
    times = ", ".join(f"{in_time(update * 8 / (rate * 1e6))} at {rate}" for rate in LINKS_MBPS)
    sizes = (
        Estimate(
            name="an update",
            value=f"{in_bytes(update)}, {update / plain:.2f} times the {in_bytes(plain)} of plain fp32",
            how=f"{found.sent:,} parameters; {planned}",
        ),
        Estimate(
            name="all rounds",
            value=f"{in_bytes(found.total_bytes)} up from each domain",
            how=f"{plan.training.rounds} rounds; beside it messages of some KiB",
        ),
        Estimate(name="sending an update", value=f"{times} Mbit/s", how="its size over the link's speed"),
    )
    return sizes, _levels(plan, plain)


def _levels(plan: Plan, plain: int) -> tuple[LevelBytes, ...]:
    tensors = tensor_sizes(plan)
    turns = turns_of(plan.averaging, tensors)
    sent = {name: tensors[name] for name in turns}
    found = [LevelBytes(level="fp32", bits=32, bytes=plain)]
    for level in get_args(ProtectionLevel):
        protection = plan.protection.model_copy(update={"level": level, "rules": ()})
        try:
            size = update_bytes(protection, tensors=sent, turns=turns, clients=len(plan.cohort))
        except ProtectionError:
            continue
        found.append(LevelBytes(level=level, bits=plan.protection.bits if level in QUANTISED else 0, bytes=size))
    return tuple(found)


def times_of(plan: Plan, trial: DryRun | None, tried: Plan | None) -> tuple[Estimate, ...]:
    """Return how long a round's training takes: the plan's bound, and what a try on this machine says.

    Parameters
    ----------
    trial, tried : DryRun and Plan, optional
        The last try, and the plan that was tried.
    """
    training = plan.training
    bound = Estimate(
        name="a round's training",
        value=f"{in_time(training.max_seconds)} at most",
        how="the plan's max_seconds; sealing and measuring come on top",
    )
    if trial is None or tried is None or trial.round_s is None:
        return (bound,)
    if _work(tried) != _work(plan):
        return (bound, Estimate(name="by the last try", value="not known", how="it was of other steps than the plan's"))
    seconds = min(_step_seconds(trial, tried) * training.steps, float(training.max_seconds))
    how = f"a step took {in_time(_step_seconds(trial, tried))} on {trial.threads} threads of this machine, on mock data"
    return bound, Estimate(name="by the last try", value=f"about {in_time(seconds)} a round", how=how)


def _work(plan: Plan) -> tuple[object, ...]:
    """Return what decides how long a step takes."""
    others = plan.training.model_dump(exclude={"rounds", "steps", "max_seconds", "seed", "learning_rate"})
    return plan.base_model.name, plan.lora, plan.task, plan.privacy is not None, tuple(others.items())


def _step_seconds(trial: DryRun, tried: Plan) -> float:
    """Return how long the last step of a try took, in seconds."""
    more = tried.training.steps - trial.steps
    if more > 0 and trial.round_s is not None and trial.round_s < tried.training.max_seconds:
        return max(0.0, trial.round_s - trial.seconds) / more
    return trial.seconds / trial.steps


def privacy_of(plan: Plan) -> tuple[Estimate, ...]:
    """Return what the plan comes to in epsilon, by the accountant that domains charge with; it takes seconds."""
    if plan.privacy is None:
        none = "the plan has no differential privacy: nothing bounds what a released adapter tells about one patient"
        return (Estimate(name="epsilon", value="none is counted", how=none),)
    found = []
    for patients in PATIENTS:
        try:
            mechanism = planned_mechanism(plan, patients)
            value = f"{planned_epsilon(plan, patients):.3g} at delta {delta_of(patients):.2g}"
            how = (
                f"{mechanism.steps * plan.training.rounds} times noise of {mechanism.noise_multiplier:.3g} times the "
                f"clip, each patient in with probability {mechanism.sampling:.2g}; by the accountant of the domains"
            )
        except FedprivError as error:
            value, how = "not possible", str(error)
        found.append(Estimate(name=f"epsilon at {patients:,} patients", value=value, how=how))
    return tuple(found)
