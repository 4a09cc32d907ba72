"""The journal: what was set stays, whoever is killed; no number is given twice."""

import errno
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time

import pytest

from fedpriv.errors import ConfigError
from fedpriv.transport.journal import Journal

COUNTING = """
import sys
from pathlib import Path
from fedpriv.transport.journal import Journal
journal = Journal(Path(sys.argv[1]))
while True:
    print(journal.count("sent"), flush=True)
"""


def test_facts_are_there_after_a_restart(tmp_path):
    journal = Journal(tmp_path / "a" / "journal.db")
    assert journal.number("taken/x") == 0
    journal.set({"taken/x": 3, "delivered/x/a.json": "12ab", "delivered/x/b.json": "34cd", "delivered/xy/c": "z"})
    again = Journal(tmp_path / "a" / "journal.db")
    assert again.number("taken/x") == 3
    assert again.words("delivered/x/") == {"a.json": "12ab", "b.json": "34cd"}


def test_only_its_owner_can_read_it(tmp_path):
    journal = Journal(tmp_path / "a" / "journal.db")
    journal.set({"a": 1})
    files = list((tmp_path / "a").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_two_processes_and_a_kill_give_no_number_twice(tmp_path):
    path = tmp_path / "journal.db"
    command = [sys.executable, "-c", COUNTING, str(path)]
    counting = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first = [process.stdout.readline() for process in counting]  # both have begun
    time.sleep(0.2)
    for process in counting:
        os.kill(process.pid, signal.SIGKILL)
    given = first + [line for process in counting for line in process.communicate()[0].splitlines(keepends=True)]
    numbers = [int(line) for line in given if line.endswith("\n")]
    assert len(numbers) > 20
    assert len(set(numbers)) == len(numbers)
    assert Journal(path).count("sent") > max(numbers)


def test_all_facts_of_a_call_are_set_or_none(tmp_path):
    journal = Journal(tmp_path / "journal.db")
    with pytest.raises(Exception, match="not supported"):
        journal.set({"a": 1, "b": object()})  # pyright: ignore[reportArgumentType]
    assert journal.number("a") == 0
    journal.set({"a": 2})
    assert journal.number("a") == 2


@pytest.mark.parametrize(("pragma", "number"), [("max_page_count = 1", errno.ENOSPC), ("query_only = 1", errno.EROFS)])
def test_a_disk_that_takes_nothing_is_an_error_of_the_system(tmp_path, pragma, number):
    journal = Journal(tmp_path / "journal.db")
    journal.set({"a": 1})
    journal._facts.execute(f"PRAGMA {pragma}")
    with pytest.raises(OSError, match=r".") as caught:
        journal.set({"a": 2, "b": "x" * 100_000})
    assert caught.value.errno == number
    assert journal.number("a") == 1
    journal._facts.execute("PRAGMA max_page_count = 1000000")
    journal._facts.execute("PRAGMA query_only = 0")
    assert journal.count("a") == 2


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "journal.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match=r"journal\.db cannot be used"):
        Journal(tmp_path / "journal.db")


def test_one_that_a_full_disk_does_not_let_open_is_not_to_be_moved_away(tmp_path, monkeypatch):
    """It knows which keys of peers are older than what was seen, and what was sent and taken."""

    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(ConfigError, match="leave it where it is; make room"):
        Journal(tmp_path / "journal.db")


def test_what_cannot_be_read_is_an_error_of_the_system(tmp_path):
    journal = Journal(tmp_path / "journal.db")
    journal._facts.execute("DROP TABLE facts")
    for read in (journal.number, journal.words):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            read("a")
