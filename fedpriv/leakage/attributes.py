"""Attribute inference: given a patient's note but for one fact, does the adapter give that fact away?

Every possible value is put in the place of the fact, and the value is guessed whose note the adapter foretells best: by
its loss alone, or compared with the base model or with another adapter. What is guessed right for other patients, too,
was learnt of the population and is what training is for. So the leakage is the difference: the share that is guessed
right of patients whose notes were trained on, minus that of other patients. It is the attribute advantage of Yeom et
al. 2018 (*Privacy Risk in Machine Learning*, arXiv 1709.01604).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import InputError
from fedpriv.leakage.above_chance import LEAST_TRIALS
from fedpriv.leakage.intervals import Interval, bootstrap
from fedpriv.leakage.losses import gain
from fedpriv.leakage.pursuit import Float64
from fedpriv.leakage.rate import LEAST_CONTROL
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import Encoder

_UNCUT = 2**20
"""Tokens of a note that was cut before; another value in it may take some more."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One note with one fact hidden.

    Attributes
    ----------
    candidates : tuple of str
        The note with each possible value in place of the fact.
    truth : int
        Number of the one that is the note.
    """

    candidates: tuple[str, ...]
    truth: int


@dataclass(frozen=True)
class Attribute:
    """A fact that notes tell in stated forms.

    Attributes
    ----------
    name : str
        Such as ``sex``.
    forms : tuple of str
        Regular expressions with one ``{}``, where the value stands; lines are matched on their own.
    values : tuple of tuple of str
        The possible values, each as it is spelled in each of the forms.
    """

    name: str
    forms: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        forms = {len(value) for value in self.values} == {len(self.forms)} and self.forms
        if len(self.values) < 2 or not forms or any(form.count("{}") != 1 for form in self.forms):
            raise InputError(f"The attribute {self.name} needs two values, each spelled for each form with one {{}}")
        if any(len({value[form] for value in self.values}) < len(self.values) for form in range(len(self.forms))):
            raise InputError(f"Two values of the attribute {self.name} are spelled alike")

    def question(self, text: str) -> Question | None:
        """Hide the fact in a note, wherever it is told in one of the forms.

        Returns
        -------
        Question or None
            None if the note does not tell it, or tells two values.
        """
        told = {value for form, found in self._patterns for value in self._told(form, found, text)}
        if len(told) != 1:
            return None
        candidates = []
        for value in self.values:
            changed = text
            for form, pattern in self._patterns:
                changed = pattern.sub(lambda match, form=form, value=value: _in_place(match, value[form]), changed)
            candidates.append(changed)
        return Question(candidates=tuple(candidates), truth=told.pop())

    @cached_property
    def _patterns(self) -> list[tuple[int, re.Pattern[str]]]:
        found = []
        for number, form in enumerate(self.forms):
            spelled = sorted((value[number] for value in self.values), key=len, reverse=True)
            found.append(
                (number, re.compile(form.replace("{}", f"(?P<value>{'|'.join(map(re.escape, spelled))})"), re.M))
            )
        return found

    def _told(self, form: int, pattern: re.Pattern[str], text: str) -> list[int]:
        spelled = [value[form] for value in self.values]
        return [spelled.index(match["value"]) for match in pattern.finditer(text)]


SEX = Attribute("sex", (r"^{}(?=, )", r"(?<=\d){}\b"), (("Female", "F"), ("Male", "M")))
"""As the stock narrative tells it first, and as notes do. The first token of a text is not foretold, so that only what
follows tells it: the attack is weaker here than on facts in the middle of a text."""


CARE_UNIT = Attribute(
    "care unit", (r"(?<=, ){}(?=, \w+ admission)",), (("CCU",), ("CSRU",), ("MICU",), ("SICU",), ("TSICU",))
)
ADMISSION = Attribute("admission", (r"(?<=, ){}(?= admission)",), (("emergency",), ("urgent",), ("elective",)))
"""As the stock narrative tells it; as :data:`CARE_UNIT`."""


@dataclass(frozen=True, kw_only=True)
class AttributeInference:
    """What was measured.

    Attributes
    ----------
    advantage : Interval or None
        Share guessed right of members minus that of others; None if it was not measured.
    members, others : Interval
        Share guessed right of patients whose notes were trained on, and of others.
    base_rate : float
        Share of the most frequent value among members and others: what is guessed right without a model.
    control : Interval
        Share guessed right of members of an adapter that has learnt their notes by heart.
    """

    advantage: Interval | None
    members: Interval
    others: Interval
    base_rate: float
    control: Interval

    @property
    def measured(self) -> bool:
        """Whether the numbers mean anything."""
        return self.advantage is not None

    def __str__(self) -> str:
        return "not measured" if self.advantage is None else str(self.advantage)


def questions(model_folder: Path, attribute: Attribute, texts: Sequence[str], *, max_tokens: int) -> list[Question]:
    """Hide a fact in each of the notes that tell it, in order.

    Parameters
    ----------
    model_folder : Path
        The base model, for its tokenizer.
    attribute : Attribute
        What is hidden.
    texts : sequence of str
        Notes.
    max_tokens : int
        Tokens that a note was cut to in training: it is cut so before its fact is hidden.

    Raises
    ------
    TrainingError
        If the tokenizer cannot be read.
    """
    encoder = Encoder(model_folder, max_tokens)
    cut = [encoder.decode(note.ids) for note in encoder.encode(texts)]
    return [question for text in cut if (question := attribute.question(text)) is not None]


def guesses(
    model_folder: Path,
    lora: LoraChoice,
    adapter: AdapterState,
    asked: Sequence[Question],
    *,
    references: Sequence[AdapterState] | None = (),
) -> list[int]:
    """Return the number of the candidate that the adapter foretells best for each question.

    Parameters
    ----------
    model_folder, lora, adapter
        The base model, the plan's section and the released adapter.
    asked : sequence of Question
        From :func:`questions`.
    references : sequence of adapters, or None
        As for :func:`fedpriv.leakage.losses.gain`.

    Raises
    ------
    FedprivError
        As :func:`fedpriv.leakage.losses.losses`.
    """
    texts = [text for question in asked for text in question.candidates]
    notes = Encoder(model_folder, _UNCUT).encode(texts)
    gains = gain(model_folder, lora, adapter, notes, references)
    starts = np.cumsum([0, *(len(question.candidates) for question in asked)])
    return [int(np.argmax(gains[start:stop])) for start, stop in pairwise(starts)]


def attribute_inference(
    members: Sequence[tuple[Question, int]],
    others: Sequence[tuple[Question, int]],
    *,
    control: Sequence[tuple[Question, int]],
    seed: int = 0,
) -> AttributeInference:
    """Return by how much more of members than of others is guessed right, or that it was not measured.

    *Guarantee*: where the attack guesses less than 80 % of members right on an adapter that has learnt their notes by
    heart, or no more than the base rate, or there are fewer than five of a kind, nothing is reported.

    Parameters
    ----------
    members, others : sequence of pair of Question and int
        What was asked and what was guessed (:func:`guesses`) under the released adapter: of patients whose notes were
        trained on, and of others.
    control : sequence of pair of Question and int
        The same for members of an adapter that has learnt their notes by heart
        (:func:`fedpriv.leakage.overfit.overfitted`).
    seed : int
        Of the resampling.

    Raises
    ------
    InputError
        If there is none of a kind.
    """
    right, wrong, known = (_right(some) for some in (members, others, control))
    reached = bootstrap([known], _mean, seed=seed)
    works = reached.value >= LEAST_CONTROL and reached.low > _base_rate(control)
    enough = min(map(len, (members, others, control))) >= LEAST_TRIALS
    advantage = bootstrap([right, wrong], lambda first, second: _mean(first) - _mean(second), seed=seed)
    return AttributeInference(
        advantage=advantage if works and enough else None,
        members=bootstrap([right], _mean, seed=seed),
        others=bootstrap([wrong], _mean, seed=seed),
        base_rate=_base_rate([*members, *others]),
        control=reached,
    )


def _right(answered: Sequence[tuple[Question, int]]) -> Float64:
    return np.array([float(question.truth == guess) for question, guess in answered])


def _base_rate(answered: Sequence[tuple[Question, int]]) -> float:
    truths = [question.truth for question, _ in answered]
    return max(map(truths.count, set(truths))) / len(truths) if truths else 0.0


def _in_place(match: re.Match[str], value: str) -> str:
    """Return what was matched, with another value in it."""
    start, end = (place - match.start() for place in match.span("value"))
    return match[0][:start] + value + match[0][end:]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean())
