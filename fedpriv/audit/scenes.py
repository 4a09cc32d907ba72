"""What is attacked: updates of some passages, computed as the plan says, and gradients where attacks must succeed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedpriv.audit.attacks import Attack, Control, Seen
from fedpriv.audit.passages import Passage
from fedpriv.audit.result import AttackName, SceneName
from fedpriv.audit.updates import PlannedWork
from fedpriv.leakage import View, read_tokens
from fedpriv.training.adapter import AdapterState

Report = Callable[[str, int, int], None]
"""Called with a stage in words, what of it is done, and its total."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Updates of some passages with their tokens, text and gradient of each one's first; what attacks make of that.

    ``is_controlled``: the updates are the very ones that the controls' steps are of.
    """

    name: SceneName
    updates: list[AdapterState]
    secrets: list[frozenset[int]]
    texts: list[tuple[int, ...]]
    gradients: list[AdapterState]
    controls: dict[AttackName, Control]
    is_controlled: bool


def scene_of(
    name: SceneName,
    work: PlannedWork,
    cases: Sequence[Sequence[Passage]],
    attacks: Sequence[Attack],
    report: Report,
    *,
    epsilon: float | None = None,
    controls: dict[AttackName, Control] | None = None,
) -> Scene:
    """Compute the updates of cases; without an earlier scene's ``controls``, try the attacks where they must succeed.

    Such a scene has single passages alone.
    """
    what = {"alone": "training on single passages", "round": "training whole rounds"}[name]
    stage = what if epsilon is None else f"{what} with epsilon {epsilon:g}"
    updates = []
    for number, case in enumerate(cases, 1):
        updates.append(work.update(case))
        report(stage, number, len(cases))
    gradients = [work.gradient(case[0]) for case in cases]
    secrets = [read_tokens([passage.example for passage in case]) for case in cases]
    texts = [case[0].example.ids[:-1] for case in cases]
    is_controlled = controls is None and work.is_bare
    if controls is None:
        descents = [{tensor: -value for tensor, value in gradient.items()} for gradient in gradients]
        stepped = updates if work.is_bare else [work.bare_update(case) for case in cases]
        easy, planned = (seen(beside_next(found), secrets, texts, gradients) for found in (descents, stepped))
        controls = _controls(attacks, easy, planned, report)
    return Scene(
        name=name,
        updates=updates,
        secrets=secrets,
        texts=texts,
        gradients=gradients,
        controls=controls,
        is_controlled=is_controlled,
    )


def _controls(
    attacks: Sequence[Attack], easy: Sequence[Seen], planned: Sequence[Seen], report: Report
) -> dict[AttackName, Control]:
    """Return what each attack makes of plain gradients of single passages, and of the plan's steps on them."""
    found: dict[AttackName, Control] = {}
    for number, attack in enumerate(attacks, 1):
        found[attack.name] = Control(gradients=attack.controlled(easy), steps=attack.tried(planned))
        report("trying the attacks where they must succeed", number, len(attacks))
    return found


def seen(
    pairs: Sequence[tuple[View, View]],
    secrets: Sequence[frozenset[int]],
    texts: Sequence[tuple[int, ...]],
    gradients: Sequence[AdapterState],
) -> list[Seen]:
    """Return each case as a party sees it."""
    cases = zip(pairs, secrets, texts, gradients, strict=True)
    return [Seen(own=own, other=other, secret=secret, text=text, gradient=g) for (own, other), secret, text, g in cases]


def beside_next(updates: Sequence[AdapterState]) -> list[tuple[View, View]]:
    """Return each update as somebody holds it whom nothing keeps off, with the next one to compare it with."""
    views = [bare(update) for update in updates]
    return list(zip(views, [*views[1:], views[0]], strict=True))


def bare(update: AdapterState) -> View:
    """Return an update as somebody holds it whom nothing keeps off."""
    tensors = {name: value.astype(np.float64) for name, value in update.items()}
    return View(party="everybody", levels=dict.fromkeys(update, "plain"), tensors=tensors)
