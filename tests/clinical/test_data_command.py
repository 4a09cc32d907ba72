from __future__ import annotations

import pytest
from tiny_mimic import notes, tiny_tables
from typer.testing import CliRunner

from fedpriv.cli.data import app
from fedpriv.errors import DataError, ExistsError

RUNNER = CliRunner()


def run(*arguments):
    result = RUNNER.invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_synthesize_inspect_shard(tmp_path):
    assert "MICU" in run("synthesize", tmp_path / "t", "--patients", 30, "--seed", 2).output
    shown = run("inspect", tmp_path / "t").output
    assert "Discharge summaries: for" in shown
    assert "Missing" not in shown
    shown = run("shard", tmp_path / "t", "--out", tmp_path / "out", "--domains", 2).output
    assert "micu" in shown
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["micu", "sicu"]
    for command in (("synthesize", tmp_path / "t"), ("shard", tmp_path / "t", "--out", tmp_path / "out")):
        with pytest.raises(ExistsError) as caught:
            run(*command)
        assert caught.value.exit_code == 2


def test_inspect_warns_about_what_is_missing(make_tables):
    shown = run("inspect", make_tables(PRESCRIPTIONS=None, D_ICD_DIAGNOSES=None)).output
    assert "Discharge summaries: none" in shown
    for name in ("PRESCRIPTIONS", "D_ICD_DIAGNOSES", "NOTEEVENTS"):
        assert f"Missing: {name}" in shown
    assert "holds no discharge summary" in run("inspect", make_tables("b", NOTEEVENTS=notes())).output


def test_inspect_counts_rows_that_no_text_will_hold(make_tables):
    assert "of no admission" not in run("inspect", make_tables()).output
    rows = tiny_tables()["PRESCRIPTIONS"]
    rows[1][2] = "999"
    shown = run("inspect", make_tables("b", PRESCRIPTIONS=rows)).output
    assert (
        "1 row of PRESCRIPTIONS.csv.gz refused: PRESCRIPTIONS.HADM_ID is of no admission in ADMISSIONS (row 1)" in shown
    )


def test_too_many_domains_writes_nothing(make_tables, tmp_path):
    with pytest.raises(DataError, match="MICU"):
        run("shard", make_tables(), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["inspect", "synthesize", "shard"])
def test_help_says_what_it_does(command):
    shown = run(command, "--help").output
    assert {"inspect": "TABLES"}.get(command, "DIR") in shown
    assert "Usage" in shown
