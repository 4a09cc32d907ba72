"""Real packets between real namespaces."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fedpriv.experiments.crosscloud.bed import Bed
from fedpriv.experiments.crosscloud.links import Link

pytestmark = pytest.mark.crosscloud

SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 9000))
print("ready", flush=True)
while True:
    with server.accept()[0] as peer:
        while data := peer.recv(65536):
            peer.sendall(data[:1])
"""
CLIENT = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 9000), timeout=float(sys.argv[3])) as peer:
    started = time.monotonic()
    peer.sendall(bytes(int(sys.argv[2])))
    peer.shutdown(socket.SHUT_WR)
    while peer.recv(65536):
        pass
    print(time.monotonic() - started)
"""


@pytest.fixture
def bed(can_make_beds):
    with Bed({"cloud": Link(rate_mbps=8, delay_ms=40), "other": Link(), "store": Link()}) as made:
        server = subprocess.Popen(
            [*made.inside("store"), sys.executable, "-c", SERVER, made.address("store")], stdout=subprocess.PIPE
        )
        server.stdout.readline()
        yield made
        server.kill()
        server.wait()
        server.stdout.close()


def transfer(bed, place, size, *, seconds=20):
    """Return the seconds that sending ``size`` bytes to the store took, or None if it cannot be reached."""
    done = subprocess.run(
        [*bed.inside(place), sys.executable, "-c", CLIENT, bed.address("store"), str(size), str(seconds)],
        capture_output=True,
        check=False,
    )
    return float(done.stdout) if done.returncode == 0 else None


def test_a_link_has_its_rate_and_delay_and_counts_what_crosses_it(bed):
    taken = transfer(bed, "cloud", 1_000_000)
    assert taken >= 1_000_000 * 8 / 8e6 + 0.08
    traffic = bed.traffic()["cloud"]
    assert 1_000_000 < traffic.up_bytes < 1_200_000
    assert 0 < traffic.down_bytes < 200_000
    assert bed.traffic()["store"].down_bytes == pytest.approx(traffic.up_bytes, abs=3000)  # a packet may be on its way
    assert bed.traffic()["other"].up_bytes == 0


def test_a_link_can_be_cut_and_mended(bed):
    bed.set("cloud", Link(loss=1))
    assert transfer(bed, "cloud", 10, seconds=1) is None
    assert transfer(bed, "other", 10) is not None
    bed.set("cloud", Link())
    assert transfer(bed, "cloud", 10) is not None
    assert bed.traffic()["cloud"].dropped > 0


def test_a_place_reaches_the_others_and_nothing_else(bed):
    shown = subprocess.run([*bed.inside("cloud"), "cat", "/proc/net/route"], capture_output=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()[1:]] == [b"cloud0"]
    assert Path("/proc/net/route").read_bytes() != shown


def test_nothing_stays_behind_when_everything_is_killed(can_make_beds):
    script = (
        "import sys, time\n"
        "from fedpriv.experiments.crosscloud.bed import Bed\n"
        "from fedpriv.experiments.crosscloud.links import Link\n"
        "with Bed({'a': Link()}) as bed:\n"
        "    print(bed._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    emulator = psutil.Process(int(holder.stdout.readline()))
    holder.kill()
    holder.wait()
    holder.stdout.close()
    deadline = time.monotonic() + 10
    while emulator.is_running() and emulator.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not emulator.is_running() or emulator.status() == psutil.STATUS_ZOMBIE
