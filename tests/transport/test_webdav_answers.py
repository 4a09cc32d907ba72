"""Whatever a WebDAV server answers, and for however long: it is an error of the store, and takes no memory."""

import gzip
import http.server
import threading
import time

import pytest

from fedpriv.errors import TransportError, UnreachableError
from fedpriv.transport import Store, retrying, webdav_answers

HEAD = b'<?xml version="1.0"?><d:multistatus xmlns:d="DAV:">'


class Server(http.server.ThreadingHTTPServer):
    """Answers all that it is asked with one thing."""

    daemon_threads = True
    pieces, headers, pause_s = (), (), 0.0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(207)
        for name, value in self.server.headers:
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in self.server.pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                time.sleep(self.server.pause_s)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # whoever asked went away

    do_PROPFIND = do_GET = do_PUT = do_MKCOL = do_MOVE = do_DELETE = answer


@pytest.fixture
def server(tmp_path):
    pytest.importorskip("webdav4", reason='there is no client: pip install "fedpriv[webdav]"')
    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def store(server, tmp_path, monkeypatch):
    monkeypatch.setattr(retrying, "ATTEMPTS", 1)
    (tmp_path / "netrc").write_text("")
    return Store.from_url(f"webdav://127.0.0.1:{server.server_port}/x?netrc={tmp_path / 'netrc'}")


def test_an_answer_without_end_is_given_up(server, store, monkeypatch):
    monkeypatch.setattr(webdav_answers, "MOST_BYTES", 100_000)
    server.pieces = [HEAD, *[b" " * 10_000] * 50]
    for ask in (lambda: store.entries("a"), lambda: store.look("a/k"), lambda: store.put("a/k", b"1")):
        with pytest.raises(UnreachableError, match="more than 100000 bytes"):
            ask()


def test_an_answer_that_drips_is_given_up(server, store, monkeypatch):
    monkeypatch.setattr(webdav_answers, "MOST_SECONDS", 0.3)
    server.pieces, server.pause_s = [HEAD, *[b" "] * 1000], 0.05
    with pytest.raises(UnreachableError, match="takes more than 0 s"):
        store.entries("a")


def test_a_little_that_becomes_much_is_not_unpacked(server, store):
    server.headers = [("Content-Encoding", "gzip")]
    server.pieces = [gzip.compress(HEAD + b" " * 10**8)]
    with pytest.raises(UnreachableError, match="is compressed"):
        store.entries("a")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><p>Log in to the guest network</html>",
        HEAD,
        HEAD + b"<d:response/></d:multistatus>",
        HEAD + b"<d:response><d:href/><d:propstat><d:status>x</d:status></d:propstat></d:response></d:multistatus>",
        HEAD + b"<d:response><d:href>/x/a/k</d:href><d:propstat><d:prop><d:getcontentlength>x</d:getcontentlength>"
        b"<d:getlastmodified>x</d:getlastmodified></d:prop></d:propstat></d:response></d:multistatus>",
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_listing_is_an_error_of_the_store(server, store, body):
    server.pieces = [body] if body else []
    for ask in (lambda: store.entries("a"), lambda: store.look("a/k")):
        with pytest.raises(TransportError):
            ask()


def test_a_folder_that_names_itself_alone_is_empty(server, store):
    server.pieces = [HEAD + b"<d:response><d:href>/x/a</d:href></d:response></d:multistatus>"]
    assert store.entries("a") == []
    with pytest.raises(TransportError):
        store.look("a/k")
