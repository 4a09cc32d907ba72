"""The mock side of another party: read as it was written, and refused where it is anything else."""

import gzip
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpriv.clinical import mock_reading, write_mock
from fedpriv.clinical.mock_reading import read_mock
from fedpriv.errors import UntrustedError
from fedpriv.study import TaskChoice


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "mock"
    write_mock(folder, seed=0)
    return folder


@pytest.fixture
def mock(made, tmp_path):
    shutil.copytree(made, tmp_path / "mock")
    return tmp_path / "mock"


def test_what_was_made_is_read(made):
    side = read_mock(made)
    lines = (made / "examples.jsonl").read_text().splitlines()
    assert side.texts[0] == json.loads(lines[0])["text"]
    assert len(side.lengths) == len(lines)
    assert side.lengths[0] == len(side.texts[0].split())
    assert side.patients == len({json.loads(line)["patient"] for line in lines})
    tables = {table.name: table for table in side.tables}
    assert tables["PATIENTS"].rows == sum(side.mixtures["sex"].values()) == 24
    assert {column.name: column.type for column in tables["PATIENTS"].columns}["subject_id"] == "bigint"
    assert all(0 <= column.filled <= 1 for table in side.tables for column in table.columns)
    assert set(side.mixtures) == {"first care unit", "sex", "type of admission"}
    assert side.answers == {}


def test_what_syft_sent_lies_in_one_folder_and_is_read_the_same(made, mock):
    for table in (mock / "tables").iterdir():
        table.rename(mock / table.name)
    (mock / "tables").rmdir()
    assert read_mock(mock) == read_mock(made)


def test_answers_are_counted(tmp_path):
    write_mock(tmp_path / "mock", seed=0, task=TaskChoice(kind="mortality"))
    side = read_mock(tmp_path / "mock")
    ((yes, of),) = side.answers.values()
    assert 0 < yes < of == len(side.lengths)
    assert side.task == "mortality"


def schema(mock, **changes):
    value = json.loads((mock / "schema.json").read_text())
    (mock / "schema.json").write_text(json.dumps(value | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"synthetic": False}, "synthetic"),
        ({"schema_version": 4}, "schema_version"),
        ({"more": 1}, "no such setting"),
        ({"tables": {"PATIENTS": {"file": "../../keys", "columns": []}}}, "file"),
        ({"tables": {"PATIENTS": {"file": "tables/GONE.csv.gz", "columns": []}}}, "GONE.csv.gz is missing"),
        ({"examples": {"file": "other.jsonl", "count": 1, "fields": {}}}, "examples > file"),
    ],
)
def test_a_schema_that_is_none_of_ours_is_refused(mock, changes, words):
    schema(mock, **changes)
    with pytest.raises(UntrustedError, match="no mock side") as caught:
        read_mock(mock)
    assert words in caught.value.what


def test_links_bombs_and_odd_bytes_are_refused(mock, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text('{"text": "a key", "patient": 1}\n')
    table, examples = mock / "tables" / "PATIENTS.csv.gz", mock / "examples.jsonl"
    good = examples.read_bytes()
    examples.unlink()
    examples.symlink_to(secret)
    with pytest.raises(UntrustedError, match="no plain file"):
        read_mock(mock)
    examples.unlink()
    for odd in (b"\xff\xfe\n", b'{"text": 3, "patient": 1}\n', b'{"text": "x", "patient": 1, "name": "y"}\n', b"[]\n"):
        examples.write_bytes(odd)
        with pytest.raises(UntrustedError, match=r"line 1 of examples\.jsonl"):
            read_mock(mock)
    examples.write_bytes(good)
    for odd in (b"no gzip", gzip.compress(b"\xff\xff"), gzip.compress(b'a,b\n"x"y,1\n')):
        table.write_bytes(odd)
        with pytest.raises(UntrustedError, match=r"no packed text|no CSV"):
            read_mock(mock)
    monkeypatch.setattr(mock_reading, "MAX_TABLE_BYTES", 2**16)
    table.write_bytes(gzip.compress(b"a\n" + b"1\n" * 2**20))
    with pytest.raises(UntrustedError, match="unpacks to more than"):
        read_mock(mock)


def test_many_categories_become_a_few_and_the_others(mock):
    rows = "".join(f"{number},UNIT {number % 40}\n" for number in range(400))
    (mock / "tables" / "ICUSTAYS.csv.gz").write_bytes(gzip.compress(b"SUBJECT_ID,FIRST_CAREUNIT\n" + rows.encode()))
    found = read_mock(mock).mixtures["first care unit"]
    assert len(found) == mock_reading.MOST_CATEGORIES + 1
    assert (sum(found.values()), found["others"]) == (400, 320)


names = st.sampled_from(["schema.json", "examples.jsonl", "tables/PATIENTS.csv.gz"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(name=names, place=st.floats(0, 1), data=st.binary(max_size=6))
def test_no_bytes_break_it(mock, made, name, place, data):
    good = (made / name).read_bytes()
    at = int(place * len(good))
    (mock / name).write_bytes(good[:at] + data + good[at + len(data) :])
    try:
        side = read_mock(mock)
    except UntrustedError:
        side = None
    (mock / name).write_bytes(good)
    assert side is None or side.tables
