"""`fedpriv study events`, and what the live view says of events."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.cli.view import StudyView
from fedpriv.researcher.events import Decided, ResultReceived, StudyFinished, TicketSent, TrackerStopped
from tests.researcher.conftest import members, researcher, study  # noqa: F401 - fixtures

STUDY = "0" * 64
HOSTILE = "[red]x[/red] \x1b[2J\u202e\nnext"


def decided(reason="fine"):
    return Decided(study=STUDY, time_s=1.0, domain="micu@x.org", decision="approved", reason=reason, checked=())


def finished():
    return StudyFinished(
        study=STUDY,
        loss_before=3.0,
        loss_after=1.0,
        loss_after_by_domain={},
        heldout_tokens={},
        adapter_sha256=STUDY,
        seconds={},
    )


def shown(study, *arguments):  # noqa: F811
    command = ["study", "events", "icu", "--home", str(study.researcher.root), *arguments]
    done = CliRunner().invoke(app, command)
    assert done.exception is None, done.output
    return done.output


def test_who_what_and_when(study):  # noqa: F811
    assert "Nothing has happened in this study yet." in shown(study)
    study.history(decided())
    study.history(finished())
    first, second = shown(study).splitlines()
    assert first[:4] in ("1970", "1969")
    assert first.endswith("  micu@x.org  approved: fine")
    assert second.endswith("  study  held-out loss 3.0000 before, 1.0000 after")


def test_the_json_is_the_history_also_of_a_newer_version(study):  # noqa: F811
    study.history(decided())
    with study.folder.history_path.open("a") as stream:
        stream.write('{"event": "Teleported", "time_s": 2.0}\n')
    lines = shown(study, "--json").splitlines()
    assert [json.loads(line) for line in lines] == study.history.records()
    assert "Note: Records of Teleported in history.jsonl are skipped" in shown(study)


def test_text_of_another_party_does_nothing_to_the_terminal(study):  # noqa: F811
    study.history(decided(HOSTILE))
    (line,) = shown(study).splitlines()
    assert "[red]x[/red] <U+001B>[2J<U+202E><U+000A>next" in line


def test_following_ends_when_the_study_is_over(study, tmp_path):  # noqa: F811
    study.history(decided())
    command = [sys.executable, "-m", "fedpriv", "study", "events", "icu", "--follow", "--json", "--home"]
    process = subprocess.Popen([*command, study.researcher.root], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert json.loads(process.stdout.readline())["event"] == "Decided"
        study.history(finished())
        assert json.loads(process.stdout.readline())["event"] == "StudyFinished"  # while it is followed
        study.folder.keep_record("finished", {"event": "StudyFinished"})
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("terminal", [False, True])
def test_the_view_says_a_line_where_there_is_no_terminal_and_of_trackers_always(terminal):
    out = io.StringIO()
    with StudyView(Console(file=out, width=200, force_terminal=terminal, color_system=None)) as view:
        for event in (
            TicketSent(study=STUDY, domain="micu@x.org", kind="train", round=1),
            ResultReceived(study=STUDY, domain="micu@x.org", kind="confirm", round=1, metrics={}, seconds={}),
            decided(HOSTILE),
            TrackerStopped(study=STUDY, tracker="wandb", reason="no route"),
        ):
            view(event)
    text = out.getvalue()
    assert "• wandb gets no more: no route; the study goes on without it" in text
    assert ("• micu@x.org: approved: [red]x[/red] <U+001B>[2J" in text) is not terminal
    assert "• micu@x.org: asked" not in text
    assert "• micu@x.org: confirm" not in text
