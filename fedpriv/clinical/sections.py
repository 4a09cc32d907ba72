"""Sections of a note: its text divided at the headers that clinicians write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SUMMARY = (
    "admission date", "discharge date", "date of birth", "sex", "service", "allergies", "attending", "addendum",
    "chief complaint", "reason for admission", "major surgical or invasive procedure", "history of present illness",
    "history of the present illness", "present illness", "hpi", "past medical history", "past surgical history",
    "past history", "medical history", "pmh", "psh", "pmhx", "social history", "family history", "review of systems",
    "physical exam", "physical examination", "examination", "admission physical exam", "discharge physical exam",
    "physical examination on admission", "vital signs", "pertinent results", "laboratory data", "laboratory",
    "laboratories", "labs", "admission labs", "discharge labs", "labs on admission", "labs on discharge", "studies",
    "imaging", "microbiology", "ekg", "brief hospital course", "hospital course", "summary of hospital course",
    "concise summary of hospital course", "icu course", "medications", "medications on admission",
    "admission medications", "home medications", "preadmission medications", "medications prior to admission",
    "current medications", "discharge medications", "medications on discharge", "discharge disposition", "disposition",
    "facility", "discharge condition", "condition on discharge", "condition at discharge", "discharge instructions",
    "discharge status", "discharge plan", "followup instructions", "follow up instructions", "follow-up instructions",
    "followup", "follow up", "follow-up", "code status", "transitional issues", "pending results", "dictated by",
    "job number",
)  # fmt: skip
_RADIOLOGY = (
    "medical condition", "clinical information", "clinical history", "clinical indication",
    "reason for this examination", "indication", "indications", "comparison", "comparisons", "technique", "findings",
    "impression", "conclusion", "conclusions", "recommendation", "recommendations", "wet read", "final report",
    "provisional findings impression", "interpretation",
)  # fmt: skip
_SHORT = (
    "history", "reason", "condition", "course", "exam", "procedure", "procedures", "contrast", "assessment",
    "assessment and plan", "action", "response", "plan", "neuro", "cv", "cardiac", "resp", "respiratory", "gi", "gu",
    "gi/gu", "id", "endo", "skin", "integ", "access", "social", "dispo", "heme", "pain", "events", "lines",
    "subjective", "objective", "24 hour events",
)  # fmt: skip
_NAMES = frozenset((*_SUMMARY, *_RADIOLOGY, *_SHORT))
"""Headers as they stand in MIMIC-III's notes, in lower case; a line that begins with another phrase begins no section:
it may be a heading within one, such as "Primary:" under the discharge diagnoses."""

_ENDS_DIAGNOSES = frozenset((*_SUMMARY, *_RADIOLOGY))
"""Only these end a section of diagnoses: "Cardiac:" or "History:" may as well be an item of its list."""

_LONGEST_HEADER = 64
_NUMBER = re.compile(r"\d{1,2}[.)]\s*")
_DIAGNOSES = re.compile(
    r"(?:\b(?:discharge|final|primary|principal|secondary|admission|admitting|working|other|associated|chief|main)\s+)*"
    r"(?:\bdiagnos[ei]s|\bdx|\bicd-?9)\b[^:\n]{0,40}:",
    re.IGNORECASE,
)
_MAY_BE_DIAGNOSES = re.compile(r"diagnos|\bdx\b|icd-?9", re.IGNORECASE)


@dataclass(frozen=True)
class _Header:
    """A header in a line.

    Attributes
    ----------
    name : str
        In lower case.
    start, end : int
        Where it stands in its line, with its colon.
    numbered : bool
        Whether it is an item of a list, such as ``2. Cardiac:``.
    diagnoses : bool
        Whether it speaks of diagnoses.
    """

    name: str
    start: int
    end: int
    numbered: bool = False
    diagnoses: bool = False


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Divide a note at its headers.

    Headers stand at the beginning of a line, in capitals or not, before a colon or a dash, or alone on their line.
    Diagnoses are found by the word, since they are written in many ways ("FINAL DIAGNOSES:", "Discharge dx:").

    Yields
    ------
    tuple of str
        Name in lower case (``""`` before the first header) and the lines from the header's end to the next header.
    """
    name, lines = "", []
    for line in text.split("\n"):
        header = _header(line)
        if header is None:
            lines.append(line)
            continue
        lines.append(line[: header.start])
        yield name, "\n".join(lines)
        name, lines = header.name, [line[header.end :]]
    yield name, "\n".join(lines)


def without_diagnoses(text: str) -> str:
    """Return a note without its sections of diagnoses: from their header to the next one that ends them."""
    if not _MAY_BE_DIAGNOSES.search(text):
        return text
    kept, hidden = [], False
    for line in text.split("\n"):
        header = _header(line)
        if header is not None and header.diagnoses:
            if not hidden and line[: header.start].strip():
                kept.append(line[: header.start])
            hidden = True
        elif header is not None and not header.numbered and header.name in _ENDS_DIAGNOSES:
            hidden = False
        if not hidden:
            kept.append(line)
    return "\n".join(kept)


def _header(line: str) -> _Header | None:
    begin = line[:_LONGEST_HEADER]
    colon = begin.find(":")
    lower = line.lower()
    if "diagnos" in lower or "dx" in lower or "icd" in lower:
        if match := _DIAGNOSES.search(line):
            return _Header(" ".join(match[0][:-1].casefold().split()), match.start(), match.end(), diagnoses=True)
        if colon < 0 and (header := _alone(line)):
            return header
    if colon >= 0:
        return _known(begin[:colon], colon + 1)
    dash = begin.find(" -")
    if dash >= 0:
        return _known(begin[:dash], dash + 2)
    return _known(line, len(line)) if len(line) < _LONGEST_HEADER else None


def _known(phrase: str, end: int) -> _Header | None:
    name = phrase.strip().casefold()
    if not name:
        return None
    if name in _NAMES:  # as most are written
        return _Header(name, 0, end)
    number = _NUMBER.match(name) if name[0].isdigit() else None
    name = " ".join((name[number.end() :] if number else name).split())
    if name not in _NAMES:
        name = name.partition(" by ")[0]  # hospital course by system
        if name not in _NAMES:
            return None
    return _Header(name, 0, end, numbered=number is not None)


def _alone(line: str) -> _Header | None:
    """Return the header of a line that speaks of diagnoses without a colon; within a sentence the word is none."""
    words = _NUMBER.sub("", line.strip()).split()
    is_title = line.isupper() or all(word[0].isupper() for word in words)
    if 0 < len(words) <= 4 and is_title and _MAY_BE_DIAGNOSES.search(line):
        return _Header(" ".join(words).casefold(), 0, len(line), diagnoses=True)
    return None
