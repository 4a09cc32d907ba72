import subprocess
import sys

import pytest

from fedpriv.training.system_calls import can_filter, filter_system_calls

needs_filter = pytest.mark.skipif(not can_filter(), reason="system calls of this machine cannot be filtered")
FILTERED = """
import os, socket, threading
from fedpriv.training.system_calls import filter_system_calls
assert filter_system_calls()
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", FILTERED + code], capture_output=True, text=True, timeout=60, check=False
    )


@needs_filter
@pytest.mark.parametrize(
    "code",
    [
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "import subprocess; subprocess.run(['true'])",
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.ptrace(0, 0, 0, 0) == -1: raise OSError(ctypes.get_errno(), '')",
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.unshare(0x10000000) == -1: raise OSError(ctypes.get_errno(), '')",
    ],
)
def test_refused_as_not_permitted(code):
    done = run(code)
    assert done.returncode == 1
    assert "PermissionError" in done.stderr, done.stderr


@needs_filter
def test_threads_files_and_arithmetic_go_on(tmp_path):
    code = (
        "import numpy\nout = []\n"
        "threads = [threading.Thread(target=lambda: out.append(numpy.ones((400, 400)) @ numpy.ones((400, 400))))]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        f"open({str(tmp_path / 'x')!r}, 'w').write(str(out[0].sum()))\n"
        "os.socketpair() if hasattr(os, 'socketpair') else None"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x").read_text() == "64000000.0"


@needs_filter
def test_it_holds_for_threads_too():
    code = "def f():\n    try: os.fork()\n    except PermissionError: print('refused')\n"
    code += "t = threading.Thread(target=f); t.start(); t.join()"
    assert run(code).stdout.strip() == "refused"


@needs_filter
def test_it_holds_for_a_thread_that_runs_already_and_leaves_it_its_socket():
    code = """
import os, socket, threading
from fedpriv.training.system_calls import filter_system_calls
filtered = threading.Event()
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
def f():
    filtered.wait()
    client.send(b"still open")
    for call in (os.fork, socket.socket):
        try: call()
        except PermissionError: print("refused")
thread = threading.Thread(target=f)
thread.start()
filter_system_calls()
filtered.set()
thread.join()
print(server.accept()[0].recv(64).decode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["refused", "refused", "still open"], done.stderr


def test_another_machine_has_no_filter(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert not can_filter()
    assert not filter_system_calls()
