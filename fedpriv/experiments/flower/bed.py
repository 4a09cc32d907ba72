"""A Flower deployment on this machine: a SuperLink over TLS, and a SuperNode for each domain of a federation."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedpriv.errors import StudyError
from fedpriv.experiments.federation import Federation
from fedpriv.files import private_folder, write_atomic
from fedpriv.flower import write_app
from fedpriv.researcher.researcher import CONFIG_FILE

_HOST = "127.0.0.1"
_STARTS_S, _ENDS_S = 60.0, 15.0


def exchange_of(work: Path, party: str) -> Path:
    """Return the exchange folder of a party of a federation that was set :func:`apart`."""
    return work / "exchange" / party


def apart(work: Path) -> None:
    """Give each party of a federation an exchange folder of its own in the place of the store that all reach."""
    federation = Federation.take_up(work)
    try:
        for name, domain in federation.domains.items():
            store = str(private_folder(exchange_of(work.resolve(), name)))
            domain.folder.write_config(domain.config.model_copy(update={"store": store}))
        researcher = federation.researcher
        store = str(private_folder(exchange_of(work.resolve(), researcher.config.name)))
        text = json.dumps(researcher.config.model_copy(update={"store": store}).model_dump(mode="json"))
        write_atomic(researcher.root / CONFIG_FILE, text.encode(), mode=0o644)  # JSON is YAML
    finally:
        federation.close()


class FlowerBed:
    """Flower's processes for a federation whose parties are :func:`apart`.

    Parameters
    ----------
    federation : Federation
        Its domains are served by whoever made it.
    programs : Path
        The folder with Flower's programs.
    work : Path
        Certificates, logs and Flower's own files lie below it.
    authenticated : bool
        Only SuperNodes whose keys were registered are let in; each is the same one to Flower when it starts again.
    """

    def __init__(self, federation: Federation, programs: Path, work: Path, *, authenticated: bool = False) -> None:
        self._federation, self._programs, self._work = federation, programs, private_folder(work)
        self._authenticated = authenticated
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._port = _free_port()
        self._run = ""
        path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"  # its processes start each other by name
        quiet = {
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        }
        self._environment = {"PATH": path, "HOME": str(self._work), "FLWR_HOME": str(self._work / "flwr")} | quiet

    def __enter__(self) -> FlowerBed:
        """Start everything.

        Raises
        ------
        StudyError
            If a process ends at once, or the run cannot be started, with the last line that it said.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self.stop)
            self._start()
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def run(self) -> str:
        """The number of the run that carries files."""
        return self._run

    def log(self, name: str) -> str:
        """Return what a process said: ``superlink``, or the short name of a domain."""
        return (self._work / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def start_node(self, name: str) -> None:
        """Start the SuperNode of a domain."""
        domain = self._federation.domains[name]
        config = f'exchange="{domain.config.store}" domain="{domain.config.email}"'
        arguments = [
            *("--superlink", f"{_HOST}:{self._port}", "--root-certificates", str(self._work / "ca.pem")),
            *("--node-config", config, "--port", str(_free_port())),
            *(("--auth-supernode-private-key", str(self._work / f"{name}.key")) if self._authenticated else ()),
        ]
        self._spawn(name, "flower-supernode", *arguments)

    def kill_node(self, name: str) -> None:
        """Kill the SuperNode of a domain, with all that it started, as a power cut does."""
        process = self._processes.pop(name)
        os.killpg(process.pid, 9)
        process.wait(_ENDS_S)

    def stop(self) -> None:
        """End all processes."""
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDS_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)  # what it started, and what did not end
            process.wait(_ENDS_S)
        self._processes.clear()

    def _start(self) -> None:
        make_certificates(self._work)
        settings = self._work / "flwr" / "config.toml"
        address, authority = json.dumps(f"{_HOST}:{self._port}"), json.dumps(str(self._work / "ca.pem"))
        text = (
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = {address}\nroot-certificates = {authority}\n'
        )
        write_atomic(settings, text.encode())
        keys = ("--ssl-ca-certfile", "ca.pem", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key")
        where = ("--host", _HOST, "--port", str(self._port))
        entry = ("--enable-supernode-auth",) if self._authenticated else ()
        self._spawn("superlink", "flower-superlink", *keys, *where, *entry, "--disable-runtime-dependency-installation")
        for name in self._federation.domains:
            if self._authenticated:
                make_node_key(self._work, name)
                self._ask_superlink("supernode", "register", str(self._work / f"{name}.pub"), "here")
            self.start_node(name)
        app = self._work / "app"
        shutil.rmtree(app, ignore_errors=True)
        config = self._federation.researcher.config
        write_app(app, researcher=config.email, exchange=config.store)
        self._run = str(self._ask_superlink("run", str(app), "here")["run-id"])

    def _ask_superlink(self, *arguments: str) -> dict[str, Any]:
        """Run a command of ``flwr`` as soon as the SuperLink listens, and return what it answers."""
        end, said = time.monotonic() + _STARTS_S, "it does not listen"
        while time.monotonic() < end:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise StudyError(f"Flower's {name} ended: {self.log(name)[-500:]}", kept="Nothing was run")
            with socket.socket() as probe:
                listens = probe.connect_ex((_HOST, self._port)) == 0
            if listens:
                said = self._flwr(*arguments, "--format", "json")
                with contextlib.suppress(ValueError):
                    answer = json.loads(said)
                    if answer.get("success"):
                        return answer
            time.sleep(0.2)
        raise StudyError(f"flwr {arguments[0]} does not work: {said[-500:]}", kept="Nothing was run")

    def _flwr(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._programs / "flwr"), *arguments],
            env=self._environment,
            cwd=self._work,
            capture_output=True,
            text=True,
            timeout=_STARTS_S,
            check=False,
        )
        return done.stdout or done.stderr

    def _spawn(self, name: str, program: str, *arguments: str) -> None:
        with (self._work / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(self._programs / program), *arguments],
                env=self._environment,
                cwd=self._work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def make_certificates(folder: Path) -> None:
    """Write an authority (``ca.pem``) and a server's certificate and key of it, for this machine and one day."""
    authority, authority_name = ec.generate_private_key(ec.SECP256R1()), _name("a test's authority")
    server = ec.generate_private_key(ec.SECP256R1())
    reached_as = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(_HOST))])
    signed_by = (authority_name, authority)
    top = _certificate(authority_name, authority, signed_by, x509.BasicConstraints(ca=True, path_length=0))
    leaf = _certificate(
        _name("localhost"), server, signed_by, x509.BasicConstraints(ca=False, path_length=None), reached_as
    )
    key = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for name, data in {"ca.pem": top, "server.pem": leaf, "server.key": key}.items():
        write_atomic(folder / name, data)


def make_node_key(folder: Path, name: str) -> None:
    """Write the key of a SuperNode (``NAME.key``) and its public half (``NAME.pub``)."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_atomic(folder / f"{name}.key", private)
    write_atomic(folder / f"{name}.pub", public)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signed_by: tuple[x509.Name, ec.EllipticCurvePrivateKey],
    *extensions: x509.ExtensionType,
) -> bytes:
    now, (issuer, issuer_key) = datetime.datetime.now(datetime.UTC), signed_by
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return probe.getsockname()[1]
