"""Whoever writes to the store without a key can delay messages, and lose none: the parties send them again."""

import errno
import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syft_job.models import JobStatus

from fedpriv.errors import SignatureError, UntrustedError
from fedpriv.transport import (
    OwnerSession,
    ResearcherSession,
    boxes,
    create_transport_keys,
    owner_syncing,
    reading,
    syncing,
    watcher_syncing,
)
from fedpriv.transport.messages import Address, pack_message
from fedpriv.transport.prekeys import RenewedKeys
from fedpriv.transport.store import Entry
from fedpriv.transport.syncing import Clock
from fedpriv.transport.taken import MOST_GAPS, MOST_MESSAGES, Taken, hinted_number, read_taken, runs, taken_message
from tests.transport.conftest import OWNER, RESEARCHER, make_pair


class Always(Clock):
    """What is due now and then is due whenever somebody asks."""

    def is_due(self, peer):
        return True


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.setattr(boxes, "_LIST_SECONDS", 0.0)
    for module in (owner_syncing, watcher_syncing, reading):
        monkeypatch.setattr(module, "Clock", Always)
    return make_pair(tmp_path)


def box(pair, sender):
    to, name = (OWNER, "inbox") if sender == RESEARCHER else (RESEARCHER, "outbox")
    folder = pair.root / "store" / sender / "to" / to / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def submit(pair, name):
    pair.researcher.submit(OWNER, name, pair.code(train="x = 1\n"), entrypoint="train.py")


def answer(pair, text, name="job-1"):
    job = next(job for job in pair.owner.jobs() if job.job_name == name)
    pair.owner.answer(job, JobStatus.DONE, {"result.json": text})
    pair.owner.poll()


def rounds(pair, count=4):
    for _ in range(count):
        pair.researcher.poll()
        pair.owner.poll()


def jobs(pair):
    return [job.job_name for job in pair.owner.jobs()]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_job_that_was_changed_on_the_store_comes_again(pair):
    submit(pair, "job-1")
    (lying,) = box(pair, RESEARCHER).iterdir()
    flip(lying)
    rounds(pair)
    assert jobs(pair) == ["job-1"]
    assert len(pair.refusals) == 1, "told once"
    assert list(box(pair, RESEARCHER).iterdir()) == [], "and nothing is left lying"


def test_an_answer_that_was_changed_on_the_store_comes_again(pair):
    submit(pair, "job-1")
    pair.owner.poll()
    answer(pair, b"1")
    for path in box(pair, OWNER).iterdir():
        flip(path)
    rounds(pair)
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"1"
    assert list(box(pair, OWNER).iterdir()) == []


def test_an_acknowledgement_without_the_reader_s_signature_deletes_nothing(pair):
    submit(pair, "job-1")
    pair.owner.poll()
    answer(pair, b"1")
    before = sorted(box(pair, OWNER).iterdir())
    word = pair.root / "store" / RESEARCHER / "to" / OWNER / "taken.json"
    word.parent.mkdir(parents=True, exist_ok=True)
    word.write_text('{"outbox": 999}')
    pair.owner.poll()
    assert sorted(box(pair, OWNER).iterdir()) == before
    word.unlink()
    rounds(pair)
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"1"


@pytest.mark.parametrize("number", ["000000000002", "000000001000", "000999999999", "001000000000", "999999999999"])
def test_bytes_where_no_message_was_sent_take_no_later_one_its_place(pair, number):
    submit(pair, "job-1")
    rounds(pair)
    answer(pair, b"1")
    for sender in (RESEARCHER, OWNER):
        (box(pair, sender) / number).write_bytes(b"garbage")
    for count in range(2, 5):
        submit(pair, f"job-{count}")
        rounds(pair)
        answer(pair, b"%d" % count, f"job-{count}")
        rounds(pair)
    assert jobs(pair) == ["job-1", "job-2", "job-3", "job-4"]
    found = [pair.researcher.output(OWNER, f"job-{n}", "result.json") for n in range(1, 5)]
    assert found == [b"1", b"2", b"3", b"4"]
    assert list(box(pair, RESEARCHER).iterdir()) == list(box(pair, OWNER).iterdir()) == []


@pytest.mark.parametrize("number", ["000499999999", "000999999999", "001000000000", "999999999999"])
def test_bytes_before_the_first_message_leave_room_for_it(pair, number):
    (box(pair, RESEARCHER) / number).write_bytes(b"garbage")
    submit(pair, "job-1")
    rounds(pair)
    assert jobs(pair) == ["job-1"]


def test_a_message_that_was_taken_away_while_later_ones_were_read_comes_again(pair):
    submit(pair, "job-1")
    (lying,) = box(pair, RESEARCHER).iterdir()
    lying.unlink()
    submit(pair, "job-2")
    pair.owner.poll()
    assert jobs(pair) == ["job-2"]
    rounds(pair)
    assert sorted(jobs(pair)) == ["job-1", "job-2"]


def test_what_is_missing_is_known_after_a_restart(pair):
    submit(pair, "job-1")
    (lying,) = box(pair, RESEARCHER).iterdir()
    lying.unlink()
    submit(pair, "job-2")
    pair.owner.receive()  # and is killed before it said so
    pair.owner = OwnerSession(pair.owner.settings)
    rounds(pair)
    assert sorted(jobs(pair)) == ["job-1", "job-2"]


def test_a_message_of_a_peer_s_own_with_a_number_over_all_is_not_even_read(pair):
    address = Address(sender=RESEARCHER, recipient=OWNER, box="inbox", number=MOST_MESSAGES)
    sealed = pair.researcher._keys.encrypt(OWNER, pack_message(b"{}", address))
    pair.researcher.connection.boxes.put_message(address, sealed)
    pair.owner.poll()
    OwnerSession(pair.owner.settings).poll()
    submit(pair, "job-1")
    rounds(pair)
    assert jobs(pair) == ["job-1"]


def on_a_full_disk(monkeypatch, owner, write, act):
    """Do something while writing is refused: it says so."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, write, refuse_for_space)
        with pytest.raises(OSError, match="No space"):
            act()


def test_what_a_full_disk_did_not_take_is_taken_when_there_is_room(pair, monkeypatch):
    submit(pair, "job-1")
    submit(pair, "job-2")
    on_a_full_disk(monkeypatch, type(pair.owner._owner_syncer), "_accept", pair.owner.receive)
    pair.owner.receive()
    assert jobs(pair) == ["job-1", "job-2"]
    assert pair.owner._owner_syncer._reader._gaps(RESEARCHER) == []


def test_attempts_that_a_full_disk_ends_do_not_count_as_what_a_peer_sent(pair, monkeypatch):
    monkeypatch.setattr(syncing, "MAX_HELD_BYTES", 10 * 4096)
    submit(pair, "job-1")
    for _ in range(10):
        on_a_full_disk(monkeypatch, owner_syncing, "write_folder", pair.owner.receive)
    pair.owner.poll()
    assert jobs(pair) == ["job-1"]
    pair.owner.answer(pair.owner.jobs()[0], JobStatus.DONE, {"result.json": b"1"})
    pair.owner.poll()
    for _ in range(10):
        on_a_full_disk(monkeypatch, watcher_syncing, "write_atomic", pair.researcher.poll)
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"1"
    assert pair.refusals == pair.researcher.refused() == []


def refuse_for_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("how", ["gone", "changed"])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_word_about_what_is_missing_that_was_taken_away_is_said_again(pair, how, is_restarted):
    submit(pair, "job-1")
    (lying,) = box(pair, RESEARCHER).iterdir()
    flip(lying)
    pair.owner.poll()
    word = pair.root / "store" / OWNER / "to" / RESEARCHER / "taken.json"
    word.unlink() if how == "gone" else word.write_bytes(b"{")
    if is_restarted:
        pair.owner = OwnerSession(pair.owner.settings)
    rounds(pair)
    assert jobs(pair) == ["job-1"]


def test_a_sender_with_an_older_memory_finds_out_when_the_word_that_was_hidden_comes_back(pair):
    submit(pair, "job-1")
    pair.owner.poll()
    for text in (b"1", b"2", b"3"):
        answer(pair, text)
        rounds(pair)
    word = pair.root / "store" / RESEARCHER / "to" / OWNER / "taken.json"
    word.unlink()
    pair.owner.connection.journal.set({f"sent/{RESEARCHER}/outbox": 1})
    pair.owner = OwnerSession(pair.owner.settings)
    answer(pair, b"4")
    rounds(pair)
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"4"
    assert list(box(pair, OWNER).iterdir()) == []


def test_bytes_further_on_do_not_hide_what_is_missing(pair):
    submit(pair, "job-1")
    (lying,) = box(pair, RESEARCHER).iterdir()
    lying.unlink()
    submit(pair, "job-2")
    for number in range(5, 5 + 4 * MOST_GAPS, 2):
        (box(pair, RESEARCHER) / f"{number:012d}").write_bytes(b"x")
    for _ in range(6):
        pair.owner.poll()
    rounds(pair)
    assert sorted(jobs(pair)) == ["job-1", "job-2"]


def test_of_many_gaps_none_is_forgotten(pair):
    reader = pair.owner._owner_syncer._reader
    for number in range(1, 2 * MOST_GAPS + 10):
        reader._took(RESEARCHER, 3 * number - 3, 3 * number)
    gaps = reader._gaps(RESEARCHER)
    assert len(gaps) == MOST_GAPS
    taken = Taken(number=10**6, missing=tuple(gaps))
    assert all(taken.lacks(3 * number - 1) for number in range(1, 2 * MOST_GAPS + 10))


def test_a_sender_with_an_older_memory_goes_on_behind_what_was_taken(pair):
    """A restored backup: its next numbers lie below what the other side looks at."""
    submit(pair, "job-1")
    pair.owner.poll()
    for text in (b"1", b"2", b"3"):
        answer(pair, text)
        rounds(pair)
    pair.owner.connection.journal.set({f"sent/{RESEARCHER}/outbox": 1})
    pair.owner = OwnerSession(pair.owner.settings)
    answer(pair, b"4")
    rounds(pair)
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"4"


def test_a_flood_lets_others_have_their_turn_and_ends(pair):
    inbox = box(pair, RESEARCHER)
    for number in range(1, 3 * reading.MOST_IN_A_PASS):
        (inbox / f"{number:012d}").write_bytes(b"x")
    place = pair.owner._owner_syncer._reader
    pair.owner.receive()
    assert place._places[RESEARCHER].after == reading.MOST_IN_A_PASS
    submit(pair, "job-1")
    pair.researcher._syncer.tidy(OWNER)  # what lies in its own box and it never sent
    rounds(pair)
    assert jobs(pair) == ["job-1"]


def test_bytes_that_lie_apart_before_a_message_keep_its_reader_from_it_for_some_passes_only(tmp_path, monkeypatch):
    """Of a sender that was started again, and counts on behind them; by a clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pair = make_pair(tmp_path)
    for number in range(2, 2000, 2):
        (box(pair, RESEARCHER) / f"{number:012d}").write_bytes(b"x")
    pair.researcher = ResearcherSession(pair.researcher.settings)
    submit(pair, "job-1")
    passes = 0
    while jobs(pair) != ["job-1"]:
        pair.owner.poll()
        now[0], passes = now[0] + 3.0, passes + 1
        assert passes < 25
    now[0] += 60.0
    rounds(pair)
    assert list(box(pair, RESEARCHER).iterdir()) == []


def test_deleting_what_others_put_in_a_box_keeps_nobody_waiting(pair, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for number in range(1, 30):
        (box(pair, RESEARCHER) / f"{number:012d}").write_bytes(b"x")
    delete = type(pair.researcher.connection.store).delete

    def slowly(store, key):
        now[0] += 1.0
        delete(store, key)

    monkeypatch.setattr(type(pair.researcher.connection.store), "delete", slowly)
    pair.researcher.connection.boxes._counted.add((OWNER, "inbox"))
    for left in (18, 7, 0):
        pair.researcher.poll()
        assert len(list(box(pair, RESEARCHER).iterdir())) == left


def test_what_a_listing_shows_and_is_not_there_is_passed_over(pair, monkeypatch):
    submit(pair, "job-1")
    (lying,) = box(pair, RESEARCHER).iterdir()
    lying.unlink()
    submit(pair, "job-2")
    entries = type(pair.owner.connection.store).entries

    def with_one_more(store, prefix, **most):
        ghosts = [Entry(name=lying.name, size_bytes=1)] if prefix.endswith("/inbox") else []
        return [*ghosts, *entries(store, prefix, **most)]

    monkeypatch.setattr(type(pair.owner.connection.store), "entries", with_one_more)
    pair.owner.poll()
    assert jobs(pair) == ["job-2"]


def test_a_number_over_all_hides_no_message_behind_a_gap(pair, monkeypatch):
    monkeypatch.setattr(boxes, "_LIST_SECONDS", 0.0)
    (box(pair, RESEARCHER) / f"{10**9 + 5:012d}").write_bytes(b"x")
    submit(pair, "job-1")
    pair.owner.poll()
    (box(pair, RESEARCHER) / "000000000001").unlink()
    submit(pair, "job-2")
    (box(pair, RESEARCHER) / "000000000002").unlink()
    submit(pair, "job-3")
    pair.owner.poll()
    assert jobs(pair) == ["job-1", "job-3"]


# -- the word itself ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    pin = create_transport_keys(OWNER, path)
    return RenewedKeys.open(OWNER, path), pin


NUMBERS = st.integers(0, 10**9 - 1)


@given(NUMBERS, st.sets(st.integers(1, 10**6), max_size=30))
def test_a_word_is_read_as_it_was_written_by_its_reader_alone(keys, number, missing):
    own, pin = keys
    taken = Taken(number=number, missing=tuple(runs(missing)))
    data = taken_message(own, RESEARCHER, "inbox", taken)
    about = {"sender": RESEARCHER, "recipient": OWNER, "box": "inbox", "pin": pin}
    assert read_taken(data, **about) == taken
    assert hinted_number(data, "inbox") == number
    assert all(taken.lacks(n) and not taken.holds(n) for n in missing)
    for other in ({"sender": "bob@y.org"}, {"box": "outbox"}):
        with pytest.raises(UntrustedError, match="another box"):
            read_taken(data, **about | other)
    with pytest.raises(SignatureError):
        read_taken(data, **about | {"pin": "ab" * 32})
    said = json.loads(data)
    said["word"]["number"] = (number + 1) % 10**9
    with pytest.raises(SignatureError):
        read_taken(json.dumps(said).encode(), **about)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)))
def test_any_other_word_says_nothing(keys, value):
    _, pin = keys
    for said in (value, {"inbox": value}, {"word": value}, {"word": value, "signature": value}):
        data = json.dumps(said).encode()
        try:
            found = read_taken(data, sender=RESEARCHER, recipient=OWNER, box="inbox", pin=pin)
        except UntrustedError:
            continue
        assert found == Taken()


@given(st.sets(st.integers(1, 50)))
def test_runs_hold_each_number_once(numbers):
    found = runs(numbers)
    assert [n for first, last in found for n in range(first, last + 1)] == sorted(numbers)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(found))


def test_a_number_that_no_honest_sender_reaches_is_told_as_the_last_one(keys):
    own, pin = keys
    data = taken_message(own, RESEARCHER, "inbox", Taken(number=10**12 - 1))
    assert read_taken(data, sender=RESEARCHER, recipient=OWNER, box="inbox", pin=pin).number == MOST_MESSAGES - 1
