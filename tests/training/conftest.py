import json
from pathlib import Path

import numpy as np
import pytest

from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training import ensure_model, initial_adapter, lora_layout

LORA = LoraChoice()
TRAINING = TrainingChoice(rounds=3, steps=4, batch_size=4)
DRUGS = ("aspirin", "heparin", "metoprolol", "insulin", "furosemide")
PROBLEMS = ("pneumonia", "heart failure", "sepsis", "stroke", "kidney failure")


def note(draw):
    return (
        f"Patient of {draw.integers(20, 90)} years admitted with {draw.choice(PROBLEMS)}. Given {draw.choice(DRUGS)} "
        f"{draw.integers(1, 100)} mg. Heart rate {draw.integers(50, 140)}. Discharged on day {draw.integers(1, 20)}."
    )


def write_notes(path, count, seed):
    draw = np.random.Generator(np.random.Philox(seed))
    path.write_text("".join(json.dumps({"text": note(draw)}) + "\n" for _ in range(count)))
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(cache):
    return ensure_model("tiny", cache=cache)


@pytest.fixture(scope="session")
def shard(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shard")
    write_notes(folder / "train.jsonl", 40, seed=1)
    write_notes(folder / "heldout.jsonl", 40, seed=2)
    return folder


@pytest.fixture(scope="session")
def layout(tiny):
    return lora_layout(tiny.folder, LORA)


@pytest.fixture
def adapter(layout):
    return initial_adapter(layout, seed=0)


@pytest.fixture
def context(tiny, shard, adapter):
    from fedpriv.training import LocalContext

    return LocalContext(
        model_folder=tiny.folder,
        adapter=adapter,
        trained=tuple(adapter),
        train=shard / "train.jsonl",
        heldout=shard / "heldout.jsonl",
        lora=LORA,
        training=TRAINING,
        round=1,
        seed=7,
        threads=1,
    )
