"""The plan's section on the task: what is learned from an admission, from which texts, known at which moment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from fedpriv.study.section import Section

TaskKind = Literal["language_modelling", "mortality", "icd9_chapters", "readmission"]
Moment = Literal["admission", "window", "discharge", "later"]
Answer = Literal["yes", "no"]
NoteCategory = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z/]*( [a-z/]+){0,4}$", max_length=32)]

MOMENTS: tuple[Moment, ...] = ("admission", "window", "discharge", "later")
"""When something is known, earliest first: on admission, within the first hours, at discharge, after it."""

SUMMARY: NoteCategory = "discharge summary"
DEFAULT_WINDOW_HOURS = 48
READMISSION_DAYS = 30

ICD9_CHAPTERS: dict[str, str] = {
    "001-139": "infectious and parasitic diseases",
    "140-239": "neoplasms",
    "240-279": "endocrine, nutritional, metabolic and immune disorders",
    "280-289": "diseases of the blood",
    "290-319": "mental disorders",
    "320-389": "diseases of the nervous system and sense organs",
    "390-459": "diseases of the circulatory system",
    "460-519": "diseases of the respiratory system",
    "520-579": "diseases of the digestive system",
    "580-629": "diseases of the genitourinary system",
    "630-679": "complications of pregnancy and childbirth",
    "680-709": "diseases of the skin",
    "710-739": "diseases of the musculoskeletal system",
    "740-759": "congenital anomalies",
    "760-779": "conditions of the perinatal period",
    "780-799": "symptoms, signs and ill-defined conditions",
    "800-999": "injury and poisoning",
    "E": "external causes of injury",
    "V": "other factors of health (V codes)",
}
"""The chapters of ICD-9-CM, tabular list of diseases (NCHS and CMS), with its two supplementary classifications."""

_QUESTIONS: dict[TaskKind, tuple[str, ...]] = {
    "language_modelling": (),
    "mortality": ("Did the patient die in this stay?",),
    "icd9_chapters": tuple(f"Was a diagnosis coded: {title}?" for title in ICD9_CHAPTERS.values()),
    "readmission": (f"Did the patient come back unplanned within {READMISSION_DAYS} days?",),
}
_NOTES: dict[TaskKind, tuple[NoteCategory, ...]] = {
    "language_modelling": (SUMMARY,),
    "mortality": ("radiology", "nursing"),
    "icd9_chapters": (SUMMARY,),
    "readmission": (SUMMARY,),
}
_MOMENTS: dict[TaskKind, Moment] = {
    "language_modelling": "later",
    "mortality": "window",
    "icd9_chapters": "discharge",
    "readmission": "discharge",
}
_IN_WORDS: dict[TaskKind, str] = {
    "language_modelling": "continue the texts word by word (language modelling)",
    "mortality": "answer whether the patient died in hospital, from what is known {window} hours after admission",
    "icd9_chapters": f"answer for each of {len(ICD9_CHAPTERS)} chapters of ICD-9 whether a diagnosis of it was coded",
    "readmission": f"answer whether the patient came back unplanned within {READMISSION_DAYS} days of the discharge, "
    "from what is known at discharge",
}


class TaskChoice(Section):
    """What is learned, and from which texts; see docs/tasks.md for the definitions."""

    kind: TaskKind = Field(default="language_modelling", description="what is learned from an admission")
    notes: tuple[NoteCategory, ...] | None = Field(
        default=None,
        max_length=16,
        description="categories of notes to read, in lower case; an empty list: only the structured tables",
    )
    window_hours: int | None = Field(
        default=None, ge=1, le=720, description="what is known so long after admission (mortality); by default 48"
    )
    template: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}\.txt$")] | None = Field(
        default=None, description="file of the request that says how an admission is told; none: the stock one"
    )

    @model_validator(mode="after")
    def _belongs_together(self) -> TaskChoice:
        if self.window_hours is not None and self.kind != "mortality":
            raise ValueError("window_hours belongs to mortality and to no other task")
        if self.notes is not None and len(set(self.notes)) != len(self.notes):
            raise ValueError("notes names a category twice")
        if self.kind == "mortality" and SUMMARY in self.categories:
            raise ValueError(f"notes cannot have {SUMMARY} in mortality: it is written at discharge")
        return self

    @property
    def categories(self) -> tuple[NoteCategory, ...]:
        """The categories of notes that are read."""
        return _NOTES[self.kind] if self.notes is None else self.notes

    @property
    def moment(self) -> Moment:
        """The moment at which a text must have been known."""
        return _MOMENTS[self.kind]

    @property
    def window(self) -> int | None:
        """Hours after admission up to which anything is known; None where the whole stay is."""
        return (self.window_hours or DEFAULT_WINDOW_HOURS) if self.moment == "window" else None

    @property
    def questions(self) -> tuple[str, ...]:
        """What is asked of every admission, in the order of the answers; none in language modelling."""
        return _QUESTIONS[self.kind]

    @property
    def is_predictive(self) -> bool:
        """Whether there are questions, whose answers a text must not give away."""
        return bool(self.questions)

    def in_words(self) -> str:
        """Return what the section means, for a person who decides about it."""
        texts = "the structured tables alone"
        if self.categories:
            listed = ", ".join(self.categories)
            texts = f"notes of the categories {listed}, and where an admission has none the structured tables"
            if self.kind == "mortality":
                texts = f"the structured tables with notes of the categories {listed}"
        told = f"the template {self.template} of the request" if self.template else "the stock template"
        return f"The model learns to {_IN_WORDS[self.kind].format(window=self.window)}. Texts: {texts}; told by {told}."
