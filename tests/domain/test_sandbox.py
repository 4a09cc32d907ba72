import subprocess
import sys

import pytest

from fedpriv.domain import sandbox
from fedpriv.errors import ConfigError

needs_bubblewrap = pytest.mark.skipif(sandbox.bubblewrap() is None, reason="bubblewrap does not work here")


def run_inside(tmp_path, code):
    domain, workspace = tmp_path / "domain", tmp_path / "domain" / "workspace"
    workspace.mkdir(parents=True)
    (domain / "keys.json").write_text("secret")
    (domain / "examples.jsonl").write_text("notes")
    command, name = sandbox.wrap(
        [sys.executable, "-c", code],
        mode="required",
        readable=[domain / "examples.jsonl"],
        writable=workspace,
    )
    assert name == "bubblewrap"
    environment = sandbox.clean_environment(1, workspace)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment), workspace


@needs_bubblewrap
@pytest.mark.parametrize(
    "attack",
    [
        "open('{domain}/keys.json').read()",
        "open('{domain}/examples.jsonl', 'w')",
        "open('/etc/shadow').read()",
        "open('/usr/fedpriv-was-here', 'w')",
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
        "import os; assert os.environ['SECRET']",
    ],
)
def test_the_child_cannot(tmp_path, attack, monkeypatch):
    import socket

    monkeypatch.setenv("SECRET", "x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = attack.format(domain=tmp_path / "domain", port=server.getsockname()[1])
        done, _ = run_inside(tmp_path, code)
    assert done.returncode == 1
    assert "Error" in done.stderr


@needs_bubblewrap
def test_the_child_can_read_its_examples_and_write_its_output(tmp_path):
    code = f"text = open('{tmp_path}/domain/examples.jsonl').read(); import fedpriv; open('out', 'w').write(text)"
    done, workspace = run_inside(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert (workspace / "out").read_text() == "notes"


def test_required_without_bubblewrap_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    places = {"readable": [], "writable": tmp_path}
    with pytest.raises(ConfigError, match="only inside bubblewrap"):
        sandbox.wrap(["true"], mode="required", **places)
    assert sandbox.wrap(["true"], mode="preferred", **places) == (["true"], "none")
