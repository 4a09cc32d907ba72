"""A study starts only on shards that agree in what its task reads."""

import pytest

from fedpriv.errors import StudyError


def say(federation, place, **changed):
    work = list(federation.domains.values())[place].work
    work.shard = work.shard.model_copy(update=changed)
    return work.context.member


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"schema_sha256": "c" * 64}, "harmonised by other rules"),
        ({"task_sha256": "c" * 64}, "told for another task than the plan's"),
        ({"tables": {"NOTEEVENTS": ("text",)}}, "without NOTEEVENTS, which"),
    ],
)
def test_no_round_is_run_on_shards_that_do_not_agree(federation, changed, words):
    study = federation()
    odd = say(study, 1, **changed)
    with pytest.raises(StudyError, match=words) as caught:
        study.run()
    assert odd in str(caught.value)
    assert not list((study.study.folder.state / "rounds").glob("*"))


def test_the_statements_are_kept_signed(federation):
    study = federation()
    study.run()
    kept = study.study.folder.shards()
    assert sorted(kept) == sorted(study.domains)
    assert all(statement.member == email for email, statement in kept.items())


def test_the_study_s_status_tells_about_how_much_each_has(federation):
    study = federation()
    study.run()
    told = study.study.status()["shards"]
    assert sorted(told) == sorted(study.domains)
    assert all(words.startswith("about ") for words in told.values())
