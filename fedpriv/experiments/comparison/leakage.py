"""What each method's updates give away, by attack: the comparison's first figure.

The passages are of the very shards that the methods train on; the attacks, views and the rate are those of
:mod:`fedpriv.leakage`, as ``docs/leakage.md`` defines them.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from dp_accounting import get_sigma_gaussian
from pydantic import Field

from fedpriv.audit.passages import Passage, draw_passages
from fedpriv.audit.result import Range
from fedpriv.audit.updates import PlannedWork
from fedpriv.clinical import Telling, prepare, write_synthetic
from fedpriv.domain.gatekeeper import privatise
from fedpriv.domain.privacy_budget import delta_of
from fedpriv.experiments.comparison.bed import Bed, cores
from fedpriv.experiments.comparison.cases import Case
from fedpriv.experiments.comparison.made import Made
from fedpriv.experiments.comparison.methods import METHODS, MethodName
from fedpriv.experiments.comparison.record import Records
from fedpriv.leakage import (
    ADAPTIVE_NOISE,
    Dictionary,
    Reader,
    Rehearsal,
    SequenceTrial,
    Trial,
    View,
    leakage_rate,
    read_tokens,
    recover_sequences,
    recover_tokens,
    rouge_l,
    sequence_rate,
    sequence_reader,
    sgd_update,
    token_dictionary,
)
from fedpriv.leakage.sequences import BEAMS
from fedpriv.leakage.telling import MOST_COMMON, passage_length
from fedpriv.study import Plan
from fedpriv.study.protection_choice import ProtectionChoice
from fedpriv.study.section import Section
from fedpriv.training import LocalContext, starting_adapter, train_local
from fedpriv.training.adapter import AdapterState, flatten, layout_of, unflatten
from fedpriv.training.examples import Encoder, Example, encode, read_lines

Work = Literal[
    "one step, 1 note", "one step, 4 notes", "local round, 1 note", "local round, 4 notes", "one step, 1 note, in order"
]
WORKS: tuple[Work, ...] = get_args(Work)

Holder = Literal["aggregator and store", "one colluding domain", "sum opened by one domain"]
"""The first two hold a single update. The third holds what no protection of updates hides, because aggregation is for
it: the sum, from which it takes off what it put in itself."""

LEAKAGE = "leakage"
PASSAGES = 10
TEXTS = 6
"""Passages that are read word for word, which takes longer than naming their tokens."""

MEMBERS = 3
COHORTS = (MEMBERS, 4, 8, 16)
"""Domains of the opened sum, each with an update of its own in it."""

EPSILON = 8.0
EPSILONS = (1.0, EPSILON, 64.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
"""Of DP-FL's curve: the whole study's, at one domain. The last ones are no privacy at all: where an update has half a
million numbers, only there is the noise of each of them small enough for the attack to see anything."""

IN_ORDER: Final = "one step, 1 note, in order"
"""The attack on sequences: rates of this one are ROUGE-L above chance."""

ROUND: Final = "local round, 1 note"
"""What sums are attacked of: AdamW's coordinates are all about as large, and outlast the rounding to a few bits."""

_NOTES: dict[Work, int] = {
    "one step, 1 note": 1,
    "one step, 4 notes": 4,
    ROUND: 1,
    "local round, 4 notes": 4,
    IN_ORDER: 1,
}
_PUBLIC_SEED = 1
_RATE = 0.1


def _is_round(work: Work) -> bool:
    """Whether the update is of AdamW's steps, which another dictionary is for."""
    return work.startswith("local round")


class LeakageCase(Section):
    """One attack: on which method's updates, as whom."""

    method: MethodName
    holder: Holder
    work: Work = "one step, 1 note"
    epsilon: float | None = Field(default=None, gt=0)
    members: int = Field(default=MEMBERS, ge=2, le=64)

    @property
    def name(self) -> str:
        """A name that no other case has, for its file and for people."""
        holder = self.holder.split()[0]
        epsilon = "" if self.epsilon is None else f"-epsilon-{self.epsilon:g}"
        members = "" if self.members == MEMBERS else f"-of-{self.members}"
        return f"{self.method}-{holder}-{self.work.replace(', ', '-').replace(' ', '-')}{epsilon}{members}"


class LeakageRecord(Section):
    """What an attack found.

    ``rate`` is the leakage rate, None where it was not measured; ``named`` the share of the telling tokens that were
    named, chance included; ``control`` the same where the attack must succeed. Of texts that are read in order they
    are ROUGE-L in place of shares of tokens. ``made`` is None in older records.
    """

    record_version: Literal[1] = 1
    case: LeakageCase
    rate: Range | None
    named: float
    control: Range
    trials: int
    made: Made | None = None


_PLAIN_TEXTS = LeakageCase(method="fl", holder="aggregator and store", work=IN_ORDER)


def leakage_cases(methods: Sequence[MethodName], works: Collection[Work] = WORKS) -> list[LeakageCase]:
    """Return the attacks of a comparison: every method as everybody, more work where something may show."""
    return [case for case in _every_case(methods) if case.work in works]


def _every_case(methods: Sequence[MethodName]) -> list[LeakageCase]:
    cases = []
    holders = get_args(Holder)
    single = holders[:2]
    for method in methods:
        if METHODS[method].private:
            cases += [LeakageCase(method=method, holder=holders[0], epsilon=epsilon) for epsilon in EPSILONS]
            cases.append(LeakageCase(method=method, holder=holders[1], epsilon=EPSILON))
            cases.append(LeakageCase(method=method, holder=holders[2], work=ROUND, epsilon=EPSILON))
            continue
        cases += [LeakageCase(method=method, holder=holder) for holder in single]
        if METHODS[method].level is not None:
            cases.append(LeakageCase(method=method, holder=holders[2], work=ROUND))
        if method in ("fl", "fedpriv", "fedpriv-hybrid"):
            works: tuple[Work, ...] = ("one step, 4 notes", ROUND, "local round, 4 notes")
            cases += [LeakageCase(method=method, holder=holders[0], work=work) for work in works]
        if method in ("fl", "he-fl", "fedpriv", "fedpriv-hybrid"):
            readers = single if method == "he-fl" else single[:1]  # of HE-FL any domain reads what the others do not
            cases += [LeakageCase(method=method, holder=holder, work=IN_ORDER) for holder in readers]
        if method == "fedpriv":  # the sum is the same, whichever of the methods it was hidden by on its way
            cases += [LeakageCase(method=method, holder=holders[2], work=ROUND, members=size) for size in COHORTS[1:]]
            cases.append(LeakageCase(method=method, holder=holders[2], work="local round, 4 notes"))
    return cases


def measure_leakage(
    bed: Bed,
    records: Records,
    cases: Sequence[LeakageCase],
    on_progress: Callable[[str, float], None] = lambda what, done: None,
    *,
    passages: int = PASSAGES,
) -> list[LeakageRecord]:
    """Attack every case that is not there yet, each with so many passages, and return the records of all.

    Raises
    ------
    FedprivError
        If the shards, the model or the attacks cannot be used.
    """
    attacker: _Attacker | None = None
    found = []
    for number, case in enumerate(cases):
        on_progress(f"attack: {case.name}", number / len(cases))
        record = records.find(LEAKAGE, case.name, LeakageRecord)
        if record is None or record.case != case:
            attacker = attacker or _Attacker(bed, passages)
            record = attacker.measure(case).model_copy(update={"made": Made.now()})
            records.keep(LEAKAGE, case.name, record)
        found.append(record)
    return found


@dataclass(frozen=True)
class _Batch:
    """The passages of one trial, and their update."""

    secret: frozenset[int]
    texts: tuple[tuple[int, ...], ...]
    update: AdapterState


class _Attacker:
    """Holds what an attacker knows beforehand, and the updates of the passages that it does not know."""

    def __init__(self, bed: Bed, passages: int) -> None:
        import torch

        torch.set_num_threads(cores())
        self._bed, self._folder, self._count = bed, bed.folder / "attacks", passages
        self._folder.mkdir(parents=True, exist_ok=True)
        self._plan: Plan = bed.plan(Case(part="methods", method="fl", seed=0))
        self._model, self._lora = bed.model.folder, self._plan.lora
        public = self._public()
        self._adapter = self._warm(public)
        self._examples = encode(self._model, read_lines(public), max_tokens=self._plan.training.max_tokens)
        self._plain = token_dictionary(self._model, self._lora, self._examples)
        self._adaptive = token_dictionary(
            self._model, self._lora, self._examples, noise=ADAPTIVE_NOISE, adapter=self._adapter
        )
        vocabulary = len(self._plain.frequency)
        self._common = self._plain.common(min(MOST_COMMON, vocabulary // 16))
        self._telling = frozenset(range(vocabulary)) - self._common
        self._passages = self._drawn()

    def _public(self) -> Path:
        """Return texts told as those of the shards are, of made-up patients."""
        tables = self._folder / "public"
        write_synthetic(tables, seed=_PUBLIC_SEED)
        return prepare(tables, self._folder / "told", telling=Telling(task=self._plan.task)).train

    def _warm(self, public: Path) -> AdapterState:
        """Return the adapter of a study's second round: at the first one's start ``lora_A`` has no gradient."""
        start = starting_adapter(self._model, self._lora, 0)
        context = LocalContext(
            model_folder=self._model,
            adapter=start,
            trained=tuple(start),
            train=public,
            heldout=public,
            lora=self._lora,
            training=self._plan.training.model_copy(update={"steps": 8, "precision": "float32"}),
            round=1,
            seed=0,
            threads=cores(),
        )
        return train_local(context).adapter_after

    def _drawn(self) -> list[Passage]:
        encoder, rng = Encoder(self._model, self._plan.training.max_tokens), np.random.default_rng(0)
        wanted = max(_NOTES.values()) * self._count
        length = passage_length(self._plain.whitener.shape[0], self._plan.training.max_tokens)
        each = {"count": -(-wanted // MEMBERS), "length": length, "telling": self._telling}
        pools = [draw_passages(data.train, encoder, rng=rng, **each) for data in self._bed.shards().values()]
        return [passage for group in zip(*pools, strict=False) for passage in group]

    def measure(self, case: LeakageCase) -> LeakageRecord:
        """Attack the updates of every batch."""
        if case.work == IN_ORDER:
            return self._measure_texts(case)
        trials, control = self._trials(case), self._control_of(case.work)
        if not trials:
            reached = leakage_rate(control, control=control, common=self._common).control
            return LeakageRecord(case=case, rate=None, named=0.0, control=Range.of(reached), trials=0)
        rate = leakage_rate(trials, control=control, common=self._common)
        named = [share for trial in trials if (share := trial.named(self._common, trial.guesses)) is not None]
        return LeakageRecord(
            case=case,
            rate=rate.above_chance and Range.of(rate.above_chance),
            named=round(float(np.mean(named)), 4),
            control=Range.of(rate.control),
            trials=rate.trials,
        )

    def _measure_texts(self, case: LeakageCase) -> LeakageRecord:
        """Read passages word for word."""
        trials = self._plain_texts if case == _PLAIN_TEXTS else self._texts(case)
        rate = sequence_rate(trials, control=self._plain_texts)
        return LeakageRecord(
            case=case,
            rate=rate.above_chance and Range.of(rate.above_chance),
            named=round(float(np.mean([rouge_l(trial.guess, trial.truth) for trial in trials])), 4),
            control=Range.of(rate.control),
            trials=rate.trials,
        )

    @functools.cached_property
    def _plain_texts(self) -> list[SequenceTrial]:
        return self._texts(_PLAIN_TEXTS)

    def _texts(self, case: LeakageCase) -> list[SequenceTrial]:
        batches = self._batches(case.work, self._count)[:TEXTS]
        guesses = []
        for batch, view in zip(batches, self._views_of(case, batches), strict=True):
            named = recover_tokens(view, self._plain, 2 * len(batch.secret))
            (text,) = batch.texts
            found = recover_sequences(view, self._reader, length=len(text), candidates=named, beams=BEAMS[:1])
            guesses.append(found[0] if found else ())
        others = [*guesses[1:], guesses[0]]
        return [
            SequenceTrial(truth=batch.texts[0], guess=guess, other=other)
            for batch, guess, other in zip(batches, guesses, others, strict=True)
        ]

    @functools.cached_property
    def _reader(self) -> Reader:
        return sequence_reader(self._model, self._lora, self._adapter, self._examples)

    def _control_of(self, work: Work) -> list[Trial]:
        """Return the attack where it must succeed: on a note's plain update of the same kind of steps."""
        return self._adaptive_control if _is_round(work) else self._control

    @functools.cached_property
    def _control(self) -> list[Trial]:
        return self._trials(LeakageCase(method="fl", holder="aggregator and store"))

    @functools.cached_property
    def _adaptive_control(self) -> list[Trial]:
        return self._trials(LeakageCase(method="fl", holder="aggregator and store", work=ROUND))

    def _trials(self, case: LeakageCase) -> list[Trial]:
        """Return the trials of the attack that knows what made the update; of noisy ones, of the better of two."""
        if _is_round(case.work):
            return self._attacked(case, self._adaptive)
        plain = self._attacked(case, self._plain)
        if case.epsilon is None:
            return plain
        return max(plain, self._attacked(case, self._adaptive), key=self._named)

    def _named(self, trials: Sequence[Trial]) -> float:
        return float(np.mean([trial.above_chance(self._common) or 0.0 for trial in trials]))

    def _attacked(self, case: LeakageCase, dictionary: Dictionary) -> list[Trial]:
        batches = self._batches(case.work, max(self._count, case.members + 1))
        if len(batches) <= case.members:  # a sum that has one of them twice is none of that many domains
            return []
        most = max(len(batch.secret) for batch in batches)
        guesses = self._guesses(case, batches, dictionary, most)
        others = [*guesses[1:], guesses[0]]  # what the same attack names in the update of other passages
        return [
            Trial(secret=batch.secret, guesses=own, others=other)
            for batch, own, other in zip(batches[: self._count], guesses, others, strict=False)
        ]

    def _guesses(
        self, case: LeakageCase, batches: Sequence[_Batch], dictionary: Dictionary, most: int
    ) -> list[Sequence[int]]:
        method = METHODS[case.method]
        if method.level is None:  # nobody needs to attack: who gets the notes reads them, who gets nothing guesses
            read = case.method == "centralised"
            return [
                tuple(dict.fromkeys([*(batch.secret if read else ()), *dictionary.by_frequency]))[:most]
                for batch in batches
            ]
        return [recover_tokens(view, dictionary, most) for view in self._views_of(case, batches)]

    def _views_of(self, case: LeakageCase, batches: Sequence[_Batch]) -> list[View]:
        """Return what the holder of a case gets of each batch's update, as far as there are trials.

        And of one more, where batches go on after them: a large sum that starts over at the first batch holds the last.
        """
        updates = [batch.update for batch in batches]
        if case.epsilon is not None:
            updates = [self._noised(update, case.epsilon) for update in updates]
        protection = METHODS[case.method].protection(10, list(self._adapter))
        return self._views(case, protection, updates)

    def _views(self, case: LeakageCase, protection: ProtectionChoice, updates: Sequence[AdapterState]) -> list[View]:
        """Protect each update in a cohort whose others send the next ones, and look at it."""
        clip = max(float(np.abs(values).max()) for update in updates for values in update.values())
        views = []
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            cohort = Rehearsal(protection, layout_of(self._adapter), Path(scratch), members=case.members, clip=clip)
            for number in range(min(len(updates), self._count + 1)):
                published = cohort.publish([updates[(number + ahead) % len(updates)] for ahead in range(case.members)])
                unlocked = cohort.unlock(published)
                if case.holder == "aggregator and store":
                    views.append(cohort.aggregator_view(published[0], unlocked=unlocked))
                elif case.holder == "sum opened by one domain":
                    views.append(cohort.sum_view(published, colluding=[1]))
                else:
                    views.append(cohort.domain_view(published[0], colluding=[1], unlocked=unlocked))
                for part in published:
                    part.path.unlink(missing_ok=True)
        return views

    @functools.lru_cache(maxsize=8)  # noqa: B019 - one attacker lives as long as its comparison
    def _batches(self, work: Work, count: int) -> tuple[_Batch, ...]:
        size = _NOTES[work]
        groups = [self._passages[start : start + size] for start in range(0, count * size, size)]
        return tuple(self._batch(work, group) for group in groups if len(group) == size)

    def _batch(self, work: Work, passages: Sequence[Passage]) -> _Batch:
        examples: list[Example] = [passage.example for passage in passages]
        if _is_round(work):
            round_ = PlannedWork(
                plan=self._plan,
                model_folder=self._model,
                adapter=self._adapter,
                round=2,
                patients=len(passages),
                threads=cores(),
                scratch=self._folder,
            )
            update = round_.update(passages)
        else:
            update = sgd_update(self._model, self._lora, self._adapter, [examples], rate=_RATE)
        texts = tuple(example.ids[:-1] for example in examples)
        return _Batch(secret=read_tokens(examples), texts=texts, update=update)

    def _noised(self, update: AdapterState, epsilon: float) -> AdapterState:
        """Return an update with the noise of a study with privacy of unit ``domain``.

        The clip is the update's own norm, the most that is left of it. The noise multiplier is that of the Gaussian
        mechanism once a round (Balle and Wang 2018), exact for any epsilon.
        """
        patients = max(2, min(data.patients for data in self._bed.shards().values()))
        sigma = get_sigma_gaussian(epsilon, delta_of(patients)) * math.sqrt(self._plan.training.rounds)
        flat = flatten(update)
        return unflatten(privatise(flat, clip=float(np.linalg.norm(flat)), noise_multiplier=sigma), update)
