"""Jobs that two processes do together, inside the real walls: `accelerate launch` in a worker in bubblewrap."""

import contextlib
import json
import subprocess
import sys

import numpy as np
import psutil
import pytest

from fedpriv.clinical import prepare, write_synthetic
from fedpriv.domain import ResourcesChoice
from fedpriv.domain.folder import LauncherChoice
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.sandbox import Sandbox, bubblewrap, clean_environment
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import TrainingError
from fedpriv.study import Plan
from fedpriv.study.plan import BaseModelChoice, LoraChoice, MemberChoice, TrainingChoice
from fedpriv.training.adapter import initial_adapter, load_metrics, load_state, lora_layout, save_state
from fedpriv.training.base_model import ensure_model
from fedpriv.training.private_round import PrivateSteps
from fedpriv.training.recipe import stock_recipe
from fedpriv.training.system_calls import can_filter

pytestmark = pytest.mark.skipif(bubblewrap() is None, reason="bubblewrap does not work here")
RESOURCES = ResourcesChoice(sandbox="required", threads=2, memory_gb=6.0, disk_gb=0.25)
TOGETHER = RESOURCES.model_copy(update={"launcher": LauncherChoice(processes=2)})


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    root = tmp_path_factory.mktemp("domain")
    write_synthetic(root / "tables", patients=24, seed=0)
    prepared = prepare(root / "tables", root / "data")
    model = ensure_model("tiny", cache=root / "cache")
    plan = Plan(
        researcher=MemberChoice(email="ada@y.org", fingerprint="3" * 64),
        cohort=tuple(MemberChoice(email=f"{name}@x.org", fingerprint=name * 64) for name in "ab"),
        base_model=BaseModelChoice(name="tiny"),
        training=TrainingChoice(rounds=1, steps=3, batch_size=3, max_seconds=60),
    )
    started = []

    def make(name, resources):
        recipe = root / "requests" / name / "train.py"
        recipe.parent.mkdir(parents=True)
        recipe.write_text(stock_recipe())
        training = LocalTraining(
            plan=plan,
            folder=StudyFolder(root / "studies" / name),
            recipe=recipe,
            prepared=prepared,
            model=model,
            resources=resources,
        )
        save_state(initial_adapter(lora_layout(model.folder, LoraChoice()), 0), training.folder.adapter(0))
        started.append(training)
        return training

    yield make
    for training in started:
        training.stop()


@pytest.fixture(scope="module")
def study(make):
    return make("together", TOGETHER)


def train(study, recipe=None, **options):
    """Run a job with a recipe; return its output folder and the steps that it told."""
    study.recipe.write_text(recipe or stock_recipe())
    output, steps = study.folder.output("train-0001"), []
    study.run("train", 1, 0, output, lambda step, _: steps.append(step), **options)
    return output, steps


def is_rank(process):
    with contextlib.suppress(psutil.Error):
        return "fedpriv.training.rank" in process.cmdline()
    return False


def no_process_is_left(study):
    worker = psutil.Process(study.start()._process.pid)
    return not any(map(is_rank, worker.children(recursive=True)))


def test_two_processes_train_what_one_does(make, study):
    one, _ = train(make("alone", RESOURCES), evaluate=True)
    two, steps = train(study, evaluate=True)
    assert steps[-1] == 3
    assert study.report.processes == 2
    assert study.report.tried == set(), "sockets that fedpriv opens itself are nobody's attempt"
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    expected, after = (load_state(folder / "adapter_after.safetensors") for folder in (one, two))
    assert max(np.abs(expected[name] - after[name]).max() for name in expected) < 1e-5
    metrics = load_metrics(two / "metrics.json")
    for name, value in load_metrics(one / "metrics.json").items():
        assert metrics[name] == pytest.approx(value, rel=1e-5)
    assert no_process_is_left(study)


CANNOT = """
import ctypes, os, socket, subprocess
from fedpriv.training import LocalOutcome
def train(context):
    assert os.environ["WORLD_SIZE"] == "2"
    libc = ctypes.CDLL(None, use_errno=True)
    def ptrace():
        if libc.ptrace(16, os.getppid(), 0, 0) == -1: raise PermissionError
    ways = [
        os.fork,
        lambda: os.execv("/bin/true", ["true"]),
        lambda: subprocess.run(["true"]),
        socket.socket,
        lambda: socket.socket(socket.AF_UNIX),
        lambda: socket.create_connection(("127.0.0.1", int(os.environ["MASTER_PORT"]))),
        ptrace,
        lambda: os.kill(os.getppid(), 0),
        lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
        lambda: open(os.path.join(os.path.dirname(context.model_folder), "x"), "w"),
        lambda: open(os.path.join(context.train.parent, "x"), "w"),
    ]
    for number, way in enumerate(ways):
        try: way()
        except OSError: continue
        raise ValueError(number)
    if os.environ["RANK"] == "1":
        return LocalOutcome(adapter_after=context.adapter, metrics={})
    after = {name: array + 1 for name, array in context.adapter.items()}
    return LocalOutcome(adapter_after=after, metrics={"train_loss": 1.0, "train_tokens": 1.0, "examples": 1.0})
"""


@pytest.mark.skipif(not can_filter(), reason="system calls of this machine cannot be filtered")
def test_a_rank_cannot_get_out_and_the_first_ones_result_counts(study):
    output, _ = train(study, CANNOT)
    before, after = load_state(study.folder.adapter(0)), load_state(output / "adapter_after.safetensors")
    assert all(np.array_equal(after[name], before[name] + 1) for name in before)
    assert {"network", "processes"} <= study.report.tried


def in_the_second(what):
    return (
        "import os\nfrom fedpriv.training import train_local\ndef train(context):\n"
        f"    if os.environ['RANK'] == '1': {what}\n    return train_local(context)\n"
    )


def test_a_recipe_that_fails_in_one_process_ends_all_and_none_of_its_words_leave(study):
    with pytest.raises(TrainingError) as caught:
        train(study, in_the_second("raise ValueError('Patient42')"))
    assert "The recipe failed with ValueError in line 4 of train.py." in str(caught.value)
    assert "Patient42" not in str(caught.value)
    assert no_process_is_left(study)


LEAVES = """import os
from pathlib import Path
def train(context):
    scratch = Path(os.environ["TMPDIR"]).parent
    for name in ("hf/accelerate/default_config.yaml", ".local/lib/python3.11/site-packages/usercustomize.py"):
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_text("raise SystemExit(1)")
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), 9)
    import time; time.sleep(60)
"""


def test_a_killed_process_ends_all_and_what_it_left_is_not_read_by_the_next_launcher(study):
    with pytest.raises(TrainingError, match="was killed, most likely for lack of memory"):
        train(study, LEAVES)
    assert no_process_is_left(study)
    output, steps = train(study, steps=1000, seconds=5)
    assert 0 < steps[-1] < 1000, "time ends all"
    assert (output / "adapter_after.safetensors").exists(), "with the work so far kept"


CLOCK = """import os, sys, time
from fedpriv.training.worker import main
now = time.monotonic
time.monotonic = lambda: now() + 1e6 * os.path.exists(sys.argv[1])
main()
"""
FOREVER = """import time
def train(context):
    while True:
        context.report(1, 2)
        time.sleep(0.05)
"""


def test_the_worker_ends_every_process_at_the_deadline(make, tmp_path):
    training = make("short", TOGETHER)
    training.recipe.write_text(FOREVER)
    start, late = training.folder.adapter(0), tmp_path / "late"
    readable = (training.model.folder, training.prepared.folder, start, training.recipe)
    sandbox = Sandbox(mode="required", readable=readable, writable=tmp_path)
    job = {
        "id": "short",
        "job": "train",
        "model_folder": str(training.model.folder),
        "recipe": str(training.recipe),
        "adapter": str(start),
        "train": str(training.prepared.train),
        "out": str(tmp_path / "out"),
        "lora": {},
        "training": {},
        "launch": {"processes": 2},
    }
    with subprocess.Popen(
        sandbox.wrap([sys.executable, "-P", "-c", CLOCK, str(late)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(1, sandbox.scratch),
    ) as process:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        events = (json.loads(line) for line in process.stdout)
        assert [next(events)["event"] for _ in range(3)] == ["ready", "started", "progress"]
        ranks = [p for p in psutil.Process(process.pid).children(recursive=True) if is_rank(p)]
        assert len(ranks) == 2
        late.touch()
        assert next(events)["reason"].startswith("The job took longer than")
        assert not any(p.is_running() for p in ranks)
        process.stdin.close()
        assert process.wait(30) == 0


def test_private_rounds_and_evaluations_are_one_process(study):
    private = PrivateSteps(
        noise_multiplier=1.0, sampling=0.5, patients=study.prepared.patients, clip=0.1, notes_per_patient=2
    )
    train(study, private=private)
    assert study.report.processes == 1
    study.run("evaluate", 1, 0, study.folder.output("measure-0001"), lambda step, steps: None)
    assert study.report.processes == 1
