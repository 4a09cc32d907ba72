"""Steering a study from any process: a small file that says what may begin."""

import pytest

from fedpriv.errors import InputError, StudyError
from fedpriv.researcher.records import AskedMembers, Exclusion
from fedpriv.researcher.steering import Steering, SteeringFile


def test_nothing_said_means_go_on(tmp_path):
    assert SteeringFile(tmp_path).read() == Steering()
    assert Steering().lets_begin(1)


def test_a_pause_lets_rounds_up_to_a_number_begin():
    steering = Steering(paused_after=2)
    assert [steering.lets_begin(number) for number in (1, 2, 3)] == [True, True, False]


def test_changes_add_up_and_wrong_ones_change_nothing(tmp_path):
    file = SteeringFile(tmp_path)
    file.change(alpha=1.5)
    assert file.change(paused_after=3) == Steering(alpha=1.5, paused_after=3)
    for wrong in ({"alpha": 9.0}, {"alpha": "much"}, {"speed": 1}, {"patience_s": 0}):
        with pytest.raises(StudyError, match="steering"):
            file.change(**wrong)
    assert file.read() == Steering(alpha=1.5, paused_after=3)


@pytest.fixture
def submitted(study):
    study.folder.freeze(study.folder.draft())
    return study


def test_pausing_counts_from_the_round_that_was_begun(submitted):
    assert submitted.pause() == 0
    submitted.folder.keep_asked(2, AskedMembers(attempt=1, members=("micu@x.org",)))
    assert submitted.pause() == 2
    assert submitted.step() == 3
    assert submitted.step(5) == 3  # the plan has no more
    assert submitted.status()["paused_after"] == 3
    submitted.stop()
    assert submitted.steering.read().stopped
    submitted.unpause()
    assert submitted.steering.read() == Steering()


def test_readmitting_takes_an_exclusion_back(submitted):
    submitted.folder.exclude(Exclusion(email="micu@x.org", reason="away"))
    submitted.readmit("micu@x.org")
    submitted.readmit("micu@x.org")
    assert submitted.status()["excluded"] == {}
    with pytest.raises(InputError, match="is not in the cohort"):
        submitted.readmit("mallory@x.org")


def test_a_function_of_weights_goes_with_a_plan_that_says_so(submitted):
    with pytest.raises(StudyError, match="custom in the plan, and only with that"):
        submitted.run(weights=lambda facts: facts)


@pytest.mark.parametrize(("changes", "words"), [({"alpha": 1.0}, "weights fedavg"), ({"patience_s": 60}, "a quorum")])
def test_what_has_no_meaning_in_the_plan_is_not_changed(submitted, changes, words):
    with pytest.raises(StudyError, match=f"has no meaning with.*{words}.*Nothing was changed"):
        submitted.adjust(**changes)
    assert submitted.steering.read() == Steering()
