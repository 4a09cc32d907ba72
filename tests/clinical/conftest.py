"""Small tables for the tests of ``fedpriv.clinical``, and the real demo where it is there."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_mimic import Rows, as_csv, tiny_tables

from fedpriv.clinical import write_synthetic


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> Path:
    """The default synthetic tables; tests only read them."""
    folder = tmp_path_factory.mktemp("synthetic") / "tables"
    write_synthetic(folder)
    return folder


@pytest.fixture(scope="session")
def mimic_demo() -> Path:
    """The MIMIC-III demo, from FEDPRIV_TEST_DATA or ``shared/data`` beside the repository."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "mimic-iii-demo"
    folder = Path(os.environ.get("FEDPRIV_TEST_DATA", beside))
    if not (folder / "PATIENTS.csv.gz").is_file():
        pytest.skip(f"the MIMIC-III demo is not at {folder}; set FEDPRIV_TEST_DATA to its folder")
    return folder


@pytest.fixture
def make_tables(tmp_path) -> Callable[..., Path]:
    """Return a function that writes a tiny set of tables, changed as asked, and returns their folder."""

    def make(name: str = "tables", *, upper: bool = True, plain: bool = False, **changed: Rows | None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for table, rows in {**tiny_tables(), **changed}.items():
            if rows is None:
                continue
            header = [column.upper() if upper else column.lower() for column in rows[0]]
            file_name = table if upper else table.lower()
            data = as_csv([header, *rows[1:]])
            if plain:
                (folder / f"{file_name}.csv").write_bytes(data)
            else:
                (folder / f"{file_name}.csv.gz").write_bytes(gzip.compress(data))
        return folder

    return make
