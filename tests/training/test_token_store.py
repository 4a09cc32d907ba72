"""Kept tokens: what is drawn from them is what is drawn from the texts, and anything odd about the file is refused."""

import dataclasses
import itertools
import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fedpriv.errors import TrainingError, UntrustedError
from fedpriv.training import adapter_digest, evaluate_local, train_local
from fedpriv.training.examples import Encoder, encode_patients, example_order, read_patients
from fedpriv.training.jobs import TOKENS, Job, do_job
from fedpriv.training.shard import EncodedLines, Shard, training_patients
from fedpriv.training.token_store import (
    FORMAT,
    MOST_DRAWN_BYTES,
    MOST_READ_BYTES,
    _digest,
    open_tokens,
    tokens_name,
    worth_keeping,
    write_tokens,
)

MAX_TOKENS = 24
TEXTS = st.lists(st.text(alphabet="aé b\n1", max_size=60), max_size=12)


def write(path, texts, questions=(), patients=None):
    """Lines of texts; those of a shard without a text stay an empty file."""
    lines = []
    for number, text in enumerate(texts):
        line = {"text": text, "questions": list(questions), "answers": ["yes", "no", "no"][: len(questions)]}
        lines.append(json.dumps(line | ({} if patients is None else {"patient": patients[number % len(patients)]})))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def keep(folder, files, model, max_tokens=MAX_TOKENS):
    name = tokens_name("0" * 64, model, max_tokens)
    write_tokens(folder / name, files, Encoder(model, max_tokens), name=name)
    return folder / name


@given(
    texts=st.tuples(TEXTS, TEXTS), asked=st.booleans(), at_once=st.sampled_from([0, 2**20]), start=st.integers(0, 20)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_a_shard_is_the_same_with_and_without(tiny, tmp_path, **drawn):
    (train, heldout), asked, at_once, start = (drawn[name] for name in ("texts", "asked", "at_once", "start"))
    questions = ("a?", "b?", "é?") if asked else ()
    patients = [0, 0, 1, 2, 0]
    files = {
        "train": write(tmp_path / "train.jsonl", train, questions, patients),
        "heldout": write(tmp_path / "heldout.jsonl", heldout, questions),
    }
    encoder = Encoder(tiny.folder, MAX_TOKENS)
    tokens = open_tokens(keep(tmp_path, files, tiny.folder), model_folder=tiny.folder, max_tokens=MAX_TOKENS)
    told = Shard(files["train"], encoder, at_once=at_once)
    kept = Shard(files["train"], tokens.train, at_once=at_once)
    assert len(kept) == len(told)
    if any(len(example) >= 2 for example in encoder.encode(train)) or (asked and train):
        orders = [example_order(len(told), 7, start) for _ in range(2)]
        assert [kept.draw(orders[0], 5) for _ in range(3)] == [told.draw(orders[1], 5) for _ in range(3)]
    lines = EncodedLines(files["heldout"], encoder)
    every = list(range(len(lines)))
    assert tokens.heldout.read(every) == lines.read(every)
    grouped = encode_patients(tiny.folder, read_patients(files["train"]), max_tokens=MAX_TOKENS)
    assert (tokens.heldout.patients == -1).all()
    assert [len(patient) for patient in grouped] == [
        int(((tokens.train.patients == number) & (tokens.train.lengths >= 2)).sum())
        for number in dict.fromkeys(tokens.train.patients.tolist())
    ]


@pytest.fixture
def kept(context, tmp_path):
    training = context.training
    files = {"train": context.train, "heldout": context.heldout}
    return dataclasses.replace(context, tokens=keep(tmp_path, files, context.model_folder, training.max_tokens))


def nothing_is_encoded(patch):
    def encode(self, lines):
        raise AssertionError("a text was encoded")

    patch.setattr(Encoder, "encode", encode)


def test_rounds_and_evaluations_give_the_same_bits_and_read_no_text(context, kept, monkeypatch):
    trained, measured = train_local(context), evaluate_local(context)
    with monkeypatch.context() as patch:
        nothing_is_encoded(patch)
        again = train_local(kept)
        assert adapter_digest(again.adapter_after) == adapter_digest(trained.adapter_after)
        assert again.metrics == trained.metrics
        assert evaluate_local(kept) == measured
        with pytest.raises(AssertionError):
            train_local(context)
    kept.tokens.write_bytes(kept.tokens.read_bytes()[:-1])
    assert train_local(kept).metrics == trained.metrics
    assert evaluate_local(kept) == measured


def test_patients_are_grouped_as_their_lines_are(context, tmp_path, monkeypatch):
    train = write(tmp_path / "train.jsonl", ["a b c", "", "d e", "f g h", "x", "i j"], patients=[4, 1, 4, 2, 1, 2])
    files = {"train": train, "heldout": context.heldout}
    tokens = keep(tmp_path, files, context.model_folder, context.training.max_tokens)
    plain = dataclasses.replace(context, train=train)
    expected = training_patients(plain)
    assert [len(patient) for patient in expected] == [2, 0, 2]
    nothing_is_encoded(monkeypatch)
    assert training_patients(dataclasses.replace(plain, tokens=tokens)) == expected


def forged(path, change):
    """Change the arrays and make the digest right again: as a file that was written wrongly, not damaged."""
    arrays = dict(load_file(path))
    change(arrays)
    save_file(arrays, path, {"format": FORMAT, "name": path.name, "sha256": _digest(arrays)})


def put(name, place, value):
    def change(arrays):
        arrays[name][place] = value

    return change


FORGERIES = {
    "a token that the model does not have": put("train.ids", 0, 512),
    "a negative token": put("heldout.ids", -1, -1),
    "a start that is not the first": put("train.offsets", 0, 1),
    "an end behind the file": put("train.offsets", -1, 10**6),
    "examples that go backwards": put("train.offsets", 1, 10**5),
    "an answer before the text": put("train.answers", (0, 0), 0),
    "answers in another order": put("train.answers", (0, 1), 1),
    "an answer behind the example": put("train.answers", (0, 2), 10**4),
    "fewer patients": lambda arrays: arrays.update({"train.patients": arrays["train.patients"][:-1]}),
    "fewer answers": lambda arrays: arrays.update({"train.answers": arrays["train.answers"][:-1]}),
    "no array": lambda arrays: arrays.pop("heldout.offsets"),
    "offsets without an end": lambda arrays: arrays.update({"heldout.offsets": np.zeros(0, np.int64)}),
    "another type": lambda arrays: arrays.update({"train.ids": arrays["train.ids"].astype(np.int64)}),
    "another shape": lambda arrays: arrays.update({"train.ids": arrays["train.ids"][:, None]}),
}


@pytest.fixture
def asked_tokens(tiny, tmp_path):
    questions = ("a?", "b?", "c?")
    files = {
        side: write(tmp_path / f"{side}.jsonl", ["one two", "three", "a b c d"], questions)
        for side in ("train", "heldout")
    }
    return keep(tmp_path, files, tiny.folder)


@pytest.mark.parametrize("what", FORGERIES)
def test_arrays_that_do_not_fit_are_refused(tiny, asked_tokens, what):
    forged(asked_tokens, lambda arrays: None)
    assert open_tokens(asked_tokens, model_folder=tiny.folder, max_tokens=MAX_TOKENS)
    forged(asked_tokens, FORGERIES[what])
    with pytest.raises(UntrustedError):
        open_tokens(asked_tokens, model_folder=tiny.folder, max_tokens=MAX_TOKENS)


def test_a_damaged_file_another_one_and_longer_examples_are_refused(tiny, asked_tokens):
    whole = asked_tokens.read_bytes()
    for damaged in (whole[:100], whole[:-1], b"", whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]):
        asked_tokens.write_bytes(damaged)
        with pytest.raises(UntrustedError):
            open_tokens(asked_tokens, model_folder=tiny.folder, max_tokens=MAX_TOKENS)
    asked_tokens.write_bytes(whole)
    other = asked_tokens.rename(asked_tokens.with_name("other.safetensors"))
    for path, most in ((other, MAX_TOKENS), (asked_tokens, MAX_TOKENS), (other.parent, MAX_TOKENS)):
        with pytest.raises(UntrustedError):
            open_tokens(path, model_folder=tiny.folder, max_tokens=most)
    assert open_tokens(other, model_folder=tiny.folder, max_tokens=MAX_TOKENS, name=asked_tokens.name)
    with pytest.raises(UntrustedError):
        open_tokens(other, model_folder=tiny.folder, max_tokens=5, name=asked_tokens.name)


def test_the_name_depends_on_all_that_the_tokens_depend_on(tiny, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((tiny.folder / "tokenizer.json").read_bytes() + b" ")
    choices = itertools.product(("0" * 64, "1" * 64), (tiny.folder, tmp_path), (24, 25))
    assert len({tokens_name(*choice) for choice in choices}) == 8


def test_the_job_writes_one_private_file(tiny, shard, tmp_path):
    job = {
        "id": "tokens",
        "job": "tokenize",
        "model_folder": str(tiny.folder),
        "train": str(shard / "train.jsonl"),
        "heldout": str(shard / "heldout.jsonl"),
        "tokens": str(tmp_path / "kept" / "name.safetensors"),
        "lora": {},
        "training": {"max_tokens": 32},
        "recipe": "/never/run.py",
        "out": str(tmp_path),
    }
    parsed = Job.model_validate_json(json.dumps(job))
    assert not parsed.runs_recipe
    do_job(parsed, lambda step, steps: None)
    assert [path.name for path in tmp_path.iterdir()] == [TOKENS]
    assert (tmp_path / TOKENS).stat().st_mode & 0o777 == 0o600
    tokens = open_tokens(tmp_path / TOKENS, model_folder=tiny.folder, max_tokens=32, name="name.safetensors")
    assert (len(tokens.train), len(tokens.heldout)) == (40, 40)


def test_a_patient_s_number_that_does_not_fit_keeps_nothing(tiny, tmp_path):
    files = {side: write(tmp_path / f"{side}.jsonl", ["a b"], patients=[2**70]) for side in ("train", "heldout")}
    with pytest.raises(TrainingError, match="does not fit"):
        keep(tmp_path, files, tiny.folder)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_large_shard_is_kept_only_where_all_of_it_is_read(tmp_path):
    files = {"train": tmp_path / "train.jsonl", "heldout": tmp_path / "heldout.jsonl"}
    for size, drawn, read in ((2**20, True, True), (MOST_DRAWN_BYTES, False, True), (MOST_READ_BYTES, False, False)):
        for path in files.values():
            path.touch()
            os.truncate(path, size)
        assert worth_keeping(files, all_read=False) is drawn
        assert worth_keeping(files, all_read=True) is read
