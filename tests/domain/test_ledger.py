import json
import subprocess
import sys

import pytest

from fedpriv.domain import Domain
from fedpriv.errors import UntrustedError


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
