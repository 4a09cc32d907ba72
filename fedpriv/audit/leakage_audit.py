"""``fedpriv audit leakage``: a data owner measures what others could read from updates of this very shard.

It runs at the domain, by the data owner's hand; code that a request brings runs in the walls of a real round. Nothing
is sent, and no epsilon is charged: what it finds stays here unless the data owner gives it away.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedpriv import __version__
from fedpriv.audit.advice import advice_of
from fedpriv.audit.attacks import Attack, MembershipAttack, TextAttack, TokenAttack
from fedpriv.audit.beginning import EXAMPLES, public_notes, warmed
from fedpriv.audit.looking import Looking
from fedpriv.audit.own_code import OwnCode, own_code
from fedpriv.audit.passages import Passage, draw_passages
from fedpriv.audit.planned import newest_adapter, round_to_look_at, steps_in_words, with_privacy
from fedpriv.audit.released import MOST_NOTES, released_measure
from fedpriv.audit.result import LeakageAudit, Measure
from fedpriv.audit.scenes import Report, scene_of
from fedpriv.audit.updates import PlannedWork
from fedpriv.clinical import PreparedData
from fedpriv.domain import Domain
from fedpriv.domain.policy import is_stock
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.starting import prepare_data, read_record
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.domain.trial import model_of, trial_folder
from fedpriv.errors import ConfigError, DataError, GatekeeperError, TrainingError
from fedpriv.leakage import ADAPTIVE_NOISE, Dictionary, sequence_reader, token_dictionary
from fedpriv.leakage.above_chance import LEAST_TRIALS
from fedpriv.leakage.telling import common_count, passage_length
from fedpriv.study import Plan
from fedpriv.training.adapter import AdapterState, load_state, lora_layout
from fedpriv.training.base_model import LocalModel
from fedpriv.training.examples import Encoder, Example
from fedpriv.training.lines import LineFile
from fedpriv.training.recipe import stock_recipe

MOST_ROUND_NOTES = 64


@dataclass(frozen=True, kw_only=True)
class AuditChoice:
    """How much is measured.

    Attributes
    ----------
    passages : int
        Of the shard, each attacked in updates of its own.
    texts : int
        So many of them are also read word for word, of single passages; 0 leaves it out. It takes long.
    rounds : int
        Local rounds of as many passages as the plan reads; 0 leaves them out.
    epsilons : tuple of float
        Of a differential privacy that is measured beside the plan as it is.
    seed : int
        Which passages are drawn. It is for nobody but the data owner.
    """

    passages: int = 16
    texts: int = 0
    rounds: int = 8
    epsilons: tuple[float, ...] = ()
    seed: int = 0


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
        If fewer passages or texts are asked for than an interval needs, or an epsilon is out of range.
    DataError
        If the domain's data cannot be prepared, or have too few passages.
    TrainingError, GatekeeperError
        If code of the request's own fails on some passages, or returns what may not be let out, and not on others.
    RefusedError
        If the base model here is not the plan's, or its privacy cannot be had with so few patients.
    LockError
        If a dry run or another audit of this domain is going on.
    """
    if choice.passages < LEAST_TRIALS:
        raise ConfigError(f"{choice.passages} passages say nothing", todo=f"take {LEAST_TRIALS} or more")
    if 0 < choice.texts < LEAST_TRIALS:
        raise ConfigError(f"{choice.texts} texts say nothing", todo=f"read {LEAST_TRIALS} or more, or 0")
    started, plan = time.monotonic(), stored.request.plan
    others = [(epsilon, with_privacy(plan, epsilon)) for epsilon in choice.epsilons]
    model = model_of(plan, cache)
    report("preparing the data", 0, 1)
    record = read_record(domain)
    prepared = prepare_data(domain, record, stored.request)
    report("preparing the data", 1, 1)
    with (
        trial_folder(domain.folder.state, "The dry run or audit of this domain") as scratch,
        own_code(domain, stored.request, model, prepared, scratch / "own") as own,
    ):
        audit = _Audit(
            domain=domain,
            stored=stored,
            choice=choice,
            model=model,
            prepared=prepared,
            scratch=scratch,
            report=report,
            own=own,
        )
        result = audit.run(others, started)
    facts = {f"{m.attack} {m.party} {m.scene}": _in_short(m) for m in result.measures if m.epsilon is None}
    domain.ledger.append(
        "leakage.audited",
        study=result.study,
        passages=result.passages,
        stock_recipe=result.stock_recipe,
        **({"walls": result.walls} if result.walls else {}),
        **facts,
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
        own: OwnCode | None,
    ) -> None:
        import torch

        self._domain, self._request, self._choice = domain, stored.request, choice
        self._plan, self._model, self._prepared = stored.request.plan, model, prepared
        self._scratch, self._report, self._own = scratch, report, own
        self._failed = False
        self._threads = domain.config.resources.threads
        torch.set_num_threads(self._threads)
        self._rng = np.random.default_rng(choice.seed)
        limits = stored.decision.limits
        least = max(domain.config.policy.minimum_cohort, limits.minimum_cohort if limits else 2)
        self._cohort = len(self._plan.cohort)
        self._members = min(least, self._cohort)
        self._notes: list[str] = []
        self._newest: int | None = None

    def run(self, others: Sequence[tuple[float, Plan]], started: float) -> LeakageAudit:
        public = public_notes(self._request, self._model.folder, self._scratch / "public")
        work, start = self._work(self._scratch / "public" / EXAMPLES)
        plain = token_dictionary(self._model.folder, self._plan.lora, public)
        adaptive = token_dictionary(self._model.folder, self._plan.lora, public, noise=ADAPTIVE_NOISE)
        common = common_count(len(plain.frequency))
        attacks: list[Attack] = [
            TokenAttack(dictionary=adaptive, plain=plain, common=plain.common(common)),
            MembershipAttack(),
        ]
        of_single = [*attacks, *self._text_attack(work.adapter, public, adaptive, plain)]
        looking = Looking(
            plan=self._plan,
            attacks=of_single,
            members=self._members,
            cohort=self._cohort,
            scratch=self._scratch,
            report=self._report,
        )
        length = passage_length(plain.whitener.shape[0], self._plan.training.max_tokens)
        encoder = Encoder(self._model.folder, self._plan.training.max_tokens)
        telling = frozenset(range(len(plain.frequency))) - plain.common(common)
        passages = self._draw(encoder, self._choice.passages, length, telling)
        work = self._with_own_code(work, passages[0])
        alone = scene_of("alone", work, [[p] for p in passages], of_single, self._report)
        measures = list(looking.measures(work, alone))
        looking = replace(looking, attacks=attacks)
        by_patient = self._plan.privacy is not None and self._plan.privacy.unit == "patient"
        round_notes = self._round_notes()
        if self._choice.rounds and not by_patient:
            grouped = self._rounds(encoder, length, round_notes, telling)
            round_notes = len(grouped[0])
            measures += looking.measures(
                work, scene_of("round", work, grouped, attacks, self._report, controls=alone.controls)
            )
        for epsilon, plan in others:
            private = replace(work, plan=plan)
            controls = alone.controls if private.sent == work.sent else None
            singles = [[p] for p in passages]
            scene = scene_of("alone", private, singles, attacks, self._report, epsilon=epsilon, controls=controls)
            measures += looking.unprotected(scene, epsilon)
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
            walls=work.own.walls if work.own else "",
            not_measured=self._not_measured(),
            notes=tuple(self._notes),
            measures=tuple(measures),
            advice=advice_of(measures, self._plan, tuple(work.sent)),
        )

    # -- what is attacked --------------------------------------------------------------------------------------------

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
                warmed(self._plan, self._model.folder, public, threads=self._threads, report=self._report),
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

    def _text_attack(
        self, adapter: AdapterState, public: Sequence[Example], adaptive: Dictionary, plain: Dictionary
    ) -> list[Attack]:
        """Return the attack that reads passages word for word, if it was asked for."""
        if not self._choice.texts:
            return []
        self._report("learning what layers get", 0, 2)
        readers = []
        for done, noise in enumerate((ADAPTIVE_NOISE, 0.0), 1):
            readers.append(sequence_reader(self._model.folder, self._plan.lora, adapter, public, noise=noise))
            self._report("learning what layers get", done, 2)
        reader, plain_reader = readers
        most = self._choice.texts
        return [TextAttack(reader=reader, dictionary=adaptive, plain_reader=plain_reader, plain=plain, most=most)]

    def _with_own_code(self, work: PlannedWork, passage: Passage) -> PlannedWork:
        """Return the work as the request's own code does it, where there is such code and it can do a passage."""
        if self._own is None:
            return work
        own = replace(work, own=self._own)
        try:
            own.update([passage])
        except (TrainingError, GatekeeperError):  # the page tells no reason: it has fixed sentences alone
            self._failed = True
            return work
        return own

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

    def _not_measured(self) -> tuple[str, ...]:
        privacy = self._plan.privacy
        if self._is_stock or (privacy is not None and privacy.unit == "patient"):
            return ()
        if self._own is not None and not self._failed:
            return ()
        why = (
            "which failed on a passage here: `fedpriv domain try` shows how it does on made-up patients"
            if self._failed
            else "which an audit runs in a sandbox alone, and here is none: `fedpriv doctor` says what is missing"
        )
        return (
            f"The request brings code of its own, {why}. The stock recipe's steps were measured, with the plan's "
            "settings. Other code can put more of a note into an update than training does. What protects the update, "
            "and who holds what of it, was measured as it will be; how much is in it was not.",
        )

    def _say_what_was_measured(self, start: str) -> None:
        self._notes.append(f"The updates start from {start}.")
        if self._own is not None and not self._failed:
            self._notes.append(
                "The request brings code of its own, which was run on these passages. Code can tell that it is given "
                "a few passages and not a shard, and behave otherwise in a round: read it before you approve it."
            )
        if self._own is not None and self._own.tried:
            self._notes.append(
                "While it ran, the request's code tried what training never needs, and the walls refused it; "
                "`fedpriv domain try` says what."
            )
        privacy = self._plan.privacy
        if privacy is not None:
            self._notes.append("The updates have the plan's differential privacy on them, with this domain's noise.")
        if privacy is not None and privacy.unit == "patient":
            self._notes.append(
                "Differential privacy draws at random which patients are in a step, here as in a round; a note that "
                "is in no step tells nothing. All other patients count as known to the attacker."
            )


def _in_short(measure: Measure) -> str:
    if measure.found is None:
        return "not measured"
    return f"{measure.found.value:.2f} [{measure.found.low:.2f}, {measure.found.high:.2f}]"
