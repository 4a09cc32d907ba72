import subprocess
import sys

import pytest

from fedpriv.training.landlock import landlock_version

needs_landlock = pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")

FENCED = """
import sys
from pathlib import Path
from fedpriv.training.landlock import restrict
root = Path({root!r})
assert restrict([root / "in", Path(sys.prefix), Path("/usr"), Path("/lib"), Path("/proc")], [root / "out"])
"""


def run(tmp_path, code):
    for name in ("in", "out", "else"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "a").write_text(name)
    return subprocess.run(
        [sys.executable, "-c", FENCED.format(root=str(tmp_path)) + code.format(root=tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_landlock
def test_what_is_allowed_works(tmp_path):
    code = "open('{root}/out/b', 'w').write(open('{root}/in/a').read()); import os; os.mkdir('{root}/out/c')"
    done = run(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "b").read_text() == "in"


@needs_landlock
@pytest.mark.parametrize(
    "code",
    [
        "open('{root}/else/a')",
        "open('{root}/in/a', 'w')",
        "open('{root}/in/new', 'w')",
        "import os; os.rename('{root}/in/a', '{root}/out/b')",
        "import os; os.remove('{root}/else/a')",
        "import os; os.truncate('{root}/in/a', 0)",
        "import os; os.listdir('{root}/else')",
        "import os; os.symlink('{root}/else/a', '{root}/out/l'); open('{root}/out/l')",
        "import subprocess; subprocess.run(['/usr/bin/cat', '{root}/else/a'], check=True, stderr=-1)",
        "import os; os.kill(os.getppid(), 0)",
    ],
)
def test_everything_else_is_refused(tmp_path, code):
    done = run(tmp_path, code)
    assert done.returncode == 1
    assert "PermissionError" in done.stderr or "CalledProcessError" in done.stderr, done.stderr
    assert (tmp_path / "else" / "a").read_text() == "else"


@needs_landlock
def test_connections_are_refused(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run(tmp_path, f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert "PermissionError" in done.stderr
