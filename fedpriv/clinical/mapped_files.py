"""The files of mapped tables: each gives rows as MIMIC-III has them, after every field was checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.clinical.conversion import Conversion, convert
from fedpriv.clinical.mapping import SchemaMapping, TableMapping
from fedpriv.clinical.schema import SPECS, TableSpec
from fedpriv.clinical.table_files import TableFile, list_folder, read_header
from fedpriv.errors import DataError

_SCAN = """read_csv($path, columns = $fields, header = true, auto_detect = false,
    delim = $delimiter, quote = '"', escape = '"', nullstr = '')"""


@dataclass(frozen=True)
class MappedFile(TableFile):
    """A file of another schema as a table of MIMIC-III.

    Attributes
    ----------
    name : str
        The table of MIMIC-III.
    header : tuple of str
        The header as found; ``columns`` are those of MIMIC-III.
    delimiter : str
        What stands between fields.
    conversions : tuple of Conversion
        One for each column.
    """

    name: str
    header: tuple[str, ...]
    delimiter: str
    conversions: tuple[Conversion, ...]

    @property
    def relation(self) -> str:
        columns = ", ".join(f"{conversion.sql} AS {conversion.column.name}" for conversion in self.conversions)
        return f"(SELECT {columns} FROM {_SCAN})"  # noqa: S608 (only names from schema.py and numbered fields)

    @property
    def parameters(self) -> dict[str, Any]:
        given = {name: value for conversion in self.conversions for name, value in conversion.parameters.items()}
        fields = {f"f{place}": "VARCHAR" for place in range(len(self.header))}
        return {"path": str(self.path), "fields": fields, "delimiter": self.delimiter, **given}

    @property
    def check_sql(self) -> str:
        """A query that gives one row: for each check, how many rows fail it, and the number of the first."""
        made = ", ".join(f"{conversion.sql} AS {conversion.column.name}" for conversion in self.conversions)
        checks = [check for conversion in self.conversions for check in conversion.checks]
        flags = "".join(f", {check.bad} AS bad{place}" for place, check in enumerate(checks))
        told = ", ".join(
            f"count(*) FILTER (WHERE bad{place}), min(n) FILTER (WHERE bad{place})" for place in range(len(checks))
        )
        numbered = f"(SELECT row_number() OVER () AS n, * FROM {_SCAN})"  # noqa: S608
        return f"SELECT {told} FROM (SELECT n, {made}{flags} FROM {numbered})"  # noqa: S608

    def refuse_bad(self, counted: Sequence[Any]) -> None:
        """Raise for the first check that a row failed.

        Parameters
        ----------
        counted : sequence
            The row of :attr:`check_sql`.

        Raises
        ------
        DataError
            Naming file, column and row, never the value.
        """
        checks = [(conversion, check) for conversion in self.conversions for check in conversion.checks]
        for (conversion, check), bad, first in zip(checks, counted[::2], counted[1::2], strict=True):
            if bad:
                target = f"{self.name}.{conversion.column.name.upper()}"
                source = f"column {conversion.source}" if conversion.source else "the constant"
                raise DataError(
                    f"{self.path.name}: {source} for {target} {check.problem} in row {first}"
                    f" (first of {bad}; the header is not counted)",
                    kept="Nothing was written and the file is unchanged",
                    todo=f"compare that row with {self.name} in mapping.yaml, and correct one of the two",
                )


def map_files(folder: Path, mapping: SchemaMapping) -> dict[str, TableFile]:
    """Find the files of a mapping in ``folder`` and check their headers; tables it does not name are not read.

    Raises
    ------
    DataError
        If the folder, a file or a column that the mapping names is missing, or a column stands twice.
    """
    folder = folder.absolute()
    list_folder(folder)
    return {name: _map_file(folder, SPECS[name], table) for name, table in mapping.tables.items()}


def _map_file(folder: Path, spec: TableSpec, table: TableMapping) -> MappedFile:
    path = folder / table.file
    if not path.is_file():
        raise DataError(
            f"{folder} has no file {table.file}, which mapping.yaml names for {spec.name}",
            kept="Nothing was written",
            todo="put it there, or correct the name" + (", or leave the table out" if spec.optional else ""),
        )
    header = read_header(path, delimiter=table.delimiter)
    found = [name.lower() for name in header]
    conversions: list[Conversion] = []
    for column in spec.needed:
        source = table.columns.get(column.name)
        place = -1
        if isinstance(source, str):
            if found.count(source.strip().lower()) != 1:
                raise _no_column(path, spec, f"{source} (for {column.name.upper()})", header, source)
            place = found.index(source.strip().lower())
        conversions.append(convert(column, table, f"f{place}"))
    return MappedFile(
        path=path,
        columns=tuple(column.name.upper() for column in spec.needed),
        name=spec.name,
        header=header,
        delimiter=table.delimiter,
        conversions=tuple(conversions),
    )


def _no_column(path: Path, spec: TableSpec, wanted: str, header: Sequence[str], source: str) -> DataError:
    twice = source.strip().lower() in [name.lower() for name in header]
    found = ", ".join(header[:60])[:2000]
    return DataError(
        f"{path.name} has {'twice the' if twice else 'no'} column {wanted}, which mapping.yaml names for {spec.name};"
        f" found: {found}",
        kept="Nothing was written",
        todo="correct the name or the delimiter in mapping.yaml, or the header of the file",
    )
