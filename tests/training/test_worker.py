import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedpriv.errors import PlanError
from fedpriv.study import validate_section
from fedpriv.training import adapter_digest, initial_adapter, load_metrics, load_state, save_state, stock_recipe
from fedpriv.training.jobs import Job, failure_reason

TRAINING = {"rounds": 2, "steps": 2, "batch_size": 2, "max_seconds": 60}


class Client:
    """A worker as a domain starts it: clean environment, JSON lines."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fedpriv.training.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        assert self.event() == {"event": "ready"}

    def send(self, job):
        self.process.stdin.write((job if isinstance(job, str) else json.dumps(job)) + "\n")
        self.process.stdin.flush()

    def event(self):
        return json.loads(self.process.stdout.readline())

    def finish(self):
        progress = []
        while (event := self.event())["event"] in ("started", "progress"):
            progress += [event] if event["event"] == "progress" else []
        return event, progress

    def do(self, job):
        self.send(job)
        return self.finish()[0]

    def close(self):
        self.process.stdin.close()
        try:
            return self.process.wait(20)
        finally:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def worker():
    client = Client()
    yield client
    assert client.close() == 0


@pytest.fixture
def job(tiny, shard, layout, tmp_path):
    start = tmp_path / "start.safetensors"
    save_state(initial_adapter(layout, 0), start)
    return {
        "id": "a",
        "job": "train",
        "model_folder": str(tiny.folder),
        "adapter": str(start),
        "train": str(shard / "train.jsonl"),
        "heldout": str(shard / "heldout.jsonl"),
        "lora": {},
        "training": TRAINING,
        "out": str(tmp_path / "out"),
    }


def with_recipe(job, tmp_path, text):
    (tmp_path / "train.py").write_text(text)
    return {**job, "recipe": str(tmp_path / "train.py")}


def test_train_with_the_stock_recipe_writes_private_files(worker, job, layout, tmp_path):
    worker.send({**with_recipe(job, tmp_path, stock_recipe()), "evaluate": True})
    event, progress = worker.finish()
    assert event == {"event": "done", "id": "a"}
    assert progress[-1] == {"event": "progress", "id": "a", "step": 2, "steps": 2}
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"adapter_after.safetensors", "metrics.json", "worker.log"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in out.iterdir())
    assert set(load_metrics(out / "metrics.json")) == {
        *("train_loss", "train_tokens", "examples", "heldout_loss", "heldout_tokens", "heldout_examples")
    }
    first = adapter_digest(load_state(out / "adapter_after.safetensors", layout))
    assert worker.do({**job, "out": str(tmp_path / "again")}) == {"event": "done", "id": "a"}
    assert adapter_digest(load_state(tmp_path / "again" / "adapter_after.safetensors", layout)) == first


PACKAGES = """
import importlib.util, sys

def train(context):
    loaded = [name for name in ("bitsandbytes", "torch._inductor.compile_fx") if sys.modules.get(name)]
    found = [name for name in ("bitsandbytes", "scipy") if importlib.util.find_spec(name)]
    print(f"loaded {loaded}, found {found}")
"""


def test_packages_for_weights_of_4_bits_are_loaded_where_they_are_needed_alone(worker, job, tmp_path):
    pytest.importorskip("bitsandbytes")
    packed = {**job, "training": {**TRAINING, "precision": "nf4"}}
    looking = with_recipe(job, tmp_path, PACKAGES)
    log = tmp_path / "out" / "worker.log"
    assert "started without --four-bits" in worker.do(packed)["reason"]
    worker.do(looking)
    assert "loaded [], found ['scipy']" in log.read_text()
    other = Client("--four-bits")
    assert other.do(packed) == {"event": "done", "id": "a"}
    other.do(looking)
    assert "loaded ['bitsandbytes'" in log.read_text()
    assert other.close() == 0


PRIVATE = {"noise_multiplier": 1.0, "sampling": 0.5, "patients": 20, "clip": 0.1, "notes_per_patient": 2}


def test_a_private_job_writes_a_noised_adapter_and_no_training_loss(worker, job, shard, layout, tmp_path):
    lines = [json.loads(line) for line in (shard / "train.jsonl").read_text().splitlines()]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({**line, "patient": n // 2}) + "\n" for n, line in enumerate(lines)))
    digests = set()
    for name in ("first", "second"):
        out = tmp_path / name
        done = worker.do({**job, "train": str(path), "private": PRIVATE, "evaluate": True, "out": str(out)})
        assert done == {"event": "done", "id": "a"}
        metrics = load_metrics(out / "metrics.json")
        assert set(metrics) == {"examples", "heldout_loss", "heldout_tokens", "heldout_examples"}
        digests.add(adapter_digest(load_state(out / "adapter_after.safetensors", layout)))
    assert len(digests) == 2


@pytest.mark.parametrize("change", [{"recipe": "train.py"}, {"job": "evaluate"}])
def test_a_private_job_that_would_run_a_recipe_is_refused(job, change):
    with pytest.raises(PlanError, match="a private job trains, and runs no recipe"):
        validate_section(Job, {**job, "private": PRIVATE, **change}, source="the job")


def test_recipe_error_names_type_and_line_but_no_data(worker, job, tmp_path, capfd):
    text = (
        "print('started')\ndef train(context):\n    secret = context.train.read_text()\n    raise ValueError(secret)\n"
    )
    event = worker.do(with_recipe(job, tmp_path, text))
    assert event["reason"] == "The recipe failed with ValueError in line 4 of train.py."
    log = (tmp_path / "out" / "worker.log").read_text()
    assert "Patient" in log and "started" in log
    assert "Patient" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "class Patient42(Exception): pass\ndef train(context): raise Patient42\n",
        "from fedpriv.errors import TrainingError\ndef train(context): raise TrainingError('Patient42 has sepsis')\n",
        "import os\nfor fd in range(3, 64):\n"
        ' try: os.write(fd, b\'{"failed": "x", "line": 1, "text": "Patient42"}\\n\')\n'
        " except OSError: pass\nraise SystemExit(1)\n",
        "def train(context): return 'Patient42'\n",
        "def train(context):\n    print('Patient42')\n    context.report('Patient42', 1)\n",
    ],
)
def test_no_words_of_a_recipe_leave_the_worker(worker, job, tmp_path, text):
    worker.send(with_recipe(job, tmp_path, text))
    event, progress = worker.finish()
    assert event["event"] == "failed" and event["id"] == "a"
    assert "Patient42" not in json.dumps([event, progress])


def test_progress_cannot_count_out_data(worker, job, tmp_path):
    text = stock_recipe().split('"""')[2] + "\n"
    text = text.replace(
        "return train_local", "for n in (7, -3, 2, 1, 10**6): context.report(n, 424242)\n    return train_local"
    )
    worker.send(with_recipe(job, tmp_path, text))
    event, progress = worker.finish()
    assert event["event"] == "done"
    assert [(e["step"], e["steps"]) for e in progress] == [(2, 2)]


def test_evaluate_never_runs_the_recipe(worker, job, tmp_path):
    job = with_recipe(job, tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert worker.do({**job, "job": "evaluate"})["event"] == "done"
    assert not (tmp_path / "ran").exists()


def test_our_own_reasons_are_passed_on(worker, job, tmp_path):
    event = worker.do({**job, "job": "evaluate", "heldout": str(tmp_path / "none.jsonl")})
    assert event["reason"].startswith("The examples in none.jsonl cannot be read.")


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"id": "b", "job": "steal"}', '{"id": "b", "job": "train", "model_folder": "m", "out": "o"}'],
)
def test_job_that_is_none_is_refused_and_the_worker_goes_on(worker, job, line):
    assert worker.do(line)["event"] == "failed"
    assert worker.do({**job, "job": "evaluate"})["event"] == "done"


def test_dead_child_is_told(worker, job, tmp_path):
    event = worker.do(with_recipe(job, tmp_path, "import os\ndef train(context): os.kill(os.getpid(), 9)\n"))
    assert "killed" in event["reason"]


def gone(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    return True


def wait_until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SLEEPER = """import os, subprocess, time
from pathlib import Path
def train(context):
    child = subprocess.Popen(["sleep", "300"])
    Path(__file__).exists()
    (context.train.parent / "pids").write_text(f"{os.getpid()} {child.pid} ")
    time.sleep(300)
"""


@pytest.mark.parametrize("how", ["end of input", "SIGTERM", "SIGKILL"])
def test_child_dies_with_the_worker(job, shard, tmp_path, how):
    client = Client()
    pids = shard / "pids"
    pids.unlink(missing_ok=True)
    client.send(with_recipe(job, tmp_path, SLEEPER))
    wait_until(lambda: pids.exists() and pids.read_text().endswith(" "))
    child, grandchild = map(int, pids.read_text().split())
    try:
        if how == "end of input":
            assert client.close() == 0
        else:
            client.process.send_signal(getattr(signal, how))
            client.close()
        wait_until(lambda: gone(child))
        if how != "SIGKILL":  # then only the sandbox's process namespace can reach the grandchild
            wait_until(lambda: gone(grandchild))
    finally:
        if not gone(grandchild):
            os.kill(grandchild, signal.SIGKILL)


def test_wall_clock_is_hard(job, shard, tmp_path, monkeypatch):
    from fedpriv.training import worker as module

    monkeypatch.setattr("fedpriv.training.jobs.GRACE_S", -4.5)
    read_jobs, write_jobs = os.pipe()
    read_events, write_events = os.pipe()
    job = {**with_recipe(job, tmp_path, SLEEPER), "training": {**TRAINING, "max_seconds": 5}}
    os.write(write_jobs, json.dumps(job).encode() + b"\n")
    loop = module.Worker(read_jobs, write_events)
    loop._say = lambda event: (os.close(write_jobs) if event["event"] == "failed" else None, events.append(event))
    events = []
    loop.run()
    assert events[-1]["reason"] == "The job took longer than 0 seconds and was stopped."
    for descriptor in (read_jobs, read_events, write_events):
        os.close(descriptor)


def test_reason_of_an_untrusted_child_has_no_line_that_the_recipe_lacks(tmp_path, job):
    trusted = Job.model_validate_json(json.dumps(with_recipe(job, tmp_path, "a = 1\n")))
    assert failure_reason(trusted, {"failed": "KeyError", "line": 123456}) == "The recipe failed with KeyError."
    assert "line 1 of" in failure_reason(trusted, {"failed": "KeyError", "line": 1})
    assert failure_reason(trusted, {"failed": ["x"], "text": "x"}) == "The recipe failed with an error of its own kind."
