import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpriv.domain import Domain
from fedpriv.domain.ledger import Place
from fedpriv.errors import UntrustedError
from fedpriv.files import canonical_json, sha256_hex


@pytest.fixture
def ledger(domain):
    for number in range(5):
        domain.ledger.append("test.entry", once=f"test/{number}", number=number)
    return domain.ledger


def lines(domain):
    return domain.folder.ledger_path.read_bytes().splitlines(keepends=True)


def test_a_whole_ledger_verifies(ledger):
    assert ledger.verify() == 6  # the first is domain.created
    assert [entry.number for entry in ledger.entries()] == [1, 2, 3, 4, 5, 6]


def test_who_reads_on_gets_what_is_new_and_whole(domain, ledger):
    entries, place = ledger.after(Place())
    assert entries == ledger.entries()
    assert ledger.after(place) == ([], place)
    with domain.folder.ledger_path.open("ab") as stream:
        stream.write(b'{"half')
    assert ledger.after(place) == ([], place), "half a line is not an entry yet"
    ledger.append("test.more")
    (entry,), further = ledger.after(place)
    assert (entry.kind, entry.number, further.number) == ("test.more", 7, 7)
    assert ledger.after(further) == ([], further)


def test_who_reads_on_begins_again_where_the_file_is_another_one(domain, ledger):
    _, place = ledger.after(Place())
    whole = lines(domain)
    domain.folder.ledger_path.write_bytes(b"".join(whole[:3]))  # the same file, cut off
    entries, shorter = ledger.after(place)
    assert [entry.number for entry in entries] == [1, 2, 3]
    other = domain.folder.ledger_path.with_name("backup")
    other.write_bytes(b"".join(whole))
    other.replace(domain.folder.ledger_path)
    assert len(ledger.after(shorter)[0]) == 6
    domain.folder.ledger_path.unlink()
    assert ledger.after(place) == ([], Place())
    domain.folder.ledger_path.write_bytes(b"no entry\n")
    with pytest.raises(UntrustedError, match="entry 1 of the ledger"):
        ledger.after(Place())


def test_what_may_stand_once_stands_once(ledger):
    assert not ledger.append("test.entry", once="test/3", number=99)
    assert ledger.has("test/3")
    assert not ledger.has("test/9")
    assert len(ledger.entries()) == 6


@pytest.mark.parametrize("position", range(6))
def test_a_change_is_found_and_named(domain, ledger, position):
    changed = lines(domain)
    entry = json.loads(changed[position])
    entry["facts"]["number"] = 42
    changed[position] = json.dumps(entry).encode() + b"\n"
    domain.folder.ledger_path.write_bytes(b"".join(changed))
    with pytest.raises(UntrustedError, match=f"Entry {position + 1} of the ledger"):
        ledger.verify()


@pytest.mark.parametrize(
    ("edit", "first_bad"),
    [
        (lambda ls: ls[:2] + ls[3:], 3),
        (lambda ls: [*ls[:2], ls[3], ls[2], *ls[4:]], 3),
        (lambda ls: [*ls[:3], ls[2], *ls[3:]], 4),
        (lambda ls: ls[1:], 1),
    ],
)
def test_removed_moved_and_repeated_entries_are_found(domain, ledger, edit, first_bad):
    domain.folder.ledger_path.write_bytes(b"".join(edit(lines(domain))))
    with pytest.raises(UntrustedError, match=f"Entry {first_bad} of the ledger"):
        ledger.verify()


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("field", ["signature", "digest", "previous", "kind", "time_s", "number", "once"])
def test_a_change_of_any_field_is_found_and_named(domain, ledger, position, field):
    changed = lines(domain)
    entry = json.loads(changed[position])
    value = entry[field]
    entry[field] = (
        value + 1 if isinstance(value, int | float) else value[:-4] + ("AAAA" if value[-4:] != "AAAA" else "BBBB")
    )
    changed[position] = canonical_json(entry) + b"\n"
    domain.folder.ledger_path.write_bytes(b"".join(changed))
    with pytest.raises(UntrustedError, match=f"Entry {position + 1} of the ledger"):
        ledger.verify()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_change_of_any_byte_is_found(domain, ledger, data):
    whole = domain.folder.ledger_path.read_bytes()
    place, bit = data.draw(st.integers(0, len(whole) - 2)), data.draw(st.integers(0, 7))
    domain.folder.ledger_path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    try:
        with pytest.raises(UntrustedError, match=f"Entry {whole[:place].count(10) + 1} of the ledger"):
            ledger.verify()
    finally:
        domain.folder.ledger_path.write_bytes(whole)


@pytest.mark.parametrize("position", range(6))
def test_a_chain_made_anew_without_the_key_is_found_where_it_begins(domain, ledger, position):
    """Everything that can be computed without the key is right again; only signatures cannot be."""
    entries = [json.loads(line) for line in lines(domain)]
    entries[position]["facts"]["number"] = 42
    previous = "0" * 64
    for entry in entries:
        entry["previous"] = previous
        body = {name: value for name, value in entry.items() if name not in ("digest", "signature")}
        entry["digest"] = sha256_hex(canonical_json(body))
        previous = sha256_hex(canonical_json(entry))
    domain.folder.ledger_path.write_bytes(b"".join(canonical_json(entry) + b"\n" for entry in entries))
    with pytest.raises(UntrustedError, match=f"Entry {position + 1} of the ledger"):
        ledger.verify()


def test_a_forged_end_behind_a_broken_chain_is_not_what_is_named(domain, ledger):
    changed = lines(domain)
    entry = json.loads(changed[1])
    entry["signature"] = "A" * 86 + "=="
    changed[1] = canonical_json(entry) + b"\n"
    domain.folder.ledger_path.write_bytes(b"".join([*changed[:4], changed[5]]))
    with pytest.raises(UntrustedError, match="Entry 2 of the ledger"):
        ledger.verify()


def test_verifying_takes_few_signatures(domain, ledger, monkeypatch):
    checked = []
    monkeypatch.setattr(ledger, "_check", lambda *arguments: checked.append(arguments) or True)
    assert ledger.verify() == 6
    assert len(checked) == 1


def test_an_end_that_was_cut_off_is_found_by_a_digest_that_was_kept(domain, ledger):
    kept = ledger.entries()[-1].digest
    assert ledger.verify(holds=kept) == 6
    domain.folder.ledger_path.write_bytes(b"".join(lines(domain)[:-1]))
    assert ledger.verify() == 5
    with pytest.raises(UntrustedError, match=r"5 intact entries.*cut off"):
        ledger.verify(holds=kept)


def test_a_ledger_from_a_backup_is_read_anew(domain, ledger):
    path = domain.folder.ledger_path
    older = b"".join(lines(domain)[:3])
    for restore in (lambda: path.write_bytes(older), lambda: (path.unlink(), path.write_bytes(older))):
        restore()
        assert not ledger.has("test/4")
        assert ledger.append("test.entry", once="test/4", number=4)
        assert ledger.verify() == 4


def test_a_disk_that_is_full_loses_no_entry(domain, ledger, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:50]))
    with pytest.raises(OSError, match="to its end"):
        ledger.append("test.entry", once="test/full")
    monkeypatch.undo()
    assert ledger.append("test.entry", once="test/full")
    assert ledger.verify() == 7


def test_another_domains_signature_is_found(domain, ledger, tmp_path):
    config = domain.config.model_copy(update={"name": "sicu", "email": "sicu@x.org"})
    other = Domain.create(tmp_path / "sicu", config)
    domain.folder.ledger_path.write_bytes(other.folder.ledger_path.read_bytes())
    with pytest.raises(UntrustedError, match="Entry 1 of the ledger"):
        ledger.verify()


def test_half_a_line_of_a_kill_is_cut_off(domain, ledger):
    with domain.folder.ledger_path.open("ab") as stream:
        stream.write(b'{"number": 7, "kind": "half')
    assert ledger.verify() == 6
    ledger.append("test.after")
    assert ledger.verify() == 7


def test_two_processes_append_without_losing_an_entry(domain, ledger):
    code = (
        "import sys; from pathlib import Path; from fedpriv.domain import Domain\n"
        "book = Domain.open(Path(sys.argv[1])).ledger\n"
        "for n in range(20): book.append('test.parallel', who=sys.argv[2], n=n)\n"
    )
    root = str(domain.folder.root)
    running = [subprocess.Popen([sys.executable, "-c", code, root, who]) for who in "ab"]
    assert [process.wait(60) for process in running] == [0, 0]
    assert ledger.verify() == 46
