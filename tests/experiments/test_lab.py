import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from fedpriv.errors import ConfigError, LockError
from fedpriv.experiments import Federation
from fedpriv.experiments.lab import join_or_start, notebooks_folder, open_or_create


def test_the_notebooks_of_a_source_tree_are_shown_where_they_are(tmp_path):
    assert notebooks_folder(tmp_path) == Path(__file__).parents[2] / "notebooks"
    assert list(tmp_path.iterdir()) == []


def test_installed_notebooks_are_copied_and_nothing_is_written_over(tmp_path, monkeypatch):
    installed = tmp_path / "prefix" / "share" / "fedpriv" / "notebooks"
    installed.mkdir(parents=True)
    for name in ("01_a.ipynb", "02_b.ipynb"):
        (installed / name).write_text("new")
    monkeypatch.setattr("fedpriv.experiments.lab._PACKAGE", tmp_path / "elsewhere" / "fedpriv")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    here = tmp_path / "here"
    (here / "notebooks").mkdir(parents=True)
    (here / "notebooks" / "01_a.ipynb").write_text("mine")
    assert notebooks_folder(here) == here / "notebooks"
    assert [path.read_text() for path in sorted((here / "notebooks").iterdir())] == ["mine", "new"]


def test_a_federation_is_taken_up_as_it_was_left(tmp_path):
    work = tmp_path / "lab"
    made = open_or_create(work, domains=2)
    assert all(domain.config.policy.standing == () for domain in made.domains.values())
    with pytest.raises(LockError):
        open_or_create(work)
    made.close()
    again = open_or_create(work, domains=2)
    assert {n: d.keys.fingerprint for n, d in again.domains.items()} == {
        n: d.keys.fingerprint for n, d in made.domains.items()
    }
    assert again.plan().cohort == made.plan().cohort == again.researcher.peers.read()
    said = []
    joined = join_or_start(work, say=said.append)
    assert said == [f"joining the domains that run in {work}"]
    with pytest.raises(LockError):
        join_or_start(work, fresh=True)
    assert joined.researcher.keys.fingerprint == made.researcher.keys.fingerprint
    joined.close()
    again.close()
    fresh = open_or_create(work, domains=2, fresh=True)
    assert fresh.researcher.keys.fingerprint != made.researcher.keys.fingerprint
    fresh.close()


def test_without_a_federation_the_next_step_is_said(tmp_path):
    with pytest.raises(ConfigError, match="fedpriv lab --demo"):
        Federation.join(tmp_path)


@pytest.mark.e2e
def test_the_command_runs_the_domains_and_jupyterlab_and_ends_both(tmp_path):
    pytest.importorskip("jupyterlab")
    command = [sys.executable, "-m", "fedpriv", "lab", "--demo", "--domains", "2", "--no-browser"]
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "COLUMNS": "400"}
    lab = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(lab.stdout.readline, "")
        url = next(line.split()[-1] for line in lines if line.startswith("JupyterLab: "))
        base, _, token = url.partition("lab?token=")
        with urllib.request.urlopen(f"{base}api/status?token={token}", timeout=20) as answer:  # noqa: S310
            assert json.load(answer)["kernels"] == 0
        running = [tmp_path / ".fedpriv" / "lab" / "domains" / name / "serve.log" for name in ("micu", "sicu")]
        assert all(path.exists() for path in running)
        domains = Federation.join(tmp_path / ".fedpriv" / "lab").domains.values()
        deadline = time.monotonic() + 60
        while not all(domain.status()["running"] for domain in domains) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert all(domain.status()["running"] for domain in domains)
    finally:
        lab.send_signal(signal.SIGTERM)
        assert lab.wait(timeout=60) == 0
    assert not any(domain.status()["running"] for domain in domains)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{base}api/status", timeout=5)  # noqa: S310
