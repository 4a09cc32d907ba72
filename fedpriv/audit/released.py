"""What the trained adapter itself tells: whoever gets it, when it is released or in a round, can ask it about notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fedpriv.audit.result import Measure, Range
from fedpriv.leakage import loss_scores, membership, overfitted, released_membership
from fedpriv.leakage.above_chance import LEAST_TRIALS
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import Example

MOST_NOTES = 64
"""Of each side: they bound the time."""

_BY_HEART, _STEPS, _MOST_TIMES = 8, 40, 6
"""Notes that the control learns by heart, and steps of one go at it; so many goes at the most."""

_ENOUGH = 0.9
"""AUROC of the control at which it is learnt enough: above what must be reached."""


def released_measure(
    model_folder: Path,
    lora: LoraChoice,
    adapter: AdapterState,
    *,
    members: Sequence[Example],
    others: Sequence[Example],
    domains: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Measure:
    """Return how well the adapter's loss tells notes that it was trained on from those of other patients.

    *Limit*: the held-out patients of a shard are its latest ones. Where notes change with the years, the attack sees
    that too, and it looks like a leak.

    Parameters
    ----------
    model_folder, lora, adapter
        The base model, the plan's section, and the study's newest adapter.
    members, others : sequence of Example
        Notes that this domain trains on, and notes of its held-out patients; at most :data:`MOST_NOTES` count of each.
    domains : int
        How many domains' notes are in the adapter.
    report : Callable[[int, int], None]
        Called with the goes at the control that are done, and their most.

    Raises
    ------
    InputError, TrainingError, ModelError
        As :func:`fedpriv.leakage.losses.losses`.
    """
    known = {"scene": "adapter", "party": "released", "domains": domains, "attack": "membership"}
    few = min(len(members), len(others))
    if few < LEAST_TRIALS:
        return Measure(**known, trials=few, why_not=f"only {few} notes could be compared, and so few say nothing")
    mine, theirs = members[:MOST_NOTES], others[:MOST_NOTES]
    scores = [loss_scores(model_folder, lora, adapter, notes).tolist() for notes in (mine, theirs)]
    by_heart, learnt, control = mine[:_BY_HEART], adapter, scores
    for done in range(1, _MOST_TIMES + 1):  # until the attack succeeds where it must
        learnt = overfitted(model_folder, lora, learnt, by_heart, steps=_STEPS, seed=done)
        control = [loss_scores(model_folder, lora, learnt, notes).tolist() for notes in (by_heart, theirs)]
        report(done, _MOST_TIMES)
        if membership(*control).auroc.value >= _ENOUGH:
            break
    report(_MOST_TIMES, _MOST_TIMES)
    found = released_membership(scores[0], scores[1], control=(control[0], control[1]))
    works = found.found is not None
    return Measure(
        **known,
        trials=min(len(mine), len(theirs)),
        found=Range.of(found.found.auroc) if found.found else None,
        control=Range.of(found.control.auroc),
        why_not="" if works else "the attack did not tell even notes that were learnt by heart, so it says nothing",
    )
