"""``python -m fedpriv.experiments.data_preparation TABLES STORE``: one preparation, its stages as JSON lines."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fedpriv.clinical.harmonize import harmonize
from fedpriv.clinical.store import Telling, prepare_examples
from fedpriv.experiments.data_bench import NOTES
from fedpriv.study.task import TaskChoice


def say(event: dict[str, object]) -> None:
    """Write one line, whole: another thread may be telling where duckdb is."""
    os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")


def main() -> None:
    """Prepare as a domain does, notes of three kinds."""
    tables, store = sys.argv[1], Path(sys.argv[2])
    told = ("", -1.0)

    def tell(stage: str, done: float) -> None:
        nonlocal told
        if stage != told[0] or done - told[1] >= 0.02:
            told = (stage, done)
            say({"stage": stage, "done": done})

    record = harmonize(tables, store, on_progress=tell)
    prepared = prepare_examples(record, store, Telling(task=TaskChoice(notes=NOTES)), on_progress=tell)
    with record.tables() as read:
        notes_bytes = read.rows("SELECT coalesce(sum(strlen(text)), 0) FROM noteevents")[0][0]
    result = {
        "digest": prepared.digest,
        "admissions": next(table.kept for table in record.tally.tables if table.name == "ADMISSIONS"),
        "notes_bytes": notes_bytes,
        "refused": record.tally.refused,
    }
    say(result)


if __name__ == "__main__":
    main()
