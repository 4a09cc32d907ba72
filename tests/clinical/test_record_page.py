"""What docs/record.md says is what the code does."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fedpriv.clinical.lab_units import ANALYTES, SPELLING_SQL, spelled
from fedpriv.clinical.record import connect
from fedpriv.clinical.schema import SPECS

PAGE = (Path(__file__).parents[2] / "docs" / "record.md").read_text(encoding="utf-8")


def test_every_table_and_every_laboratory_value_is_listed():
    assert all(f"`{name}`" in PAGE for name in SPECS)
    for analyte in ANALYTES:
        others = ", ".join(analyte.others)
        told = f"| {analyte.name} | {analyte.item} | {analyte.unit} | {others} |".replace("|  |", "| |")
        assert told in PAGE.replace(" (of urea)", ""), told


def test_no_unit_is_known_twice_and_none_converts_to_nothing():
    for analyte in ANALYTES:
        assert spelled(analyte.unit) not in analyte.others or not analyte.unit
        assert all(spelled(unit) == unit and factor > 0 for unit, factor in analyte.others.items())
        assert analyte.factor(analyte.unit) == 1.0
        assert analyte.factor("no such unit") is None


@given(st.text(st.sampled_from(" \tmMgGµμuUcCl/L^1%\n"), max_size=12))
def test_units_are_spelled_alike_in_python_and_in_sql(unit):
    with connect(Path("/nonexistent")) as connection:
        connection.execute(f"CREATE MACRO spell(unit) AS {SPELLING_SQL}")
        assert connection.execute("SELECT spell(?)", [unit]).fetchall() == [(spelled(unit),)]
