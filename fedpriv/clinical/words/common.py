"""Words that all care units share."""

from __future__ import annotations

from fedpriv.clinical.words.profile import parse_diagnoses, parse_drugs

COMMON_DIAGNOSES = parse_diagnoses(
    "25000|DMII wo cmp nt st uncntr|Diabetes mellitus type II without complication",
    "V1582|History of tobacco use|Personal history of tobacco use",
    "2449|Hypothyroidism NOS|Unspecified hypothyroidism",
    "53081|Esophageal reflux|Esophageal reflux",
    "27800|Obesity NOS|Obesity, unspecified",
    "311|Depressive disorder NEC|Depressive disorder",
)
COMMON_DRUGS = parse_drugs(
    "Senna|1|TAB|PO", "Bisacodyl|10|mg|PR", "Sodium Chloride 0.9%  Flush|3|mL|IV", "Multivitamins|1|TAB|PO"
)
HISTORIES: tuple[str, ...] = (
    "high blood pressure",
    "type two diabetes",
    "an old stroke",
    "gout",
    "asthma",
    "a hip replacement",
    "kidney stones",
    "migraine",
    "hypothyroidism",
    "past smoking",
)
DEMOGRAPHICS: dict[str, tuple[str | None, ...]] = {
    "INSURANCE": ("Medicare", "Private", "Medicaid", "Government", "Self Pay"),
    "LANGUAGE": ("ENGL", "ENGL", "ENGL", "SPAN", "RUSS", None),
    "RELIGION": ("NOT SPECIFIED", "UNOBTAINABLE", "OTHER", None),
    "MARITAL_STATUS": ("MARRIED", "SINGLE", "WIDOWED", "DIVORCED", None),
    "ETHNICITY": ("UNKNOWN/NOT SPECIFIED", "OTHER", "PATIENT DECLINED TO ANSWER"),
}
HOME_PLACES = ("HOME", "HOME HEALTH CARE", "SNF", "REHAB/DISTINCT PART HOSP")
