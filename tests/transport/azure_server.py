"""A real server of Azure's protocol on loopback: Azurite, Microsoft's own, where npm has installed it."""

import base64
import email.utils
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's account and key, the same everywhere, printed in its manual."""


@dataclass
class AzureServer:
    folder: Path
    port: int = 0
    process: subprocess.Popen | None = None

    @property
    def url(self):
        return f"az://{ACCOUNT}/fedpriv/NAME?endpoint_url=http://127.0.0.1:{self.port}/{ACCOUNT}"

    def start(self):
        program = shutil.which("azurite-blob")
        if program is None:
            pytest.skip("there is no Azurite: npm install -g azurite")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [program, "--silent", "--skipApiVersionCheck", "--location", str(self.folder)]
        command += ["--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    self._make_container()
                    return self
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def _make_container(self):
        """The client makes none: an operator does, once."""
        headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        words = "PUT" + 12 * "\n" + named + f"/{ACCOUNT}/{ACCOUNT}/fedpriv\nrestype:container"
        signature = hmac.new(base64.b64decode(KEY), words.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
        url = f"http://127.0.0.1:{self.port}/{ACCOUNT}/fedpriv?restype=container"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()

    def stop(self):
        self.process.kill()
        self.process.wait(10)
