from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_mimic import notes, tiny_tables

from fedpriv.clinical import ClinicalTables, narratives
from fedpriv.clinical.narrative import MAX_DIAGNOSES, MAX_DRUGS, full_years
from fedpriv.clinical.notes import clean_note


def told(folder):
    with ClinicalTables.open(folder, refused_share=None) as tables:
        return list(narratives(tables))


def test_told_from_tables(make_tables):
    first, second, third, fourth = told(make_tables())
    assert first.text == (
        "A woman over 89 was admitted as an emergency from the emergency room. Problem on admission: fever, s/p fall. "
        "Intensive care: the medical intensive care unit (MICU) for 1.2 days. "
        "Diagnoses: ICD-9 code 99999; Streptococcal, said septicemia. Medications: Aspirin, Heparin Sodium. "
        "She died in hospital after 2.0 days."
    )
    assert second.text == (
        "A 69-year-old man was admitted electively from the emergency room. Problem on admission: hernia. "
        "Intensive care: the surgical intensive care unit (SICU). He was discharged home after 1.0 days."
    )
    assert "for less than a day" in third.text
    assert third.text.endswith("He was discharged to a skilled nursing facility after 10.0 days.")
    assert fourth.text.startswith("A 50-year-old patient was admitted. Intensive care: the coronary care unit")
    assert fourth.text.endswith("The patient was discharged.")
    assert {narrative.source for narrative in (first, second, third, fourth)} == {"tables"}


def test_codes_without_titles_and_no_drugs(make_tables):
    first = told(make_tables(D_ICD_DIAGNOSES=None, PRESCRIPTIONS=None))[0]
    assert "Diagnoses: ICD-9 code 99999; ICD-9 code 0380. She died" in first.text


def test_lists_are_cut(make_tables):
    many = tiny_tables()
    codes = [many["DIAGNOSES_ICD"][0], *([str(i), "11", "101", str(i), f"X{i}"] for i in range(30))]
    drugs = [many["PRESCRIPTIONS"][0], *([str(i), "11", "101", "", "MAIN", f"Drug{i}"] for i in range(30))]
    text = told(make_tables(DIAGNOSES_ICD=codes, PRESCRIPTIONS=drugs))[0].text
    assert text.count("ICD-9 code") == MAX_DIAGNOSES
    assert text.count("Drug") == MAX_DRUGS


def test_the_latest_report_is_the_note(make_tables):
    folder = make_tables(
        NOTEEVENTS=notes(
            ["1", "11", "101", "2150-01-03", "Discharge summary", "Report", "", 'Old\n\nsaid "no"'],
            [
                "2",
                "11",
                "101",
                "2150-01-05",
                "Discharge summary",
                "Report",
                "",
                ' New [**2150-1-5**]\r\n at\n\n "home" ',
            ],
            ["3", "11", "101", "2150-01-09", "Discharge summary", "Addendum", "", "addendum"],
            ["4", "11", "101", "2150-01-09", "Discharge summary", "Report", "1", "an error"],
            ["5", "11", "101", "2150-01-09", "Nursing", "Report", "", "nursing"],
            ["6", "12", "101", "2150-01-09", "Discharge summary", "Report", "", "of another patient"],
            ["7", "12", "", "2150-01-09", "Discharge summary", "Report", "", "of no admission"],
        )
    )
    first, second, *_ = told(folder)
    assert first.text == 'Female, over 89, MICU, emergency admission.\nNew [**2150-1-5**] at\n"home"'
    assert (first.source, second.source) == ("discharge summary", "tables")


@pytest.mark.parametrize(
    ("born", "now", "years"),
    [("2100-03-01", "2150-02-28", 49), ("2100-03-01", "2150-03-01", 50), ("2150-01-01", "2150-01-01", 0)],
)
def test_full_years(born, now, years):
    assert full_years(datetime.datetime.fromisoformat(born), datetime.datetime.fromisoformat(now)) == years
    assert full_years(datetime.datetime(2151, 1, 1), datetime.datetime(2150, 1, 1)) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_clean_note_is_stable_and_keeps_every_word(text):
    cleaned = clean_note(text)
    assert clean_note(cleaned) == cleaned
    assert all(line and line == " ".join(line.split()) for line in cleaned.split("\n") if cleaned)
    visible = [c for c in text if not c.isspace() and c.isprintable()]
    assert [c for c in cleaned if not c.isspace() and c.isprintable()] == visible


def test_real_demo_is_told_the_same_twice_without_ids(mimic_demo):
    texts = told(mimic_demo)
    assert texts == told(mimic_demo)
    assert len(texts) == 129
    with ClinicalTables.open(mimic_demo) as tables:
        ids = tables.rows("SELECT subject_id, hadm_id FROM admissions")
    assert not any(str(number) in n.text for n in texts for row in ids for number in row)
    assert all(60 < len(n.text) < 4000 for n in texts)
    assert sum("over 89" in n.text for n in texts) > 0
