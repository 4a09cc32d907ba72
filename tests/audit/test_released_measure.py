"""What the audit says of an adapter: a leak where notes were learnt by heart, none where nothing was learnt."""

import pytest

from fedpriv.audit.released import released_measure
from fedpriv.clinical import write_mock
from fedpriv.leakage import overfitted
from fedpriv.study.plan import LoraChoice
from fedpriv.training import ensure_model, starting_adapter
from fedpriv.training.examples import encode, read_lines

LORA = LoraChoice()


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    mock = tmp_path_factory.mktemp("mock")
    write_mock(mock, seed=3)
    folder = ensure_model("tiny").folder
    found = encode(folder, read_lines(mock / "examples.jsonl"), max_tokens=64)
    return folder, found[:12], found[12:24]


def test_an_adapter_that_learnt_its_notes_by_heart_gives_them_away(notes):
    folder, members, others = notes
    adapter = overfitted(folder, LORA, starting_adapter(folder, LORA, 0), members, steps=120)
    told = []
    found = released_measure(
        folder, LORA, adapter, members=members, others=others, domains=3, report=lambda *step: told.append(step)
    )
    assert found.leaks
    assert found.control.value >= 0.8
    assert (found.scene, found.party, found.trials) == ("adapter", "released", 12)
    assert told[-1] == (6, 6)


def test_an_adapter_that_learnt_nothing_tells_nothing(notes):
    folder, members, others = notes
    found = released_measure(folder, LORA, starting_adapter(folder, LORA, 0), members=members, others=others, domains=3)
    assert found.found.low <= 0.5 <= found.found.high
    assert not found.leaks


def test_so_few_notes_say_nothing(notes):
    folder, members, others = notes
    found = released_measure(
        folder, LORA, starting_adapter(folder, LORA, 0), members=members, others=others[:4], domains=3
    )
    assert found.found is None
    assert "only 4 notes" in found.why_not
