"""Who holds what of an update. Each party looks at bytes that the product's own code made; a new one is a line more."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpriv.audit.result import PartyName
from fedpriv.leakage import Published, Rehearsal, View
from fedpriv.study.protection_choice import ProtectionChoice
from fedpriv.training.adapter import AdapterState, Layout

Look = Callable[[Rehearsal, Sequence[Published]], View]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Some domains that publish, and who looks at what they published.

    Attributes
    ----------
    protection : ProtectionChoice
        What the updates are under.
    domains : int
        How many publish one.
    looks : dict of Callable
        For each party, what makes its view of the first domain's update.
    """

    protection: ProtectionChoice
    domains: int
    looks: Mapping[PartyName, Look]

    def views(
        self, rounds: Iterable[Sequence[AdapterState]], layout: Layout, *, clip: float, scratch: Path
    ) -> dict[PartyName, list[View]]:
        """Protect the updates of each round as domains do, and return what each party holds of the first one.

        Raises
        ------
        ProtectionError
            If such updates cannot be protected at all.
        """
        views: dict[PartyName, list[View]] = {name: [] for name in self.looks}
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            cohort = Rehearsal(self.protection, layout, Path(folder), members=self.domains, clip=clip)
            for updates in rounds:
                published = cohort.publish(updates)
                for name, look in self.looks.items():
                    views[name].append(look(cohort, published))
                for path in Path(folder).iterdir():  # a container of a plain plan is as private as the shard
                    path.unlink()
        return views


def stages_of(
    protection: ProtectionChoice, *, members: int, everyone: int | None, compared: bool = True
) -> list[Stage]:
    """Return who looks at a plan's updates.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's section, with rules about tensors that are sent alone.
    members : int
        The fewest domains in a sum that the data owner allows.
    everyone : int, optional
        All domains of the plan, where that is more.
    compared : bool
        Whether to look, for comparison, at what the researcher would hold if all were sealed.
    """
    inside: dict[PartyName, Look] = {
        "aggregator": _after_the_round,
        "reader": _another_domain,
        "sum": _sum,
        "collusion": _rest,
    }
    stages = [
        Stage(protection=ProtectionChoice(level="plain"), domains=members, looks={"unprotected": _published}),
        Stage(protection=protection, domains=members, looks=inside),
    ]
    if everyone is not None:
        stages.append(Stage(protection=protection, domains=everyone, looks={"sum-of-all": _sum}))
    if compared and protection.levels != ("sealed",):
        sealed = ProtectionChoice(bits=protection.bits, security=protection.security)
        stages.append(Stage(protection=sealed, domains=members, looks={"aggregator-all-sealed": _published}))
    return stages


def _published(cohort: Rehearsal, published: Sequence[Published]) -> View:
    return cohort.aggregator_view(published[0])


def _after_the_round(cohort: Rehearsal, published: Sequence[Published]) -> View:
    return cohort.aggregator_view(published[0], unlocked=cohort.unlock(published))


def _another_domain(cohort: Rehearsal, published: Sequence[Published]) -> View:
    return cohort.domain_view(published[0], colluding=[1], unlocked=cohort.unlock(published))


def _sum(cohort: Rehearsal, published: Sequence[Published]) -> View:
    return cohort.sum_view(published, colluding=[1])


def _rest(cohort: Rehearsal, published: Sequence[Published]) -> View:
    return cohort.sum_view(published, colluding=range(1, len(published)))
