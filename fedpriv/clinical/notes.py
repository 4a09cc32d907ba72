"""Notes: read by patient, cleaned, and without those that a patient has twice. The record bounds their length."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fedpriv.clinical.rows import LeftOut, Rows
from fedpriv.study.task import SUMMARY

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_ALSO_CALLED = {"nursing": ("nursing", "nursing/other")}
_DAY = datetime.timedelta(days=1)

_QUERY = """
SELECT subject_id, hadm_id, lower(trim(regexp_replace(category, '\\s+', ' ', 'g'))) AS kind,
       lower(trim(description)) = 'report' AS report, chartdate, charttime, storetime, text
FROM noteevents WHERE kind IN (SELECT unnest($categories::VARCHAR[])) AND trim(text) <> ''
ORDER BY subject_id, hadm_id NULLS LAST, chartdate NULLS LAST, charttime NULLS LAST, kind, md5(text), description
"""


@dataclass(frozen=True)
class Note:
    """One note of an admission.

    Attributes
    ----------
    hadm_id : int
        The admission.
    category : str
        As the plan names it: both of MIMIC-III's categories of nursing notes are ``nursing``.
    is_report : bool
        Whether it is a report, not an addendum to one.
    dated : datetime.datetime or None
        The day that stands on it.
    known : datetime.datetime or None
        When it can have been read at the earliest: when it was stored, or charted; a note that has only a day counts
        from the next day on. None if it has no date at all.
    text : str
        As it was written.
    """

    hadm_id: int
    category: str
    is_report: bool
    dated: datetime.datetime | None
    known: datetime.datetime | None
    text: str


def notes_by_patient(
    tables: Rows, categories: Sequence[str], tally: LeftOut
) -> Iterator[tuple[int, dict[int, list[Note]]]]:
    """Give each patient's notes by admission, patients ascending, notes by date.

    Left out and counted: notes of no admission, notes that the same patient has already (whatever the spacing and the
    case), and of the discharge summaries of an admission all but the latest report. Whether a note is left out depends
    on its own patient's notes only, as differential privacy by patients needs.

    Parameters
    ----------
    tables : Rows
        With or without NOTEEVENTS.
    categories : sequence of str
        As in the plan.
    tally : LeftOut
        Gets what was left out.
    """
    if not categories or not tables.has("NOTEEVENTS"):
        return
    named = {alias: name for name in categories for alias in _ALSO_CALLED.get(name, (name,))}
    subject, found = -1, dict[int, list[Note]]()
    for row in tables.stream(_QUERY, {"categories": list(named)}):
        if row[0] != subject:
            if found:
                yield subject, _chosen(found, tally)
            subject, found = row[0], {}
        if row[1] is None:
            tally["note of no admission"] += 1
        else:
            found.setdefault(row[1], []).append(_note(row, named))
    if found:
        yield subject, _chosen(found, tally)


def clean_note(text: str) -> str:
    """Return a note with one space between words and one line for a paragraph; ``[**marks**]`` stay as they are."""
    visible = _CONTROL.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
    paragraphs = (" ".join(paragraph.split()) for paragraph in _BLANK_LINE.split(visible))
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def known_after(day: datetime.datetime) -> datetime.datetime:
    """Return when something that has only a day is known at the latest: when the day is over."""
    return day.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY


def _note(row: tuple[Any, ...], named: dict[str, str]) -> Note:
    _, hadm, kind, report, day, charted, stored, text = row
    known = stored or charted or (day and known_after(day))
    return Note(hadm, named[kind], bool(report), charted or day, known, text)


def _chosen(found: dict[int, list[Note]], tally: LeftOut) -> dict[int, list[Note]]:
    """Return one patient's notes without repeated ones, and with one discharge summary an admission."""
    seen: set[bytes] = set()
    kept: dict[int, list[Note]] = {}
    for hadm, notes in found.items():
        of_stay = kept.setdefault(hadm, [])
        for note in _one_summary([note for note in notes if _VISIBLE.search(note.text)], tally):
            digest = hashlib.blake2b(" ".join(note.text.casefold().split()).encode(), digest_size=16).digest()
            if digest in seen:
                tally["note that the patient has already"] += 1
            else:
                seen.add(digest)
                of_stay.append(note)
    return kept


def _one_summary(notes: list[Note], tally: LeftOut) -> list[Note]:
    summaries = [note for note in notes if note.category == SUMMARY]
    if len(summaries) < 2:
        return notes
    # of those with the latest day the first in the order of the query: the same one every time
    latest = max(summaries, key=lambda note: (note.is_report, note.dated or datetime.datetime.min))
    tally["addendum to a discharge summary, or an earlier one"] += len(summaries) - 1
    return [note for note in notes if note.category != SUMMARY or note is latest]
