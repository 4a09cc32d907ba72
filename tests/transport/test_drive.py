"""A store in Google Drive: its address, its errors, and what only Drive does; and syft's own connection beside it."""

import os

import pytest

from fedpriv.errors import ConfigError, TransportError, UnreachableError
from fedpriv.transport import Store, retrying
from tests.transport.drive_server import FOLDER, SHARED, DriveServer


@pytest.fixture
def drive(tmp_path):
    server = DriveServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def store(drive):
    return Store.from_url(drive.url.replace("NAME", "study"))


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_PAUSE_SECONDS", 0.0)


def stored(drive, name):
    return [one for one in drive.files.values() if one["name"] == name and not one.get("trashed")]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gdrive:///study?token=TOKEN", "lacks the id"),
        ("gdrive://../study?token=TOKEN", "lacks the id"),
        ("gdrive://shared-folder/study", "does not say where the token"),
        ("gdrive://shared-folder/study?token=/nowhere.json", "is not there"),
        ("gdrive://shared-folder/study?token=TOKEN&key=1", "unknown or doubled part 'key'"),
        ("gdrive://shared-folder/study?token=TOKEN&endpoint_url=https://evil.example", "nowhere else than at Google"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_before_anything_is_called(drive, url, words):
    with pytest.raises(ConfigError, match=words):
        Store.from_url(url.replace("TOKEN", str(drive.token)))
    assert drive.asked == []


@pytest.mark.parametrize("content", ["{", "[]", '{"token": "unmistakable"}', '{"type": "service_account"}'])
def test_a_token_that_is_none_is_named_and_not_shown(drive, content):
    drive.token.write_text(content)
    with pytest.raises(ConfigError, match=r"token .* cannot be read") as caught:
        Store.from_url(drive.url)
    assert "unmistakable" not in str(caught.value)


def test_a_token_that_others_can_read_is_not_used(drive):
    drive.token.chmod(0o644)
    with pytest.raises(ConfigError, match="Others on this machine can read"):
        Store.from_url(drive.url)
    assert drive.asked == []


@pytest.mark.parametrize("folder", ["", "/study"])
def test_a_folder_that_is_not_there_for_this_account_is_said_at_once(drive, folder):
    with pytest.raises(TransportError, match=r"gdrive://another-folder.* cannot be reached \(said notFound\)"):
        Store.from_url(drive.url.replace(f"{SHARED}/NAME", f"another-folder{folder}"))


@pytest.mark.parametrize(("status", "reason"), [(403, "userRateLimitExceeded"), (429, "x"), (503, "backendError")])
def test_what_passes_by_itself_is_asked_again(store, drive, status, reason):
    drive.fail = [(status, reason)] * 2
    store.put("a/k", b"1")
    assert store.get("a/k", max_bytes=1) == b"1"
    drive.fail = [(status, reason)] * 10
    with pytest.raises(UnreachableError, match=f"answered {status}"):
        store.get("a/k", max_bytes=1)


def test_what_the_account_may_not_do_is_said(store, drive):
    drive.fail = [(403, "insufficientFilePermissions")]
    with pytest.raises(TransportError, match="does not allow it to this account: said insufficientFilePermissions"):
        store.put("a/k", b"1")


def test_of_two_files_of_a_name_the_elder_counts_and_the_next_write_removes_the_other(store, drive):
    store.put("a/k", b"elder")
    (elder,) = stored(drive, "k")
    drive.add({"name": "k", "mimeType": "x", "parents": elder["parents"]}, b"younger")
    assert store.get("a/k", max_bytes=9) == b"elder"
    assert [(entry.name, entry.size_bytes) for entry in store.entries("a")] == [("k", 5)]
    store.put("a/k", b"new")
    assert [one["content"] for one in stored(drive, "k")] == [b"new"]
    drive.add({"name": "k", "mimeType": "x", "parents": elder["parents"]}, b"younger")
    store.delete("a/k")
    assert stored(drive, "k") == []
    assert store.get("a/k", max_bytes=9) is None


def test_of_two_folders_of_a_name_the_elder_counts(store, drive):
    store.put("a/k", b"1")
    (study,) = stored(drive, "study")
    drive.add({"name": "a", "mimeType": FOLDER, "parents": [study["id"]]}, b"")
    again = Store.from_url(drive.url.replace("NAME", "study"))
    assert again.get("a/k", max_bytes=1) == b"1"


def test_a_folder_that_went_away_is_made_again(store, drive):
    store.put("a/b/k", b"1")
    (folder,) = stored(drive, "a")
    drive.delete(folder["id"])
    assert store.get("a/b/k", max_bytes=1) is None
    store.put("a/b/k", b"2")
    (folder,) = stored(drive, "a")
    drive.delete(folder["id"])
    store.put("a/b/k", b"3")
    assert store.get("a/b/k", max_bytes=1) == b"3"


def test_where_deleting_is_not_allowed_it_goes_to_the_bin(store, drive, monkeypatch):
    store.put("a/k", b"1")
    (one,) = stored(drive, "k")

    def forbid(handler):
        return handler.refuse(403, "insufficientFilePermissions")

    monkeypatch.setattr(drive.http.RequestHandlerClass, "remove", forbid)
    store.delete("a/k")
    assert one["trashed"]
    assert not store.exists("a/k")


@pytest.mark.parametrize("size", [4_999_999, 5_000_001])
def test_a_large_file_goes_in_a_session_of_its_own(store, drive, size):
    data = os.urandom(size)
    for _ in range(2):
        store.put("a/k", data)
        assert store.get("a/k", max_bytes=size) == data
    assert len(stored(drive, "k")) == 1
    sessions = [path for command, path in drive.asked if command == "PUT"]
    assert len(sessions) == (2 if size > 5_000_000 else 0)


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"--"])
def test_the_last_bytes_are_kept(store, end):
    store.put("a/k", b"x" + end)
    assert store.get("a/k", max_bytes=9) == b"x" + end


def test_few_requests(store, drive):
    store.put("a/k", b"1")
    counts = []
    for work in (lambda: store.put("a/k", b"2"), lambda: store.get("a/k", max_bytes=9), lambda: store.exists("a/no")):
        drive.asked.clear()
        work()
        counts.append(len(drive.asked))
    assert counts == [3, 2, 1], "a put is looked at again; a question is one"


def test_syfts_own_connection_works_beside_it_as_it_always_did(store):
    """Nothing of syft's is changed: over its connection (and its stand-in for Drive) messages go both ways."""
    from syft.sync.connections.drive.gdrive_transport import GDriveConnection
    from syft.sync.connections.drive.mock_drive_service import pair_with_mock_service

    assert GDriveConnection.__module__ == "syft.sync.connections.drive.gdrive_transport"
    owner, researcher = pair_with_mock_service("micu@x.org", "ada@y.org")
    researcher.add_peer("micu@x.org")
    researcher.watcher_send_raw_bytes_to_inbox("micu@x.org", "msgv2_1.0_x.tar.gz", b"hello")
    assert owner.get_peer_requests() == ["ada@y.org"]
    assert owner.owner_download_next_raw_proposed_message_from_inbox("ada@y.org")[0] == b"hello"
