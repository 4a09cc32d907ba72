import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import TrainingError
from fedpriv.training.examples import IGNORED, Encoder, Example, collate, labels_of
from fedpriv.training.lines import Line, LineFile, read_lines, read_patients
from fedpriv.training.shard import Shard

QUESTIONS = ["Did the patient die?", "Was there a readmission?"]


def asked(text, *answers, patient=0):
    return json.dumps({"text": text, "patient": patient, "questions": QUESTIONS, "answers": list(answers)})


@given(texts=st.lists(st.text(max_size=20), max_size=8), ends=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_every_line_is_found_however_lines_end(tmp_path_factory, texts, ends):
    path = tmp_path_factory.mktemp("lines") / "shard.jsonl"
    path.write_bytes("".join(json.dumps({"text": text}) + ends for text in texts).encode())
    assert [line.text for line in read_lines(path)] == texts
    file = LineFile(path)
    assert [line.text for line in file.read(list(reversed(range(len(file)))))] == texts[::-1]


def test_the_last_line_needs_no_end_and_blocks_do_not_cut_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("fedpriv.training.lines._BLOCK_BYTES", 7)
    path = tmp_path / "shard.jsonl"
    path.write_text("\n".join(json.dumps({"text": "x" * n, "patient": n}) for n in range(20)))
    assert [(len(line.text), line.patient) for line in read_lines(path)] == [(n, n) for n in range(20)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1]", "not a JSON object"),
        ('{"text": 1}', "not a JSON object"),
        ('{"text": "secret", "questions": ["a?"], "answers": []}', "for each of its"),
        ('{"text": "secret", "questions": ["a?"], "answers": ["maybe"]}', "for each of its"),
        ('{"text": "secret", "questions": [" "], "answers": ["yes"]}', "for each of its"),
        ('{"text": "secret", "questions": "a", "answers": ["yes"]}', "for each of its"),
        ('{"text": "secret", "questions": ["other?"], "answers": ["yes"]}', "other questions"),
        ('{"text": "secret"}', "other questions"),
        ("\xff", "not a JSON object"),
    ],
)
def test_a_bad_line_is_named_by_its_number_alone(tmp_path, line, why):
    path = tmp_path / "shard.jsonl"
    path.write_bytes(f"{asked('fine', 'yes', 'no')}\n\n{line}\n".encode("latin-1"))
    with pytest.raises(TrainingError, match=f"Line 3 of shard.jsonl .*{why}") as caught:
        read_lines(path)
    assert "secret" not in str(caught.value)


def test_a_line_without_a_patient_is_refused_where_patients_count(tmp_path):
    path = tmp_path / "shard.jsonl"
    path.write_text('{"text": "a", "patient": 4}\n{"text": "b"}\n')
    with pytest.raises(TrainingError, match=r"Example 2 .* which patient"):
        read_patients(path)


def test_only_answers_are_learned_and_questions_are_never_cut(tiny, tmp_path):
    path = tmp_path / "shard.jsonl"
    path.write_text(asked("a long story " * 100, "yes", "no") + "\n" + asked("short", "no", "no") + "\n")
    encoder = Encoder(tiny.folder, 64)
    yes, no = encoder.answer_tokens
    assert yes != no
    long, short = encoder.encode(read_lines(path))
    assert len(long) == 64 > len(short)
    assert [long[place] for place in long.answers] == [yes, no]
    assert [short[place] for place in short.answers] == [no, no]
    for example in (long, short):
        learned = [label for label in labels_of(example) if label != IGNORED]
        assert learned == [example[place] for place in example.answers]
    tokens, labels = collate([long, short])
    assert (labels != IGNORED).sum() == 4
    assert tokens.shape == (2, 64)


def test_questions_without_room_for_a_text_are_refused(tiny):
    with pytest.raises(TrainingError, match="questions alone"):
        Encoder(tiny.folder, 8).encode([Line("x", questions=("a very long question, indeed?",), answers=(True,))])


def test_a_tokenizer_that_cannot_tell_yes_from_no_is_refused(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TrainingError, match="tell yes from no"):
        Encoder(tmp_path, 32).encode([Line("a", questions=("a",), answers=(True,))])


def test_what_a_tokenizer_puts_first_comes_first(tiny, tmp_path):
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_file(str(tiny.folder / "tokenizer.json"))
    plain = tokenizer.encode("Heart rate 80", add_special_tokens=False).ids
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|end|> $A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert Encoder(tmp_path, 32).encode(["Heart rate 80"]) == [Example((0, *plain))]
    assert Encoder(tiny.folder, 32).encode(["Heart rate 80"]) == [Example(tuple(plain))]


def test_a_large_shard_is_drawn_line_by_line_with_the_same_examples(tiny, shard):
    encoder = Encoder(tiny.folder, 32)
    whole, single = Shard(shard / "train.jsonl", encoder), Shard(shard / "train.jsonl", encoder, at_once=0)
    assert len(whole) == len(single) == 40
    order = [3, 39, 0, 3, 17]
    assert whole.draw(iter(order), 5) == single.draw(iter(order), 5)


def test_unusable_lines_of_a_large_shard_are_passed_over_and_not_for_ever(tiny, tmp_path):
    path = tmp_path / "shard.jsonl"
    path.write_text('{"text": ""}\n{"text": "two words"}\n')
    shard = Shard(path, Encoder(tiny.folder, 32), at_once=0)
    assert len(shard.draw(iter([0, 1, 0, 0, 1, 1]), 3)) == 3
    path.write_text('{"text": ""}\n')
    with pytest.raises(TrainingError, match="hardly an example"):
        Shard(path, Encoder(tiny.folder, 32), at_once=0).draw(iter(lambda: 0, 1), 3)
