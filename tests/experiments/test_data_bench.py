import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.experiments.data_bench import run_data_bench, targets


@pytest.fixture(scope="module")
def report():
    return run_data_bench(share=0.003)


@pytest.mark.e2e
def test_tables_are_prepared_whole_by_a_process_that_was_killed_once(report):
    assert report.killed_at.endswith("telling")
    assert 0 < report.seconds_before_kill < report.seconds
    assert report.admissions == 177
    assert report.notes > report.examples > report.heldout_examples > 0
    assert report.refused == 0


@pytest.mark.e2e
def test_only_the_full_size_meets_or_misses_what_is_for_the_full_size(report):
    assert [target.met for target in targets(report)] == [None, None, True]
    full = replace(report, share=1.0)
    assert [target.met for target in targets(full)] == [True, True, True]
    assert not all(target.met for target in targets(replace(full, seconds=1201.0)))


@pytest.mark.e2e
@pytest.mark.nightly
def test_the_command_measures_a_twentieth(tmp_path):
    command = ["bench", "data", "--quick", "--json", "--tables", str(tmp_path / "tables")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["share"] == 0.05
    assert (tmp_path / "tables" / "NOTEEVENTS.csv.gz").is_file()
