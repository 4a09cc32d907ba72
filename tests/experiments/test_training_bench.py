import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.errors import ConfigError, StudyError
from fedpriv.experiments import training_bench
from fedpriv.experiments.training_bench import SIDES, Report, Side, run_training_bench, targets

OURS = Side(tokens_per_s=[300.0, 100.0, 310.0], peak_bytes=2_000_000_000, heldout_loss=1.005)
THEIRS = Side(tokens_per_s=[100.0, 50.0, 100.0], peak_bytes=4_000_000_000, heldout_loss=1.0)
REPORT = Report(
    model="tiny",
    tables="synthetic",
    examples=10,
    settings={},
    sides={"fedpriv": OURS, "Trainer": THEIRS},
    load=1.0,
    cores=2,
)


def test_ratios_are_of_runs_that_followed_each_other():
    assert REPORT.speedup == 3.0
    assert REPORT.memory_ratio == 0.5
    assert REPORT.loss_difference == pytest.approx(0.005)
    assert all(target.met for target in targets(REPORT))


@pytest.mark.parametrize(
    "ours",
    [
        replace(OURS, tokens_per_s=[140.0, 74.0, 150.0]),
        replace(OURS, peak_bytes=4_000_000_001),
        replace(OURS, heldout_loss=1.011),
        replace(OURS, heldout_loss=0.98),
    ],
)
def test_each_target_can_be_missed(ours):
    assert sum(not target.met for target in targets(replace(REPORT, sides={"fedpriv": ours, "Trainer": THEIRS}))) == 1


def test_a_run_that_fails_ends_the_benchmark(tmp_path):
    with pytest.raises(StudyError, match="A run of the benchmark failed"):
        run_training_bench(model="tiny", steps=2, max_tokens=8, learning_rate=1e9, sides=("fedpriv",), repeats=1)


def test_without_a_gpu_the_error_says_what_to_leave_out(monkeypatch):
    monkeypatch.setattr(training_bench, "gpu_files", lambda choice: ())
    with pytest.raises(ConfigError, match="leave out --device"):
        run_training_bench(model="tiny", device="cuda")


@pytest.mark.e2e
@pytest.mark.nightly
def test_the_command_measures_both_sides_on_the_same_examples():
    options = ["--model", "tiny", "--steps", "3", "--batch-size", "4", "--max-tokens", "64", "--repeats", "1"]
    done = CliRunner().invoke(app, ["bench", "training", *options, "--threads", "1", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report["sides"]) == set(SIDES)
    assert report["loss_difference"] < 1e-3
    assert report["sides"]["fedpriv"]["heldout_loss"] == report["sides"]["fedpriv, float32"]["heldout_loss"]
    assert {target["what"] for target in report["targets"]} == {target.what for target in targets(REPORT)}
