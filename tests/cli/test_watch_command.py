import subprocess
import sys
import threading

from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.errors import ConfigError, StudyError
from fedpriv.widgets.study_process import LOG, last_error
from tests.researcher.conftest import members, researcher, study
from tests.widgets.test_study_state import STORY

__all__ = ["members", "researcher", "study"]


def run(study, *arguments):
    return CliRunner().invoke(app, ["study", *arguments, "icu", "--home", str(study.researcher.root)])


def test_a_finished_study_is_shown_whole(study):
    for event in STORY:
        study.history(event)
    done = run(study, "watch")
    assert done.exit_code == 0
    assert "3.0000" in done.output
    assert "Held-out loss 3.0000 before, 2.0000 after." in " ".join(done.output.split())


def test_a_study_that_nobody_runs_says_what_ended_it(study):
    study.folder.state.mkdir(exist_ok=True)
    (study.folder.state / LOG).write_text("• round 1 begins\nError: micu@x.org rejected the request. Next: ask.\n")
    shown = " ".join(run(study, "watch").output.split())
    assert "No process runs icu; the last one ended with: micu@x.org rejected the request. Next: ask." in shown
    assert shown.endswith("Next: ask. To go on: `fedpriv study run icu`.")


def test_it_ends_when_the_study_does(study, monkeypatch):
    """The study runs in another process: one that holds its lock and tells the story."""
    story = (
        "import sys, time\n"
        "from fedpriv.files import folder_lock\n"
        "from fedpriv.researcher import Researcher, Study\n"
        "from pathlib import Path\n"
        "from tests.widgets.test_study_state import STORY\n"
        "study = Study.open(Researcher.open(Path(sys.argv[1])), 'icu')\n"
        "with folder_lock(study.folder.lock_path, holder='The study', todo='wait'):\n"
        "    print('running', flush=True)\n"
        "    for event in STORY:\n"
        "        study.history(event)\n"
        "        time.sleep(0.2)\n"
    )
    study.folder.state.mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", story, str(study.researcher.root)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "running\n"
        monkeypatch.setattr(type(study.folder), "submitted", lambda _: None)
        assert "icu runs already" in run(study, "run", "--detach").output
        assert not (study.folder.state / LOG).exists()
        outputs = []
        watching = threading.Thread(target=lambda: outputs.append(run(study, "watch").output))
        watching.start()
        watching.join(timeout=60)
        assert not watching.is_alive()
    assert "2.0000 after" in " ".join(outputs[0].split())


def test_a_background_run_needs_a_submitted_study_and_is_started_otherwise(study, monkeypatch):
    assert isinstance(run(study, "run", "--detach").exception, (StudyError, ConfigError))
    assert not (study.folder.state / LOG).exists()
    monkeypatch.setattr(type(study.folder), "submitted", lambda _: None)
    assert "runs in the background" in run(study, "run", "--detach").output
    for _ in range(100):
        if last_error(study):
            break
        threading.Event().wait(0.3)
    assert "submit" in last_error(study), "the process of its own says that it was not submitted"
