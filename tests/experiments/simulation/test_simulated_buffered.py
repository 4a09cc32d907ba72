"""Buffered asynchronous rounds: who is ready first is summed; an update is in one sum; the others go on training."""

from fedpriv.experiments.simulation import Trace
from fedpriv.researcher.events import RoundFinished, TicketSent, Weighed

UNEQUAL = [Trace(examples=100, step_s=1.0), Trace(examples=100, step_s=2.0), Trace(examples=100, step_s=9.0)]
TRAINING = {"rounds": 8, "steps": 10, "learning_rate": 0.05}
BUFFERED = {"mode": "buffered", "buffer": 2}


def test_the_slow_domain_holds_nobody_up_and_counts_less_the_staler_it_is(federation):
    same = federation(UNEQUAL, training=TRAINING).run()
    study = federation(UNEQUAL, training=TRAINING, schedule=BUFFERED | {"staleness": 0.5})
    run = study.run()
    assert run.seconds < 0.5 * same.seconds
    assert run.finished.loss_after < 0.75 * run.finished.loss_before
    assert len({study.digest(email) for email in study.domains}) == 1
    weighed = run.of(Weighed)
    assert all(len(event.shares) == 2 for event in weighed)
    slow = list(study.domains)[2]
    stale = [event for event in weighed if slow in event.shares]
    assert stale
    for event in stale:
        late = event.staleness.get(slow, 0)
        other = next(email for email in event.shares if email != slow)
        ratio = (1 + late) ** -0.5 / (1 + event.staleness.get(other, 0)) ** -0.5
        assert abs(event.shares[slow] / event.shares[other] - ratio) < 1e-9


def test_every_update_is_sealed_once_and_masks_are_among_the_buffer_only(federation):
    study = federation(UNEQUAL, training=TRAINING, schedule=BUFFERED)
    run = study.run()
    groups = {event.round: set(event.weights) for event in run.of(RoundFinished)}
    trained = {}
    for email, domain in study.domains.items():
        entries = domain.work.context.ledger.entries()
        sealed = [entry.facts for entry in entries if entry.kind == "update.sealed"]
        assert all(set(facts["members"]) == groups[facts["round"]] for facts in sealed)
        used = [path.name for path in domain.folder.updates.glob("*.used.json")]
        assert len(used) == len(sealed)
        trained[email] = len([entry for entry in entries if entry.kind == "round.trained"])
    fast, _, slow = study.domains
    assert trained[fast] > trained[slow]
    kinds = {event.kind for event in run.of(TicketSent)}
    assert {"train", "seal", "confirm", "finish"} <= kinds
