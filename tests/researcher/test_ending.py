"""A finished study stays as it was: its rounds are not steered, and its result is shown, not asked again."""

import queue

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.errors import StudyError
from fedpriv.researcher.ending import result_of
from fedpriv.researcher.events import StudyFinished
from fedpriv.researcher.records import AskedMembers, Exclusion, SumMembers
from fedpriv.widgets.study_actions import study_actions

MICU, SICU = "micu@x.org", "sicu@x.org"
ENDED = StudyFinished(
    study="a" * 64,
    loss_before=3.5,
    loss_after=0.75,
    loss_after_by_domain={MICU: 0.75},
    heldout_tokens={MICU: 9.0},
    adapter_sha256="d" * 64,
    seconds={},
)


@pytest.fixture
def finished(study):
    study.folder.freeze(study.folder.draft())
    study.folder.exclude(Exclusion(email=SICU, reason="away"))
    study.folder.keep_asked(1, AskedMembers(attempt=1, members=(MICU, SICU)))
    study.folder.keep_sum_members(1, SumMembers(attempt=1, members=(MICU, SICU)))
    study.folder.keep_record("finished", ENDED.as_record())
    return study


def files(study):
    return {p: p.read_bytes() for p in study.folder.state.rglob("*") if p.is_file() and p.suffix == ".json"}


@pytest.mark.parametrize(
    "change",
    [
        lambda study: study.skip_round(),
        lambda study: study.pause(),
        lambda study: study.step(),
        lambda study: study.adjust(alpha=1.0),
    ],
)
def test_nothing_of_it_is_changed(finished, change):
    before = files(finished)
    with pytest.raises(StudyError, match=r"The study is finished\. Nothing was changed"):
        change(finished)
    assert files(finished) == before


@pytest.mark.parametrize(
    "action",
    [{"do": "skip"}, {"do": "step"}, {"do": "adjust", "alpha": 1.0}],
)
def test_nor_from_a_screen(finished, action):
    before, answers = files(finished), queue.Queue()
    actions = study_actions(finished, answers.put)
    actions.ask(action)
    answer = answers.get(timeout=30)
    actions.close()
    assert not answer.good
    assert "The study is finished" in answer.text
    assert files(finished) == before


def test_running_or_resuming_gives_its_result_and_asks_nobody(finished, monkeypatch):
    monkeypatch.setattr(type(finished), "_orchestrator", None)  # it would reach for the store
    before = files(finished)
    assert finished.run() == finished.resume() == result_of(finished.folder) == ENDED
    assert files(finished) == before
    for verb in ("run", "resume"):
        done = CliRunner().invoke(app, ["study", verb, "icu", "--home", str(finished.researcher.root)])
        assert done.exit_code == 0, done.output
        said = " ".join(done.output.split())
        assert "icu is finished: nothing is run, and nobody is asked again." in said
        assert "0.7500 after" in said
    assert files(finished) == before


def test_who_is_gone_can_be_excluded_for_the_release_and_taken_in_again(finished):
    done = CliRunner().invoke(app, ["study", "exclude", "icu", SICU, "--home", str(finished.researcher.root)])
    assert done.exit_code == 0, done.output
    assert "fedpriv study release icu" in " ".join(done.output.split())
    assert finished.folder.excluded(SICU) is not None
    finished.readmit(SICU)
    assert finished.folder.excluded(SICU) is None
    assert finished.resume() == ENDED, "its result is what it was"
