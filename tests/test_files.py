import json
import math
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import LockError, UntrustedError
from fedpriv.files import (
    canonical_json,
    file_sha256,
    folder_lock,
    open_temporary,
    parse_json,
    private_folder,
    read_json,
    sha256_hex,
    stale_lock_pid,
    write_atomic,
    write_folder,
    write_json,
)

DEADLINE_S = 30

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def child(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


# -- canonical JSON ------------------------------------------------------------------------------------------------


@given(json_values)
def test_canonical_json_reads_back_and_has_one_spelling(value):
    try:
        data = canonical_json(value)
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        return
    assert parse_json(data, source="it") == value
    assert canonical_json(json.loads(data)) == data


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert canonical_json({"b": 1, "a": "ü"}) == canonical_json({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused(number, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"loss": [number]})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "it.json", {"loss": number})
    assert not list(tmp_path.iterdir())


HALVES = ['"\\ud800"', '{"\\uDBFF": 1}', '["a", {"b": "\\udc00x"}]']


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "{", "", "[" * 200_000, "\xff", *HALVES])
def test_what_is_not_strict_json_is_refused(text):
    with pytest.raises(UntrustedError, match="It was not used"):
        parse_json(text.encode("latin-1"), source="the header")


def test_both_halves_of_a_pair_are_a_character_and_what_looks_like_a_half_is_text():
    assert parse_json(b'["\\ud83d\\ude00", "\\\\ud800"]', source="it") == ["\U0001f600", "\\ud800"]


def test_json_beyond_its_limit_is_not_read(tmp_path):
    path = tmp_path / "it.json"
    write_json(path, ["x" * 100])
    assert read_json(path, max_bytes=200) == ["x" * 100]
    with pytest.raises(UntrustedError, match="larger than 50 bytes"):
        read_json(path, max_bytes=50)


# -- writing ---------------------------------------------------------------------------------------------------------


def test_files_and_folders_are_private_unless_said_otherwise(tmp_path):
    folder = private_folder(tmp_path / "domain" / "keys")
    write_atomic(folder / "secret", b"1")
    write_atomic(folder / "public", b"2", mode=0o644)
    assert mode_of(folder) == mode_of(folder.parent) == 0o700
    assert mode_of(folder / "secret") == 0o600
    assert mode_of(folder / "public") == 0o644
    assert file_sha256(folder / "secret") == sha256_hex(b"1")


def test_a_private_folder_cannot_be_a_file(tmp_path):
    (tmp_path / "it").write_text("")
    with pytest.raises(FileExistsError):
        private_folder(tmp_path / "it")
    assert private_folder(tmp_path) == tmp_path


def test_a_folder_is_written_whole_and_private(tmp_path):
    write_folder(tmp_path / "jobs" / "one", {"code/a.py": b"a", "config.yaml": b"b"}, staging=tmp_path / ".staging")
    written = {path.relative_to(tmp_path / "jobs"): path for path in (tmp_path / "jobs").rglob("*") if path.is_file()}
    assert {str(name): path.read_bytes() for name, path in written.items()} == {
        "one/code/a.py": b"a",
        "one/config.yaml": b"b",
    }
    assert {mode_of(path) for path in written.values()} == {0o600}
    assert list((tmp_path / ".staging").iterdir()) == []


@pytest.mark.parametrize("moment", range(1, 6))
def test_a_killed_writer_leaves_a_folder_whole_or_not_at_all(tmp_path, moment):
    script = """
        import os, signal, sys
        from pathlib import Path
        from fedpriv import files
        real, left = os.fsync, int(sys.argv[2])
        def killed(descriptor):
            global left
            real(descriptor)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        files.os.fsync = killed
        root = Path(sys.argv[1])
        files.write_folder(root / "one", {"a": b"a" * 9000, "code/b": b"b"}, staging=root / ".staging")
    """
    process = child(script, tmp_path, moment)
    assert process.wait(DEADLINE_S) == -signal.SIGKILL
    there = {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert there == ({"a": b"a" * 9000, "b": b"b"} if moment == 5 else {})


def test_a_kill_in_the_middle_leaves_the_old_bytes(tmp_path):
    path = tmp_path / "ledger"
    write_atomic(path, b"old")
    script = """
        import os, signal, sys
        from pathlib import Path
        from fedpriv import files
        real = os.fsync
        def killed(descriptor):
            real(descriptor)
            os.kill(os.getpid(), signal.SIGKILL)
        files.os.fsync = killed  # written and flushed, but not yet renamed
        files.write_atomic(Path(sys.argv[1]), b"new" * 100_000)
    """
    process = child(script, path)
    assert process.wait(DEADLINE_S) == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_atomic(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_a_reader_never_sees_half_of_a_file_whenever_the_writer_is_killed(tmp_path):
    path = tmp_path / "state"
    script = """
        import itertools, sys
        from pathlib import Path
        from fedpriv.files import write_atomic
        for number in itertools.count():
            write_atomic(Path(sys.argv[1]), bytes([number % 256]) * 200_000)
            if number == 0:
                print("writing", flush=True)
    """
    process = child(script, path)
    assert process.stdout.readline() == "writing\n"
    for _ in range(50):
        seen = path.read_bytes()
        assert len(seen) == 200_000
        assert len(set(seen)) == 1
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    seen = path.read_bytes()
    assert len(seen) == 200_000
    assert len(set(seen)) == 1


def test_an_error_leaves_neither_a_change_nor_litter(tmp_path, monkeypatch):
    path = tmp_path / "it"
    write_atomic(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_need_not_last_is_whole_too_but_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("it waited for the disk"))
    write_json(tmp_path / "it", {"state": "old"}, durable=False)
    write_json(tmp_path / "it", {"state": "new"}, durable=False)
    assert read_json(tmp_path / "it") == {"state": "new"}
    assert stat.S_IMODE((tmp_path / "it").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "it"]


def test_threads_that_write_one_file_do_not_mix_their_bytes(tmp_path):
    path, problems = tmp_path / "it", []

    def write(byte):
        try:
            for _ in range(20):
                write_atomic(path, byte * 50_000)
        except OSError as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(bytes([n]),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not problems
    assert len(set(path.read_bytes())) == 1
    assert list(tmp_path.iterdir()) == [path]


# -- locks -----------------------------------------------------------------------------------------------------------

HOLD = """
    import sys, time
    from pathlib import Path
    from fedpriv.files import folder_lock
    with folder_lock(Path(sys.argv[1]), holder="The study", todo="wait"):
        print("held", flush=True)
        time.sleep(600)
"""


def test_a_lock_is_taken_by_one_process_only_and_its_holder_is_named(tmp_path):
    path = tmp_path / "run" / "lock"
    holder = child(HOLD, path)
    try:
        assert holder.stdout.readline() == "held\n"
        assert stale_lock_pid(path) is None
        refused = pytest.raises(LockError, match=f"The study is in use by process {holder.pid}")
        with refused as caught, folder_lock(path, holder="The study", todo="wait for it"):
            pytest.fail("it was taken twice")
        assert caught.value.todo == "wait for it"
    finally:
        holder.kill()
        holder.communicate(timeout=DEADLINE_S)
    # the kernel let go of it; what stays behind names the dead process
    assert stale_lock_pid(path) == holder.pid
    with folder_lock(path, holder="The study", todo=""):
        assert path.read_text() == f"{os.getpid()}\n"
        assert stale_lock_pid(path) is None
    assert not path.exists()
    assert stale_lock_pid(path) is None


def test_a_lock_is_put_away_after_an_error(tmp_path):
    path = tmp_path / "lock"
    with pytest.raises(RuntimeError), folder_lock(path, holder="It", todo=""):
        raise RuntimeError("boom")
    assert not path.exists()


def test_a_lock_file_that_is_removed_while_another_waits_is_not_held_twice(tmp_path):
    """Many holders in a row: whoever gets the lock of a file that is gone must try again."""
    path, inside, most, lock = tmp_path / "lock", 0, 0, threading.Lock()

    def work():
        nonlocal inside, most
        taken = 0
        while taken < 30:
            try:
                with folder_lock(path, holder="It", todo=""):
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    with lock:
                        inside -= 1
                    taken += 1
            except LockError:
                continue

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 1


@pytest.mark.parametrize(("text", "pid"), [("77\n", 77), ("", 0), ("rubbish", 0)])
def test_a_stale_lock_with_any_content_is_seen(tmp_path, text, pid):
    (tmp_path / "lock").write_text(text)
    assert stale_lock_pid(tmp_path / "lock") == pid


def test_links_are_replaced_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("untouched")
    Path(tmp_path / "it").symlink_to(tmp_path / "elsewhere")
    write_atomic(tmp_path / "it", b"new")
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert not (tmp_path / "it").is_symlink()


def test_a_temporary_file_is_private_and_replaces_what_a_killed_process_left(tmp_path):
    left, other = tmp_path / ".sum.bin.99999999.tmp", tmp_path / ".sum.bin.rest.99999999.tmp"
    left.write_bytes(b"half")
    other.write_bytes(b"of another file")
    temporary, descriptor = open_temporary(tmp_path / "sum.bin")
    os.close(descriptor)
    assert sorted(tmp_path.iterdir()) == sorted([temporary, other])
    assert temporary.stat().st_mode & 0o777 == 0o600
