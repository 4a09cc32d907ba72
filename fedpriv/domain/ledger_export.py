"""The ledger for people who do not work at a terminal: one page, or one table."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from fedpriv.domain.ledger import Entry

_WORDS = {
    "adapter.released": "The trained adapter was handed to the researcher",
    "aggregate.opened": "A sum of updates was opened, and the adapter moved by it",
    "aggregate.refused": "A sum of updates was refused: it was not what its members sealed",
    "code.tried": "Training code tried what training never needs",
    "dataset.harmonized": "The hospital's tables became the common record",
    "dataset.prepared": "The data were prepared for training",
    "domain.created": "The domain was created",
    "domain.restored": "The domain was restored from a backup",
    "epsilon.charged": "A round's epsilon was charged to the data, before its training",
    "job.refused": "A message that is no valid request or ticket was refused",
    "key.made": "A study key was made",
    "key.received": "A study key was received",
    "key.renewed": "What messages to this domain are encrypted to was renewed",
    "key.retired": "A study key was retired: it is not used again",
    "leakage.audited": "It was measured what others could read from updates of these data",
    "message.refused": "A message of a peer was refused",
    "release.agreed": "This domain's consent to the release was given to the researcher",
    "release.approved": "The data owner agreed to hand the adapter over",
    "release.asked": "The researcher asked for the trained adapter",
    "release.withheld": "The data owner withheld the adapter",
    "request.approved": "A code request was approved",
    "request.pending": "A code request waits for the data owner",
    "request.received": "A code request arrived",
    "request.rejected": "A code request was rejected",
    "request.revoked": "The approval of a code request was withdrawn",
    "request.tried": "A code request was tried on mock data",
    "researcher.pinned": "A researcher's key was pinned",
    "round.resumed": "A round went on after an interruption",
    "round.skipped": "A round was left without a sum: the adapter stayed as it was",
    "round.started": "Training of a round began",
    "round.stopped": "Training of a round was stopped or failed",
    "round.trained": "Training of a round ended",
    "ticket.refused": "A ticket was refused",
    "update.confirmed": "It was agreed which updates are added, and the unlock given",
    "update.sealed": "A protected update was made: what leaves the domain",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1a1a1a; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #ddd; }}
th {{ position: sticky; top: 0; background: #fff; border-bottom: 2px solid #767676; }}
td.number, td.time {{ white-space: nowrap; font-variant-numeric: tabular-nums; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 .6rem; margin: 0; }}
dt {{ color: #595959; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
.state {{ border-left: .4rem solid #009e73; padding: .4rem .8rem; background: #f3faf7; }}
@media print {{ th {{ position: static; }} }}
</style></head><body>
<h1>{title}</h1>
<p class="state">{state}</p>
<p>Times are the domain's own clock, in UTC. The order is that of the numbers. A digest names what left and does not
show it.</p>
<table><thead><tr><th>No.</th><th>Time</th><th>What happened</th><th>Details</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def words_of(kind: str) -> str:
    """Return what a kind of entry means, in words."""
    return _WORDS.get(kind, kind)


def facts_in_words(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield each fact of an entry as a name and a value to be read; what they hold is not made harmless."""
    for key, value in entry.facts.items():
        yield key.replace("_", " "), _plain(value)


def to_csv(entries: Sequence[Entry]) -> str:
    """Return entries as CSV: number, time, kind, meaning, facts as JSON, digest.

    No cell begins with a character that a spreadsheet takes for a formula.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["number", "time_utc", "kind", "meaning", "facts", "digest"])
    for entry in entries:
        facts = json.dumps(entry.facts, sort_keys=True, ensure_ascii=False)
        cells = [entry.kind, words_of(entry.kind), facts, entry.digest]
        table.writerow([entry.number, _clock(entry), *map(_harmless, cells)])
    return out.getvalue()


def to_html(entries: Sequence[Entry], *, domain: str, verified_s: float) -> str:
    """Return entries that were verified as one page that needs no network.

    Parameters
    ----------
    entries : sequence of Entry
        The whole ledger.
    domain : str
        Whose it is.
    verified_s : float
        When it was verified: seconds since the epoch.
    """
    newest = f" The newest has the digest {escape(entries[-1].digest)}: keep it." if entries else ""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(verified_s))
    state = f"Whole: {len(entries)} entries, each chained to the one before and signed; verified at {when} UTC.{newest}"
    return _PAGE.format(title=f"Ledger of {escape(domain)}", state=state, rows="\n".join(map(_row, entries)))


def _row(entry: Entry) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts_in_words(entry))
    return (
        f'<tr><td class="number">{entry.number}</td><td class="time">{_clock(entry)}</td>'
        f'<td>{escape(words_of(entry.kind))}</td><td title="{escape(entry.digest)}"><dl>{facts}</dl></td></tr>'
    )


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _clock(entry: Entry) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time_s))


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
