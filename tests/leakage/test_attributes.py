"""A fact is hidden everywhere it is told, and guessed better of patients than of others only where they were learnt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import InputError
from fedpriv.leakage import Attribute, Question, attribute_inference, guesses, questions
from fedpriv.leakage.attributes import ADMISSION, CARE_UNIT, SEX
from tests.leakage.conftest import BY_HEART, TOKENS

RIGHT = Question(candidates=("a", "b"), truth=0)


def test_every_telling_of_it_is_hidden_and_nothing_else():
    note = "Female, 40 to 49 years, CSRU.\nPREOP: 42F with fever, 38 C. Female ward."
    asked = SEX.question(note)
    assert asked.truth == 0
    assert asked.candidates[0] == note
    assert asked.candidates[1] == "Male, 40 to 49 years, CSRU.\nPREOP: 42M with fever, 38 C. Female ward."


@pytest.mark.parametrize("note", ["", "40 to 49 years", "Male, 40 to 49 years. 42F with fever"])
def test_a_note_that_does_not_tell_it_or_tells_two_values_is_no_question(note):
    assert SEX.question(note) is None


@given(st.sampled_from(["emergency", "urgent", "elective"]), st.text(max_size=30))
def test_one_candidate_is_the_note_itself(value, rest):
    note = f"Female, 30 to 39 years, MICU, {value} admission.\n{rest}"
    asked = ADMISSION.question(note)
    if asked is not None:
        assert asked.candidates[asked.truth] == note
        assert len(set(asked.candidates)) == len(ADMISSION.values)


def test_longer_spellings_are_not_taken_for_shorter_ones():
    ward = Attribute("ward", (r"{}",), (("ICU",), ("MICU",)))
    assert ward.question("in the MICU").truth == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ((), (("a",), ("b",))),
        (("{}",), (("a",),)),
        (("{}",), (("a",), ("a",))),
        (("{}",), (("a", "b"), ("c",))),
        (("x",), (("a",), ("b",))),
    ],
)
def test_an_attribute_that_is_none_is_refused(wrong):
    with pytest.raises(InputError):
        Attribute("it", *wrong)


def answered(released, adapter, texts):
    asked = questions(released.folder, CARE_UNIT, texts, max_tokens=TOKENS)
    return list(zip(asked, guesses(released.folder, BY_HEART, adapter, asked), strict=True))


@pytest.fixture(scope="module")
def members(released):
    return answered(released, released.adapter, released.members)


@pytest.fixture(scope="module")
def others(released):
    return answered(released, released.adapter, released.others)


def test_notes_are_cut_before_the_fact_is_hidden(released):
    for asked in questions(released.folder, CARE_UNIT, released.members, max_tokens=TOKENS):
        ids = released.encoded([asked.candidates[asked.truth]])[0].ids
        assert len(ids) == TOKENS
        assert any(note.startswith(asked.candidates[asked.truth]) for note in released.members)


def test_positive_control_of_notes_learnt_by_heart_it_is_guessed(members, others):
    found = attribute_inference(members, others, control=members)
    assert found.measured
    assert found.members.value >= 0.8
    assert found.advantage.low > 0
    assert 0.2 <= found.base_rate < 0.5


def test_negative_control_of_patients_who_were_not_in_it_no_more_than_of_others(others, members):
    found = attribute_inference(others[::2], others[1::2], control=members)
    assert found.advantage.low < 0 < found.advantage.high


def test_negative_control_an_untrained_adapter_guesses_the_first(released, members):
    blind = [answered(released, released.start, texts) for texts in (released.members, released.others)]
    assert {guess for some in blind for _, guess in some} == {0}
    found = attribute_inference(*blind, control=members)
    assert found.advantage.low < 0 < found.advantage.high


def test_with_a_control_that_fails_nothing_is_measured():
    good, bad = [(RIGHT, 0)] * 6 + [(Question(candidates=("a", "b"), truth=1), 1)] * 6, [(RIGHT, 1)] * 12
    assert attribute_inference(good, bad, control=good).measured
    assert str(attribute_inference(good, bad, control=bad)) == "not measured"
    assert not attribute_inference(good[:4], bad, control=good).measured
    one_value = [(RIGHT, 0)] * 12
    assert not attribute_inference(good, bad, control=one_value).measured  # whoever always says so is right, too
