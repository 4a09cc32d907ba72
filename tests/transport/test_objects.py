"""What a bucket says of one peer's objects keeps nobody else waiting: only the bucket itself can be away."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from fedpriv.errors import TransportError, UnreachableError, UntrustedError
from fedpriv.transport import Store, objects, retrying

INBOX = "eve@y.org/to/micu@x.org/inbox"
LISTING = (
    "<?xml version='1.0'?><ListBucketResult><Name>b</Name><Prefix></Prefix><KeyCount>1</KeyCount>"
    "<MaxKeys>1000</MaxKeys>{more}{listed}</ListBucketResult>"
)
MORE = "<IsTruncated>true</IsTruncated><NextContinuationToken>more</NextContinuationToken>"
NO_MORE = "<IsTruncated>false</IsTruncated>"
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
    answers = SimpleNamespace(listed="", pages=1, asked=0, status=404, endless=0, given=0)

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            listing = self.listing() if "list-type" in self.path else b""
            partial = 206 if "Range" in self.headers else 200
            self.send_response(partial if listing or answers.endless else answers.status)
            self.send_header("Content-Length", str(len(listing) or answers.endless))
            if answers.endless:
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                if asked := self.headers.get("Range"):
                    self.send_header("Content-Range", f"{asked.replace('=', ' ')}/{answers.endless}")
            self.end_headers()
            self.wfile.write(listing)
            with contextlib.suppress(OSError):  # whoever asked has enough
                while answers.given < answers.endless:
                    self.wfile.write(bytes(2**20))
                    answers.given += 2**20

        def listing(self):
            answers.asked += 1
            more = MORE if answers.asked < answers.pages else NO_MORE
            return LISTING.format(listed=answers.listed.replace("PAGE", str(answers.asked)), more=more).encode()

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


@pytest.mark.parametrize("name", ["{:012d}", "folder-{}/x", "one-folder/{}", "one-name", "", "{}\u00e4"])
def test_of_a_listing_without_end_no_more_is_asked_for_than_is_looked_at(bucket, name):
    store, answers = bucket
    answers.listed = "".join(OBJECT.format(f"study/{INBOX}/{name.format(number)}") for number in range(1000))
    answers.pages = 40  # as if there were no end: the test has one
    with pytest.raises(UntrustedError, match=rf"More than 4000 things lie in {INBOX}"):
        store.entries(INBOX, most=4000)
    assert answers.asked == 5


def test_a_listing_of_nothing_that_does_not_end_is_given_up(bucket, monkeypatch):
    store, answers = bucket
    monkeypatch.setattr(objects, "_LISTED_SECONDS", 1.0)
    answers.pages = 100_000  # as if there were no end: the test has one
    with pytest.raises(UnreachableError, match="its listing does not end within 1 s"):
        store.entries(INBOX)
    assert 0 < answers.asked < answers.pages


def test_of_an_object_that_does_not_end_little_more_is_taken_than_is_asked_for(bucket):
    store, answers = bucket
    answers.endless = 2**28
    with pytest.raises(UntrustedError, match="larger than 1000 bytes"):
        store.get("eve@y.org/identity.json", max_bytes=1000)
    assert answers.given < answers.endless // 4


def test_a_listing_takes_as_many_answers_as_the_server_makes_of_it(bucket):
    store, answers = bucket
    for listed, pages in ((3, 1), (1000, 1), (1000, 3)):
        answers.listed = "".join(OBJECT.format(f"study/{INBOX}/PAGE-{number}") for number in range(listed))
        answers.pages, answers.asked = pages, 0
        assert len(store.entries(INBOX)) == listed * pages
        assert answers.asked == pages


def test_a_folder_is_listed_once_whatever_lies_in_it_or_has_its_name(bucket):
    store, answers = bucket
    below = ("", "b/", "b/1", "b/c/2", "a", "d/", "b")
    answers.listed = "".join(OBJECT.format(f"study/{INBOX}/{name}") for name in below)
    assert store.names(INBOX) == ["a", "b", "d"]
    assert "b" not in [entry.name for entry in store.entries(INBOX)]
