"""What a person is told when the machine said no: a file that may not be read, no such folder, a full disk."""

from __future__ import annotations

import errno
import re

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_RIGHT = (errno.EACCES, errno.EPERM)
_WRONG_PLACE = {
    errno.ENOENT: "There is no file or folder {}",
    errno.ENOTDIR: "{} is no folder, or lies below a file",
    errno.EISDIR: "{} is a folder, where a file is needed",
    errno.EEXIST: "{} is a file, where a folder is needed",
    errno.ENAMETOOLONG: "{} is too long for a name",
}
_TEMPORARY = re.compile(r"\.(?P<name>[^/]+)\.\d+(-\d+)?\.tmp\Z")


def os_error_in_words(error: OSError) -> tuple[str, int] | None:
    """Return a sentence with the next step, and the exit code; None for an error that a person cannot mend.

    One that names no file is a connection's or a process's: its traceback says more than a guess.
    """
    if error.errno in _NO_ROOM:
        return f"The disk here cannot be written ({error}). What was finished is kept. Next: make room, then go on.", 1
    if not isinstance(error.filename, str | bytes):
        return None
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    name = _TEMPORARY.sub(lambda found: found["name"], name)  # what people named, not what is renamed to it
    if error.errno in _NO_RIGHT:
        todo = "run it as the user whose file or folder it is, or give this user the right"
        return f"This user may not read or write {name}. What was finished is kept. Next: {todo}.", 2
    if error.errno in _WRONG_PLACE:
        what = _WRONG_PLACE[error.errno].format(name)
        return f"{what}. What was finished is kept. Next: check the path, and try again.", 2
    return None
