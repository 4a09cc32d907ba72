import os

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.domain.log_tail import last_lines
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.files import private_folder
from tests.domain.conftest import ADA


def test_the_end_of_a_log_is_harmless(tmp_path):
    path = tmp_path / "worker.log"
    path.write_bytes(b"first\n\n" + b"x\n" * 100_000 + b"\x1b[31mred\x07\nlast \xff\n")
    lines = last_lines(path, 2)
    assert len(lines) == 2
    assert "\x1b" not in "".join(lines)
    assert "\x07" not in "".join(lines)
    assert lines[1].startswith("last")


@pytest.mark.parametrize("what", ["nothing", "link", "pipe"])
def test_what_is_no_log_has_no_lines(tmp_path, what):
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / "worker.log"
    if what == "link":
        path.symlink_to(tmp_path / "secret")
    elif what == "pipe":
        os.mkfifo(path)
    assert last_lines(path, 5) == ()


def test_the_newest_log_of_a_study_is_found(tmp_path):
    folder = StudyFolder(tmp_path)
    assert folder.last_log() is None
    for number, name in enumerate(("train-0001", "evaluate-0002")):
        log = folder.output(name) / "worker.log"
        log.write_text(name)
        os.utime(log, (100 - number, 100 - number))
    assert folder.last_log().parent.name == "train-0001"


def test_the_log_of_a_worker_that_died_before_any_job_is_shown(domain, code_request):
    domain.requests.receive(code_request, ADA)
    place = StudyFolder(domain.folder.study(code_request.study))
    command = ["domain", "log", str(domain.folder.root), code_request.study[:12]]
    assert "No job of this study has run here yet" in CliRunner().invoke(app, command).output
    private_folder(place.workspace)
    (place.workspace / "worker.log").touch()
    assert place.worker_log() is None
    (place.workspace / "worker.log").write_text("bwrap: no room\n\x1b[2J\n")
    said = CliRunner().invoke(app, command).output
    assert "the worker itself:\nbwrap: no room\n" in said
    assert "\x1b" not in said
    (place.output("train-0001") / "worker.log").write_text("loss 1.0\n")
    said = CliRunner().invoke(app, command).output
    assert said.index("loss 1.0") < said.index("bwrap: no room")
