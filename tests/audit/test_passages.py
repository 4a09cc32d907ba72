"""Passages are short, of many patients, telling where that can be, and reach training as they are."""

import json

import numpy as np
import pytest

from fedpriv.audit.passages import Passage, draw_passages, write_passages
from fedpriv.errors import DataError
from fedpriv.training import ensure_model
from fedpriv.training.examples import Encoder, encode_patients, read_patients
from fedpriv.training.lines import Line

EVERY = frozenset(range(512))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return ensure_model("tiny", cache=tmp_path_factory.mktemp("cache")).folder


@pytest.fixture(scope="module")
def encoder(tiny):
    return Encoder(tiny, 96)


def shard(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def drawn(path, encoder, count, *, telling=EVERY, length=24):
    return draw_passages(path, encoder, count=count, length=length, telling=telling, rng=np.random.default_rng(0))


NOTES = [
    {"patient": n // 3, "text": f"patient {n} was admitted with fever and cough, day {n}. " * 4} for n in range(30)
]


def test_each_patient_comes_once_before_any_comes_again(tmp_path, encoder):
    path = shard(tmp_path / "s.jsonl", NOTES)
    ten = drawn(path, encoder, 10)
    assert len({passage.line.text for passage in ten}) == 10
    assert len(drawn(path, encoder, 25)) == 25
    for passage in ten:
        assert 8 <= len(passage.example) <= 30
        assert encoder.encode([passage.line.text])[0].ids == passage.example.ids


def test_passages_with_a_telling_token_come_first(tmp_path, encoder):
    path = shard(tmp_path / "s.jsonl", [*NOTES[:15], {"patient": 99, "text": "zzzz qqqq " * 20}])
    rare = frozenset(encoder.encode(["zzzz qqqq " * 20])[0].ids) - frozenset(encoder.encode([NOTES[0]["text"]])[0].ids)
    (first, *_) = drawn(path, encoder, 3, telling=rare)
    assert "zzzz" in first.line.text or "qqqq" in first.line.text


def test_a_shard_of_nothing_but_short_texts_is_refused(tmp_path, encoder):
    with pytest.raises(DataError, match="no passage"):
        drawn(shard(tmp_path / "s.jsonl", [{"patient": 0, "text": "a"}]), encoder, 3)


def test_what_is_written_is_what_training_reads_with_patients_who_say_nothing(tmp_path, tiny, encoder):
    lines = [
        Line("fever and cough", questions=("Will the patient die?",), answers=(answer,)) for answer in (True, False)
    ]
    passages = [Passage(line=line, example=encoder.encode([line])[0]) for line in lines]
    path = tmp_path / "p.jsonl"
    write_passages(passages, path, silent=3)
    patients = read_patients(path)
    assert [len(notes) for notes in patients] == [1] * 5
    assert [notes[0].answers for notes in patients[:2]] == [(True,), (False,)]
    assert patients[0][0].text == "fever and cough"
    assert patients[4][0].text == ""
    plain = [Passage(line=Line("fever and cough"), example=encoder.encode(["fever and cough"])[0])]
    write_passages(plain, path, silent=2)
    assert [len(notes) for notes in encode_patients(tiny, read_patients(path), max_tokens=96)] == [1, 0, 0]
