"""``fedpriv bench figures`` as a person runs it, on the tiny model: measured by processes, drawn, not done twice."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fedpriv.experiments.comparison.made import source_digest

COMMAND = [
    *(sys.executable, "-m", "fedpriv", "bench", "figures", "--model", "tiny", "--seeds", "1"),
    *("--rounds", "1", "--steps", "2", "--part", "methods"),
    *("--method", "centralised", "--method", "fedpriv"),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A comparison that is ended after its first case, and taken up again."""
    folder = tmp_path_factory.mktemp("figures")
    out = folder / "out"
    first = subprocess.Popen([*COMMAND, "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((out / "runs").glob("*.json")):
        assert first.poll() is None
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "runs").glob("*.json")}
    done = subprocess.run([*COMMAND, "--out", out, "--json"], capture_output=True, text=True, check=True, timeout=240)
    return folder, out, kept, json.loads(done.stdout)


@pytest.mark.timeout(300)
def test_it_goes_on_after_a_kill(measured):
    folder, out, kept, body = measured
    assert 1 <= len(kept) < len(body["runs"])
    again = {path.name: path.stat().st_mtime_ns for path in (out / "runs").glob("*.json")}
    assert kept.items() <= again.items(), "nothing was measured twice"
    assert [path.name for path in folder.iterdir()] == ["out"], "no notes are left behind"


def test_every_method_learnt_from_the_same_start(measured):
    runs = {run["case"]["method"]: run for run in measured[3]["runs"]}
    assert set(runs) == {"centralised", "fedpriv"}
    assert len({run["quality"]["loss_before"] for run in runs.values()}) == 1
    assert all(run["quality"]["loss"] < run["quality"]["loss_before"] for run in runs.values())
    assert runs["fedpriv"]["quality"]["loss"] == pytest.approx(runs["centralised"]["quality"]["loss"], rel=0.03)


def test_costs_are_measured(measured):
    runs = {run["case"]["method"]: run for run in measured[3]["runs"]}
    assert 0 < runs["fedpriv"]["bytes_up"] < 8 * runs["fedpriv"]["parameters"]
    assert all(run["cost"]["training_cpu_s"] > 1 and run["cost"]["peak_bytes"] > 10**8 for run in runs.values())


def test_figures_page_and_manifest_are_there(measured):
    _, out, _, _ = measured
    names = {path.name for path in out.iterdir()}
    pictures = {f"{name}.{kind}" for name in ("communication", "computation", "quality") for kind in ("png", "svg")}
    assert pictures | {"figures.html", "figures.json", "manifest.json", "settings.json", "README.md"} <= names
    told = (out / "README.md").read_text()
    assert "| fedpriv | 1 | " in told
    assert "![Bytes that a domain sends" in told
    page = (out / "figures.html").read_text()
    assert "fedpriv" in page
    assert "not measured" in page, "nothing was attacked"
    assert str(out) not in page
    manifest = json.loads((out / "manifest.json").read_text())
    assert {f"runs/{path.name}" for path in (out / "runs").iterdir()} <= set(manifest["sha256"])
    assert manifest["versions"]["torch"]
    assert manifest["measured"]["records_by_source"] == {source_digest(): len(list((out / "runs").iterdir()))}
    assert all((path.stat().st_mode & 0o777) == 0o644 for path in out.glob("*.png"))


def test_another_model_needs_another_folder(measured):
    command = [*COMMAND, "--steps", "3", "--out", measured[1]]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False)
    assert done.returncode == 2
    assert "other settings (steps)" in done.stderr
