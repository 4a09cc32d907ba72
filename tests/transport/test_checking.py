"""What `fedpriv store check` finds, on stores as they should be and on such that are broken in one way each."""

import errno
import json
import time

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.errors import ConfigError, UnreachableError
from fedpriv.transport import Store, checking
from fedpriv.transport.checking import check_store
from fedpriv.transport.files import Item
from fedpriv.transport.folder import FolderFiles

NAMES = [
    "reachable",
    "writing and reading",
    "listing",
    "replacing",
    "deleting",
    "clock",
    "throughput",
    "other prefixes",
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch, tmp_path):
    (tmp_path / "s").mkdir()
    monkeypatch.setattr(checking, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("fedpriv.transport.retrying.FIRST_PAUSE_SECONDS", 0.001)


def states(findings):
    return {found.name: found.state for found in findings}


def broken(monkeypatch, **methods):
    """Let the local folder do some things otherwise."""
    for name, method in methods.items():
        monkeypatch.setattr(FolderFiles, name, method(getattr(FolderFiles, name)))


def test_a_folder_is_fine_but_for_rights_and_nothing_of_the_check_stays(tmp_path):
    told = []
    findings = check_store(str(tmp_path / "s"), prefix="a@x.org", megabytes=1, on_finding=told.append)
    assert [found.name for found in findings] == NAMES
    assert told == findings
    assert states(findings) == dict.fromkeys(NAMES, "ok") | {"other prefixes": "warning"}
    assert "docs/stores.md" in findings[-1].todo
    assert all(found.todo for found in findings if found.state != "ok")
    assert list((tmp_path / "s").iterdir()) == []
    figures = {name: value for found in findings for name, value in found.figures.items()}
    assert figures["up_mbit_per_s"] > 0 < figures["round_trip_ms"]


def test_what_lay_below_the_prefix_is_left(tmp_path):
    store = Store.from_url(str(tmp_path / "s"))
    store.put("a@x.org/version.json", b"1")
    check_store(str(tmp_path / "s"), prefix="a@x.org", megabytes=1)
    assert [path.name for path in (tmp_path / "s").rglob("*")] == ["a@x.org", "version.json"]


def test_half_written_objects_are_found(tmp_path, monkeypatch):
    def slowly(write):
        def write_in_two(self, path, data):
            write(self, path, data[: len(data) // 2])
            time.sleep(0.02)
            write(self, path, data)

        return write_in_two

    broken(monkeypatch, write=slowly)
    found = check_store(str(tmp_path / "s"), megabytes=1)
    assert states(found)["replacing"] == "failed"


def test_a_moment_without_the_object_is_a_warning(tmp_path, monkeypatch):
    def remove_first(write):
        def write_anew(self, path, data):
            if "replaced" in path:
                from pathlib import Path

                Path(path).unlink(missing_ok=True)
                time.sleep(0.02)
            write(self, path, data)

        return write_anew

    broken(monkeypatch, write=remove_first)
    assert states(check_store(str(tmp_path / "s"), megabytes=1))["replacing"] == "warning"


def test_listings_that_lag_are_found(tmp_path, monkeypatch):
    broken(monkeypatch, list=lambda real: lambda self, path, limit: [])
    assert states(check_store(str(tmp_path / "s"), megabytes=1))["listing"] == "failed"


def test_objects_that_cannot_be_removed_are_found_and_named(tmp_path, monkeypatch):
    def refuse(real):
        def remove(self, path):
            raise PermissionError("no")

        return remove

    broken(monkeypatch, remove=refuse)
    findings = check_store(str(tmp_path / "s"), megabytes=1)
    assert states(findings)["deleting"] == "failed"
    assert findings[-1].name == "cleaning"
    assert "objects of this check are left" in findings[-1].found


@pytest.mark.parametrize(("hours", "state"), [(-3, "warning"), (3, "warning"), (0, "ok")])
def test_a_clock_that_is_off_is_found(tmp_path, monkeypatch, hours, state):
    def shifted(real):
        def look(self, path):
            found = real(self, path)
            return Item(name=found.name, size_bytes=1, is_file=True, modified_s=found.modified_s + 3600 * hours)

        return look

    broken(monkeypatch, look=shifted)
    assert states(check_store(str(tmp_path / "s"), megabytes=1))["clock"] == state


def test_an_account_that_may_write_nothing_or_only_its_own(tmp_path, monkeypatch):
    def own_only(prefix):
        def limit(real):
            def write(self, path, data):
                if f"/{prefix}/" not in path:
                    raise PermissionError("no")
                real(self, path, data)

            return write

        return limit

    with monkeypatch.context() as patch:
        broken(patch, write=own_only("a@x.org"))
        assert states(check_store(str(tmp_path / "s"), prefix="a@x.org", megabytes=1))["other prefixes"] == "ok"
    broken(monkeypatch, write=own_only("nobody"))
    findings = check_store(str(tmp_path / "s"), prefix="a@x.org", megabytes=1)
    assert [found.state for found in findings] == ["ok", "failed"]
    assert "let this account write and read below a@x.org/" in findings[-1].todo


def test_other_bytes_than_were_written_are_found(tmp_path, monkeypatch):
    broken(monkeypatch, read=lambda real: lambda self, path, limit: bytes(limit - 1))
    assert states(check_store(str(tmp_path / "s"), megabytes=1))["writing and reading"] == "failed"


def test_a_store_that_is_away_is_one_finding(tmp_path, monkeypatch):
    def away(real):
        def look(self, path):
            raise UnreachableError("The store cannot be reached (no)", todo="check the network")

        return look

    broken(monkeypatch, look=away)
    (found,) = check_store(str(tmp_path / "s"))
    assert (found.name, found.state, found.todo) == ("reachable", "failed", "check the network")


@pytest.mark.parametrize("address", ["none/x", "file://{}/none"])
def test_a_folder_that_is_not_there_is_not_made(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    (found,) = check_store(address.format(tmp_path))
    assert (found.state, found.found) == ("failed", "there is no such folder; is the share mounted?")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_an_address_without_its_slashes_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("s3:/b", "sftp:me@host/x", "webdavs:/host"):
        with pytest.raises(ConfigError, match="neither a folder nor a kind of store"):
            check_store(address)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(errno.ENOSPC, "no space"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError("its disk is full: 0 bytes are left for 1000"), True),
        (OSError(errno.EACCES, "no"), False),
    ],
)
def test_a_full_disk_is_not_taken_for_a_lack_of_rights(tmp_path, monkeypatch, error, is_full):
    def full(real):
        def write(self, path, data):
            raise error

        return write

    broken(monkeypatch, write=full)
    found = check_store(str(tmp_path / "s"))[-1]
    assert found.state == "failed"
    assert ("disk is full" in found.todo, "let this account write" in found.todo) == (is_full, not is_full)


def test_the_command_says_it_in_a_table_or_in_json(tmp_path, monkeypatch):
    run = CliRunner().invoke
    done = run(app, ["store", "check", str(tmp_path / "s"), "--email", "a@x.org", "--megabytes", "1"])
    assert done.exit_code == 0
    for name in NAMES:
        assert name in done.output
    assert "Studies work over this store" in done.output
    done = run(app, ["store", "check", str(tmp_path / "s"), "--megabytes", "1", "--json"])
    assert [found["name"] for found in json.loads(done.output)["findings"]] == NAMES
    broken(monkeypatch, list=lambda real: lambda self, path, limit: [])
    done = run(app, ["store", "check", str(tmp_path / "s"), "--megabytes", "1"])
    assert done.exit_code == 1
    assert "do not work over this store" in done.output
