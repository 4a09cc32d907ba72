"""Tasks: what is known when, their labels, and what they leave out."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_rows import BEGIN, DAY, Record, note, patient, stay, told

from fedpriv.clinical.examples import TABLES
from fedpriv.clinical.labels import AnswerCounts, chapter_of
from fedpriv.errors import DataError
from fedpriv.study import TaskChoice
from fedpriv.study.task import ICD9_CHAPTERS

# -- what is known when ----------------------------------------------------------------------------------------------


def test_mortality_reads_the_window_and_nothing_after_it():
    at = [BEGIN + datetime.timedelta(hours=hours) for hours in (1, 48, 49)]
    record = Record(
        patients=[patient()],
        admissions=[stay()],
        icustays=[
            {"subject_id": 11, "hadm_id": 101, "icustay_id": 1, "first_careunit": "MICU", "intime": at[0], "los": 4.5},
            {"subject_id": 11, "hadm_id": 101, "icustay_id": 2, "first_careunit": "SICU", "intime": at[2], "los": 1.0},
        ],
        prescriptions=[
            {"subject_id": 11, "hadm_id": 101, "drug": name, "startdate": BEGIN.replace(hour=0) + days * DAY}
            for name, days in (("Early", 0), ("Yesterday", 1), ("SameDay", 2))
        ],
        labevents=[
            {"subject_id": 11, "hadm_id": 101, "itemid": item, "charttime": time, "valuenum": 1.5, "valueuom": "mg/dL",
             "flag": "abnormal"} for item, time in ((50912, at[0]), (50912, at[2]), (50813, at[1]), (50983, at[2]))
        ],
        noteevents=[
            note("first note"),
            note("stored late", charttime=at[0], storetime=at[2]),
            note("after it", charttime=at[2]),
            note("only a day, the first", charttime=None, category="Radiology"),
            note("only a day, the third", charttime=None, chartdate=at[1].replace(hour=0), category="Radiology"),
            note("no date", charttime=None, chartdate=None),
            note("cardiogram", category="ECG"),
        ],
    )  # fmt: skip
    (example,), tally = told(record, TaskChoice(kind="mortality"))
    assert example.text == (
        "A 70-year-old man was admitted as an emergency from the emergency room. Problem on admission: fever. "
        "Intensive care: the medical intensive care unit (MICU). Medications: Early, Yesterday. "
        "First laboratory values: creatinine 1.5 mg/dL (abnormal); lactate 1.5 mmol/L (abnormal).\n"
        "Nursing: first note\nRadiology: only a day, the first"
    )
    assert (example.answers, example.source) == (("no",), "notes")
    assert tally == {"note after the first 48 hours": 3, "note without a date": 1}


def test_a_shorter_window_knows_less():
    record = Record(patients=[patient()], admissions=[stay()], noteevents=[note("one"), note("two", day=2)])
    texts = [told(record, TaskChoice(kind="mortality", window_hours=hours))[0][0].text for hours in (12, 36)]
    assert ["two" in text for text in texts] == [False, True]


@pytest.mark.parametrize("left", [None, BEGIN + DAY, BEGIN + 9 * DAY])
def test_an_earlier_stay_that_is_not_over_tells_nothing_of_its_end(left):
    record = Record(patients=[patient()], admissions=[stay(), stay(100, admittime=BEGIN - 3 * DAY, dischtime=left)])
    found, _ = told(record, TaskChoice(kind="mortality"))
    text = next(example.text for example in found if example.admitted == BEGIN)
    assert "Earlier admissions: 1, the last 3 days ago." in text


def test_who_is_left_out_is_counted_by_reason():
    short = stay(1, dischtime=BEGIN + DAY)
    record = Record(
        patients=[patient()],
        admissions=[
            short, stay(2, dischtime=None), stay(3, hospital_expire_flag=None, discharge_location=None),
            stay(4, diagnosis="ORGAN DONOR ACCOUNT", hospital_expire_flag=1), stay(5, hospital_expire_flag=1),
            stay(6, admission_type="NEWBORN"),
        ],
    )  # fmt: skip
    found, tally = told(record, TaskChoice(kind="mortality"))
    assert [example.answers for example in found] == [("yes",), ("no",)]
    assert tally == {
        "admission shorter than 48 hours": 1,
        "admission without a time of discharge": 1,
        "admission whose outcome is not recorded": 1,
        "organ donor after death": 1,
    }
    found, tally = told(record, TaskChoice(kind="readmission"))
    assert len(found) == 1
    assert tally == {
        "admission without a time of discharge": 1,
        "admission whose outcome is not recorded": 1,
        "admission that ended with death": 2,
        "newborn": 1,
    }
    _, tally = told(record, TaskChoice(kind="icd9_chapters"))
    assert tally == {"admission without a diagnosis of a chapter": 6}


@pytest.mark.parametrize(
    ("later", "answer"),
    [
        ({"admittime": BEGIN + 20 * DAY}, "yes"),
        ({"admittime": BEGIN + 35 * DAY, "admission_type": "URGENT"}, "yes"),
        ({"admittime": BEGIN + 35 * DAY + datetime.timedelta(seconds=1)}, "no"),
        ({"admittime": BEGIN + 20 * DAY, "admission_type": "ELECTIVE"}, "no"),
        ({"admittime": BEGIN + 20 * DAY, "admission_type": "NEWBORN"}, "no"),
        ({"admittime": BEGIN - 20 * DAY, "dischtime": BEGIN - 10 * DAY}, "no"),
        ({"admittime": BEGIN + 20 * DAY, "subject_id": 12}, "no"),
    ],
)
def test_readmission_is_an_unplanned_one_of_the_same_patient_within_30_days(later, answer):
    record = Record(patients=[patient(), patient(12)], admissions=[stay(), stay(102, **later)])
    found, _ = told(record, TaskChoice(kind="readmission"))
    first = next(example for example in found if example.admitted == BEGIN)
    assert first.answers == (answer,)


def test_readmission_reads_the_summary_but_none_that_was_written_later():
    summaries = [
        note("went home well", day=5, charttime=None, category="Discharge summary"),
        note("came back with sepsis", hadm=102, day=9, charttime=None, category="Discharge summary"),
    ]
    record = Record(patients=[patient()], admissions=[stay(), stay(102)], noteevents=summaries)
    (first, second), tally = told(record, TaskChoice(kind="readmission"))
    assert first.text.endswith("He was discharged home after 5.0 days.\nwent home well")
    assert second.source == TABLES
    assert tally == {"note after the day of discharge": 1}


# -- chapters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "chapter"),
    [
        ("001", "001-139"), ("1398", "001-139"), ("42731", "390-459"), ("427.31", "390-459"), ("V3001", "V"),
        ("E8497", "E"), ("v10.1", "V"), ("99999", "800-999"), ("78", None), ("0000", None), ("ABC", None), ("", None),
        ("E", None), ("123456", None), ("٤٢٧", None),
    ],
)  # fmt: skip
def test_chapters_of_codes(code, chapter):
    assert chapter_of(code) == chapter


@given(st.integers(1, 999), st.text("0123456789", max_size=2))
def test_every_number_has_one_chapter(number, rest):
    low, high = (int(part) for part in (chapter_of(f"{number:03}{rest}") or "").split("-"))
    assert low <= number <= high


def test_chapters_are_asked_in_order_and_their_titles_are_hidden():
    ids = {"subject_id": 11, "hadm_id": 101}
    codes = [{**ids, "seq_num": number, "icd9_code": code} for number, code in enumerate(("4280", "V10", "x"))]
    titles = [{"icd9_code": "4280", "long_title": "Congestive heart failure"}]
    text = "Brief Hospital Course:\nbetter\n\nDischarge Diagnosis:\nHEART FAILURE\nFollowup:\nsoon"
    record = Record(
        patients=[patient()],
        admissions=[stay(), stay(102)],
        diagnoses_icd=[*codes, {"subject_id": 11, "hadm_id": 102, "seq_num": 1, "icd9_code": "4280"}],
        d_icd_diagnoses=titles,
        noteevents=[note(text, day=5, charttime=None, category="Discharge summary")],
    )
    (first, second), tally = told(record, TaskChoice(kind="icd9_chapters"))
    assert [name for name, answer in zip(ICD9_CHAPTERS, first.answers, strict=True) if answer == "yes"] == [
        "390-459",
        "V",
    ]
    assert first.text.endswith("\nBrief Hospital Course: better\nFollowup: soon")
    assert "eart" not in (first.text + second.text).replace("HEART", "eart")
    assert tally == {"diagnosis code of no chapter": 1}


# -- notes -----------------------------------------------------------------------------------------------------------


def test_language_modelling_tells_each_note_once_for_its_own_patient():
    other = {"subject_id": 12, "hadm_id": 201}
    record = Record(
        patients=[patient(), patient(12)],
        admissions=[stay(), stay(102, admittime=BEGIN + 90 * DAY), stay(201, subject_id=12)],
        noteevents=[
            note("The Same  text"), note("the same text", day=2), note("the same\ntext", hadm=102),
            note("the same text", category="Nursing/other", **other), note("lungs clear", category="Radiology"),
            note("of nobody", hadm=None), note("of no stay", hadm=999), note("\x01 \n"),
            note("x" * 99_999 + " " + "y" * 40_000, hadm=102),
        ],
    )  # fmt: skip
    task = TaskChoice(notes=("nursing", "radiology"))
    found, tally = told(record, task, "{notes}\n[without notes]\n{person}")
    assert [(example.subject_id, example.source, example.text[:20]) for example in found] == [
        (11, "nursing", "The Same text"),
        (11, "radiology", "lungs clear"),
        (11, "nursing", "x" * 20),
        (12, "nursing", "the same text"),
    ]
    assert tally == {
        "note that the patient has already": 2,
        "note of no admission": 2,
        "end of notes of more than 100,000 characters": 1,
    }


def test_sections_can_be_told():
    text = "Brief Hospital Course:\n  He was\n treated.\n\nFollowup:\nsoon\n"
    record = Record(patients=[patient()], admissions=[stay()], noteevents=[note(text)])
    (example,), _ = told(record, TaskChoice(notes=("nursing",)), "{section:followup}, {section:brief hospital course}")
    assert example.text == "soon, He was treated."


# -- an empty class --------------------------------------------------------------------------------------------------


def test_an_empty_class_is_refused_with_its_counts():
    counts = AnswerCounts(TaskChoice(kind="mortality"))
    for _ in range(3):
        counts.add(("no",))
    with pytest.raises(DataError, match=r"mortality has an empty class among 3 training examples \(yes 0, no 3\)"):
        counts.refuse_empty()
    counts.add(("yes",))
    counts.refuse_empty()


def test_chapters_that_never_occur_are_named_and_one_alone_is_refused():
    counts = AnswerCounts(TaskChoice(kind="icd9_chapters"))
    counts.add(("yes", *["no"] * 18))
    with pytest.raises(DataError, match="1 of 19 chapters occur"):
        counts.refuse_empty()
    counts.add(("no", "yes", *["no"] * 17))
    counts.refuse_empty()
    assert len(counts.never) == 17
    AnswerCounts(TaskChoice()).refuse_empty()
