import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import ConfigError
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training import load_state, ranks, save_state, train_local
from fedpriv.training.examples import Example
from fedpriv.training.ranks import ALONE, Ranks, join, ranks_now

BASE = {"rounds": 1, "steps": 4, "batch_size": 4}
WAYS = {
    "plain": (BASE, {}),
    "one example for two": ({**BASE, "batch_size": 1}, {}),
    "in parts, with checkpoints": ({**BASE, "batch_size": 5, "accumulation": 4, "checkpointing": True}, {}),
    "pulled back": ({**BASE, "proximal": 0.5}, {}),
    "dropout": (BASE, {"dropout": 0.3}),
}


@given(st.lists(st.integers(2, 300), max_size=12), st.integers(1, 5))
def test_shares_are_the_batch_and_no_rank_has_much_more_than_another(lengths, size):
    batch = [Example(tuple(range(number, number + length))) for number, length in enumerate(lengths)]
    shares = [Ranks(rank, size).share(batch) for rank in range(size)]
    assert sorted(e.ids for share in shares for e in share) == sorted(e.ids for e in batch)
    tokens = [sum(map(len, share)) for share in shares]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


def test_alone_everything_is_as_it_is():
    batch = [Example((1, 2)), Example((1, 2, 3))]
    assert ranks_now() == ALONE
    assert ALONE.share(batch) == batch
    assert ALONE.total(1.5, 2.0) == (1.5, 2.0)


HEADING = "Iface\tDestination\tGateway\n"
LOOPBACK_6 = "00000000000000000000000000000001 80 000 00 000 00000000 00000002 00000000 80200001       lo\n"


@pytest.mark.parametrize(
    ("routes", "routes_6", "closed"),
    [
        (HEADING, LOOPBACK_6, True),
        (HEADING, None, True),
        (f"{HEADING}eth0\t00000000\t010010AC\n", None, False),
        (HEADING, LOOPBACK_6 + LOOPBACK_6.replace("  lo", "eth0"), False),
        (None, LOOPBACK_6, False),
    ],
)
def test_a_network_with_a_way_out_is_refused(tmp_path, monkeypatch, routes, routes_6, closed):
    for name, text in (("_ROUTES", routes), ("_ROUTES_6", routes_6)):
        path = tmp_path / name
        monkeypatch.setattr(ranks, name, path)
        if text is not None:
            path.write_text(text)
    assert ranks._is_closed_network() == closed
    if not closed:
        with pytest.raises(ConfigError, match="only in a network of their own"):
            join(1.0)


@pytest.fixture(scope="module")
def launched(tiny, shard, layout, tmp_path_factory):
    """Two processes of `accelerate launch` that trained in each way; (folder, what each told)."""
    from fedpriv.training import initial_adapter

    out = tmp_path_factory.mktemp("ranks")
    start = out / "start.safetensors"
    adapter = initial_adapter(layout, seed=0)
    save_state(adapter, start)
    job = {
        "model_folder": str(tiny.folder),
        "adapter": str(start),
        "trained": list(adapter),
        "train": str(shard / "train.jsonl"),
        "ways": WAYS,
        "out": str(out),
    }
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", "0"]
    script = Path(__file__).with_name("ranks_script.py")
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *options, str(script), json.dumps(job)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    told = [out / f"rank-{rank}.json" for rank in (0, 1)]
    assert all(path.exists() for path in told), done.stderr[-4000:]
    return out, [json.loads(path.read_text()) for path in told], done


def alone(context, training, lora):
    import dataclasses

    return train_local(dataclasses.replace(context, training=TrainingChoice(**training), lora=LoraChoice(**lora)))


@pytest.mark.parametrize("way", [way for way in WAYS if way != "dropout"])
def test_two_processes_train_what_one_does(launched, context, way):
    out, (first, second), _ = launched
    expected = alone(context, *WAYS[way])
    after = load_state(out / f"{way}.safetensors")
    for name, array in expected.adapter_after.items():
        assert np.abs(after[name] - array).max() < 1e-5
        moved = np.abs(array - context.adapter[name]).max()
        assert moved > 1e-4 or "lora_A" in name, "it must have trained for this to say something"
    assert first[way]["metrics"]["train_tokens"] == expected.metrics["train_tokens"]
    assert first[way]["metrics"]["examples"] == expected.metrics["examples"]
    assert first[way]["metrics"]["train_loss"] == pytest.approx(expected.metrics["train_loss"], rel=1e-5)
    same = ("digest", "metrics", "steps")
    assert [first[way][key] for key in same] == [second[way][key] for key in same], "the same adapter, to the bit"


def test_each_process_has_a_dropout_of_its_own(launched, context):
    _, (first, second), _ = launched
    assert first["plain"]["stream"] != second["plain"]["stream"], "both drew as much before"
    assert first["dropout"]["digest"] == second["dropout"]["digest"]
    plain, dropped = first["plain"]["metrics"], first["dropout"]["metrics"]
    assert dropped["train_tokens"] == plain["train_tokens"] and dropped["train_loss"] != plain["train_loss"]


def test_both_stop_at_the_step_at_which_the_first_one_is_late(launched):
    _, (first, second), _ = launched
    assert first["late"]["steps"] == second["late"]["steps"] == [1, 2, 3]
    assert first["late"]["digest"] == second["late"]["digest"]


def test_a_process_learns_that_another_one_ended(launched):
    out, _, done = launched
    assert done.returncode != 0
    assert (out / "lost").exists()
