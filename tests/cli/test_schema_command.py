from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.clinical import write_synthetic
from fedpriv.errors import FedprivError, SignatureError, UntrustedError

RUNNER = CliRunner()


def run(*arguments, code=0):
    result = RUNNER.invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if isinstance(result.exception, FedprivError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def statements(tmp_path_factory):
    """Two domains' signed statements; the second one has no notes."""
    root = tmp_path_factory.mktemp("schemas")
    files = []
    for number in (1, 2):
        tables = root / f"tables{number}"
        write_synthetic(tables, patients=30, seed=number)
        if number == 2:
            (tables / "NOTEEVENTS.csv.gz").unlink()
        options = ("--email", f"d{number}@x.example", "--store", root / "store", "--data", tables)
        run("domain", "init", root / f"d{number}", *options)
        files.append(root / f"{number}.json")
        shown = run("domain", "schema", root / f"d{number}", "--out", files[-1])
        assert "about 30 patients" in shown
    return files


def test_a_difference_is_named_and_ends_with_two(statements):
    shown = run("domain", "compare", *statements, code=2)
    assert "d2@x.example without NOTEEVENTS, which d1@x.example has" in shown


def test_a_statement_holds_no_value_and_no_exact_count(statements):
    text = statements[0].read_text()
    for secret in ("900001", "9100001", "MICU", "heart"):
        assert secret not in text
    told = json.loads(text)["statement"]["payload"]
    assert all(told[name] % 10 == 0 for name in ("patients", "admissions", "examples", "heldout_examples"))


def test_a_changed_statement_is_refused(statements, tmp_path):
    value = json.loads(statements[0].read_text())
    value["statement"]["payload"]["patients"] = 900
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(value))
    with pytest.raises(SignatureError):
        run("domain", "compare", forged, statements[1])
    forged.write_text("{}")
    with pytest.raises(UntrustedError, match="no statement"):
        run("domain", "compare", forged, statements[1])
    swapped = json.loads(statements[0].read_text()) | {"identity": json.loads(statements[1].read_text())["identity"]}
    forged.write_text(json.dumps(swapped))
    with pytest.raises(SignatureError):
        run("domain", "compare", forged, statements[1])
