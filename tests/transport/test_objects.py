"""What a bucket says of one peer's objects keeps nobody else waiting: only the bucket itself can be away."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from fedpriv.errors import TransportError, UnreachableError
from fedpriv.transport import Store, retrying

INBOX = "eve@y.org/to/micu@x.org/inbox"
LISTING = (
    "<?xml version='1.0'?><ListBucketResult><Name>b</Name><Prefix></Prefix><KeyCount>1</KeyCount>"
    "<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{}</ListBucketResult>"
)
OBJECT = (
    "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag>"
    "<Size>1</Size></Contents>"
)


@pytest.fixture
def bucket(monkeypatch):
    """A server that answers listings and everything else as a test says."""
    pytest.importorskip("obstore", reason='there is no client: pip install "fedpriv[s3]"')
    monkeypatch.setattr(retrying, "ATTEMPTS", 1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    answers = SimpleNamespace(listed="", status=404)

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            listing = LISTING.format(answers.listed).encode() if "list-type" in self.path else b""
            self.send_response(200 if listing else answers.status)
            self.send_header("Content-Length", str(len(listing)))
            self.end_headers()
            self.wfile.write(listing)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"s3://bucket/study?endpoint_url=http://127.0.0.1:{server.server_port}&region=eu-1"
    yield Store.from_url(url), answers
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["/x", "..", "a&#x1;b", "a&#10;b"])
def test_an_object_with_an_odd_name_is_trouble_of_whose_folder_it_is_in(bucket, name):
    store, answers = bucket
    answers.listed = OBJECT.format(f"study/{INBOX}/{name}")
    try:
        assert store.entries(INBOX) == []
    except TransportError as error:
        assert not isinstance(error, UnreachableError)


@pytest.mark.parametrize(("status", "away"), [(400, False), (403, False), (429, True), (503, True)])
def test_an_object_that_is_not_given_out_is_no_store_that_is_away(bucket, status, away):
    store, answers = bucket
    answers.status = status
    with pytest.raises(TransportError) as caught:
        store.get("eve@y.org/identity.json", max_bytes=10)
    assert isinstance(caught.value, UnreachableError) == away
