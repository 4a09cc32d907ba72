"""What the machine says no to is a sentence with the next step, and no traceback."""

import errno
import subprocess
import sys

import pytest

from fedpriv.cli.saying import os_error_in_words


@pytest.mark.parametrize(
    ("number", "name", "words", "code"),
    [
        (errno.EACCES, "/etc/heart", "This user may not read or write /etc/heart. ", 2),
        (errno.EPERM, b"/etc/heart", "This user may not read or write /etc/heart. ", 2),
        (errno.ENOENT, "/none/.led.ger.html.4711-140.tmp", "There is no file or folder /none/led.ger.html. ", 2),
        (errno.ENOTDIR, "a/b", "a/b is no folder, or lies below a file. ", 2),
        (errno.ENOSPC, None, "The disk here cannot be written", 1),
    ],
)
def test_a_file_or_folder_is_named_with_the_next_step(number, name, words, code):
    found = os_error_in_words(OSError(number, "no", name))
    assert found is not None
    said, exit_code = found
    assert said.startswith(words)
    assert "Next: " in said
    assert exit_code == code


def test_what_names_no_file_keeps_its_traceback():
    assert os_error_in_words(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    assert os_error_in_words(PermissionError(errno.EPERM, "no")) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["domain", "init", "file/d", "--email", "a@x.org", "--store", "s", "--data", "tables"],
        ["data", "synthesize", "file/tables", "--patients", "20"],
    ],
)
def test_a_command_that_cannot_write_there_says_so(tmp_path, arguments):
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "fedpriv", "data", "synthesize", "tables", "--patients", "20"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-m", "fedpriv", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "file" in done.stderr
    assert "Next: " in done.stderr
