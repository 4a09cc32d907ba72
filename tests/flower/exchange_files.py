"""Addresses and files for tests of the relay."""

import os

ME, YOU, OTHER = "micu@site.example", "researcher@lab.example", "sicu@site.example"
OLD_US = 1_700_000_000_000_000


def put(root, name, data=b"x", time_us=OLD_US):
    """Write a file that was changed at a time."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(time_us * 1000, time_us * 1000))
    return path
