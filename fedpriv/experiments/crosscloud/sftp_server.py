"""A store that a real OpenSSH server gives, as a process of ours: own keys, own port, key login only, SFTP only."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from fedpriv.errors import StudyError
from fedpriv.experiments.crosscloud.programs import program
from fedpriv.files import private_folder, write_atomic

_START_SECONDS = 10.0
_CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host_key_rsa
HostKey {folder}/host_key_ecdsa
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
UseDNS no
MaxStartups 100
MaxSessions 100
ClientAliveInterval 15
DisableForwarding yes
PermitTTY no
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""


@dataclass(kw_only=True)
class SftpServer:
    """One server; start it to serve, stop it to end it and its connections.

    Attributes
    ----------
    folder : Path
        Keys, configuration and log.
    root : Path
        The folder that is served.
    address : str
        The address to listen on: loopback, or one inside a network namespace.
    port : int
        The port; 0 takes a free one of loopback.
    prefix : sequence of str
        Words before the command, which run it inside a namespace.
    """

    folder: Path
    root: Path
    address: str = "127.0.0.1"
    port: int = 0
    prefix: Sequence[str] = ()
    fingerprint: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        private_folder(self.folder)
        private_folder(self.root)
        host, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        write_atomic(self.folder / "host_key", host.export_private_key())
        for name, kind in (("rsa", "ssh-rsa"), ("ecdsa", "ecdsa-sha2-nistp256")):  # as a server of Debian has them
            write_atomic(self.folder / f"host_key_{name}", asyncssh.generate_private_key(kind).export_private_key())
        write_atomic(self.folder / "client_key", client.export_private_key())
        write_atomic(self.folder / "authorized_keys", client.export_public_key())
        self.fingerprint = host.get_fingerprint("sha256")
        self.port = self.port or _free_port()

    @property
    def url(self) -> str:
        """The store's address, with the pinned host key and the key of its clients."""
        key = (self.folder / "client_key").resolve()
        where = f"{getpass.getuser()}@{self.address}:{self.port}"
        return f"sftp://{where}{self.root.resolve()}?host_key={self.fingerprint}&key={key}"

    @property
    def pid(self) -> int:
        """The server's process.

        Raises
        ------
        StudyError
            If it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            log = (self.folder / "sshd.log").read_text(errors="replace").splitlines()
            raise StudyError(f"The SFTP server ended: {log[-1] if log else 'no message'}", todo="read its sshd.log")
        return self._process.pid

    def start(self) -> SftpServer:
        """Serve; the server also ends if this process is killed."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it for its own walls
        config = _CONFIG.format(port=self.port, address=self.address, folder=self.folder.resolve())
        write_atomic(self.folder / "sshd_config", config.encode())
        serve = [program("sshd"), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            start = log.tell()
            self._process = subprocess.Popen(
                [program("setpriv"), "--pdeathsig", "TERM", *self.prefix, *serve],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while b"Server listening" not in (self.folder / "sshd.log").read_bytes()[start:]:
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                _ = self.pid  # says what its log says
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End the server and every connection to it."""
        if self._process is None:
            return
        for pid in [*_children(self._process.pid), self._process.pid]:
            try:
                os.kill(pid, 15)
            except ProcessLookupError:
                continue
        self._process.wait(10)

    def __enter__(self) -> SftpServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _children(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
