"""A PostgreSQL server of the tests' own, on loopback, in a folder that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "not-in-any-address"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's newest server programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return Path(path).parent if path else None


@contextmanager
def running_server() -> Iterator[tuple[str, Path]]:
    """Give the address of an empty database, without its password, and the file that has the password."""
    bin_folder = programs()
    assert bin_folder is not None
    home = Path(tempfile.mkdtemp(prefix="fedpriv-pg-"))
    (home / "password").write_text(PASSWORD)
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(home, "postgres")
        shutil.chown(home / "password", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = home / "data"
    initdb = [bin_folder / "initdb", "-D", data, "-U", "mimic", "-A", "scram-sha-256", f"--pwfile={home / 'password'}"]
    subprocess.run([*as_user, *map(str, initdb)], check=True, capture_output=True, cwd=home)
    options = ["-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-k", home, "-c", "fsync=off"]
    server = subprocess.Popen(
        [*as_user, *map(str, [bin_folder / "postgres", *options])],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        is_ready = [bin_folder / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
        for _ in range(200):  # it takes connections before it answers any
            if subprocess.run(is_ready, check=False).returncode == 0:
                break
            time.sleep(0.05)
        passwords = home / "pgpass"
        passwords.write_text(f"127.0.0.1:{port}:*:mimic:{PASSWORD}\n")
        passwords.chmod(0o600)
        yield f"postgresql://mimic@127.0.0.1:{port}/postgres", passwords
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(home, ignore_errors=True)
