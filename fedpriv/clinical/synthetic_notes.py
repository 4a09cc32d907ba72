"""Discharge summaries of made-up admissions, composed from the word lists in the style of each care unit."""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass

from fedpriv.clinical.narrative import OLDEST_YEARS
from fedpriv.clinical.words import Drug, UnitProfile
from fedpriv.clinical.words.common import HISTORIES

MINIMUM_WORDS = 60
MAXIMUM_WORDS = 150


@dataclass(frozen=True)
class NoteFacts:
    """What a note tells.

    Attributes
    ----------
    admitted, discharged : datetime.datetime
        Shown as de-identified dates.
    years : int
        The age; it is masked above 89, as in the release.
    gender : {"F", "M"}
        The sex.
    problem : str
        Why the patient came.
    drugs : tuple of Drug
        What was given, in order.
    died : bool
        Whether the patient died in hospital.
    """

    admitted: datetime.datetime
    discharged: datetime.datetime
    years: int
    gender: str
    problem: str
    drugs: tuple[Drug, ...]
    died: bool


def compose_note(draw: random.Random, profile: UnitProfile, facts: NoteFacts) -> str:
    """Return a discharge summary of 60 to 150 words, with line breaks, quotes and de-identification marks."""
    courses, plans = draw.sample(profile.courses, 3), draw.sample(profile.plans, 2)
    spare = [course for course in profile.courses if course not in courses]
    drawn = {
        "complaint": draw.choice(profile.complaints),
        "exam": draw.choice(profile.exams),
        "hospital": f"[**Hospital {draw.randrange(2, 60)}**]",
        "doctor": f"[**Last Name (un) {draw.randrange(100, 900)}**]",
        **_person(facts, *draw.sample(HISTORIES, 2)),
    }
    while True:
        note = _fill(profile, facts, drawn, courses, plans)
        if len(note.split()) >= MINIMUM_WORDS or not spare:
            return note
        courses.append(spare.pop())


def _person(facts: NoteFacts, first_history: str, second_history: str) -> dict[str, str]:
    noun = {"F": "woman", "M": "man"}[facts.gender]
    age = "[**Age over 90 **]" if facts.years > OLDEST_YEARS else f"{facts.years}"
    return {
        "person": f"This {age} year old {noun} with {first_history} and {second_history}",
        "person_short": f"{age}{facts.gender} with {first_history}",
    }


def _fill(profile: UnitProfile, facts: NoteFacts, drawn: dict[str, str], courses: list[str], plans: list[str]) -> str:
    told_plans = ["The patient died with family present."] if facts.died else plans
    return profile.note.format(
        **drawn,
        admitted=_mark(facts.admitted),
        discharged=_mark(facts.discharged),
        service=profile.service,
        problem=facts.problem,
        courses=" ".join(courses),
        listed_courses="\n".join(courses),
        bulleted_courses="\n".join(f"* {course}" for course in courses),
        numbered_courses="\n".join(f"{number}. {course}" for number, course in enumerate(courses, 1)),
        plans=" ".join(told_plans),
        bulleted_plans="\n".join(f"* {plan}" for plan in told_plans),
        drugs=", ".join(f"{drug.name} {drug.dose} {drug.unit}" for drug in facts.drugs[:5]),
    )


def _mark(time: datetime.datetime) -> str:
    return f"[**{time.year}-{time.month}-{time.day}**]"
