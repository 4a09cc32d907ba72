from fedpriv.domain import missing
from fedpriv.domain.missing import Missing


def test_a_ticket_waits_a_while_and_is_looked_at_now_and_then(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(missing.time, "monotonic", lambda: now[0])
    blobs = Missing()
    assert not blobs.is_too_early("a")
    assert blobs.may_still_come("a")
    assert blobs.is_too_early("a")
    assert not blobs.is_too_early("b"), "another ticket does not wait"
    now[0] += 6
    assert not blobs.is_too_early("a")
    assert blobs.may_still_come("a")
    now[0] += 121
    assert not blobs.may_still_come("a")
    assert not blobs.may_still_come("a"), "and is not given the time anew"
