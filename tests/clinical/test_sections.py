"""Sections of notes in the styles of MIMIC-III, and notes without their diagnoses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.clinical.notes import clean_note
from fedpriv.clinical.sections import sections, without_diagnoses

SUMMARY = """Admission Date:  [**2101-10-20**]     Discharge Date:  [**2101-10-31**]

Service: MEDICINE

HISTORY OF PRESENT ILLNESS:  This is a 76 year old man
with: cough, and fever.

Brief Hospital Course by System:
1. Cardiac: he had chest pain.

DISCHARGE DIAGNOSES:
1.  Community acquired pneumonia.
2.  Cardiac: atrial fibrillation.
Secondary:
 - Diabetes mellitus
History: gout

Discharge Condition:
Good.
"""
RADIOLOGY = """ [**2101-10-20**] 5:00 AM
 CHEST (PORTABLE AP)
 Admitting Diagnosis: PNEUMONIA;SEPSIS
 ______
 UNDERLYING MEDICAL CONDITION:
  76 year old man
 REASON FOR THIS EXAMINATION:
  eval
 ______
                                 FINAL REPORT
 INDICATION:  Cough.

 FINDINGS:  The lungs are clear.

 IMPRESSION:  No pneumonia.
"""


def named(text):
    return {name: clean_note(part) for name, part in sections(text)}


def test_a_discharge_summary_in_two_styles_of_headers():
    found = named(SUMMARY)
    assert found["history of present illness"] == "This is a 76 year old man with: cough, and fever."
    assert found["service"] == "MEDICINE"
    assert found["discharge condition"] == "Good."
    assert found["brief hospital course"] == ""
    assert found["cardiac"].endswith("atrial fibrillation. Secondary: - Diabetes mellitus")
    assert found["admission date"].startswith("[**2101-10-20**]")


def test_a_radiology_report():
    found = named(RADIOLOGY)
    assert found["indication"] == "Cough."
    assert found["findings"] == "The lungs are clear."
    assert found["impression"] == "No pneumonia."
    assert found[""].startswith("[**2101-10-20**] 5:00 AM")


def test_a_nursing_note_with_dashes():
    found = named("NEURO - alert.\nRESP: on room air\nCV -no edema\nPlan: home - soon")
    assert found == {"": "", "neuro": "alert.", "resp": "on room air", "cv": "no edema", "plan": "home - soon"}


def test_diagnoses_go_with_every_item_of_their_list():
    left = without_diagnoses(SUMMARY)
    for word in ("pneumonia", "fibrillation", "Diabetes", "gout", "DIAGNOSES", "Secondary"):
        assert word not in left
    assert "chest pain" in left
    assert "Discharge Condition:\nGood." in left
    assert "SEPSIS" not in without_diagnoses(RADIOLOGY)
    assert "The lungs are clear" in without_diagnoses(RADIOLOGY)


@pytest.mark.parametrize(
    "header",
    [
        "Discharge Diagnosis:",
        "FINAL DIAGNOSES",
        "PRINCIPAL DIAGNOSIS:  ",
        "Discharge diagnoses, in order:",
        "Other Diagnoses (active):",
        "3. Diagnosis:",
        "DISCHARGE DX:",
        "ICD-9:",
        "He left in good state.  Discharge Diagnosis:",
        "Primary discharge diagnosis list:",
    ],
)
def test_diagnoses_under_any_of_these_headers_are_left_out(header):
    left = without_diagnoses(f"Allergies: none\n{header}\nSEPSIS\nDischarge Condition: good")
    assert "SEPSIS" not in left
    assert left.startswith("Allergies: none")
    assert left.endswith("Discharge Condition: good")


def test_the_word_in_a_sentence_is_no_header():
    text = "Brief Hospital Course:\nthe diagnosis of sepsis was made\nand treated."
    assert without_diagnoses(text) == text


@given(
    st.text(st.sampled_from("aB:-1. \n"), max_size=60) | st.lists(st.sampled_from(SUMMARY.split("\n"))).map("\n".join)
)
def test_no_word_is_lost_but_headers_and_diagnoses_and_none_is_made(text):
    parts = "".join(part for _, part in sections(text)).replace("\n", "")
    rest = iter(text)
    assert all(letter in rest for letter in parts)  # in the same order
    left = iter(text)
    assert all(letter in left for letter in without_diagnoses(text))
    assert without_diagnoses(without_diagnoses(text)) == without_diagnoses(text)
