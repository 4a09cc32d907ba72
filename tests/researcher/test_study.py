import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.errors import ConfigError, ExistsError, InputError, LockError
from fedpriv.researcher import Researcher, Study


def test_a_study_opens_again(researcher, study):
    again = Study.open(Researcher.open(researcher.root), "icu")
    assert again.plan == study.plan
    assert again.status()["submitted"] is False


def test_a_second_study_of_that_name_changes_nothing(researcher, study):
    before = (study.folder.root / "plan.yaml").read_bytes()
    with pytest.raises(ExistsError, match="There is a study icu already"):
        Study.create(researcher, "icu", study.plan, recipe="x = 1\n")
    assert (study.folder.root / "plan.yaml").read_bytes() == before


def test_a_missing_study_is_named_beside_those_that_are_there(researcher, study):
    with pytest.raises(ConfigError, match=r"There is no study other\. Next: choose one of icu\."):
        Study.open(researcher, "other")


@pytest.mark.parametrize("name", ["../../escape", "bad/name", "..", ".", "", "/icu", "Icu", "-icu", "a" * 65, "icu\n"])
def test_a_name_that_is_no_name_makes_and_opens_nothing(researcher, study, name):
    before = set(researcher.root.parent.rglob("*"))
    for act in (
        lambda: Study.create(researcher, name, study.plan, recipe="x = 1\n"),
        lambda: Study.open(researcher, name),
    ):
        with pytest.raises(InputError, match="is no name for a study"):
            act()
    assert set(researcher.root.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["icu-2", "icu_notes.v2", "0", "a" * 64])
def test_usual_names_are_names(researcher, study, name):
    Study.create(researcher, name, study.plan, recipe="x = 1\n")
    assert Study.open(researcher, name).plan == study.plan


def test_a_study_that_has_another_name_already_is_opened(researcher, study):
    plan = study.plan
    study.folder.root.rename(researcher.studies / "ICU notes")
    assert Study.open(researcher, "ICU notes").plan == plan


def test_nothing_runs_before_it_is_submitted(study):
    with pytest.raises(ConfigError, match="not submitted yet"):
        study.run()


def test_a_submitted_study_is_not_submitted_again(study):
    study.folder.freeze(study.folder.draft())
    with pytest.raises(ExistsError, match="was submitted already"):
        study.submit()


def test_an_edit_after_submission_is_found(study):
    study.folder.freeze(study.folder.draft())
    assert study.folder.submitted().study == study.folder.draft().study
    recipe = study.folder.root / "train.py"
    recipe.write_text(recipe.read_text() + "import os\n")
    with pytest.raises(ConfigError, match="changed after the request was submitted"):
        study.folder.submitted()


def test_the_state_of_a_submitted_study_is_that_of_what_was_submitted(researcher, study, monkeypatch):
    def shown():
        monkeypatch.setenv("COLUMNS", "200")
        done = CliRunner().invoke(app, ["study", "status", "icu", "--home", str(researcher.root)])
        assert done.exit_code == 0, done.output
        return done.output

    plan = study.folder.root / "plan.yaml"
    study.folder.freeze(study.folder.draft())
    assert study.status()["edited"] is False
    assert "was changed since" not in shown()
    plan.write_text(plan.read_text().replace("rounds: 3", "rounds: 7"))
    assert (study.status()["rounds"], study.status()["edited"]) == (3, True)
    assert "plan.yaml or a code file was changed since the study was submitted" in shown()
    plan.write_text(plan.read_text().replace("rounds: 7", "rounds: many"))
    assert (study.status()["rounds"], study.status()["edited"]) == (3, True)


def test_the_same_request_under_another_name_is_not_submitted(researcher, study):
    study.folder.freeze(study.folder.draft())
    twin = Study.create(researcher, "twin", study.plan, recipe=(study.folder.root / "train.py").read_text())
    with pytest.raises(ExistsError, match=f"The study {study.folder.root.name} has the same plan and code"):
        twin.submit()
    assert not twin.folder.is_submitted


def test_a_killed_run_is_only_resumed_on_purpose(study):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom fedpriv.files import folder_lock\n"
        "with folder_lock(Path(sys.argv[1]), holder='The study', todo=''):\n    os._exit(9)\n"
    )
    lock = study.folder.lock_path
    assert subprocess.run([sys.executable, "-c", code, str(lock)], check=False).returncode == 9
    assert study.status()["interrupted"]
    before = lock.read_bytes()
    with pytest.raises(LockError, match="without putting its lock away"):
        study.run()
    assert lock.read_bytes() == before
