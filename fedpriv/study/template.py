"""Templates: a plain text with ``{fields}`` that says how an admission is told. Nothing in it is ever evaluated.

One sentence a line; a line with an empty field is left out; ``{field?}`` may be empty, and takes the spaces before it
along. An empty line begins a new paragraph, ``#`` a comment. Lines after ``[with notes]`` are for admissions with notes
to tell, those after ``[without notes]`` for the others, those before either for all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fedpriv.errors import PlanError
from fedpriv.study.task import MOMENTS, Moment, TaskChoice

MAX_TEMPLATE_BYTES = 32_768
SECTION_PREFIX = "section:"

Part = Literal["all", "with notes", "without notes"]


@dataclass(frozen=True)
class Field:
    """What a template may name.

    Attributes
    ----------
    moment : {"admission", "window", "discharge", "later"}
        When it is known at the earliest. A field of events, such as ``drugs``, holds those up to the task's moment.
    words : str
        What it holds, for people.
    """

    moment: Moment
    words: str


FIELDS: dict[str, Field] = {
    "person": Field("admission", "age and sex as a phrase: A 69-year-old man"),
    "they": Field("admission", "She, He or The patient"),
    "sex": Field("admission", "female, male or patient"),
    "age_band": Field("admission", "60 to 69 years"),
    "admission_type": Field("admission", "how the patient was admitted: as an emergency"),
    "came_from": Field("admission", "from where: from the emergency room"),
    "problem": Field("admission", "the problem that was noted on admission"),
    "previous_admissions": Field("admission", "earlier admissions here: 2, the last 40 days ago"),
    "window": Field("admission", "the task's window: 48 hours"),
    "context": Field("window", "sex, age band, first care unit and kind of admission as one phrase"),
    "intensive_care": Field("window", "the care units in their order; with the days in each once they are over"),
    "drugs": Field("window", "drugs in the order in which they were begun"),
    "labs": Field("window", "the first value of usual laboratory tests, with unit and flag"),
    "notes": Field("window", "the notes of the task's categories"),
    "diagnoses": Field("discharge", "titles of the coded diagnoses"),
    "procedures": Field("discharge", "titles of the coded procedures"),
    "outcome": Field("discharge", "how the stay ended and how long it was, as a sentence"),
    "next_admission": Field("later", "days from the discharge to the next admission"),
}
"""Every field by its name; beside these ``{section:NAME}`` is the section of that name of the notes."""

_HIDDEN: dict[str, tuple[str, ...]] = {"icd9_chapters": ("diagnoses", "procedures")}
_SECTION = Field("window", "one section of the notes, by its header in lower case")
_PIECE = re.compile(r"(?P<before>[^{}]*)\{(?P<name>[a-z_]{1,32}|section:[a-z0-9][a-z0-9 /&-]{0,47})(?P<may>\??)\}")
_HEADINGS: dict[str, Part] = {"[with notes]": "with notes", "[without notes]": "without notes"}


@dataclass(frozen=True)
class _Piece:
    """Literal text and the field after it; the last piece of a line has no field."""

    text: str
    name: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes
    ----------
    text : str
        As it was written.
    paragraphs : tuple
        For each paragraph the part that it belongs to, and its lines in pieces.
    """

    text: str
    paragraphs: tuple[tuple[Part, tuple[tuple[_Piece, ...], ...]], ...]

    @property
    def fields(self) -> frozenset[str]:
        """The names of all fields, sections with their prefix."""
        lines = (line for _, lines in self.paragraphs for line in lines)
        return frozenset(piece.name for line in lines for piece in line if piece.name)

    def render(self, values: Mapping[str, str], *, with_notes: bool) -> str:
        """Return the text of one admission.

        Parameters
        ----------
        values : Mapping[str, str]
            The fields; one that is missing counts as empty. They are put in as they are, and never read as a template.
        with_notes : bool
            Whether there are notes to tell.
        """
        unused: Part = "without notes" if with_notes else "with notes"
        told = (
            " ".join(filter(None, (_told(line, values) for line in lines)))
            for part, lines in self.paragraphs
            if part != unused
        )
        return "\n".join(filter(None, told))


def parse_template(text: str, *, source: str) -> Template:
    """Read a template.

    Raises
    ------
    PlanError
        With ``source`` and the line, if it is too large, a field is unknown or badly written, a heading stands twice,
        or it tells nothing.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEMPLATE_BYTES:
        raise _wrong(source, f"is larger than {MAX_TEMPLATE_BYTES} bytes")
    part: Part = "all"
    paragraphs: list[tuple[Part, list[tuple[_Piece, ...]]]] = [(part, [])]
    seen: set[Part] = set()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("#"):
            continue
        if stripped in _HEADINGS:
            part = _HEADINGS[stripped]
            if part in seen:
                raise _wrong(source, f"line {number}: {stripped} stands twice")
            seen.add(part)
        if not stripped or stripped in _HEADINGS:
            paragraphs.append((part, []))
        else:
            paragraphs[-1][1].append(_pieces(stripped, source, number))
    template = Template(text, tuple((part, tuple(lines)) for part, lines in paragraphs if lines))
    if not template.fields:
        raise _wrong(source, "names no field, so that all admissions would be the same text")
    _refuse_repeated_notes(template, source)
    return template


def check_fields(template: Template, task: TaskChoice, *, source: str) -> None:
    """Refuse a template with a field that is not known at the task's moment, or that is the task's answer.

    Raises
    ------
    PlanError
        Naming the field, and when it is known.
    """
    for name in sorted(template.fields):
        field = FIELDS.get(name, _SECTION)
        if MOMENTS.index(field.moment) > MOMENTS.index(task.moment):
            raise _wrong(
                source,
                f"uses {{{name}}}, which is known at the moment {field.moment!r}; the task {task.kind} may only use "
                f"what is known at the moment {task.moment!r}",
            )
        if name in _HIDDEN.get(task.kind, ()) or (task.kind == "icd9_chapters" and "diagnos" in name):
            raise _wrong(source, f"uses {{{name}}}, which would give away the answer of the task {task.kind}")


def _told(line: tuple[_Piece, ...], values: Mapping[str, str]) -> str:
    parts: list[str] = []
    for piece in line:
        value = values.get(piece.name, "") if piece.name else ""
        if piece.name and not value:
            if not piece.optional:
                return ""
            parts.append(piece.text.rstrip(" "))
        else:
            text = piece.text if any(parts) or not parts else piece.text.lstrip(" ")
            parts.append(text + value)
    return "".join(parts)


def _pieces(line: str, source: str, number: int) -> tuple[_Piece, ...]:
    pieces, end = [], 0
    while match := _PIECE.match(line, end):
        name = match["name"]
        if not name.startswith(SECTION_PREFIX) and name not in FIELDS:
            raise _wrong(source, f"line {number}: there is no field {{{name}}}")
        pieces.append(_Piece(match["before"], name, bool(match["may"])))
        end = match.end()
    rest = line[end:]
    if "{" in rest or "}" in rest:
        raise _wrong(source, f"line {number}: a brace that is no {{field}}")
    return (*pieces, _Piece(rest)) if rest else tuple(pieces)


def _refuse_repeated_notes(template: Template, source: str) -> None:
    """Notes are long: a template that repeats them would make texts of any length."""
    for part in ("with notes", "without notes"):
        lines = [line for where, lines in template.paragraphs if where in ("all", part) for line in lines]
        long = [p.name for line in lines for p in line if p.name == "notes" or p.name.startswith(SECTION_PREFIX)]
        if len(set(long)) != len(long):
            raise _wrong(source, "names the notes, or one section of them, twice")


def _wrong(source: str, problem: str) -> PlanError:
    return PlanError(
        f"The template {source} {problem}",
        kept="Nothing was changed",
        todo="correct it; docs/tasks.md lists the fields and when each is known",
    )
