"""Examples: from the tables of some patients to the texts, questions and answers of a task."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedpriv.clinical.admissions import Admission, patients
from fedpriv.clinical.labels import answers_of, horizon
from fedpriv.clinical.narrative import fields_of
from fedpriv.clinical.notes import Note, clean_note, notes_by_patient
from fedpriv.clinical.rows import LeftOut, Rows
from fedpriv.clinical.schema import MAX_NOTE_CHARACTERS
from fedpriv.clinical.sections import sections, without_diagnoses
from fedpriv.clinical.stock_templates import template_of
from fedpriv.study.task import Answer, TaskChoice
from fedpriv.study.template import SECTION_PREFIX, Template

MAX_TOLD_CHARACTERS = MAX_NOTE_CHARACTERS
"""The notes of one example are cut here and counted, as one note is in the record."""

TABLES = "tables"


@dataclass(frozen=True)
class Example:
    """One text to learn from.

    Attributes
    ----------
    subject_id : int
        The patient; it never stands in the text.
    admitted : datetime.datetime
        When the admission began, for a split by time.
    text : str
        What a model reads.
    questions, answers : tuple of str
        What is asked about it, and ``yes`` or ``no`` for each; empty in language modelling.
    source : str
        The category of the note that is told, ``notes`` if there are several, or ``tables``.
    """

    subject_id: int
    admitted: datetime.datetime
    text: str
    questions: tuple[str, ...]
    answers: tuple[Answer, ...]
    source: str


def examples(tables: Rows, task: TaskChoice, template: Template, tally: LeftOut) -> Iterator[Example]:
    """Tell the admissions of a task, by patient and time; the same tables give the same texts.

    Guarantee: an example depends on its own patient's rows only; no answer and nothing known after the task's moment is
    in its text (but for what clinicians wrote into the notes themselves before it).

    Parameters
    ----------
    tables : Rows
        All rows of some patients.
    task : TaskChoice
        What is learned.
    template : Template
        How it is told, with fields that the task allows.
    tally : LeftOut
        Gets what was left out, by reason.
    """
    teller = _Teller(task, template, tally)
    people = patients(tables, teller.needs)
    noted = notes_by_patient(tables, task.categories if teller.reads_notes else (), tally)
    waiting = next(noted, None)
    for stays in people:
        while waiting is not None and waiting[0] < stays[0].subject_id:
            _count_lost(waiting[1], (), tally)
            waiting = next(noted, None)
        notes: dict[int, list[Note]] = {}
        if waiting is not None and waiting[0] == stays[0].subject_id:
            notes, waiting = waiting[1], next(noted, None)
        _count_lost(notes, [stay.hadm_id for stay in stays], tally)
        for stay in stays:
            yield from teller.tell(stay, stays, notes.get(stay.hadm_id, []))
    while waiting is not None:
        _count_lost(waiting[1], (), tally)
        waiting = next(noted, None)


def narratives(tables: Rows) -> Iterator[Example]:
    """Tell every admission as language modelling does by default: its discharge summary, or else its tables."""
    task = TaskChoice()
    return examples(tables, task, template_of(task, {}), LeftOut())


def _count_lost(notes: Mapping[int, list[Note]], known: Sequence[int], tally: LeftOut) -> None:
    if lost := sum(len(found) for hadm, found in notes.items() if hadm not in known):
        tally["note of no admission"] += lost


@dataclass(frozen=True)
class _Teller:
    """Tells one admission after the other."""

    task: TaskChoice
    template: Template
    tally: LeftOut

    @property
    def needs(self) -> frozenset[str]:
        """The fields to read: those of the template, and the codes where they are the answer."""
        return self.template.fields | ({"diagnoses"} if self.task.kind == "icd9_chapters" else frozenset())

    @property
    def sections(self) -> frozenset[str]:
        """The sections that the template names."""
        return frozenset(name for name in self.template.fields if name.startswith(SECTION_PREFIX))

    @property
    def reads_notes(self) -> bool:
        return bool(self.sections) or "notes" in self.template.fields

    def tell(self, stay: Admission, stays: Sequence[Admission], notes: Sequence[Note]) -> Iterator[Example]:
        """Give the examples of one admission, of a patient with these."""
        task = self.task
        answers = answers_of(task, stay, stays, self.tally)
        if answers is None:
            return
        until, told = horizon(task, stay), False
        values = fields_of(stay, stays, until=until, window_hours=task.window)
        for group in self._groups(notes, until):
            text = self.template.render({**values, **self._notes(group)}, with_notes=bool(group))
            if text:
                source = TABLES if not group else group[0].category if len(group) == 1 else "notes"
                yield Example(stay.subject_id, stay.admitted, text, task.questions, answers, source)
                told = True
        if not told:
            self.tally["admission with nothing to tell"] += 1

    def _groups(self, notes: Sequence[Note], until: datetime.datetime | None) -> list[list[Note]]:
        """Return the notes of each example of an admission: all in one, or one in each in language modelling."""
        known: list[Note] = []
        for note in notes:
            if until is None or (note.known is not None and note.known <= until):
                known.append(note)
            elif note.known is None:
                self.tally["note without a date"] += 1
            else:
                after = f"the first {self.task.window} hours" if self.task.window else "the day of discharge"
                self.tally[f"note after {after}"] += 1
        if self.task.is_predictive:
            return [sorted(known, key=lambda note: note.known or datetime.datetime.max)]
        return [[note] for note in known] or [[]]

    def _notes(self, notes: Sequence[Note]) -> dict[str, str]:
        """Return the fields of the notes: all of them, and the sections that the template names."""
        hides = self.task.kind == "icd9_chapters"
        texts = [without_diagnoses(note.text) if hides else note.text for note in notes]
        values: dict[str, list[str]] = {}
        if "notes" in self.template.fields:
            named = len(notes) > 1 or self.task.moment == "window"
            for note, text in zip(notes, map(clean_note, texts), strict=True):
                values.setdefault("notes", []).append(f"{note.category.capitalize()}: {text}" if named else text)
        wanted = self.sections
        for text in texts if wanted else ():
            for name, part in sections(text):
                if SECTION_PREFIX + name in wanted and (cleaned := clean_note(part)):
                    values.setdefault(SECTION_PREFIX + name, []).append(cleaned)
        return {name: self._cut("\n".join(parts)) for name, parts in values.items()}

    def _cut(self, text: str) -> str:
        if len(text) <= MAX_TOLD_CHARACTERS:
            return text
        self.tally[f"end of notes of more than {MAX_TOLD_CHARACTERS:,} characters"] += 1
        return text[:MAX_TOLD_CHARACTERS].rsplit(None, 1)[0]
