"""Many domains in one simulated study; 256 take a minute and more (docs/benchmarks.md), so that here it is 96."""

from collections import Counter

import pytest

from fedpriv.experiments.simulation import Trace
from fedpriv.protection import IdentityKeys
from fedpriv.researcher.events import RoundFinished
from fedpriv.researcher.study_folder import StudyFolder


def test_96_domains_of_unequal_speed_open_one_sum(federation):
    traces = [Trace(examples=8 + number, step_s=1 + number % 7) for number in range(96)]
    study = federation(traces, parameters=256, training={"rounds": 1, "steps": 3, "learning_rate": 0.05})
    run = study.run()
    (finished,) = run.of(RoundFinished)
    assert sorted(finished.weights) == sorted(study.domains)
    assert run.finished.loss_after < run.finished.loss_before
    assert {study.digest(email) for email in study.domains} == {run.finished.adapter_sha256}
    for domain in study.domains.values():
        kinds = Counter(entry.kind for entry in domain.work.context.ledger.entries())
        assert (kinds["update.sealed"], kinds["update.confirmed"], kinds["aggregate.opened"]) == (1, 1, 1)


def test_what_grows_with_the_square_of_a_cohort_is_done_once_a_study(federation, monkeypatch):
    """A pair agrees on a secret once; the researcher does not read what all said for each of them."""
    calls = Counter()

    def counted(owner, name):
        honest = getattr(owner, name)

        def call(*arguments):
            calls[name] += 1
            return honest(*arguments)

        monkeypatch.setattr(owner, name, call)

    study = federation(8)
    counted(IdentityKeys, "agree")
    counted(StudyFolder, "cohort")
    counted(StudyFolder, "decisions")
    study.run()
    assert calls["agree"] == 8 * 7 + 7  # the masks of each pair at both, and the study key at seven
    assert calls["cohort"] <= 2
    assert calls["decisions"] <= 1


def test_the_masks_of_a_domain_are_those_of_exactly_the_members_that_seal(federation):
    study = federation(4)
    study.run()
    first, *others = study.domains
    context = study.domains[first].work.context
    masks = context.masks((first, *others))
    assert context.masks((first, *others)) is masks
    assert context.masks((first, *others[:2])).members == (first, *others[:2])
    assert context.masks((first, *others)).cohort == masks.cohort
    with pytest.raises(KeyError):
        context.masks((first, *others, "nobody@site.example"))
