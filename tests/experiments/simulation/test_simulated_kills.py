"""Kills at random moments: whatever died, and whenever, the study ends with the adapter of an undisturbed one.

A kill is an error that nothing catches, at the moment at which something would reach the disk; what is made again is
made from the disk alone. The researcher's kernel takes the whole run with it, a domain only itself. Whole processes are
killed with SIGKILL in ``tests/e2e``; here it is many studies. ``FEDPRIV_KILLED_STUDIES=100`` kills in a hundred.
"""

import os
import random

import pytest

from fedpriv.clinical import ClinicalTables, prepare, shard_by_care_unit, write_shard, write_synthetic
from fedpriv.experiments.simulation import ModelTraining, SimulatedFederation, Trace
from fedpriv.experiments.simulation.domain import SimulatedDomain
from fedpriv.training.base_model import ensure_model

STUDIES = int(os.environ.get("FEDPRIV_KILLED_STUDIES", "8"))
TRACES = [Trace(examples=50), Trace(examples=100, step_s=2.0), Trace(examples=150, step_s=0.5)]
PLAN = {"training": {"rounds": 3, "steps": 5, "learning_rate": 0.05}}
PLANS = [PLAN, PLAN | {"aggregation": {"weights": "inverse-loss"}}]


class Killed(BaseException):
    """What a kill is in one process: nothing in fedpriv catches it."""


class Reaper:
    """Kills at the moments that it was given, counted in writes that reach the disk."""

    def __init__(self, monkeypatch):
        self.moments, self.count, self.deaths, self.armed = [], 0, 0, False
        honest = os.fsync

        def fsync(descriptor):
            self.count += self.armed
            if self.armed and self.moments and self.count >= self.moments[0]:
                self.moments.pop(0)
                self.deaths += 1
                raise Killed
            honest(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        answer = SimulatedDomain.answer

        def answer_again(domain, ticket):
            """Let a domain that dies begin anew, from its folder, with the same ticket."""
            while True:
                try:
                    return answer(domain, ticket)
                except Killed:
                    domain = domain.again()

        monkeypatch.setattr(SimulatedDomain, "answer", answer_again)


@pytest.fixture
def reaper(monkeypatch):
    return Reaper(monkeypatch)


def run_to_the_end(folder, plan, reaper, trainings=None):
    """Run a study until it is finished, with everything made from the disk again after each death of the researcher."""
    blobs, answers = {}, {}  # what lies on the store, and what domains answered
    while True:
        reaper.armed = False
        federation = SimulatedFederation(folder, TRACES, plan=plan, trainings=trainings)
        federation.blobs.update(blobs)
        federation.answers.update(answers)
        blobs, answers, reaper.armed = federation.blobs, federation.answers, True
        try:
            return federation, federation.run()
        except Killed:
            continue


def kill_and_compare(folder, reaper, plan, *, studies, trainings=None):
    """Run one study undisturbed and many that are killed, and hold them to the first one's adapter."""
    whole, _ = run_to_the_end(folder / "whole", plan, reaper, trainings)
    wanted = {whole.digest(email) for email in whole.domains}
    assert len(wanted) == 1
    writes, rng = reaper.count, random.Random(studies)
    for number in range(studies):
        reaper.count, kills = 0, rng.randint(1, 4)
        reaper.moments = sorted(rng.randint(1, writes) for _ in range(kills))
        study, run = run_to_the_end(folder / str(number), plan, reaper, trainings)
        assert {study.digest(email) for email in study.domains} == wanted, number
        assert run.finished.adapter_sha256 in wanted
        for email, domain in study.domains.items():
            kinds = [entry.kind for entry in domain.work.context.ledger.entries()]
            assert kinds.count("round.trained") == 3, (number, email)
            assert kinds.count("aggregate.opened") == 3
            assert kinds.count("update.sealed") == 3
    assert reaper.deaths >= studies


@pytest.mark.parametrize("plan", PLANS, ids=["weights known before", "weights of the losses"])
def test_every_killed_study_ends_like_an_undisturbed_one(folder, reaper, plan):
    kill_and_compare(folder, reaper, plan, studies=STUDIES)


def test_so_does_every_killed_study_that_trains_a_model_on_notes(folder, tmp_path, reaper):
    model = ensure_model("tiny")
    write_synthetic(tmp_path / "tables", patients=60)
    tables = ClinicalTables.open(tmp_path / "tables")
    trainings = []
    for number, shard in enumerate(shard_by_care_unit(tables, len(TRACES))):
        write_shard(tables, shard, tmp_path / f"shard-{number}")
        trainings.append(ModelTraining(model, prepare(tmp_path / f"shard-{number}", tmp_path / f"store-{number}")))
    training = {"rounds": 3, "steps": 2, "batch_size": 2, "max_tokens": 48}
    plan = {"training": training, "base_model": {"name": "tiny"}}
    kill_and_compare(folder, reaper, plan, studies=STUDIES if STUDIES >= 100 else 2, trainings=trainings)


def test_a_killed_buffered_study_ends_with_one_adapter_and_no_update_in_two_sums(folder, reaper):
    """Who is in which buffer depends on when somebody died; what each update may do does not."""
    plan = PLAN | {"schedule": {"mode": "buffered", "buffer": 2}}
    run_to_the_end(folder / "whole", plan, reaper)
    writes, rng = reaper.count, random.Random(STUDIES)
    for number in range(STUDIES):
        reaper.count, reaper.moments = 0, sorted(rng.randint(1, writes) for _ in range(rng.randint(1, 4)))
        study, _ = run_to_the_end(folder / str(number), plan, reaper)
        assert len({study.digest(email) for email in study.domains}) == 1
        for domain in study.domains.values():
            kinds = [entry.kind for entry in domain.work.context.ledger.entries()]
            assert kinds.count("update.confirmed") == kinds.count("update.sealed")
            assert kinds.count("aggregate.opened") == 3
            used = [
                domain.folder.used(int(p.name[:4]), p.name[5:21]) for p in domain.folder.updates.glob("*.used.json")
            ]
            assert all(len(rounds) == 1 for rounds in used)
            assert len(set(used)) == len(used)
