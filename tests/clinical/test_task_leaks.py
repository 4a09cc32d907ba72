"""No answer stands in a text: hunted for by changing only the outcome, in made-up records and in the real demo."""

from __future__ import annotations

import datetime
import shutil
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_rows import BEGIN, DAY, Record, note, patient, stay, told

from fedpriv.clinical import ClinicalTables
from fedpriv.clinical.examples import Example
from fedpriv.clinical.labels import AnswerCounts
from fedpriv.clinical.rows import LeftOut
from fedpriv.clinical.stock_templates import stock_template
from fedpriv.study import TaskChoice
from fedpriv.study.task import TaskKind
from fedpriv.study.template import check_fields, parse_template

IDS = {"subject_id": 11, "hadm_id": 101}
outcomes = st.fixed_dictionaries(
    {
        "hospital_expire_flag": st.sampled_from([0, 1]),
        "discharge_location": st.sampled_from(["HOME", "DEAD/EXPIRED", "SNF", "HOSPICE-HOME"]),
        "dischtime": st.integers(48, 2000).map(lambda hours: BEGIN + datetime.timedelta(hours=hours)),
    }
)
times = st.integers(0, 400).map(lambda hours: BEGIN + datetime.timedelta(hours=hours))
codes = st.lists(st.sampled_from(["4280", "0389", "V10", "E8497"]), max_size=3, unique=True)


categories = st.sampled_from(["Nursing", "Radiology", "Discharge summary"])


@st.composite
def records(draw, **outcome):
    """Rows of one patient with two admissions; a test changes what only the outcome is."""
    return {
        "patients": [patient()],
        "admissions": [stay(**outcome), stay(102, admittime=BEGIN - 50 * DAY, dischtime=BEGIN - 40 * DAY)],
        "icustays": [
            {**IDS, "icustay_id": number, "first_careunit": "MICU", "intime": draw(times), "los": 1.0}
            for number in range(draw(st.integers(0, 2)))
        ],
        "prescriptions": [
            {**IDS, "drug": f"Drug{n}", "startdate": draw(times)} for n in range(draw(st.integers(0, 3)))
        ],
        "labevents": [
            {**IDS, "itemid": 50912, "charttime": draw(times), "valuenum": 2.0} for _ in range(draw(st.integers(0, 2)))
        ],
        "noteevents": [
            note(f"note {n}", charttime=draw(times), category=draw(categories))
            for n in range(draw(st.integers(0, 4)))
        ],
    }  # fmt: skip


def texts_of(rows, task):
    found, _ = told(Record(**rows), task)
    return [example.text for example in found if example.admitted == BEGIN]


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mortality_does_not_change_with_anything_after_the_window(data):
    rows = data.draw(records())
    outcome, drawn = data.draw(outcomes), data.draw(codes)
    changed = {**rows, "admissions": [rows["admissions"][0] | outcome, rows["admissions"][1]]}
    changed["diagnoses_icd"] = [{**IDS, "seq_num": 1, "icd9_code": code} for code in drawn]
    late = BEGIN + datetime.timedelta(hours=48, seconds=1)
    changed["icustays"] = [row | {"los": data.draw(st.floats(0, 9))} for row in rows["icustays"]]
    changed["noteevents"] = [*rows["noteevents"], note("expired, family present", charttime=late)]
    changed["prescriptions"] = [*rows["prescriptions"], {**IDS, "drug": "Morphine", "startdate": late}]
    changed["admissions"].append(stay(103, admittime=data.draw(times) + 60 * DAY))
    task = TaskChoice(kind="mortality")
    assert texts_of(changed, task) == texts_of(rows, task)
    assert "expired" not in "".join(texts_of(changed, task))


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_readmission_does_not_change_with_any_later_admission(data):
    rows = data.draw(records(dischtime=BEGIN + 5 * DAY))
    kind = data.draw(st.sampled_from(["EMERGENCY", "ELECTIVE", "URGENT"]))
    later = stay(103, admittime=BEGIN + 5 * DAY + (data.draw(times) - BEGIN), admission_type=kind, diagnosis="SEPSIS")
    changed = {**rows, "admissions": [*rows["admissions"], later]}
    changed["noteevents"] = [*rows["noteevents"], note("came back with sepsis", hadm=103, day=9)]
    task = TaskChoice(kind="readmission")
    assert texts_of(changed, task)[:1] == texts_of(rows, task)[:1]
    assert len(texts_of(rows, task)) == 1
    assert "sepsis" not in texts_of(changed, task)[0].lower()


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(records(), codes.filter(bool), codes.filter(bool))
def test_chapters_do_not_change_with_the_codes_nor_with_the_diagnoses_of_the_summary(rows, before, after):
    task = TaskChoice(kind="icd9_chapters", notes=("discharge summary", "nursing"))
    texts = []
    for chosen in (before, after):
        summary = f"Service: MEDICINE\nDischarge Diagnosis:\n{' and '.join(chosen)}\nFollowup:\nin a week"
        changed = {
            **rows,
            "diagnoses_icd": [{**IDS, "seq_num": 1, "icd9_code": code} for code in chosen],
            "noteevents": [
                *rows["noteevents"],
                note(summary, charttime=BEGIN + 999 * DAY, category="Discharge summary"),
            ],
        }
        texts.append(texts_of(changed, task))
    assert texts[0] == texts[1]
    assert "in a week" in texts[0][0]


@pytest.mark.parametrize("kind", get_args(TaskKind))
def test_the_stock_templates_use_only_what_their_task_knows(kind):
    template = parse_template(stock_template(kind), source="stock")
    check_fields(template, TaskChoice(kind=kind), source="stock")
    assert "notes" in template.fields


# -- the real demo ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_demo(mimic_demo, tmp_path_factory):
    """The demo with its laboratory values, which lie there under another name."""
    folder = tmp_path_factory.mktemp("demo")
    for path in mimic_demo.glob("*.csv.gz"):
        shutil.copyfile(path, folder / path.name.replace(".sample70", ""))
    return folder


@pytest.fixture(scope="module")
def demo_examples(whole_demo) -> dict[str, tuple[list[Example], LeftOut]]:
    with ClinicalTables.open(whole_demo) as tables:
        return {kind: told(tables, TaskChoice(kind=kind)) for kind in get_args(TaskKind)}


@pytest.mark.parametrize("kind", get_args(TaskKind))
def test_every_admission_of_the_demo_is_told_or_counted(demo_examples, kind):
    found, tally = demo_examples[kind]
    left_out = sum(count for reason, count in tally.items() if reason.startswith(("admission", "newborn", "organ")))
    assert len(found) + left_out == 129
    task = TaskChoice(kind=kind)
    assert all(example.questions == task.questions for example in found)
    assert all(len(example.answers) == len(task.questions) for example in found)
    counts = AnswerCounts(task)
    for example in found:
        counts.add(example.answers)
    counts.refuse_empty()


def test_no_text_of_the_demo_tells_its_answer(demo_examples):
    for example in demo_examples["mortality"][0]:
        for word in ("died", "expired", "dead", "discharged", "Diagnoses", " days.", "icd"):
            assert word not in example.text, word
    assert {example.answers for example in demo_examples["mortality"][0]} == {("yes",), ("no",)}
    assert not any("died" in example.text for example in demo_examples["readmission"][0])


def test_no_title_of_a_code_stands_in_the_chapters_of_the_demo(whole_demo, demo_examples):
    with ClinicalTables.open(whole_demo) as tables:
        titles = tables.rows(
            "SELECT DISTINCT long_title FROM diagnoses_icd JOIN d_icd_diagnoses USING (icd9_code) "
            "WHERE length(long_title) > 24"
        )
    assert len(titles) > 300
    texts = "\n".join(example.text for example in demo_examples["icd9_chapters"][0])
    assert not [title for (title,) in titles if title in texts]
    assert "creatinine" in texts


def test_the_answers_of_the_demo_are_those_of_its_tables(whole_demo, demo_examples):
    with ClinicalTables.open(whole_demo) as tables:
        died = tables.rows(
            "SELECT count(*) FROM admissions "
            "WHERE hospital_expire_flag = 1 AND dischtime >= admittime + INTERVAL 48 HOUR"
        )[0][0]
        back = tables.rows(
            "SELECT count(DISTINCT a.hadm_id) FROM admissions a JOIN admissions b USING (subject_id) "
            "WHERE a.hadm_id <> b.hadm_id AND a.hospital_expire_flag = 0 AND a.admission_type <> 'NEWBORN' "
            "AND b.admission_type IN ('EMERGENCY', 'URGENT') "
            "AND b.admittime BETWEEN a.dischtime AND a.dischtime + INTERVAL 30 DAY"
        )[0][0]
    for kind, count in (("mortality", died), ("readmission", back)):
        assert sum(example.answers == ("yes",) for example in demo_examples[kind][0]) == count > 0


def test_only_the_outcome_of_the_demo_changed_and_no_text(whole_demo, demo_examples):
    """Everybody's fate is turned round in the tables; what the mortality task reads stays the same to the byte."""
    with ClinicalTables.open(whole_demo) as tables:
        tables.rows(
            "CREATE TABLE turned AS SELECT * REPLACE (dischtime + INTERVAL 9 DAY AS dischtime,"
            " 1 - hospital_expire_flag AS hospital_expire_flag,"
            " CASE WHEN hospital_expire_flag = 1 THEN 'HOME' ELSE 'DEAD/EXPIRED' END AS discharge_location)"
            " FROM admissions"
        )
        tables.rows("CREATE OR REPLACE VIEW admissions AS SELECT * FROM turned")
        tables.rows("CREATE OR REPLACE VIEW diagnoses_icd AS SELECT * FROM diagnoses_icd WHERE false")
        turned, _ = told(tables, TaskChoice(kind="mortality"))
    texts = {(example.subject_id, example.admitted): example for example in turned}
    known = demo_examples["mortality"][0]
    own = [texts[example.subject_id, example.admitted] for example in known]
    assert all(example.answers != other.answers for example, other in zip(known, own, strict=True))
    same = [example.text == other.text for example, other in zip(known, own, strict=True)]
    earlier = [", the last" in example.text for example in known]  # where the discharge of an earlier stay counts
    assert all(it or before for it, before in zip(same, earlier, strict=True))
