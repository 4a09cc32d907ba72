"""A request in plain sentences, for the person who decides about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fedpriv.domain.difference import Difference
from fedpriv.domain.dry_run import DryRun
from fedpriv.domain.estimates import DataScope, Estimates
from fedpriv.domain.finding import lines_of
from fedpriv.domain.privacy_budget import PrivacyCost
from fedpriv.study.averaging import IN_WORDS as AVERAGING
from fedpriv.study.averaging import turns_of
from fedpriv.study.plan import MetricName, Plan
from fedpriv.study.section import Section
from fedpriv.study.task import TaskChoice

Topic = Literal[
    "task",
    "code",
    "model",
    "data",
    "rounds",
    "with",
    "leaves",
    "numbers",
    "besides",
    "stays",
    "bytes",
    "time",
    "privacy",
]

TOPICS: dict[Topic, str] = {
    "task": "What is learned",
    "code": "What will run",
    "model": "Base model",
    "data": "Your data",
    "rounds": "How often",
    "with": "With whom",
    "leaves": "What leaves",
    "numbers": "Numbers with it",
    "besides": "Besides",
    "stays": "What never leaves",
    "bytes": "Traffic",
    "time": "Computing time",
    "privacy": "Epsilon",
}

METRICS: dict[MetricName, str] = {
    "train_loss": "the mean loss on your training examples (how well the model predicts them)",
    "heldout_loss": "the mean loss on your held-out examples (how good the adapter is here)",
    "heldout_tokens": "how many pieces of words that was measured on",
    "train_tokens": "how many pieces of words were trained on",
    "examples": "how many examples you have for training",
    "heldout_examples": "how many examples you hold out",
    "heldout_auroc": "how well yes is told from no on your held-out examples (1: always, 0.5: not at all)",
    "heldout_auroc_se": "how sure that number is (its standard error)",
    "heldout_micro_f1": "how many answers of yes are found, and rightly, over all questions together (F1)",
    "heldout_macro_f1": "the same as a mean over the questions",
}
"""What each number that a plan may list says to whoever gets it."""


_BESIDES = (
    "How far a round is, how long its parts took, and, if the code fails, the kind of error and its line. At the end, "
    "only if you approve the release: the trained adapter."
)


class Sentence(Section):
    """One point of the summary."""

    topic: Topic
    text: str


def summary_of(
    plan: Plan,
    files: Mapping[str, str],
    *,
    member: str,
    difference: Difference,
    scope: DataScope,
    estimates: Estimates,
    dry_run: DryRun | None,
    tensors: Mapping[str, int],
    cost: PrivacyCost | None,
) -> tuple[Sentence, ...]:
    """Return what a data owner wants to know before deciding, one point a topic, in the order of :data:`TOPICS`.

    Parameters
    ----------
    member : str
        This domain's address.
    difference : Difference
        The code against the stock recipe.
    tensors : Mapping[str, int]
        The adapter's tensors, or nothing where the base model is not here.
    cost : PrivacyCost, optional
        What the plan's privacy section comes to at this domain, if it has one and the data are prepared.
    """
    texts: dict[Topic, str] = {
        "task": _task(plan.task),
        "code": _code({name: text for name, text in files.items() if name != plan.task.template}, difference),
        "model": _model(plan, estimates),
        "data": _data(plan, scope),
        "rounds": _rounds(plan),
        "with": _cohort(plan, member),
        "leaves": _leaves(plan, estimates, tensors),
        "numbers": "; ".join(f"{n}: {METRICS[n]}" for n in plan.leaving_metrics) + ". The researcher reads them.",
        "besides": _BESIDES,
        "stays": "Notes and tables, the update before it is protected, and all else that the code sees or writes.",
        "bytes": _bytes(plan, estimates),
        "time": _time(plan, estimates, dry_run),
        "privacy": epsilon_sentence(plan, cost),
    }
    return tuple(Sentence(topic=topic, text=texts[topic]) for topic in TOPICS)


def epsilon_sentence(plan: Plan, cost: PrivacyCost | None = None) -> str:
    """Say what a plan costs in epsilon; a plan without a ``privacy`` section has no differential privacy."""
    if plan.privacy is None:
        return (
            "None is counted: the plan has no differential privacy. What leaves, above all an adapter that you "
            "release, has no bound on what it tells about one patient."
        )
    words = plan.privacy.in_words()
    text = f"{words[0].upper()}{words[1:]}."
    if cost is None:
        return f"{text} What it comes to here is known once the data are prepared."
    text += (
        f" Here: epsilon {cost.planned:.3g} with delta {cost.delta:.2g}; your data have spent {cost.spent:.3g} so far"
    )
    return f"{text}, of a budget of {cost.budget:g}." if cost.budget is not None else f"{text}, and you set no budget."


def in_bytes(size: int) -> str:
    """Return a size in words: ``812 B``, ``0.71 MiB``."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor or (unit == "MiB" and size >= factor / 10):
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


def in_time(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _task(task: TaskChoice) -> str:
    asked = f" Asked of each: {' '.join(task.questions)}" if task.questions else ""
    return f"{task.in_words()}{asked}"


def _code(files: Mapping[str, str], difference: Difference) -> str:
    if not difference.changed:
        return "The unchanged stock recipe of fedpriv: it trains the adapter and does nothing else."
    code = [text for name, text in files.items() if name.endswith(".py")]
    others = sum(not name.endswith((".py", "plan.yaml")) for name in files)
    lines = sum(len(lines_of(text)) for text in code)
    more = f", and {_some(others, 'file')} without code" if others else ""
    own = f"The researcher's own code: {_some(lines, 'line')} in {_some(len(code), 'file')}{more}."
    return f"{own} {difference.in_words} Read it below."


def _model(plan: Plan, estimates: Estimates) -> str:
    name = plan.base_model.name
    packed = " Its weights are packed into 4 bits in memory." if plan.training.four_bits else ""
    if estimates.model_bytes is None or estimates.parameters is None:
        return f"{name}, with {_adapter(plan)}. It is not on this machine yet, so sizes are not known."
    return (
        f"{name} ({in_bytes(estimates.model_bytes)}, stays as it is), with {_adapter(plan)}: "
        f"{estimates.parameters:,} parameters.{packed}"
    )


def _adapter(plan: Plan) -> str:
    lengths = ", which trains the lengths of weights, too (DoRA)" if plan.lora.use_dora else ""
    return f"a LoRA adapter of rank {plan.lora.rank}{lengths}"


def _data(plan: Plan, scope: DataScope) -> str:
    if not scope.prepared:
        return f"All of your shard of {plan.dataset}; it is not prepared yet, so the number of patients is not known."
    train = f"{_some(scope.examples, 'example')} of {_some(scope.patients, 'patient')}"
    others = f"{_some(scope.heldout_examples, 'example')} of {_some(scope.heldout_patients, 'other patient')}"
    return f"All of your shard of {plan.dataset}: {train} to train on; {others} held out to measure the quality."


def _rounds(plan: Plan) -> str:
    training, privacy = plan.training, plan.privacy
    drawn = _some(training.batch_size, "example")
    if privacy is not None and privacy.unit == "patient":
        drawn = f"about {_some(training.batch_size, 'patient')} drawn at random"
    return (
        f"{_some(training.rounds, 'round')} of {_some(training.steps, 'step')}, {drawn} a step, "
        f"each text cut after {training.max_tokens:,} pieces of words. {plan.aggregation.server.in_words()}"
    ).strip()


def _cohort(plan: Plan, member: str) -> str:
    others = [email for email in plan.emails if email != member]
    named = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
    adder = f"{plan.researcher.email} runs the rounds and adds the updates up."
    return f"{_some(len(others), 'other domain')}: {named}. {adder}"


def _leaves(plan: Plan, estimates: Estimates, tensors: Mapping[str, int]) -> str:
    size = f" of {estimates.sent:,} parameters" if estimates.sent else ""
    sent = turns_of(plan.averaging, tensors)
    leaves = f"One update{size} a round, {plan.protection.in_words(sent)}. {AVERAGING[plan.averaging]}"
    return leaves.strip()


def _bytes(plan: Plan, estimates: Estimates) -> str:
    if estimates.update_bytes is None or estimates.total_bytes is None:
        return "Not known before the base model is here."
    plain = 4 * (estimates.sent or 0)
    return (
        f"About {in_bytes(estimates.update_bytes)} a round ({in_bytes(plain)} as plain numbers) and "
        f"{in_bytes(estimates.total_bytes)} in all, beside messages of some KiB (estimated)."
    )


def _time(plan: Plan, estimates: Estimates, dry_run: DryRun | None) -> str:
    threads = _some(estimates.threads, "thread")
    bound = (
        f"At most {in_time(estimates.seconds_a_round)} of training a round on {threads}, so at most "
        f"{in_time(estimates.seconds_in_all)} in all; sealing and measuring come on top."
    )
    if dry_run is None or dry_run.round_s is None:
        return f"{bound} A dry run would tell how long it really takes."
    cpu = dry_run.round_s * dry_run.threads * plan.training.rounds
    return (
        f"{bound} By the dry run about {in_time(dry_run.round_s)} a round, {in_time(cpu)} of processor time in all "
        "(estimated)."
    )
