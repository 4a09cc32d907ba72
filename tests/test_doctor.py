import builtins
import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from fedpriv import doctor
from fedpriv.doctor import Check, render, run_checks

NAMES = [
    "Python",
    "fedpriv",
    "torch",
    "transformers",
    "peft",
    "tenseal",
    "syft",
    "syft-rds",
    "encrypted sum",
    "bubblewrap",
    "job walls",
    "notebooks",
    "chromium",
    "GPU",
    "base model",
    "disk",
    "memory",
    "cores",
]


def shown(checks):
    stream = io.StringIO()
    Console(width=200, file=stream).print(render(checks))
    return stream.getvalue()


def finished(code, out="", err=""):
    return lambda command, **_: subprocess.CompletedProcess(command, code, out, err)


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine on which nothing is installed and no program is found."""

    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    monkeypatch.setattr(importlib.metadata, "requires", none)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "_run", finished(1, err="ModuleNotFoundError: No module named 'tenseal'"))
    monkeypatch.setenv("FEDPRIV_CACHE", str(tmp_path / "none"))


def test_this_machine_can_run_the_tests_and_says_so():
    checks = run_checks()
    assert [check.name for check in checks] == NAMES
    needed = NAMES[:8]
    assert {check.name: check.state for check in checks if check.name in needed} == dict.fromkeys(needed, "ok")
    by_name = {check.name: check for check in checks}
    assert by_name["encrypted sum"].state != "missing"
    assert by_name["Python"].found == ".".join(map(str, sys.version_info[:3]))


def test_on_a_bare_machine_everything_has_a_next_step(bare):
    checks = {check.name: check for check in run_checks()}
    assert list(checks) == NAMES
    for name in (*NAMES[1:8], "encrypted sum"):
        assert checks[name].state == "missing"
        assert "bootstrap.sh setup" in checks[name].how_to_get
    for name in ("bubblewrap", "chromium", "GPU", "base model"):
        assert checks[name].state == "warning"
        assert checks[name].how_to_get
    text = shown(list(checks.values()))
    assert text.count("missing") >= 8


def test_whatever_is_not_ok_says_how_to_get_it():
    for check in run_checks():
        assert check.found
        assert (check.state == "ok") == (not check.how_to_get), check


def test_a_check_that_fails_is_a_warning(monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("the disk [bold]sings[/bold]")

    monkeypatch.setattr(shutil, "disk_usage", broken)
    (check,) = [check for check in run_checks() if check.name == "disk"]
    assert check.state == "warning"
    assert "[bold]sings[/bold]" in shown([check])


def test_the_disk_at_home_is_looked_at_where_this_user_may_not_write(monkeypatch, tmp_path):
    """As `sudo -u fedpriv fedpriv doctor` in the folder of whoever installs it."""
    assert doctor.check_disk().found.endswith("free here")
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    monkeypatch.setattr(Path, "cwd", lambda: tmp_path / "of somebody else")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert doctor.check_disk().found.endswith(f"free in {tmp_path}")


def test_an_older_package_is_a_warning(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["torch==2.13.0", "tenseal==9; extra == 'x'"])
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.12.1+cpu")
    assert doctor.check_package("torch").state == "warning"
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert doctor.check_package("torch") == Check("torch", "ok", "2.13.0+cpu")


@pytest.mark.parametrize(
    ("result", "state", "words"),
    [
        (finished(0), "ok", "adds two encrypted vectors"),
        (finished(1), "missing", "no reason given"),
        (finished(1, err="Traceback\nImportError: no SEAL"), "missing", "ImportError: no SEAL"),
        (finished(-4), "missing", "killed by signal 4"),
    ],
)
def test_what_tenseal_does_is_said(monkeypatch, result, state, words):
    monkeypatch.setattr(doctor, "_run", result)
    check = doctor.check_encryption()
    assert check.state == state
    assert words in check.found


def test_a_child_that_hangs_is_stopped(monkeypatch):
    monkeypatch.setattr(doctor, "DEADLINE_S", 0.3)
    monkeypatch.setattr(doctor, "_ADD_TWO_VECTORS", "import time; time.sleep(60)")
    begun = time.monotonic()
    assert doctor.check_encryption().state == "warning"
    assert time.monotonic() - begun < 50, "it did not wait for the end of the sleep"


def test_a_bubblewrap_that_may_not_build_walls_is_a_warning(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "_run", finished(1, err="bwrap: No permissions to create new namespace"))
    check = doctor.check_bubblewrap()
    assert check.state == "warning"
    assert "No permissions" in check.found
    assert "user namespaces" in check.how_to_get


def test_a_program_that_vanishes_is_no_error(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/nowhere/{name}")
    assert doctor.check_bubblewrap().state == "warning"


def test_a_missing_psutil_is_a_warning(monkeypatch):
    real = builtins.__import__

    def no_psutil(name, *args, **kwargs):
        if name == "psutil":
            raise ImportError("No module named 'psutil'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_psutil)
    checks = {check.name: check for check in run_checks()}
    assert checks["memory"].state == "warning"


def test_models_in_the_cache_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDPRIV_CACHE", str(tmp_path))
    assert doctor.check_base_model().state == "warning"
    for name in ("tiny", doctor.DEFAULT_MODEL, ".half.1.tmp"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / "tiny" / "manifest.json").write_text("{}")
    check = doctor.check_base_model()
    assert check.state == "warning"
    assert check.found.startswith("tiny in ")
    (tmp_path / "models" / doctor.DEFAULT_MODEL / "manifest.json").write_text("{}")
    assert doctor.check_base_model().state == "ok"


def test_every_check_is_quick(monkeypatch):
    """Each has three seconds; what starts a program stops it in time."""
    assert doctor.DEADLINE_S < 3
    for check in (doctor.check_base_model, doctor.check_disk, doctor.check_memory, doctor.check_cores):
        begun = time.process_time()
        check()
        assert time.process_time() - begun < 3


@pytest.mark.parametrize(
    ("kernel", "user", "state", "words"),
    [
        ((7, True), 1000, "ok", "Landlock 7 and seccomp"),
        ((7, True), 0, "warning", "you are root"),
        ((0, True), 1000, "warning", "seccomp"),
        ((0, False), 1000, "warning", "none"),
    ],
)
def test_the_walls_around_a_job_are_named(monkeypatch, kernel, user, state, words):
    monkeypatch.setattr("fedpriv.training.landlock.landlock_version", lambda: kernel[0])
    monkeypatch.setattr("fedpriv.training.system_calls.can_filter", lambda: kernel[1])
    monkeypatch.setattr(doctor.os, "geteuid", lambda: user)
    check = doctor.check_job_walls()
    assert check.state == state
    assert words in check.found
    assert bool(check.how_to_get) == (state != "ok")
