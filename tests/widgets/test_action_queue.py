import queue
import threading
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter

from fedpriv.errors import StudyError
from fedpriv.study.section import Section
from fedpriv.widgets.action_queue import ActionQueue


class Say(Section):
    do: Literal["say"]
    word: str = Field(max_length=10)


class Fail(Section):
    do: Literal["fail"]
    how: Literal["ours", "disk", "bug"]


ACTIONS = TypeAdapter(Annotated[Say | Fail, Field(discriminator="do")])


def carry_out(action):
    if isinstance(action, Say):
        return f"said {action.word} in {threading.current_thread().name}"
    raise {
        "ours": StudyError("It is asleep", kept="All is kept", todo="wake it"),
        "disk": OSError(28, "No space left on device"),
        "bug": ZeroDivisionError("secret of a patient"),
    }[action.how]


@pytest.fixture(scope="module")
def ask():
    answers = queue.Queue()
    actions = ActionQueue(ACTIONS, carry_out, answers.put, name="teller")

    def ask(action):
        actions.ask(action)
        return answers.get(timeout=20)

    yield ask
    actions.close()


def test_what_is_asked_for_is_done_in_the_queue_s_thread(ask):
    answer = ask({"do": "say", "word": "hello"})
    assert (answer.do, answer.good, answer.text) == ("say", True, "said hello in teller")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("ours", "It is asleep. All is kept. Next: wake it."),
        ("disk", "No space left on device"),
        ("bug", "fedpriv itself made a mistake (ZeroDivisionError)"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_the_next_one_is_heard(ask, how, words):
    answer = ask({"do": "fail", "how": how})
    assert not answer.good
    assert words in answer.text
    assert "secret" not in answer.text
    assert ask({"do": "say", "word": "on"}).good


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ).filter(lambda value: value is not None)
)
def test_anything_at_all_gets_one_answer(ask, value):
    answer = ask(value)
    assert not answer.good
    assert "cannot be asked for" in answer.text


def test_every_answer_has_a_number_of_its_own(ask):
    first, second = ask({"do": "say", "word": "a"}), ask({"do": "say", "word": "a"})
    assert second.number == first.number + 1
