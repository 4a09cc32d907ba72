"""``fedpriv audit leakage``: a data owner measures what others could read from updates of this very shard.

It runs at the domain, by the data owner's hand, with fedpriv's own code alone: the request's recipe is not run. Nothing
is sent, and no epsilon is charged: what it finds stays here unless the data owner gives it away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedpriv import __version__
from fedpriv.audit.advice import advice_of
from fedpriv.audit.attacks import Attack, MembershipAttack, Seen, TokenAttack
from fedpriv.audit.parties import Stage, stages_of
from fedpriv.audit.passages import Passage, draw_passages
from fedpriv.audit.planned import newest_adapter, round_to_look_at, steps_in_words, with_privacy, within
from fedpriv.audit.released import MOST_NOTES, released_measure
from fedpriv.audit.result import AttackName, LeakageAudit, Measure, PartyName, SceneName
from fedpriv.audit.updates import PlannedWork
from fedpriv.clinical import PreparedData, write_mock
from fedpriv.domain import Domain
from fedpriv.domain.policy import is_stock
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.starting import prepare_data, read_record
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.domain.trial import model_of, trial_folder
from fedpriv.errors import ConfigError, DataError
from fedpriv.leakage import ADAPTIVE_NOISE, View, read_tokens, token_dictionary
from fedpriv.leakage.rate import LEAST_TRIALS
from fedpriv.leakage.telling import common_count, passage_length
from fedpriv.study import Plan
from fedpriv.study.averaging import trained_tensors
from fedpriv.training.adapter import AdapterState, Layout, load_state, lora_layout, starting_adapter
from fedpriv.training.base_model import LocalModel
from fedpriv.training.examples import Encoder, Example, encode, read_lines
from fedpriv.training.lines import LineFile
from fedpriv.training.local_round import LocalContext, train_local
from fedpriv.training.recipe import stock_recipe

Report = Callable[[str, int, int], None]

MOST_ROUND_NOTES = 64
_WARM_STEPS = (8, 32)
"""Fewest and most steps on made-up notes that a study's first adapter is warmed by."""

_PUBLIC_SEED = 0


@dataclass(frozen=True, kw_only=True)
class AuditChoice:
    """How much is measured.

    Attributes
    ----------
    passages : int
        Of the shard, each attacked in updates of its own.
    rounds : int
        Local rounds of as many passages as the plan reads; 0 leaves them out.
    epsilons : tuple of float
        Of a differential privacy that is measured beside the plan as it is.
    seed : int
        Which passages are drawn. It is for nobody but the data owner.
    """

    passages: int = 16
    rounds: int = 8
    epsilons: tuple[float, ...] = ()
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """Updates of some passages, with their tokens; the gradient of the first one of each; what attacks make of that."""

    name: SceneName
    updates: list[AdapterState]
    secrets: list[frozenset[int]]
    gradients: list[AdapterState]
    controls: dict[AttackName, Any]


def audit_leakage(
    domain: Domain,
    stored: StoredRequest,
    choice: AuditChoice,
    *,
    report: Report = lambda stage, done, total: None,
    cache: Path | None = None,
) -> LeakageAudit:
    """Attack updates of this domain's own passages, as each party would hold them, and enter it in the ledger.

    *Guarantee*: what is returned holds numbers and fixed sentences, no text, token or tensor. Passages and unprotected
    updates lie in a private folder that is removed.
    *Limit*: see ``docs/leakage.md``. It says what can be recovered at least.

    Parameters
    ----------
    choice : AuditChoice
        How much is measured.
    report : Callable[[str, int, int], None]
        Called with a stage in words, what of it is done, and its total.
    cache : Path, optional
        Where base models are; by default fedpriv's cache.

    Raises
    ------
    ConfigError
        If fewer passages are asked for than an interval needs, or an epsilon is out of range.
    DataError
        If the domain's data cannot be prepared, or have too few passages.
    RefusedError
        If the base model here is not the plan's, or its privacy cannot be had with so few patients.
    LockError
        If a dry run or another audit of this domain is going on.
    """
    if choice.passages < LEAST_TRIALS:
        raise ConfigError(f"{choice.passages} passages say nothing", todo=f"take {LEAST_TRIALS} or more")
    started, plan = time.monotonic(), stored.request.plan
    others = [(epsilon, with_privacy(plan, epsilon)) for epsilon in choice.epsilons]
    model = model_of(plan, cache)
    report("preparing the data", 0, 1)
    record = read_record(domain)
    prepared = prepare_data(domain, record, stored.request)
    report("preparing the data", 1, 1)
    with trial_folder(domain.folder.state, "The dry run or audit of this domain") as scratch:
        audit = _Audit(
            domain=domain, stored=stored, choice=choice, model=model, prepared=prepared, scratch=scratch, report=report
        )
        result = audit.run(others, started)
    facts = {f"{m.attack} {m.party} {m.scene}": _in_short(m) for m in result.measures if m.epsilon is None}
    domain.ledger.append(
        "leakage.audited", study=result.study, passages=result.passages, stock_recipe=result.stock_recipe, **facts
    )
    return result


class _Audit:
    """One audit at work."""

    def __init__(
        self,
        *,
        domain: Domain,
        stored: StoredRequest,
        choice: AuditChoice,
        model: LocalModel,
        prepared: PreparedData,
        scratch: Path,
        report: Report,
    ) -> None:
        import torch

        self._domain, self._request, self._choice = domain, stored.request, choice
        self._plan, self._model, self._prepared = stored.request.plan, model, prepared
        self._scratch, self._report = scratch, report
        self._threads = domain.config.resources.threads
        torch.set_num_threads(self._threads)
        self._rng = np.random.default_rng(choice.seed)
        limits = stored.decision.limits
        least = max(domain.config.policy.minimum_cohort, limits.minimum_cohort if limits else 2)
        self._cohort = len(self._plan.cohort)
        self._members = min(least, self._cohort)
        self._notes: list[str] = []
        self._newest: int | None = None
        self._attacks: list[Attack] = []

    def run(self, others: Sequence[tuple[float, Plan]], started: float) -> LeakageAudit:
        public = self._public()
        work, start = self._work(self._scratch / "public" / "examples.jsonl")
        plain = token_dictionary(self._model.folder, self._plan.lora, public)
        adaptive = token_dictionary(self._model.folder, self._plan.lora, public, noise=ADAPTIVE_NOISE)
        common = common_count(len(plain.frequency))
        self._attacks = [
            TokenAttack(dictionary=adaptive, plain=plain, common=plain.common(common)),
            MembershipAttack(),
        ]
        length = passage_length(plain.whitener.shape[0], self._plan.training.max_tokens)
        encoder = Encoder(self._model.folder, self._plan.training.max_tokens)
        telling = frozenset(range(len(plain.frequency))) - plain.common(common)
        passages = self._draw(encoder, self._choice.passages, length, telling)
        alone = self._scene("alone", work, [[p] for p in passages])
        measures = list(self._measures(work, alone))
        by_patient = self._plan.privacy is not None and self._plan.privacy.unit == "patient"
        round_notes = self._round_notes()
        if self._choice.rounds and not by_patient:
            grouped = self._rounds(encoder, length, round_notes, telling)
            round_notes = len(grouped[0])
            measures += self._measures(work, self._scene("round", work, grouped, controls=alone.controls))
        for epsilon, plan in others:
            private = replace(work, plan=plan)
            scene = self._scene("alone", private, [[p] for p in passages], epsilon=epsilon)
            measures += self._unprotected(scene, epsilon)
        if self._newest:
            measures.append(self._released(work.adapter, encoder))
        self._say_what_was_measured(start)
        return LeakageAudit(
            fedpriv_version=__version__,
            study=self._request.study,
            title=self._plan.title,
            domain=self._domain.config.name,
            made_s=round(time.time(), 3),
            seconds=round(time.monotonic() - started, 1),
            model=self._plan.base_model.name,
            protection=self._plan.protection.in_words(),
            privacy=self._plan.privacy.in_words() if self._plan.privacy else "",
            passages=len(passages),
            tokens=max(len(passage.example) for passage in passages),
            common=common,
            round_notes=round_notes,
            members=self._members,
            cohort=self._cohort,
            steps=steps_in_words(self._plan),
            stock_recipe=self._is_stock,
            notes=tuple(self._notes),
            measures=tuple(measures),
            advice=advice_of(measures, self._plan, tuple(work.sent)),
        )

    # -- what is attacked --------------------------------------------------------------------------------------------

    def _public(self) -> list[Example]:
        """Make notes up that anybody could: what an attacker knows of the kind of text."""
        folder = self._scratch / "public"
        write_mock(folder, seed=_PUBLIC_SEED, task=self._plan.task, files=self._request.files)
        lines = read_lines(folder / "examples.jsonl")
        return encode(self._model.folder, lines, max_tokens=max(512, self._plan.training.max_tokens))

    def _work(self, public: Path) -> tuple[PlannedWork, str]:
        """Return the local round, and in words where it begins: the study's newest adapter here, or a warmed one."""
        layout = lora_layout(self._model.folder, self._plan.lora)
        newest = self._newest = newest_adapter(StudyFolder(self._domain.folder.study(self._request.study)))
        number = round_to_look_at(self._plan, layout, (newest or 0) + 1)
        if newest:
            path = StudyFolder(self._domain.folder.study(self._request.study)).adapter(newest)
            adapter, start = load_state(path, layout), f"the study's own adapter after its round {newest}"
        else:
            adapter, start = (
                self._warmed(public, layout),
                "an adapter that was trained on made-up notes first, since a study's very first one hides much",
            )
        work = PlannedWork(
            plan=self._plan,
            model_folder=self._model.folder,
            adapter=adapter,
            round=number,
            patients=self._prepared.patients,
            threads=self._threads,
            scratch=self._scratch,
        )
        return work, start

    def _warmed(self, public: Path, layout: Layout) -> AdapterState:
        training = self._plan.training
        least, most = _WARM_STEPS
        steps = max(least, min(training.steps, most))
        adapter = starting_adapter(self._model.folder, self._plan.lora, training.seed)
        context = LocalContext(
            model_folder=self._model.folder,
            adapter=adapter,
            trained=tuple(name for number in (1, 2) for name in trained_tensors(self._plan.averaging, layout, number)),
            train=public,
            heldout=public,
            lora=self._plan.lora,
            training=training.model_copy(update={"steps": steps, "proximal": 0.0}),
            round=1,
            seed=training.seed,
            threads=self._threads,
            report=lambda done, total: self._report("warming the adapter on made-up notes", done, total),
        )
        return train_local(context).adapter_after

    def _draw(self, encoder: Encoder, count: int, length: int, telling: frozenset[int]) -> list[Passage]:
        found = draw_passages(self._prepared.train, encoder, count=count, length=length, telling=telling, rng=self._rng)
        if len(found) < max(LEAST_TRIALS, self._members + 1):
            raise DataError(
                f"The shard has {len(found)} usable passages, too few for an audit",
                kept="Nothing was measured",
                todo="prepare more patients; on so few no interval says anything",
            )
        return found

    def _round_notes(self) -> int:
        training = self._plan.training
        return min(training.batch_size * training.steps, MOST_ROUND_NOTES)

    def _rounds(self, encoder: Encoder, length: int, notes: int, telling: frozenset[int]) -> list[list[Passage]]:
        """Return the passages of several rounds, none of them in two."""
        count = max(self._choice.rounds, LEAST_TRIALS, self._members + 1)
        pool = self._draw(encoder, count * notes, length, telling)
        each = min(notes, len(pool) // count)
        if each < notes:
            self._notes.append(
                f"The shard has too few passages for {count} rounds of {notes}; rounds of {each} were measured."
            )
        return [pool[n * each : (n + 1) * each] for n in range(count)]

    def _scene(
        self,
        name: SceneName,
        work: PlannedWork,
        cases: Sequence[Sequence[Passage]],
        *,
        epsilon: float | None = None,
        controls: dict[AttackName, Any] | None = None,
    ) -> _Scene:
        """Compute the updates of cases; without an earlier scene's ``controls``, try the attacks on their gradients."""
        what = {"alone": "training on single passages", "round": "training whole rounds"}[name]
        stage = what if epsilon is None else f"{what} with epsilon {epsilon:g}"
        updates = []
        for number, case in enumerate(cases, 1):
            updates.append(work.update(case))
            self._report(stage, number, len(cases))
        gradients = [work.gradient(case[0]) for case in cases]
        secrets = [read_tokens([passage.example for passage in case]) for case in cases]
        if controls is None:
            descents = [_bare({tensor: -value for tensor, value in gradient.items()}) for gradient in gradients]
            turned = list(zip(descents, [*descents[1:], descents[0]], strict=True))
            controls = self._controls(_seen(turned, secrets, gradients))
        return _Scene(
            name=name,
            updates=updates,
            secrets=secrets,
            gradients=gradients,
            controls=controls,
        )

    def _controls(self, cases: Sequence[Seen]) -> dict[AttackName, Any]:
        """Return what each attack makes of plain gradients of single passages, where it must succeed."""
        found: dict[AttackName, Any] = {}
        for number, attack in enumerate(self._attacks, 1):
            found[attack.name] = attack.controlled(cases)
            self._report("trying the attacks where they must succeed", number, len(self._attacks))
        return found

    # -- looking -----------------------------------------------------------------------------------------------------

    def _measures(self, work: PlannedWork, scene: _Scene) -> Iterator[Measure]:
        everyone = self._cohort if self._members < self._cohort < len(scene.updates) else None
        protection = within(self._plan.protection, work.sent)
        compared = scene.name == "alone"
        for stage in stages_of(protection, members=self._members, everyone=everyone, compared=compared):
            both = self._looked(stage, scene, work)
            for party in stage.looks:
                yield from self._attacked(scene, party, stage.domains, both[party])

    def _looked(self, stage: Stage, scene: _Scene, work: PlannedWork) -> dict[PartyName, list[tuple[View, View]]]:
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
                self._report(f"protecting ({words}, {stage.domains} domains)", done, len(rounds))

        views = stage.views(told(), work.sent, clip=self._plan.first_clip, scratch=self._scratch)
        return {party: list(zip(found[::2], found[1::2], strict=True)) for party, found in views.items()}

    def _unprotected(self, scene: _Scene, epsilon: float) -> Iterator[Measure]:
        """Attack updates with another privacy as they are: protection hides as much of each."""
        views = [_bare(update) for update in scene.updates]
        pairs = [(views[n], views[(n + 1) % len(views)]) for n in range(len(views))]
        yield from self._attacked(scene, "unprotected", 1, pairs, epsilon)

    def _attacked(
        self,
        scene: _Scene,
        party: PartyName,
        domains: int,
        pairs: Sequence[tuple[View, View]],
        epsilon: float | None = None,
    ) -> Iterator[Measure]:
        for number, attack in enumerate(self._attacks, 1):
            known = {"scene": scene.name, "party": party, "domains": domains, "attack": attack.name, "epsilon": epsilon}
            tried = attack.tried(_seen(pairs, scene.secrets, scene.gradients))
            finding = attack.judge(tried, scene.controls[attack.name])
            yield Measure(**known, **vars(finding))
            self._report(f"attacking what {_WHO[party]} holds", number, len(self._attacks))

    def _released(self, adapter: AdapterState, encoder: Encoder) -> Measure:
        """Ask the study's newest adapter about notes that it was trained on, and about others."""
        sides = []
        for path in (self._prepared.train, self._prepared.heldout):
            lines = LineFile(path)
            order = self._rng.permutation(len(lines))[:MOST_NOTES].tolist()
            sides.append([note for note in encoder.encode(lines.read(order)) if len(note) > 1])
        return released_measure(
            self._model.folder,
            self._plan.lora,
            adapter,
            members=sides[0],
            others=sides[1],
            domains=self._cohort,
            report=lambda done, total: self._report("asking the adapter about notes", done, total),
        )

    # -- telling -----------------------------------------------------------------------------------------------------

    @property
    def _is_stock(self) -> bool:
        return is_stock(self._request, stock_recipe(), besides=self._plan.task.template)

    def _say_what_was_measured(self, start: str) -> None:
        self._notes.append(f"The updates start from {start}.")
        privacy = self._plan.privacy
        if not self._is_stock and (privacy is None or privacy.unit != "patient"):
            self._notes.append(
                "The request brings code of its own, which an audit does not run: the stock recipe's steps were "
                "measured, with the plan's settings. Other code can put more of a note into an update than training "
                "does."
            )
        if privacy is not None:
            self._notes.append("The updates have the plan's differential privacy on them, with this domain's noise.")
        if privacy is not None and privacy.unit == "patient":
            self._notes.append(
                "Differential privacy draws at random which patients are in a step, here as in a round; a note that "
                "is in no step tells nothing. All other patients count as known to the attacker."
            )


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


def _seen(
    pairs: Sequence[tuple[View, View]], secrets: Sequence[frozenset[int]], gradients: Sequence[AdapterState]
) -> list[Seen]:
    cases = zip(pairs, secrets, gradients, strict=True)
    return [Seen(own=own, other=other, secret=secret, gradient=g) for (own, other), secret, g in cases]


def _bare(update: AdapterState) -> View:
    tensors = {name: value.astype(np.float64) for name, value in update.items()}
    return View(party="everybody", levels=dict.fromkeys(update, "plain"), tensors=tensors)


def _in_short(measure: Measure) -> str:
    if measure.found is None:
        return "not measured"
    return f"{measure.found.value:.2f} [{measure.found.low:.2f}, {measure.found.high:.2f}]"
