"""What does a released adapter tell about the patients it was trained on? Prints a JSON line for each kind of training.

    python benchmarks/released_adapter.py                                the tiny model, some minutes on one core
    python benchmarks/released_adapter.py --model smollm2-135m-instruct --steps 60 --runs 1

One domain's made-up patients, and some whose only note is a canary, written down once or several times. They are
trained on in one long round: with fedpriv's own local round, with the same stopped early (which learns as little as
noise lets), with its private round without noise (clipping alone), and with its private round at each epsilon. Then
whoever holds the adapter attacks it (docs/leakage.md): membership of notes, exposure of the canaries, and the care unit
of a patient whose note is otherwise known; each by the adapter's loss alone, against the base model, and against a
reference adapter of yet other patients. Who is trained on is drawn at random.

Each attack is first tried on an adapter of the same kind that has learnt a few notes by heart. Where it fails there,
the answer is "not measured". The last lines are the means over the runs, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedpriv.clinical.mock import write_mock
from fedpriv.domain.privacy_budget import planned_mechanism, private_steps
from fedpriv.leakage import (
    CanaryFormat,
    Interval,
    Question,
    attribute_inference,
    calibrated_scores,
    exposure,
    exposures,
    guesses,
    loss_scores,
    overfitted,
    questions,
    released_membership,
)
from fedpriv.leakage.attributes import CARE_UNIT
from fedpriv.leakage.losses import losses
from fedpriv.study.plan import BaseModelChoice, LoraChoice, MemberChoice, Plan, TrainingChoice
from fedpriv.study.privacy import PRIVATE_RATE, PrivacyChoice
from fedpriv.training import LocalContext, ensure_model, starting_adapter, train_local
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import Example, encode, read_patients
from fedpriv.training.private_round import PrivateSteps, train_private

SEEDS = range(1, 10)
"""Of made-up patients, 24 each."""

MEMBERS, REFERENCES = 48, 48
"""Patients trained on, and those of the reference. Of a hundred others one may be taken for a member: more are left."""

BY_HEART = 8
"""Notes, or canaries, that the control learns."""

UNTRAINED, LOCAL, EARLY = "untrained", "local round", "local round, stopped early"
NO_NOISE = "private round without noise"


def made_up_patients(work: Path) -> list[list[str]]:
    """Return the notes of each of them."""
    found = []
    for seed in SEEDS:
        folder = work / f"notes-{seed}"
        folder.mkdir()
        write_mock(folder, seed=seed)
        found += [[line.text for line in lines] for lines in read_patients(folder / "examples.jsonl")]
    return found


class Domain:
    """One domain's notes with canaries among them, those of others, and what is trained on them."""

    def __init__(self, options: argparse.Namespace, patients: Sequence[list[str]], work: Path, run: int) -> None:
        self.options, self.work, self.run = options, work, run
        self.folder = ensure_model(options.model).folder
        self.lora = LoraChoice(rank=options.rank, alpha=options.rank, targets=tuple(options.targets))
        self.start = starting_adapter(self.folder, self.lora, run)
        self.canaries = CanaryFormat()
        fills = self.canaries.fills((len(options.times) + 2) * options.canaries, seed=2 * run)
        self.fills = [fills[start : start + options.canaries] for start in range(0, len(fills), options.canaries)]
        self.never = [fill for some in self.fills[-2:] for fill in some]
        drawn = random.Random(run).sample(list(patients), len(patients))
        canaries = [
            [text] * times
            for times, some in zip(options.times, self.fills, strict=False)
            for text in self.canaries.texts(some)
        ]
        self.patients = [*drawn[:MEMBERS], *canaries]
        self.members, references, self.others = (
            [note for notes in part for note in notes]
            for part in (drawn[:MEMBERS], drawn[MEMBERS:][:REFERENCES], drawn[MEMBERS:][REFERENCES:])
        )
        self.reference = self.by_local_round([[note] for note in references])

    def encoded(self, texts: Sequence[str]) -> list[Example]:
        return encode(self.folder, texts, max_tokens=self.options.max_tokens)

    def loss(self, adapter: AdapterState, texts: Sequence[str]) -> float:
        """Return the mean loss of a token, nats."""
        found = losses(self.folder, self.lora, adapter, self.encoded(texts))
        return round(float(found.summed.sum() / found.tokens.sum()), 3)

    def training(self, rate: float, steps: int | None = None) -> TrainingChoice:
        choice = self.options
        return TrainingChoice(
            rounds=1,
            steps=steps or choice.steps,
            batch_size=choice.batch_size,
            max_tokens=choice.max_tokens,
            learning_rate=rate,
            precision="float32",
            max_seconds=86_400,
        )

    def by_local_round(self, patients: Sequence[list[str]], steps: int | None = None) -> AdapterState:
        return train_local(self._context(patients, self.training(self.options.rate, steps))).adapter_after

    def privately(self, steps: PrivateSteps) -> AdapterState:
        return train_private(self._context(self.patients, self.training(PRIVATE_RATE)), steps).adapter_after

    def steps(self, epsilon: float) -> PrivateSteps:
        """Return the mechanism that a domain accounts for, of a plan whose one round this is."""
        member = [
            MemberChoice(email=f"{name}@example.org", fingerprint=digit * 64)
            for name, digit in zip("abc", "123", strict=True)
        ]
        privacy = PrivacyChoice(epsilon=epsilon)
        plan = Plan(
            researcher=member[0],
            cohort=tuple(member[1:]),
            base_model=BaseModelChoice(name=self.options.model),
            lora=self.lora,
            training=self.training(PRIVATE_RATE),
            privacy=privacy,
        )
        return private_steps(privacy, planned_mechanism(plan, len(self.patients)), len(self.patients))

    def _context(self, patients: Sequence[list[str]], training: TrainingChoice) -> LocalContext:
        path = self.work / "train.jsonl"
        lines = [{"patient": number, "text": note} for number, notes in enumerate(patients) for note in notes]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return LocalContext(
            model_folder=self.folder,
            adapter=self.start,
            trained=tuple(self.start),
            train=path,
            heldout=path,
            lora=self.lora,
            training=training,
            round=1,
            seed=self.run,
            threads=1,
        )


class Attacks:
    """The attacks of one domain's released adapters, with what each reaches where it must succeed."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.ways: dict[str, list[AdapterState] | None] = {
            "by_loss": None,
            "against_base": [],
            "against_reference": [domain.reference],
        }
        notes, fills = domain.members[:BY_HEART], domain.canaries.fills(BY_HEART, seed=2 * domain.run + 1)
        by_heart = [
            overfitted(domain.folder, domain.lora, domain.start, domain.encoded(texts), steps=domain.options.control)
            for texts in (notes, domain.canaries.texts(fills))
        ]
        self.controls = {
            way: (
                (self._scores(way, by_heart[0], notes), self._scores(way, by_heart[0], domain.others)),
                self._exposures(way, by_heart[1], fills),
                self._answers(way, by_heart[0], notes),
            )
            for way in self.ways
        }

    def on(self, adapter: AdapterState) -> dict[str, Any]:
        """Return what the attacks find, by attack and way."""
        return {
            f"{attack} {way}": found
            for way, controls in self.controls.items()
            for attack, found in self._found(way, adapter, *controls)
        }

    def _found(self, way, adapter, scored, exposed, answered) -> Iterator[tuple[str, dict[str, Any]]]:
        domain = self.domain
        told = [self._scores(way, adapter, texts) for texts in (domain.members, domain.others)]
        member = released_membership(*told, control=scored)
        yield (
            "membership",
            {
                "auroc": interval(member.found and member.found.auroc),
                "found_at_1_percent": interval(member.found and member.found.found),
                "control_auroc": interval(member.control.auroc),
            },
        )
        never = self._exposures(way, adapter, domain.never)
        for times, fills in zip(domain.options.times, domain.fills, strict=False):
            bits = exposure(self._exposures(way, adapter, fills), never, control=exposed)
            parts = {name: interval(getattr(bits, name)) for name in ("above_chance", "inserted", "never", "control")}
            yield f"canaries {times}x", parts
        answers = [self._answers(way, adapter, texts) for texts in (domain.members, domain.others)]
        unit = attribute_inference(*answers, control=answered)
        parts = {name: interval(getattr(unit, name)) for name in ("advantage", "members", "others", "control")}
        yield "care unit", {**parts, "base_rate": round(unit.base_rate, 3)}

    def _scores(self, way: str, adapter: AdapterState, texts: Sequence[str]) -> np.ndarray:
        domain, references = self.domain, self.ways[way]
        notes = domain.encoded(texts)
        if references is None:
            return loss_scores(domain.folder, domain.lora, adapter, notes)
        return calibrated_scores(domain.folder, domain.lora, adapter, notes, references=references)

    def _exposures(self, way: str, adapter: AdapterState, fills: Sequence[str]) -> np.ndarray:
        domain = self.domain
        return exposures(
            domain.folder,
            domain.lora,
            adapter,
            domain.canaries,
            fills,
            max_tokens=domain.options.max_tokens,
            references=self.ways[way],
        )

    def _answers(self, way: str, adapter: AdapterState, texts: Sequence[str]) -> list[tuple[Question, int]]:
        domain = self.domain
        asked = questions(domain.folder, CARE_UNIT, texts, max_tokens=domain.options.max_tokens)
        told = guesses(domain.folder, domain.lora, adapter, asked, references=self.ways[way])
        return list(zip(asked, told, strict=True))


def interval(found: Interval | None) -> dict[str, float] | str:
    return "not measured" if found is None else {name: round(value, 3) for name, value in asdict(found).items()}


def run_of(options: argparse.Namespace, patients: Sequence[list[str]], work: Path, run: int) -> Iterator[dict]:
    """Yield what is measured of each kind of training in one run."""
    domain = Domain(options, patients, work, run)
    attacks = Attacks(domain)
    for kind in (UNTRAINED, LOCAL, EARLY, NO_NOISE, *options.epsilon):
        started = time.perf_counter()
        line = {"model": options.model, "run": run, "training": kind, "patients": len(domain.patients)}
        if kind == UNTRAINED:
            adapter = domain.start
        elif kind in {LOCAL, EARLY}:
            adapter = domain.by_local_round(domain.patients, options.early if kind == EARLY else None)
        else:
            silent = {"noise_multiplier": 0.0} if kind == NO_NOISE else {}
            steps = domain.steps(options.epsilon[0] if kind == NO_NOISE else kind).model_copy(update=silent)
            adapter = domain.privately(steps)
            line |= {"noise_multiplier": round(steps.noise_multiplier, 3), "sampling": round(steps.sampling, 4)}
        line["seconds_training"] = round(time.perf_counter() - started, 1)
        line |= {"members_loss": domain.loss(adapter, domain.members)}
        line |= {"others_loss": domain.loss(adapter, domain.others)}
        yield line | attacks.on(adapter)


def summary(lines: Sequence[dict]) -> dict[str, Any]:
    """Return the means over runs of one kind of training: [mean, lowest, highest] of the runs that measured it."""

    def over(values: Sequence[Any]) -> Any:
        known = [value["value"] if isinstance(value, dict) else value for value in values if value != "not measured"]
        if not known:
            return "not measured"
        return [round(float(number), 3) for number in (np.mean(known), np.min(known), np.max(known))]

    found: dict[str, Any] = {"training": lines[0]["training"], "runs": len(lines)}
    for name, first in lines[0].items():
        if isinstance(first, dict):
            found[name] = {part: over([line[name][part] for line in lines]) for part in first}
        elif name.endswith("_loss"):
            found[name] = over([line[name] for line in lines])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument(
        "--targets",
        nargs="+",
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        help="by default all layers, which remember most",
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--early", type=int, default=24, help="steps of the local round that is stopped early")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rate", type=float, default=5e-3, help="learning rate of the local round")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[8.0, 1.0])
    parser.add_argument("--canaries", type=int, default=8, help="for each number of times")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16], help="how often a canary is written down")
    parser.add_argument("--control", type=int, default=200, help="steps in which the control learns by heart")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[Any, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        patients = made_up_patients(Path(folder))
        for run in range(options.runs):
            for line in run_of(options, patients, Path(folder), run):
                found.setdefault(line["training"], []).append(line)
                print(json.dumps(line), flush=True)
    for lines in found.values():
        print(json.dumps(summary(lines)), flush=True)


if __name__ == "__main__":
    main()
