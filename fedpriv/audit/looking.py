"""Who looks at what is attacked: every attack on what every party holds of a scene's updates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpriv.audit.attacks import Attack
from fedpriv.audit.parties import Stage, stages_of
from fedpriv.audit.planned import within
from fedpriv.audit.result import Measure, PartyName
from fedpriv.audit.scenes import Report, Scene, beside_next, seen
from fedpriv.audit.updates import PlannedWork
from fedpriv.leakage import View
from fedpriv.study import Plan
from fedpriv.training.adapter import AdapterState

_WHO: dict[PartyName, str] = {
    "unprotected": "an update without protection",
    "aggregator": "the researcher",
    "reader": "a domain with the store's bytes",
    "sum": "every domain",
    "sum-of-all": "every domain of the whole cohort",
    "collusion": "colluding domains",
    "aggregator-all-sealed": "the researcher if all were sealed",
    "released": "whoever gets the adapter",
}


@dataclass(frozen=True, kw_only=True)
class Looking:
    """Looks at updates as the parties of one plan do.

    Attributes
    ----------
    plan : Plan
        Whose protection counts.
    attacks : sequence of Attack
        All of them are tried.
    members, cohort : int
        The fewest domains in a sum, and all.
    scratch : Path
        A private folder for what domains publish.
    report : Callable
        See :data:`fedpriv.audit.scenes.Report`.
    """

    plan: Plan
    attacks: Sequence[Attack]
    members: int
    cohort: int
    scratch: Path
    report: Report

    def measures(self, work: PlannedWork, scene: Scene) -> Iterator[Measure]:
        """Attack the updates of a scene as each party holds them, under the plan's protection and without."""
        everyone = self.cohort if self.members < self.cohort < len(scene.updates) else None
        protection = within(self.plan.protection, work.sent)
        compared = scene.name == "alone"
        for stage in stages_of(protection, members=self.members, everyone=everyone, compared=compared):
            both = self._looked(stage, scene, work)
            for party in stage.looks:
                yield from self._attacked(scene, party, stage.domains, both[party])

    def _looked(self, stage: Stage, scene: Scene, work: PlannedWork) -> dict[PartyName, list[tuple[View, View]]]:
        """Return for each party its views of every case, and of the same with another case in its place."""
        count, words = len(scene.updates), ", ".join(stage.protection.levels)
        rounds = [
            [scene.updates[(place + n) % count] for n in (shift, *range(1, stage.domains))]
            for place in range(count)
            for shift in (0, stage.domains)
        ]

        def told() -> Iterator[list[AdapterState]]:
            for done, updates in enumerate(rounds, 1):
                yield updates
                self.report(f"protecting ({words}, {stage.domains} domains)", done, len(rounds))

        views = stage.views(told(), work.sent, clip=self.plan.first_clip, scratch=self.scratch)
        return {party: list(zip(found[::2], found[1::2], strict=True)) for party, found in views.items()}

    def unprotected(self, scene: Scene, epsilon: float) -> Iterator[Measure]:
        """Attack updates with another privacy as they are: protection hides as much of each."""
        yield from self._attacked(scene, "unprotected", 1, beside_next(scene.updates), epsilon)

    def _attacked(
        self,
        scene: Scene,
        party: PartyName,
        domains: int,
        pairs: Sequence[tuple[View, View]],
        epsilon: float | None = None,
    ) -> Iterator[Measure]:
        for number, attack in enumerate(self.attacks, 1):
            known = {"scene": scene.name, "party": party, "domains": domains, "attack": attack.name, "epsilon": epsilon}
            control = scene.controls[attack.name]
            if party == "unprotected" and scene.is_controlled:  # the same attack on the same updates
                tried = control.steps
            else:
                tried = attack.tried(seen(pairs, scene.secrets, scene.texts, scene.gradients))
            finding = attack.judge(tried, control)
            yield Measure(**known, **vars(finding))
            self.report(f"attacking what {_WHO[party]} holds", number, len(self.attacks))
