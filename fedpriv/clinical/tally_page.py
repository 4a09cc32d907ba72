"""The page that shows a data owner how well the hospital's tables fit the common record, column by column."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from fedpriv import __version__
from fedpriv.clinical.tally import ColumnTally, TableTally, Tally, finding_in_words
from fedpriv.files import write_atomic

_TEMPLATE = Path(__file__).with_name("tally_page.html")


def write_tally_page(tally: Tally, path: Path, *, refused_share: float) -> Path:
    """Write one HTML page; it needs no network to be read, and holds no value of the data.

    Parameters
    ----------
    tally : Tally
        What harmonising found.
    path : Path
        The file; it is for its owner only, since it holds counts of the hospital's data.
    refused_share : float
        Largest share of a table's rows that may be refused.

    Returns
    -------
    Path
        ``path``.
    """
    too_many = tally.unfit(refused_share)
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        source=escape(tally.source),
        verdict=escape(verdict(tally, refused_share)),
        verdict_class="fails" if too_many else "fits",
        overview="\n".join(map(_overview, tally.tables)),
        tables="\n".join(map(_table, tally.tables)),
        version=escape(__version__),
    )
    write_atomic(path, page.encode())
    return path


def verdict(tally: Tally, refused_share: float) -> str:
    """Return in a sentence or two whether the tables can be used."""
    missing = f" Not there: {', '.join(tally.missing)}." if tally.missing else ""
    if bad := tally.unfit(refused_share):
        named = ", ".join(f"{table.name} ({table.count('refused'):,} of {table.read:,})" for table in bad)
        return f"The tables cannot be used yet: too many rows are refused in {named}.{missing}"
    refused = f"{tally.refused:,} row{'' if tally.refused == 1 else 's'} refused" if tally.refused else "no row refused"
    return f"The tables fit: {len(tally.tables)} tables, {refused}.{missing}"


def _overview(table: TableTally) -> str:
    counts = [table.read, table.kept, table.count("unused"), table.count("refused")]
    cells = "".join(f'<td class="number">{count:,}</td>' for count in counts[:3])
    mark = ' class="number refused"' if counts[3] else ' class="number"'
    return f"<tr><td>{escape(table.name)}</td><td>{escape(table.label)}</td>{cells}<td{mark}>{counts[3]:,}</td></tr>"


def _table(table: TableTally) -> str:
    head = (
        '<tr><th>column</th><th>theirs</th><th>conversion</th><th>filled</th><th class="number">converted</th>'
        '<th class="number">empty</th></tr>'
    )
    rows = "\n".join(_column(column, table.kept) for column in table.columns)
    found = "\n".join(
        f"<li{' class=refused' if finding.kind == 'refused' else ''}>{escape(finding_in_words(finding, table))}</li>"
        for finding in table.findings
    )
    notes = f"<ul>{found}</ul>" if found else "<p>Every row is kept as it is.</p>"
    return (
        f"<h2>{escape(table.name)} <small>from {escape(table.label)}</small></h2>\n{notes}\n"
        f'<div class="wide"><table>{head}\n{rows}</table></div>'
    )


def _column(column: ColumnTally, kept: int) -> str:
    share = column.filled / kept if kept else 0.0
    bar = f'<span class="bar"><span style="width: {100 * share:.1f}%"></span></span>{100 * share:.1f} %'
    return (
        f"<tr><td>{escape(column.name)}</td><td>{escape(column.source or '(not there)')}</td>"
        f"<td>{escape(column.rule or 'as it is')}</td><td>{bar}</td>"
        f'<td class="number">{column.converted:,}</td><td class="number">{column.empty:,}</td></tr>'
    )
