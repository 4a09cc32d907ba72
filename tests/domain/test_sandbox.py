import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedpriv.domain import ResourcesChoice, sandbox
from fedpriv.domain.runner import check_machine
from fedpriv.domain.sandbox import Sandbox
from fedpriv.errors import ConfigError

needs_bubblewrap = pytest.mark.skipif(sandbox.bubblewrap() is None, reason="bubblewrap does not work here")


def run_inside(tmp_path, code):
    domain, workspace = tmp_path / "domain", tmp_path / "domain" / "workspace"
    workspace.mkdir(parents=True)
    (domain / "keys.json").write_text("secret")
    (domain / "examples.jsonl").write_text("notes")
    walls = Sandbox(mode="required", readable=(domain / "examples.jsonl",), writable=workspace)
    assert "bubblewrap" in walls.walls
    environment = sandbox.clean_environment(1, walls.scratch)
    done = subprocess.run(
        walls.wrap([sys.executable, "-c", code]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    return done, workspace


@needs_bubblewrap
@pytest.mark.parametrize(
    "attack",
    [
        "open('{domain}/keys.json').read()",
        "open('{domain}/examples.jsonl', 'w')",
        "open('/etc/shadow').read()",
        "open('/usr/fedpriv-was-here', 'w')",
        "open('/fedpriv-was-here', 'w')",
        "open('/dev/fedpriv-was-here', 'w')",
        "open('/scratch/big', 'wb').write(bytes(300 * 2**20))",
        "open('/dev/shm/big', 'wb').write(bytes(300 * 2**20))",
        "open('/proc/sys/kernel/core_pattern', 'r+')",
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
        "import os; assert os.environ['SECRET']",
        "import os; os.kill({pid}, 0)",
        "import ctypes, os; e = ctypes.CDLL(None, use_errno=True).unshare(0x10000000); assert e == 0, 'Error'",
        "import ctypes; assert ctypes.CDLL(None).mount(b'none', b'/scratch', b'tmpfs', 0, 0) == 0, 'Error'",
    ],
)
def test_the_child_cannot(tmp_path, attack, monkeypatch):
    import os
    import socket

    monkeypatch.setenv("SECRET", "x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = attack.format(domain=tmp_path / "domain", port=server.getsockname()[1], pid=os.getpid())
        done, _ = run_inside(tmp_path, code)
    assert done.returncode == 1
    assert "Error" in done.stderr


@needs_bubblewrap
def test_the_child_can_read_its_examples_and_write_its_output(tmp_path):
    code = f"text = open('{tmp_path}/domain/examples.jsonl').read(); import fedpriv; open('out', 'w').write(text)"
    done, workspace = run_inside(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert (workspace / "out").read_text() == "notes"


CARDS = [path for path in map(Path, ("/dev/fuse", "/dev/net/tun", "/dev/loop-control")) if os.access(path, os.R_OK)]


@needs_bubblewrap
@pytest.mark.skipif(not CARDS, reason="there is no device file here to let through")
def test_a_device_file_that_is_let_through_can_be_used_and_no_other_one(tmp_path):
    walls = Sandbox(mode="required", readable=(), writable=tmp_path, gpu=(CARDS[0],))
    fence = walls.fence(ResourcesChoice(), [], max_seconds=5)
    code = (
        "import os\nfrom pathlib import Path\nfrom fedpriv.training.landlock import restrict\n"
        f"restrict(map(Path, {fence['readable']!r}), map(Path, {fence['writable']!r}))\n"
        f"os.open({str(CARDS[0])!r}, os.O_RDWR)\nprint(sorted(os.listdir('/dev')))\n"
        "os.open('/dev/mine', os.O_CREAT | os.O_WRONLY)\n"
    )
    command = walls.wrap([sys.executable, "-c", code])
    environment = sandbox.clean_environment(1, walls.scratch)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert CARDS[0].relative_to("/dev").parts[0] in done.stdout, done.stderr
    assert "sda" not in done.stdout and "kmsg" not in done.stdout
    assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr


@needs_bubblewrap
def test_with_a_gpu_the_kernels_settings_cannot_be_written_and_threads_can_be_named(tmp_path):
    walls = Sandbox(mode="required", readable=(), writable=tmp_path, gpu=(Path("/dev/zero"),))
    code = """
import os
from pathlib import Path
Path("/proc/self/comm").write_text("named")
for folder, folders, files in os.walk("/proc"):
    folders[:] = [name for name in folders if not name.isdigit()]
    for name in files:
        place = os.path.join(folder, name)
        assert os.path.islink(place) or not os.access(place, os.W_OK), place
print(Path("/proc/self/comm").read_text())
open("/proc/sys/kernel/core_pattern", "r+")
"""
    environment = sandbox.clean_environment(1, walls.scratch)
    done = subprocess.run(
        walls.wrap([sys.executable, "-c", code]), capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout == "named\n\n", done.stderr
    assert "core_pattern" in done.stderr


def test_a_bubblewrap_that_may_not_mount_proc_is_none(tmp_path, monkeypatch):
    fake = tmp_path / "bwrap"  # as in a container whose /proc is masked
    fake.write_text('#!/bin/sh\ncase "$*" in *"--proc /proc"*) exit 1;; esac\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert sandbox.bubblewrap.__wrapped__() is None
    fake.write_text("#!/bin/sh\n")
    assert sandbox.bubblewrap.__wrapped__() == str(fake)


def test_required_without_bubblewrap_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    monkeypatch.setattr(sandbox, "landlock_version", lambda: 0)
    monkeypatch.setattr(sandbox, "can_filter", lambda: False)
    places = {"readable": (), "writable": tmp_path}
    with pytest.raises(ConfigError, match="only inside bubblewrap"):
        Sandbox(mode="required", **places).wrap(["true"])
    with pytest.raises(ConfigError, match="only inside bubblewrap"):  # at the start of the service, not in a round
        check_machine(Sandbox(mode="required", **places), ResourcesChoice())
    preferred = Sandbox(mode="preferred", **places)
    assert (preferred.wrap(["true"]), preferred.walls) == (["true"], ())


@pytest.mark.parametrize(
    ("found", "walls"), [("/bin/bwrap", ("bubblewrap", "landlock", "seccomp")), (None, ("landlock", "seccomp"))]
)
def test_preferred_takes_what_there_is_and_off_nothing(tmp_path, monkeypatch, found, walls):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: found)
    monkeypatch.setattr(sandbox, "landlock_version", lambda: 7)
    monkeypatch.setattr(sandbox, "can_filter", lambda: True)
    places = {"readable": (), "writable": tmp_path}
    assert Sandbox(mode="preferred", **places).walls == walls
    off = Sandbox(mode="off", **places)
    assert off.walls == ()
    assert not off.fence(ResourcesChoice(), [], max_seconds=5)["walls"]


def test_a_fence_follows_the_resources(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    walls = Sandbox(mode="preferred", readable=(), writable=tmp_path)
    fence = walls.fence(ResourcesChoice(memory_gb=0.5, disk_gb=0.25, threads=2), [tmp_path / "a"], max_seconds=10)
    assert (fence["memory_bytes"], fence["file_bytes"], fence["cpu_s"]) == (2**29, 2**28, 140)
    assert fence["processes"] is None, "without a user namespace it would count everything of this user"
    assert str(tmp_path / "a") in fence["readable"]
