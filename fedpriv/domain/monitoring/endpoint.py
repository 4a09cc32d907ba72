"""``/healthz`` and ``/metrics`` over HTTP, for programs on this machine and nobody else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from fedpriv.domain.domain import Domain
from fedpriv.domain.monitoring.metrics import DomainCollector
from fedpriv.domain.monitoring.vitals import Vitals
from fedpriv.errors import ConfigError

LOOPBACK = "127.0.0.1"
_HOSTS = ("127.0.0.1", "localhost")
_REQUEST_SECONDS = 5.0


class Endpoint:
    """An HTTP server on 127.0.0.1 that answers GET requests for two pages.

    *Guarantee*: it listens on the loopback address, whatever the configuration says, and it answers requests for that
    address or ``localhost`` only, so that a web page that is open in a browser on this machine cannot read it under a
    name of its own.

    Parameters
    ----------
    port : int
        0 takes a free one.
    complaint : Callable[[], str]
        What is wrong, in one sentence; empty if nothing is.
    metrics : Callable[[], bytes]
        The page in Prometheus' text format.

    Attributes
    ----------
    port : int
        Where it listens.

    Raises
    ------
    ConfigError
        If the port cannot be had.
    """

    def __init__(self, port: int, *, complaint: Callable[[], str], metrics: Callable[[], bytes]) -> None:
        try:
            self._server = ThreadingHTTPServer((LOOPBACK, port), _handler(complaint, metrics))
        except OSError as error:
            raise ConfigError(
                f"Port {port} of {LOOPBACK} cannot be had for metrics ({error.strerror})",
                kept="Nothing was started",
                todo="choose another service > metrics_port in domain.yaml, or 0 for none",
            ) from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(complaint: Callable[[], str], metrics: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS  # of a connection that says nothing
        server_version, sys_version = "fedpriv", ""

        def do_GET(self) -> None:
            host, _, port = self.headers.get("Host", "").partition(":")
            if host not in _HOSTS or port not in ("", str(self.connection.getsockname()[1])):
                self._answer(403, b"Ask for it as localhost.\n")
            elif self.path == "/healthz":
                wrong = complaint()
                self._answer(503 if wrong else 200, f"{wrong or 'The service is well.'}\n".encode())
            elif self.path == "/metrics":
                self._answer(200, metrics(), CONTENT_TYPE_LATEST)
            else:
                self._answer(404, b"There is /healthz and /metrics.\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the terminal and the log are for what the service does."""

    return Handler


@contextlib.contextmanager
def serving(domain: Domain, vitals: Vitals) -> Iterator[Endpoint | None]:
    """Serve both pages while the block runs, if ``domain.yaml`` asks for it (``service > metrics_port``).

    Raises
    ------
    ConfigError
        If the port cannot be had.
    """
    port = domain.config.service.metrics_port
    if not port:
        yield None
        return
    registry = CollectorRegistry()
    registry.register(DomainCollector(domain, vitals))
    ProcessCollector(registry=registry)
    endpoint = Endpoint(port, complaint=vitals.complaint, metrics=lambda: generate_latest(registry))
    try:
        yield endpoint
    finally:
        endpoint.close()
