"""What happened in a study, line by line, for somebody who is not the one who runs it."""

from __future__ import annotations

import json
import time
from datetime import datetime

import typer
from rich.console import Console
from rich.text import Text

from fedpriv.domain.finding import visible
from fedpriv.files import stale_lock_pid
from fedpriv.researcher import Study
from fedpriv.researcher.event_words import who, words
from fedpriv.researcher.events import Event

_LOOK_SECONDS = 0.5
_MOST_SHOWN = 500


def print_history(console: Console, study: Study, *, follow: bool, as_json: bool) -> None:
    """Print a study's history, and with ``follow`` what is added until the study is finished and nobody runs it."""

    def more() -> bool:
        if not follow or _is_over(study):
            return False
        time.sleep(_LOOK_SECONDS)
        return True

    if as_json:
        for record in study.history.follow_records(more):
            typer.echo(json.dumps(record, sort_keys=True))
        return
    notes: list[str] = []
    shown = 0
    for event in study.history.follow(more, notes.append):
        console.print(_line(event), soft_wrap=True)
        shown += 1
    if not shown:
        console.print("Nothing has happened in this study yet.")
    for note in notes:
        console.print(Text(f"Note: {visible(note, _MOST_SHOWN)}.", style="dim"), soft_wrap=True)


def _line(event: Event) -> Text:
    when = datetime.fromtimestamp(event.time_s).strftime("%Y-%m-%d %H:%M:%S")
    return Text.assemble(
        (when, "dim"), "  ", (visible(who(event) or "study"), "bold"), "  ", visible(words(event), _MOST_SHOWN)
    )


def _is_over(study: Study) -> bool:
    lock = study.folder.lock_path
    running = lock.exists() and stale_lock_pid(lock) is None
    return study.folder.record("finished") is not None and not running
