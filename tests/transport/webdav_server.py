"""A real WebDAV server on loopback: WsgiDAV, served by cheroot, with one user, in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, PASSWORD = "cohort", "not-a-secret"
_SERVE = """
import sys
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp

root, port, user, password = sys.argv[1:]
config = {
    "provider_mapping": {"/": root},
    "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}},
    "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
    "verbose": 1, "logging": {"enable": False}, "dir_browser": {"enable": False},
}
wsgi.Server(("127.0.0.1", int(port)), WsgiDAVApp(config)).safe_start()
"""


@dataclass
class WebdavServer:
    folder: Path
    port: int = 0
    process: subprocess.Popen | None = None

    @property
    def url(self):
        return f"webdav://127.0.0.1:{self.port}/served?netrc={self.folder / 'netrc'}"

    def start(self):
        pytest.importorskip("wsgidav", reason="there is no WebDAV server: pip install wsgidav cheroot")
        pytest.importorskip("webdav4", reason='there is no client: pip install "fedpriv[webdav]"')
        (self.folder / "root").mkdir(parents=True, exist_ok=True)
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        self.write_netrc(PASSWORD)
        command = [sys.executable, "-c", _SERVE, str(self.folder / "root"), str(self.port), USER, PASSWORD]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def write_netrc(self, password):
        path = self.folder / "netrc"
        path.write_text(f"machine 127.0.0.1 login {USER} password {password}\n")
        path.chmod(0o600)

    def stop(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
