"""What the word lists of a care unit hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """An ICD-9 code with its titles."""

    code: str
    short: str
    long: str


@dataclass(frozen=True)
class Drug:
    """A drug as it is ordered."""

    name: str
    dose: str
    unit: str
    route: str


@dataclass(frozen=True)
class UnitProfile:
    """What a care unit's patients are like.

    Attributes
    ----------
    unit, ward, service : str, int, str
        The care unit, its ward and the service that its notes name.
    share : int
        Patients of a hundred.
    emergency : int
        Admissions of a hundred that are emergencies; the rest are elective or urgent.
    ages : tuple of int
        Youngest and oldest age, in years.
    problems, diagnoses, drugs
        What patients come with, are coded with, and get.
    complaints, exams, courses, plans : tuple of str
        Sentences of a note, in the unit's style.
    note : str
        The form of a note; the marks stand for drawn sentences.
    """

    unit: str
    ward: int
    service: str
    share: int
    emergency: int
    ages: tuple[int, int]
    problems: tuple[str, ...]
    diagnoses: tuple[Diagnosis, ...]
    drugs: tuple[Drug, ...]
    complaints: tuple[str, ...]
    exams: tuple[str, ...]
    courses: tuple[str, ...]
    plans: tuple[str, ...]
    note: str


def parse_diagnoses(*lines: str) -> tuple[Diagnosis, ...]:
    """Read ``code|short title|long title``."""
    return tuple(Diagnosis(*line.split("|")) for line in lines)


def parse_drugs(*lines: str) -> tuple[Drug, ...]:
    """Read ``name|dose|unit|route``."""
    return tuple(Drug(*line.split("|")) for line in lines)
