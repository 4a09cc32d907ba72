"""One peer's fault is told once and keeps nobody waiting; everybody's is the store's."""

import pytest

from fedpriv.errors import ConfigError, HostKeyError, TransportError, UnreachableError, UntrustedError
from fedpriv.transport.each_peer import EachPeer


def fails(**errors):
    done = []

    def work(email):
        done.append(email)
        if email in errors:
            raise errors[email]

    return work, done


@pytest.mark.parametrize("error", [UntrustedError("bad"), TransportError("bad")])
def test_the_next_ones_are_served_and_it_is_told_once(error):
    told = []
    each = EachPeer(lambda *said: told.append(said))
    for _ in range(3):
        work, done = fails(eve=error)
        each.do(["eve", "ada"], work)
        assert done == ["eve", "ada"]
    assert told == [("eve", "bad")]
    each.do(["eve", "ada"], fails(eve=UntrustedError("worse"))[0])
    assert told == [("eve", "bad"), ("eve", "worse")]


@pytest.mark.parametrize(
    "error", [KeyError("secret"), UnicodeDecodeError("utf-8", b"x", 0, 1, "secret"), OSError(36, "")]
)
def test_what_nobody_foresaw_of_one_is_told_with_its_kind_and_place_and_the_next_are_served(error):
    told = []
    each = EachPeer(lambda *said: told.append(said))
    for _ in range(2):
        work, done = fails(eve=error)
        each.do(["eve", "ada"], work)
        assert done == ["eve", "ada"]
    assert [email for email, _ in told] == ["eve"]
    assert told[0][1].startswith(f"It could not be handled ({type(error).__name__} in each_peer.py:")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ConfigError("no such key")])
def test_what_is_of_this_machine_or_its_settings_is_no_peers_fault(error):
    work, _ = fails(eve=error)
    with pytest.raises(type(error)):
        EachPeer(lambda *said: pytest.fail("it is no peer's fault")).do(["eve", "ada"], work)


def test_what_is_refused_for_all_is_the_stores_fault():
    told = []
    work, done = fails(eve=TransportError("no"), ada=TransportError("no"))
    with pytest.raises(TransportError):
        EachPeer(lambda *said: told.append(said)).do(["eve", "ada"], work)
    assert (done, told) == (["eve", "ada"], [])


def test_bad_things_of_all_are_still_theirs():
    told = []
    EachPeer(lambda *said: told.append(said)).do(["eve"], fails(eve=UntrustedError("bad"))[0])
    assert told == [("eve", "bad")]


@pytest.mark.parametrize("error", [UnreachableError("gone"), HostKeyError("another server")])
def test_a_store_that_does_not_answer_or_is_another_is_not_asked_for_the_next(error):
    work, done = fails(eve=error)
    with pytest.raises(type(error)):
        EachPeer(lambda *said: pytest.fail("it is no peer's fault")).do(["eve", "ada"], work)
    assert done == ["eve"]


def test_without_peers_nothing_happens():
    EachPeer(lambda *said: None).do([], lambda email: pytest.fail("nobody"))
