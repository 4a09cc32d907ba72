"""Training code that tries to get out: each way is refused, and what it tried is known afterwards."""

import socket
import time
from pathlib import Path

import psutil
import pytest

from fedpriv.clinical import prepare, write_synthetic
from fedpriv.domain import ResourcesChoice, runner
from fedpriv.domain.gatekeeper import check_update
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.sandbox import bubblewrap
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import GatekeeperError, RevokedError, TrainingError
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training.adapter import initial_adapter, load_state, lora_layout, save_state
from fedpriv.training.base_model import ensure_model
from fedpriv.training.landlock import landlock_version
from fedpriv.training.recipe import stock_recipe

pytestmark = pytest.mark.skipif(bubblewrap() is None, reason="bubblewrap does not work here")
needs_landlock = pytest.mark.skipif(landlock_version() < 6, reason="this kernel's Landlock is missing or old")
SECRET = "Patient42"
RESOURCES = ResourcesChoice(sandbox="required", memory_gb=3.0, disk_gb=0.25, processes=40)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A domain's folder with data, keys, a ledger and another study, and one study whose worker is warm."""
    root = tmp_path_factory.mktemp("domain")
    write_synthetic(root / "tables", patients=24, seed=0)
    model = ensure_model("tiny", cache=root / "cache")
    for name in ("keys/identity.json", "ledger.jsonl", "studies/other/adapters/0001.safetensors"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("secret")
    return root, prepare(root / "tables", root / "data"), model


@pytest.fixture(scope="module")
def study(house, plan_of_escapes):
    root, prepared, model = house
    recipe = root / "requests" / "this" / "train.py"
    recipe.parent.mkdir(parents=True)
    training = LocalTraining(
        plan=plan_of_escapes,
        folder=StudyFolder(root / "studies" / "this"),
        recipe=recipe,
        prepared=prepared,
        model=model,
        resources=RESOURCES,
    )
    save_state(initial_adapter(lora_layout(model.folder, LoraChoice()), 0), training.folder.adapter(0))
    yield training
    training.stop()


@pytest.fixture(scope="module")
def plan_of_escapes():
    from fedpriv.study import Plan
    from fedpriv.study.plan import BaseModelChoice, MemberChoice

    members = tuple(MemberChoice(email=f"{name}@x.org", fingerprint=name * 64) for name in "ab")
    return Plan(
        researcher=MemberChoice(email="ada@y.org", fingerprint="3" * 64),
        cohort=members,
        base_model=BaseModelChoice(name="tiny"),
        training=TrainingChoice(rounds=1, steps=2, batch_size=2, max_seconds=20),
    )


@pytest.fixture
def on_a_gpu(house, plan_of_escapes, monkeypatch):
    """A study whose worker has the walls of one that trains on a GPU; what is let through is another device file."""
    root, prepared, model = house
    monkeypatch.setattr(runner, "gpu_files", lambda choice: (Path("/dev/zero"),))
    recipe = root / "requests" / "gpu" / "train.py"
    recipe.parent.mkdir(parents=True)
    places = {"folder": StudyFolder(root / "studies" / "gpu"), "recipe": recipe, "prepared": prepared, "model": model}
    training = LocalTraining(plan=plan_of_escapes, resources=RESOURCES, **places)
    save_state(initial_adapter(lora_layout(model.folder, LoraChoice()), 0), training.folder.adapter(0))
    yield training
    training.stop()


def run(study, body, *, watch=lambda: None):
    """Run a recipe whose ``train`` does ``body`` first and then trains."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    head = "import os\nfrom fedpriv.training import train_local\ndef train(context):\n"
    study.recipe.write_text(f"{head}{lines}    return train_local(context)\n")
    output = study.folder.output("train-0001")
    study.run("train", 1, 0, output, lambda step, steps: None, watch=watch)
    return output


NAMES = """
import threading
from pathlib import Path
def name():
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("cuda-like")
thread = threading.Thread(target=name)
thread.start()
thread.join()
name()
for other in (f"/proc/{os.getppid()}/comm", "/proc/sys/kernel/core_pattern"):
    try:
        open(other, "r+")
    except OSError:
        continue
    raise RuntimeError(f"{other} was open")
"""


@needs_landlock
def test_with_a_gpu_a_job_may_name_its_own_threads_as_cuda_does_and_nothing_else(on_a_gpu):
    assert (run(on_a_gpu, NAMES) / "adapter_after.safetensors").exists()
    assert on_a_gpu.report.tried == {"writing elsewhere"}


def test_without_a_gpu_a_job_names_nothing(study):
    with pytest.raises(TrainingError):
        run(study, NAMES)


def test_the_stock_recipe_runs_and_nothing_is_noticed(study):
    study.recipe.write_text(stock_recipe())
    output = study.folder.output("stock")
    study.run("train", 1, 0, output, lambda step, steps: None, evaluate=True)
    assert (output / "adapter_after.safetensors").exists()
    assert study.report.tried == set()
    assert study.walls.startswith("bubblewrap")
    assert 0 < study.report.peak_memory_bytes < RESOURCES.memory_bytes


# what it does, what is noticed
REFUSED = {
    "a socket": ("import socket; socket.create_connection(('127.0.0.1', {port}), 2)", "network"),
    "a name": ("import socket; socket.getaddrinfo('example.org', 80)", "network"),
    "a datagram": ("import socket; socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 9))", "network"),
    "another study": ("open('{root}/studies/other/adapters/0001.safetensors')", "reading elsewhere"),
    "another study's folder": ("os.listdir('{root}/studies/other')", "reading elsewhere"),
    "the keys": ("open('{root}/keys/identity.json')", "reading elsewhere"),
    "the ledger": ("open('{root}/ledger.jsonl', 'a')", "writing elsewhere"),
    "the tables": ("os.listdir('{root}/tables')", "reading elsewhere"),
    "the passwords": ("open('/etc/shadow')", "reading elsewhere"),
    "the parent's environment": (
        "text = open(f'/proc/{{os.getppid()}}/environ').read() + str(os.environ)\nassert 'FEDPRIV_SECRET' in text",
        "",
    ),
    "the parent's memory": ("open(f'/proc/{{os.getppid()}}/mem', 'r+b')", "writing elsewhere"),
    "writing beside its output": ("open('{root}/studies/this/x', 'w')", "writing elsewhere"),
    "writing into its examples": ("open(context.train, 'a')", "writing elsewhere"),
    "writing into its adapter": ("open('{root}/studies/this/input/adapter.safetensors', 'wb')", "writing elsewhere"),
    "changing its own code": ("open('{root}/requests/this/train.py', 'w')", "writing elsewhere"),
    "a file of another round": ("open('{root}/studies/this/workspace/stock/metrics.json', 'w')", "writing elsewhere"),
    "a file of one gigabyte": ("open(os.environ['TMPDIR'] + '/big', 'wb').write(bytes(2**30))", ""),
    "a hundred gigabytes of memory": ("import numpy; numpy.ones(100 * 2**30, numpy.uint8)", ""),
    "shared memory of a hundred gigabytes": (
        "import mmap; m = mmap.mmap(-1, 100 * 2**30)\nfor i in range(0, 100 * 2**30, 4096): m[i] = 1",
        "",
    ),
    "a process": ("os.fork()", "processes"),
    "a program": ("import subprocess; subprocess.run(['/usr/bin/true'])", "processes"),
    "a socket of any kind": ("import socket; socket.socket(socket.AF_UNIX)", "network"),
    "a namespace of its own": (
        "import ctypes\nif ctypes.CDLL(None, use_errno=True).unshare(0x10000000): raise PermissionError",
        "native code",
    ),
    "raising a limit": ("import resource; resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))", ""),
    "killing the worker": ("os.kill(os.getppid(), 9)", "signals"),
}


@needs_landlock
@pytest.mark.parametrize("what", REFUSED)
def test_refused_and_noticed(study, house, what, monkeypatch):
    monkeypatch.setenv("FEDPRIV_SECRET", "x")
    body, noticed = REFUSED[what]
    before = {
        path: path.read_bytes() for path in house[0].rglob("*") if path.is_file() and "workspace" not in str(path)
    }
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(TrainingError) as caught:
        run(study, body.format(root=house[0], port=server.getsockname()[1]))
    assert "failed with" in caught.value.what or "was ended" in caught.value.what, caught.value
    assert not noticed or noticed in study.report.tried
    changed = {path for path, data in before.items() if path.name != "train.py" and path.read_bytes() != data}
    assert not changed


FILL = """
for number in range(1000):
    with open(context.out_folder / f'{number}', 'wb') as stream:
        stream.write(bytes(100 * 2**20))
"""


def in_output(study, body):
    return body.replace("context.out_folder", f"__import__('pathlib').Path('{study.folder.workspace}/train-0001')")


def is_of(study, process):
    return process["cwd"] == str(study.folder.workspace) and "bwrap" not in str(process["cmdline"])


ENDED = {
    "a fork bomb": (
        "while True:\n    try: os.fork()\n    except OSError: pass",
        "processor (time|seconds)",
    ),  # of itself, or of all it started: whichever is first
    "many threads": (
        "import threading, time\nfor _ in range(100): threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "time.sleep(600)",
        "processes",
    ),
    "memory that no process maps": (
        "for n in range(100): os.truncate(os.memfd_create(str(n)), 2**20)\n"
        "import mmap, time\nfor n in range(6):\n    m = mmap.mmap(-1, 2**30)\n"
        "    for i in range(0, 2**30, 4096): m[i] = 1\n    globals()[f'm{n}'] = m",
        "memory",
    ),
    "a full disk": (FILL, "wrote more"),
}


@needs_landlock
@pytest.mark.parametrize("what", ENDED)
def test_ended_with_all_that_it_started(study, what, monkeypatch):
    monkeypatch.setattr("fedpriv.domain.sandbox._STARTING_CPU_S", -12)
    body, words = ENDED[what]
    started = time.monotonic()
    with pytest.raises(TrainingError, match=words):
        run(study, in_output(study, body))
    assert time.monotonic() - started < 200
    left = [p for p in psutil.process_iter(["cwd", "cmdline"]) if is_of(study, p.info)]
    assert len(left) <= 1, "nothing but a worker that waits for the next job"
    for path in study.folder.workspace.rglob("[0-9]*"):
        path.unlink()
    run(study, "pass")  # and the next job is as good as the first


def test_a_job_that_hangs_is_ended_after_its_time(study, monkeypatch):
    monkeypatch.setattr("fedpriv.domain.runner._GRACE_SECONDS", -17)
    started = time.monotonic()
    with pytest.raises(TrainingError, match="took longer than 3 s"):
        run(study, "import time\nwhile True:\n    try: time.sleep(600)\n    except BaseException: pass")
    assert time.monotonic() - started < 200


def test_a_withdrawn_approval_ends_a_running_job(study):
    run(study, "pass")
    began = time.monotonic()

    def watch():
        if time.monotonic() - began > 1.0:
            raise RevokedError("The data owner withdrew the approval")

    with pytest.raises(RevokedError):
        run(study, "import time; time.sleep(600)", watch=watch)
    assert time.monotonic() - began < 200, "it did not wait for the end of the sleep"
    run(study, "pass")


RENAMED = """
import base64
outcome = train_local(context)
text = base64.b64encode(context.train.read_bytes()[:60]).decode()
name = sorted(outcome.adapter_after)[0]
outcome.adapter_after['Patient42' + text] = outcome.adapter_after.pop(name)
from fedpriv.training.jobs import save_state
from pathlib import Path
save_state(outcome.adapter_after, Path('OUT/adapter_after.safetensors'))
(Path('OUT') / 'metrics.json').write_text('{}')
os._exit(0)
"""


def test_a_renamed_tensor_that_carries_text_stays_and_so_does_its_name(study, plan_of_escapes):
    output = run(study, RENAMED.replace("OUT", str(study.folder.workspace / "train-0001")))
    before = load_state(study.folder.adapter(0))
    with pytest.raises(GatekeeperError) as caught:
        check_update(output / "adapter_after.safetensors", before, plan_of_escapes, 1)
    assert SECRET not in str(caught.value)
