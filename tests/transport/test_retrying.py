import errno

import pytest

from fedpriv.errors import SignatureError, TransportError, UnreachableError
from fedpriv.transport import Store, retrying
from fedpriv.transport.retrying import ATTEMPTS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, with_retries

AWAY = UnreachableError("away")


class Clock:
    def __init__(self):
        self.now, self.pauses = 0.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(retrying, "time", clock)
    return clock


def fails(*errors):
    """Return work that raises these in turn, and then gives how often it was done."""
    left = list(errors)

    def work():
        work.done += 1
        if left:
            raise left.pop(0)
        return work.done

    work.done = 0
    return work


@pytest.mark.parametrize("error", [AWAY, OSError(errno.ESTALE, "stale"), TimeoutError(errno.ETIMEDOUT, "late")])
def test_what_may_help_is_done_again(clock, error):
    assert with_retries(fails(error, error)) == 3
    assert len(clock.pauses) == 2
    for number, pause in enumerate(clock.pauses):
        assert 0 <= pause <= min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**number)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("none"),
        PermissionError(errno.EACCES, "no"),
        OSError(errno.ENOSPC, "full"),
        TransportError("no"),
        SignatureError("another key"),
        ValueError("ours"),
    ],
)
def test_what_does_not_help_is_not_repeated(clock, error):
    work = fails(error)
    with pytest.raises(type(error)):
        with_retries(work)
    assert (work.done, clock.pauses) == (1, [])


def test_it_is_given_up_after_so_many_attempts(clock):
    work = fails(*[AWAY] * 20)
    with pytest.raises(UnreachableError):
        with_retries(work)
    assert work.done == ATTEMPTS


def test_an_attempt_that_took_its_whole_timeout_is_not_repeated(clock):
    def work():
        clock.now += 30.0
        raise AWAY

    with pytest.raises(UnreachableError):
        with_retries(work)
    assert clock.pauses == []


@pytest.mark.parametrize("call", ["put", "get", "look", "delete", "names"])
def test_a_store_asks_again_whatever_it_asks(tmp_path, clock, monkeypatch, call):
    store = Store.from_url(str(tmp_path / "s"))
    store.put("a/k", b"1")
    name = {"put": "write", "get": "read", "look": "look", "delete": "remove", "names": "list"}[call]
    real, errors = getattr(store._files, name), [AWAY]

    def flaky(*arguments):
        if errors:
            raise errors.pop()
        return real(*arguments)

    monkeypatch.setattr(store._files, name, flaky)
    arguments = {"put": ("a/k", b"2"), "names": ("a",)}.get(call, ("a/k",))
    getattr(store, call)(*arguments, **({"max_bytes": 9} if call == "get" else {}))
    assert not errors
