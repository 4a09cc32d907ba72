import fcntl
import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedpriv.leakage import CanaryFormat, Dictionary, View, overfitted, token_dictionary
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training.examples import Example, encode, read_texts

LORA = LoraChoice()
TRAINING = TrainingChoice(steps=8, batch_size=4, precision="float32")
COMMON = 60
"""Of the tiny model's 512 tokens; it has few of whole words."""


@dataclass
class Attacked:
    """A warm adapter, what is public, and passages that nobody should know."""

    folder: Path
    layout: dict
    adapter: dict
    public: list[Example]
    dictionary: Dictionary

    def passages(self, count: int, *, seed: int, length: int = 24) -> list[Example]:
        draw = random.Random(seed)
        found = []
        for _ in range(count):
            note = draw.choice(self._private)
            start = draw.randrange(len(note) - length)
            found.append(Example(note.ids[start : start + length]))
        return found


def view_of(update) -> View:
    """What somebody holds who holds everything."""
    return View(
        party="everybody",
        levels=dict.fromkeys(update, "plain"),
        tensors={name: value.astype(np.float64) for name, value in update.items()},
    )


def noise(layout, seed) -> dict:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 1e-3, shape).astype(np.float32) for name, shape in layout.items()}


@pytest.fixture(scope="session")
def attacked(tmp_path_factory):
    pytest.importorskip("torch")
    from fedpriv.clinical.mock import write_mock
    from fedpriv.training import LocalContext, ensure_model, lora_layout, starting_adapter, train_local
    from fedpriv.training.examples import read_lines

    work = tmp_path_factory.mktemp("leakage")
    folder = ensure_model("tiny", cache=work / "cache").folder
    notes = []
    for seed in (1, 2):
        (work / f"mock-{seed}").mkdir()
        write_mock(work / f"mock-{seed}", seed=seed)
        notes.append(work / f"mock-{seed}" / "examples.jsonl")
    start = starting_adapter(folder, LORA, 0)
    context = LocalContext(
        model_folder=folder,
        adapter=start,
        trained=tuple(start),
        train=notes[0],
        heldout=notes[0],
        lora=LORA,
        training=TRAINING,
        round=1,
        seed=0,
        threads=1,
    )
    public, private = (encode(folder, read_lines(path), max_tokens=512) for path in notes)
    attacked = Attacked(
        folder=folder,
        layout=lora_layout(folder, LORA),
        adapter=train_local(context).adapter_after,
        public=public,
        dictionary=token_dictionary(folder, LORA, public),
    )
    attacked._private = [note for note in private if len(note) > 100]
    return attacked


BY_HEART = LoraChoice(
    rank=32, alpha=32, targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
)
"""Large enough to learn notes by heart, which the tiny model itself is not."""

TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Released:
    """An adapter that has learnt some patients' notes and some canaries by heart."""

    folder: Path
    start: dict
    adapter: dict
    members: list[str]
    others: list[str]
    canaries: CanaryFormat
    inserted: list[str]
    never: list[str]

    def encoded(self, texts) -> list[Example]:
        return encode(self.folder, texts, max_tokens=TOKENS)


def once_for_all_workers(tmp_path_factory, layout, make) -> dict:
    """Return an adapter that the first of pytest's workers makes, and the others read."""
    from fedpriv.training.adapter import load_state, save_state

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base  # a worker's own folder lies in that of all
    path = shared / "by-heart.safetensors"
    with (shared / "by-heart.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            save_state(make(), path)
    return load_state(path, layout)


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    pytest.importorskip("torch")
    from fedpriv.clinical.mock import write_mock
    from fedpriv.training import ensure_model, lora_layout, starting_adapter

    work = tmp_path_factory.mktemp("released")
    folder = ensure_model("tiny", cache=work / "cache").folder
    notes = []
    for seed in (1, 2):
        (work / f"mock-{seed}").mkdir()
        write_mock(work / f"mock-{seed}", seed=seed)
        notes.append(read_texts(work / f"mock-{seed}" / "examples.jsonl"))
    canaries = CanaryFormat()
    fills = canaries.fills(16, seed=0)
    start = starting_adapter(folder, BY_HEART, 0)
    members, inserted = notes[0][:8], fills[:6]
    learnt = encode(folder, [*members, *canaries.texts(inserted)], max_tokens=TOKENS)
    return Released(
        folder=folder,
        start=start,
        adapter=once_for_all_workers(
            tmp_path_factory,
            lora_layout(folder, BY_HEART),
            lambda: overfitted(folder, BY_HEART, start, learnt, steps=150),
        ),
        members=members,
        others=notes[1],
        canaries=canaries,
        inserted=inserted,
        never=fills[6:],
    )
