"""What goes wrong between clouds: the study waits, says why, and goes on where it was; no domain trains a round twice.

One federation for all of them: a domain whose clock is an hour slow, a domain on a small disk, a store on a small disk.
"""

import contextlib
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from fedpriv.domain import Domain
from fedpriv.errors import StudyError
from fedpriv.experiments.crosscloud.clouds import Clouds
from fedpriv.experiments.crosscloud.links import Link
from tests.e2e.conftest import wait_for

pytestmark = [pytest.mark.crosscloud, pytest.mark.e2e, pytest.mark.timeout(600)]

CLOUD = Link(rate_mbps=50, delay_ms=10)
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
ON_A_DISK_OF_ITS_OWN = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
STORE_MB, DOMAIN_MB = 16, 64
HOUR_S, A_MINUTE_S = 3600, 60.0
SLEEP = """import select, time
time.sleep = lambda seconds: select.select((), (), (), max(0.0, seconds))  # libfaketime breaks Python's own
"""


def around_domain(root):
    """Give the first domain a slow clock, and the second a small disk."""
    if root.name == "micu":
        patch = root.parent / "python"
        patch.mkdir()
        (patch / "sitecustomize.py").write_text(SLEEP)
        clock = [f"LD_PRELOAD={FAKETIME}", "FAKETIME=-1h", "FAKETIME_DONT_FAKE_MONOTONIC=1", f"PYTHONPATH={patch}"]
        return ["env", *clock] if FAKETIME else []
    move = f'cp -a "$0" "$0.copy" && mount -t tmpfs -o size={DOMAIN_MB}m tmpfs "$0" && cp -a "$0.copy/." "$0"'
    return [*ON_A_DISK_OF_ITS_OWN, f'{move} && exec "$@"', str(root)]


@pytest.fixture(scope="module")
def clouds(can_make_beds, tmp_path_factory):
    work = tmp_path_factory.mktemp("clouds")
    served = work / "served"
    served.mkdir()
    mount = f'mount -t tmpfs -o size={STORE_MB}m tmpfs "$0" && exec "$@"'
    around_store = [*ON_A_DISK_OF_ITS_OWN, mount, str(served)]
    with Clouds.open([CLOUD, CLOUD], work, around_store=around_store, around_domain=around_domain) as made:
        yield made


class Running:
    """A study that runs in the researcher's place."""

    def __init__(self, clouds, name):
        self.clouds, self.name = clouds, name
        plan = clouds.federation.plan(rounds=2, steps=2, title=name)
        self.study = clouds.submit(name, plan, 120)
        self.process = clouds.start("run", name)

    def records(self, event):
        return [record for record in self.study.history.records() if record["event"] == event]

    def wait_until_training(self, number):
        sent = lambda: [r for r in self.records("TicketSent") if (r["kind"], r["round"]) == ("train", number)]  # noqa: E731
        wait_for(sent, seconds=180, what=f"round {number}")

    def wait_until_said(self, words):
        said = lambda: any(words in r["what"] for r in self.records("Waiting"))  # noqa: E731
        wait_for(said, seconds=60, what=words)

    def finish(self):
        self.clouds.wait(self.process, 300)
        self.check()

    def check(self):
        """Every round was trained once by everybody, and everybody's record is whole."""
        assert len(self.records("StudyFinished")) == 1
        for name in self.clouds.federation.domains:
            mine = self.study.folder.submitted().study
            entries = [e for e in ledger(self.clouds, name).verified() if e.facts.get("study") == mine]
            assert [e.facts["round"] for e in entries if e.kind == "round.trained"] == [1, 2]


def ledger(clouds, name):
    """Return a copy of a domain's ledger, from the disk that its process sees."""
    root = clouds.federation.domains[name].folder.root
    copy = root.parent / f"{name}.seen"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(seen_by(clouds, name, root), copy)
    return Domain.open(copy).ledger


def seen_by(clouds, name, path):
    """Return where the files of a domain's process lie: its disk is its own."""
    return Path(f"/proc/{clouds.federation.serve_pid(name)}/root{path.resolve()}")


def store_disk(clouds):
    return Path(f"/proc/{clouds.server.pid}/root{clouds.server.root.parent.resolve()}")


def remount_store(clouds, how):
    inside = ["nsenter", f"--mount=/proc/{clouds.server.pid}/ns/mnt", "--"]
    served = str(clouds.server.root.parent)
    command = [*inside, "mount", "-o", f"remount,{how},size={STORE_MB}m", served]
    done = lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: E731
    wait_for(done, seconds=30, what="a moment without an open file, in which the disk can be changed")


def fill(folder):
    """Fill the disk that ``folder`` is on, to the last byte; return the file to remove."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(2**16))
    return filler


@pytest.mark.nightly  # a minute; a cloud that is cut off goes the same way through
def test_half_of_the_packets_are_lost_for_half_a_minute(clouds):
    running = Running(clouds, "loss")
    running.wait_until_training(2)
    clouds.bed.set(clouds.cloud_of["micu"], CLOUD.model_copy(update={"loss": 0.5}))
    time.sleep(30)
    clouds.bed.set(clouds.cloud_of["micu"], CLOUD)
    running.finish()
    assert clouds.traffic()["micu"].dropped > 0


def test_a_cloud_is_cut_off_for_a_while(clouds):
    running = Running(clouds, "cut")
    running.wait_until_training(2)
    clouds.bed.set(clouds.cloud_of["micu"], CLOUD.model_copy(update={"loss": 1.0}))
    running.wait_until_said("of round 2")
    clouds.bed.set(clouds.cloud_of["micu"], CLOUD)
    running.finish()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("read-only", "its disk is read-only"),
        pytest.param("full", "its disk is full", marks=pytest.mark.nightly),  # the same way through, a minute longer
    ],
)
def test_the_store_refuses_writes_for_a_while(clouds, fault, words):
    running = Running(clouds, f"store-{fault}")
    running.wait_until_training(1)
    filler, since = None, time.monotonic()
    if fault == "full":
        filler = fill(store_disk(clouds))
    else:
        remount_store(clouds, "ro")
    try:
        logs = [domain.folder.root / "serve.log" for domain in clouds.federation.domains.values()]
        said = lambda: any(words in log.read_text() for log in logs)  # noqa: E731
        wait_for(said, seconds=120, what=f"a domain to say that {words}")
        if fault == "full":
            time.sleep(max(0.0, A_MINUTE_S - (time.monotonic() - since)))
        assert not running.records("RoundFinished")
    finally:
        if filler is not None:
            filler.unlink()
        else:
            remount_store(clouds, "rw")
    running.finish()
    assert not list(store_disk(clouds).rglob(".part-*"))


@pytest.mark.nightly  # a full disk at a party is seen in the browser, too (tests/browser/test_errors_on_screen.py)
def test_a_domain_s_disk_is_full_for_a_while(clouds):
    running = Running(clouds, "domain-full")
    running.wait_until_training(1)
    name = next(name for name in clouds.federation.domains if name != "micu")
    filler = fill(seen_by(clouds, name, clouds.federation.domains[name].folder.root))
    log = clouds.federation.domains[name].folder.root / "serve.log"
    before = log.stat().st_size

    def told():
        return "No space left" in log.read_text()[before:] or running.process.poll() is not None

    try:
        wait_for(told, seconds=120, what="the domain to say that its disk is full")
    finally:
        filler.unlink()
    try:
        running.finish()
    except StudyError:
        assert running.process.returncode == 4
        assert "No space left" in (clouds.federation.researcher.root / "study.log").read_text()
        running.process = clouds.start("resume", "domain-full")
        running.finish()


@pytest.mark.nightly
@pytest.mark.skipif(FAKETIME is None, reason="needs the package libfaketime")
def test_a_clock_that_is_an_hour_slow_changes_nothing(clouds):
    running = Running(clouds, "clock")
    running.finish()
    last = {name: ledger(clouds, name).entries()[-1].time_s for name in clouds.federation.domains}
    others = [at for name, at in last.items() if name != "micu"]
    assert HOUR_S - 120 < others[0] - last["micu"] < HOUR_S + 120
