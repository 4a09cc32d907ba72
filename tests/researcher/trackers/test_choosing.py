import subprocess
import sys

import pytest

from fedpriv.errors import ConfigError
from fedpriv.researcher.trackers import choosing, open_trackers, tracker, tracker_names


@pytest.fixture
def installed(monkeypatch):
    """Say which of the packages are there."""

    def install(*names):
        monkeypatch.setattr(choosing, "_is_installed", lambda name: name in names)

    return install


@pytest.mark.parametrize(
    ("report_to", "names"),
    [
        (None, ()),
        ("none", ()),
        ([], ()),
        (["none"], ()),
        ("wandb", ("wandb",)),
        (["wandb", "tensorboard", "wandb"], ("wandb", "tensorboard")),
        ("all", ("tensorboard", "wandb")),
        (("all",), ("tensorboard", "wandb")),
    ],
)
def test_names_mean_what_they_mean_in_transformers(installed, report_to, names):
    installed("tensorboard", "wandb")
    assert tracker_names(report_to) == names


@pytest.mark.parametrize(
    ("report_to", "sentence"),
    [
        ("mlflow", r"mlflow is not installed\. Nothing was started\. Next: run `pip install 'fedpriv\[mlflow\]'`"),
        ("tensorbord", "no tracker 'tensorbord'.*choose of tensorboard, mlflow, wandb"),
        (["all", "tensorboard"], "'all' stands beside other trackers"),
        (["tensorboard", "none"], "'none' stands beside other trackers"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(installed, report_to, sentence):
    installed("tensorboard")
    with pytest.raises(ConfigError, match=sentence):
        tracker_names(report_to)


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "comet_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(choosing._KINDS, "comet", choosing._Kind("comet_folder", lambda: None))
    assert not choosing._is_installed("comet")


def test_a_study_is_tracked_under_its_name_and_id(study, installed):
    installed("tensorboard")
    with pytest.raises(ConfigError, match="not submitted yet"):
        tracker("tensorboard", study)
    study.folder.freeze(study.folder.draft())
    (made,) = open_trackers("all", study)
    assert made.name == "tensorboard"
    assert made._run.id == f"icu-{study.folder.submitted().study[:12]}"
    assert made._run.folder == study.researcher.root / "trackers"
    assert made._run.labels == {"micu@x.org": "micu", "sicu@x.org": "sicu"}
    with pytest.raises(ConfigError, match="no single tracker"):
        tracker("all", study)


def test_nothing_is_imported_before_it_is_asked_for():
    code = (
        "import sys, fedpriv.researcher.trackers as t; t.tracker_names('all');"
        "print({'tensorboard', 'mlflow', 'wandb', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
