"""Who says again and again that nothing came is sent the same less and less; what a store loses comes again at once."""

import time

import pytest
from syft_job.models import JobStatus

from fedpriv.transport import OwnerSession
from fedpriv.transport.taken import Taken, taken_message
from tests.transport.conftest import OWNER
from tests.transport.test_lost_messages import answer, box, pair, rounds, submit  # noqa: F401

NOTHING = Taken(missing=((1, 10**6),))
LIES = {
    "it got nothing": lambda look: NOTHING,
    # What was deleted on its word is then gone from the store.
    "it got nothing and waits for it, in turns": lambda look: Taken() if look % 2 else NOTHING,
    "it got nothing of many more": lambda look: Taken(number=10**7 * look, missing=((1, 10**7 * look),)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("who", ["owner", "researcher"])
def test_a_peer_that_says_so_for_ever_is_sent_the_same_less_and_less(pair, monkeypatch, who, lie):  # noqa: F811
    now, sent = [1000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    submit(pair, "job-1")
    rounds(pair)
    answer(pair, b"1")
    session, liar = (pair.owner, pair.researcher) if who == "owner" else (pair.researcher, pair.owner)
    if who == "researcher":
        submit(pair, "job-2")
    me, name, boxes = session.settings.email, "outbox" if who == "owner" else "inbox", session.connection.boxes
    put = boxes.put_message
    monkeypatch.setattr(boxes, "put_message", lambda *message: (sent.append(now[0] - 1000.0), put(*message)))
    for look in range(120):
        liar.connection.boxes.acknowledge(me, taken_message(liar._keys, me, name, LIES[lie](look)))
        session.poll()
        now[0] += 30.0
    assert sent[0] <= 30.0
    assert len(sent) <= 8
    if lie == "it got nothing":
        assert sent == [0.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0]


def test_each_file_that_a_store_really_loses_is_sent_again_at_once(pair):  # noqa: F811
    submit(pair, "job-1")
    submit(pair, "job-2")
    rounds(pair)
    for name in ("job-1", "job-2"):
        answer(pair, b"1", name)
        for path in box(pair, OWNER).iterdir():
            path.unlink()
        rounds(pair)
        assert pair.researcher.output(OWNER, name, "result.json") == b"1"


def test_what_a_store_loses_twice_comes_again_later(pair, monkeypatch):  # noqa: F811
    """Also where it lay in one message with what was lost once."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for name in ("job-1", "job-2"):
        submit(pair, name)
    rounds(pair)

    def lose():
        for path in box(pair, OWNER).iterdir():
            path.unlink()

    answer(pair, b"1", "job-1")
    lose()
    job = next(job for job in pair.owner.jobs() if job.job_name == "job-2")
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b"2"})
    pair.owner.poll()  # both in one message
    assert len(list(box(pair, OWNER).iterdir())) == 1
    lose()
    rounds(pair)
    found = [pair.researcher.output(OWNER, name, "result.json") for name in ("job-1", "job-2")]
    assert found == [None, b"2"]
    pair.owner = OwnerSession(pair.owner.settings)  # what is left of the message is known after a restart
    rounds(pair)
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"1"
