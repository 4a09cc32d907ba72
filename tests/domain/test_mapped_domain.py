"""A domain whose tables have another schema: made, served, and refused before it is made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpriv.cli.domain import app
from fedpriv.cli.main import app as main_app
from fedpriv.clinical import prepare
from fedpriv.domain import DataChoice, Domain, DomainFolder
from fedpriv.domain.starting import prepare_data, read_record
from fedpriv.errors import DataError

MAPPING = Path(__file__).parents[2] / "domains" / "ccu" / "mapping.yaml"
RUNNER = CliRunner()


def run(app, *arguments):
    result = RUNNER.invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def synthesize(folder, *options):
    return run(main_app, "data", "synthesize", folder, "--patients", 40, *options)


def init(folder, tables, mapping):
    options = ("--email", "ccu@north.example", "--store", folder.parent / "store", "--data", tables)
    return run(app, "init", folder, *options, "--mapping", mapping)


@pytest.fixture
def tables(tmp_path) -> Path:
    said = synthesize(tmp_path / "tables", "--schema", "ccu")
    assert "--mapping domains/ccu/mapping.yaml" in " ".join(said.split())
    return tmp_path / "tables"


@pytest.mark.parametrize("beside", [True, False])
def test_the_domain_prepares_what_the_same_patients_give_in_mimic(tmp_path, tables, beside):
    folder, mapping = tmp_path / "ccu", MAPPING
    if beside:
        folder.mkdir()
        mapping = Path(shutil.copy(MAPPING, folder / "ours.yaml"))
    init(folder, tables, mapping)
    domain = Domain.open(folder)
    assert domain.config.data.mapping == ("ours.yaml" if beside else str(MAPPING))

    prepare_data(domain, read_record(domain))

    synthesize(tmp_path / "mimic")
    expected = prepare(tmp_path / "mimic", tmp_path / "store")
    entry = next(entry for entry in domain.ledger.entries() if entry.kind == "dataset.prepared")
    prepared = folder / "state" / "data" / str(entry.facts["digest"])
    assert (prepared / "train.jsonl").read_bytes() == expected.train.read_bytes()


def test_no_domain_is_made_on_tables_that_the_mapping_does_not_fit(tmp_path, tables):
    mapping = tmp_path / "mapping.yaml"
    for old, new in (
        ("file: letters.csv.gz", "file: notes.csv.gz"),
        ("dob: Born", "dob: Birthday"),
        ('"%d.', '"%m.%d.'),
    ):
        mapping.write_text(MAPPING.read_text().replace(old, new))
        with pytest.raises(DataError):
            init(tmp_path / "ccu", tables, mapping)
        assert not (tmp_path / "ccu").exists()
    with pytest.raises(DataError, match=r"PATIENTS, ADMISSIONS"):  # without the mapping
        run(app, "init", tmp_path / "ccu", "--email", "a@x.org", "--store", tmp_path, "--data", tables)


def test_tables_are_inspected_and_divided_through_a_mapping(tmp_path, tables):
    shown = run(main_app, "data", "inspect", tables, "--mapping", MAPPING)
    assert "persons.csv.gz" in shown
    assert "Missing" not in shown
    assert "Discharge summaries: for" in shown
    run(main_app, "data", "shard", tables, "--mapping", MAPPING, "--out", tmp_path / "out", "--domains", 2)
    assert (tmp_path / "out" / "micu" / "PATIENTS.csv.gz").is_file()
    run(main_app, "data", "inspect", tmp_path / "out" / "micu")


def test_the_path_of_a_mapping_counts_from_the_domains_folder(tmp_path):
    folder = DomainFolder(tmp_path)
    assert folder.mapping_path(DataChoice(source="x")) is None
    assert folder.mapping_path(DataChoice(source="x", mapping="m.yaml")) == tmp_path / "m.yaml"
    assert folder.mapping_path(DataChoice(source="x", mapping="/etc/m.yaml")) == Path("/etc/m.yaml")
    assert folder.mapping_path(DataChoice(source="x", mapping="~/m.yaml")) == Path("~/m.yaml").expanduser()
