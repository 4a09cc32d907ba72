"""One contract, every kind of store, against real servers: what a Store promises holds on each of them."""

import contextlib
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from syft_job.models import JobStatus

from fedpriv.errors import ConfigError, TransportError, UntrustedError
from fedpriv.experiments.crosscloud.line import Line
from fedpriv.experiments.crosscloud.programs import program
from fedpriv.experiments.crosscloud.s3_server import S3Server
from fedpriv.experiments.crosscloud.sftp_server import SftpServer
from fedpriv.transport import Store
from fedpriv.transport.blobs import BlobChannel
from fedpriv.transport.checking import check_store
from fedpriv.transport.objects import ObjectFiles
from tests.transport.azure_server import KEY, AzureServer
from tests.transport.conftest import OWNER, RESEARCHER, make_pair
from tests.transport.drive_server import DriveServer
from tests.transport.google_server import ACCOUNT_KEY, GoogleServer
from tests.transport.webdav_server import WebdavServer

KINDS = ["folder", "memory", "sftp", "s3", "google", "azure", "gdrive", "webdav"]


@pytest.fixture(scope="module")
def sftp(tmp_path_factory):
    try:
        program("sshd")
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("sftp")
    with SftpServer(folder=folder / "server", root=folder / "served") as server:
        yield server.url.replace("/served?", "/served/NAME?")


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory):
    pytest.importorskip("obstore", reason='there is no client: pip install "fedpriv[s3]"')
    server = S3Server(folder=tmp_path_factory.mktemp("s3"), users=(OWNER, RESEARCHER))
    try:
        server.start()
    except ConfigError as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3(s3_server):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.credentials().items():
            patch.setenv(name, value)
        yield s3_server.url.replace("/study?", "/study/NAME?")


@pytest.fixture(scope="module")
def google(tmp_path_factory):
    pytest.importorskip("obstore", reason='there is no client: pip install "fedpriv[gcs]"')
    server = GoogleServer(tmp_path_factory.mktemp("google"))
    try:
        server.start()
    except ConfigError as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", ACCOUNT_KEY)
        yield server.url
    server.stop()


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    pytest.importorskip("obstore", reason='there is no client: pip install "fedpriv[azure]"')
    server = AzureServer(tmp_path_factory.mktemp("azure")).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
        yield server.url
    server.stop()


@pytest.fixture(scope="module")
def gdrive(tmp_path_factory):
    server = DriveServer(tmp_path_factory.mktemp("gdrive")).start()
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def webdav(tmp_path_factory):
    server = WebdavServer(tmp_path_factory.mktemp("webdav")).start()
    yield server.url.replace("/served?", "/served/NAME?")
    server.stop()


@pytest.fixture
def url(request, tmp_path):
    """The address of an empty store of each kind."""
    kind = request.param
    if kind == "folder":
        return str(tmp_path / "store")
    if kind == "memory":
        return f"memory://{tmp_path.name}"
    return request.getfixturevalue(kind).replace("NAME", tmp_path.name)


@pytest.fixture
def store(url):
    return Store.from_url(url)


def is_s3(store):
    """SeaweedFS forgets a folder a while after its last object, and shows it until then."""
    return isinstance(store._files, ObjectFiles)


every_kind = pytest.mark.parametrize("url", KINDS, indirect=True)


@every_kind
def test_put_get_list_look_delete(store):
    key = "a@x.org/to/b+c@x.org/blobs/update-1.bin"
    store.put(key, b"one")
    store.put(key, b"two!")
    store.put("a@x.org/version.json", b"")
    assert store.get(key, max_bytes=4) == b"two!"
    assert store.get("a@x.org/version.json", max_bytes=4) == b""
    assert store.names() == ["a@x.org"]
    assert store.names("a@x.org") == ["to", "version.json"]
    assert [(e.name, e.size_bytes) for e in store.entries("a@x.org/to/b+c@x.org/blobs")] == [("update-1.bin", 4)]
    assert [e.name for e in store.entries("a@x.org")] == ["version.json"]
    assert store.exists(key)
    assert store.look(key).size_bytes == 4
    store.delete(key)
    store.delete(key)
    assert store.get(key, max_bytes=3) is None
    assert store.look(key) is None
    assert not store.exists(key)
    assert store.entries("nowhere") == []
    assert store.entries("a@x.org/to/b+c@x.org/blobs") == []
    store.remove_folder("a@x.org")
    assert store.exists("a@x.org/version.json")
    store.remove_folder("a@x.org/to/b+c@x.org/blobs")
    store.remove_folder("a@x.org/to/b+c@x.org/blobs")
    store.remove_folder("a@x.org/to/b+c@x.org")
    store.remove_folder("a@x.org/to")
    assert store.names("a@x.org") == ["version.json"] or is_s3(store)


@every_kind
def test_a_larger_object_than_expected_is_refused(store):
    store.put("k", os.urandom(300_000))
    with pytest.raises(UntrustedError, match="larger than 299999 bytes"):
        store.get("k", max_bytes=299_999)


@every_kind
@pytest.mark.parametrize("size", [1, 65_536, 3_000_001])
def test_every_size_comes_back_as_it_was_put(store, size):
    data = os.urandom(size)
    store.put("a/b", data)
    assert store.get("a/b", max_bytes=size) == data


@every_kind
@pytest.mark.parametrize("key", ["", "../up", "a/../../b", "/abs", "a//b", ".hidden", "a/b\n", "a/" + "x" * 300])
def test_odd_names_are_refused(store, key):
    with pytest.raises(TransportError):
        store.put(key, b"")


@every_kind
def test_of_a_folder_with_too_much_in_it_nothing_is_looked_at(store):
    for number in range(4):
        store.put(f"a@x.org/outbox/{number:012d}", b"x")
    assert len(store.entries("a@x.org/outbox", most=4)) == 4
    with pytest.raises(UntrustedError, match=r"More than 3 things lie in a@x\.org/outbox"):
        store.entries("a@x.org/outbox", most=3)


@every_kind
def test_threads_do_not_mix_their_objects(store):
    data = {f"a/k{n}": os.urandom(n * 30_000 + 1) for n in range(8)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda item: store.put(*item), data.items()))
        got = dict(zip(data, threads.map(lambda key: store.get(key, max_bytes=10**6), data), strict=True))
    assert got == data
    assert [e.name for e in store.entries("a")] == sorted(key[2:] for key in data)


@every_kind
def test_a_reader_sees_the_old_or_the_new_object_whole(url):
    """Two stores of one address, as two parties have it."""
    if url.startswith("memory:"):
        pytest.skip("nobody else reads this process's memory")
    writer, reader = Store.from_url(url), Store.from_url(url)
    versions = [bytes([number]) * (400_000 + number) for number in range(12)]
    writer.put("a/k", versions[0])
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            seen.append(reader.get("a/k", max_bytes=10**6))

    thread = threading.Thread(target=read)
    thread.start()
    for version in versions[1:]:
        writer.put("a/k", version)
    done.set()
    thread.join()
    assert seen
    assert {data for data in seen if data is not None} <= set(versions)
    assert "webdav" in url or None not in seen  # WsgiDAV removes before it moves
    assert [e.name for e in writer.entries("a")] == ["k"]


@every_kind
def test_a_job_and_its_answer_and_a_blob_cross_it(url, tmp_path):
    pair = make_pair(tmp_path, url)
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    (job,) = pair.owner.jobs()
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    pair.owner.poll()
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"{}"
    data = os.urandom(200_000)
    reference = pair.owner.blobs.send(RESEARCHER, "update-1", data)
    assert pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got").read_bytes() == data
    pair.owner.blobs.remove(RESEARCHER, "update-1")
    pair.researcher.connection.boxes.tidy(OWNER, "inbox")
    assert pair.owner.connection.store.entries(f"{OWNER}/to/{RESEARCHER}/blobs") == []
    assert pair.researcher.connection.store.entries(f"{RESEARCHER}/to/{OWNER}/inbox") == []
    assert pair.refusals == []


@pytest.mark.parametrize("url", ["sftp", "s3", "webdav"], indirect=True)
def test_a_blob_of_many_parts_arrives_over_a_line_that_is_cut_every_few_of_them(url, tmp_path, monkeypatch):
    monkeypatch.setattr("fedpriv.transport.retrying.FIRST_PAUSE_SECONDS", 0.01)
    pair = make_pair(tmp_path, url)
    owner, researcher = (
        BlobChannel(session.connection, session.client.peer_manager.peer_store, part_bytes=50_000)
        for session in (pair.owner, pair.researcher)
    )
    data = os.urandom(600_001)
    port = int(re.search(r"127\.0\.0\.1:(\d+)", url)[1])
    with Line(behind=port, every_bytes=190_000) as line:
        for session in (pair.owner, pair.researcher):
            through = Store.from_url(url.replace(f":{port}", f":{line.port}"))
            monkeypatch.setattr(session.connection, "_store", through)
        reference = again(lambda: owner.send(RESEARCHER, "update-1", data))
        target = again(lambda: researcher.receive(OWNER, reference, tmp_path / "got"))
    assert line.cuts > 2
    assert target.read_bytes() == data


def again(work):
    """Do something as whoever waits for a store does it: until it is done."""
    for _ in range(50):
        with contextlib.suppress(TransportError):
            return work()
    raise AssertionError("it does not get on")


@every_kind
def test_a_check_of_the_store_finds_it_good(url):
    if url.startswith("memory:"):
        pytest.skip("nobody else reads this process's memory")
    if "://" not in url:
        Path(url).mkdir()  # a folder that is not there is a share that is not mounted
    Store.from_url(url)  # makes it on a server
    findings = check_store(url, prefix=OWNER, megabytes=1)
    assert {found.name for found in findings if found.state != "ok"} <= {"replacing", "other prefixes"}
    assert "failed" not in {found.state for found in findings}
    store = Store.from_url(url)
    assert store.names() == [] or is_s3(store)


@pytest.mark.parametrize("url", ["sftp", "gdrive", "webdav"], indirect=True)
def test_a_check_makes_no_folder_on_a_server(url):
    path, _, options = url.partition("?")
    mistyped = f"{path}/mistyped/twice?{options}".rstrip("?")
    Store.from_url(url)
    for _ in range(2):
        (found,) = check_store(mistyped, prefix=OWNER, megabytes=1)
        assert (found.name, found.state) == ("reachable", "failed")
        assert "there is no such folder on the server" in found.found
        assert "correct the path" in found.todo
    assert "mistyped" not in Store.from_url(url).names()


# -- S3 --------------------------------------------------------------------------------------------------------------


def test_a_user_of_s3_writes_below_its_own_prefix_only(s3_server, s3, monkeypatch):
    operator = Store.from_url(s3_server.url)
    operator.put(f"{RESEARCHER}/version.json", b"1")
    for name, value in s3_server.credentials(OWNER).items():
        monkeypatch.setenv(name, value)
    store = Store.from_url(s3_server.url)
    store.put(f"{OWNER}/version.json", b"mine")
    assert store.get(f"{RESEARCHER}/version.json", max_bytes=9) == b"1"
    with pytest.raises(TransportError, match="does not allow it to these credentials"):
        store.put(f"{RESEARCHER}/version.json", b"2")
    with pytest.raises(TransportError, match="does not allow it to these credentials"):
        store.delete(f"{RESEARCHER}/version.json")
    assert operator.get(f"{RESEARCHER}/version.json", max_bytes=9) == b"1"
    assert {found.state for found in check_store(s3_server.url, prefix=OWNER, megabytes=1)} == {"ok"}


def test_keys_of_s3_come_from_the_file_that_awss_tools_write(s3_server, s3, monkeypatch, tmp_path):
    keys = s3_server.credentials(OWNER)
    for name in keys:
        monkeypatch.delenv(name)
    lines = [f"{name.lower()} = {value}" for name, value in keys.items()]
    (tmp_path / "credentials").write_text("\n".join(["[icu]", *lines]))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "icu")
    store = Store.from_url(s3_server.url)
    store.put(f"{OWNER}/version.json", b"mine")
    assert store.get(f"{OWNER}/version.json", max_bytes=9) == b"mine"
    secret = keys["AWS_SECRET_ACCESS_KEY"]
    (tmp_path / "credentials").write_text("[icu]\n" + lines[0])
    with pytest.raises(ConfigError, match="has no aws_secret_access_key") as caught:
        Store.from_url(s3_server.url)
    assert secret not in str(caught.value)
    (tmp_path / "credentials").write_text(f"{secret}")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        Store.from_url(s3_server.url)
    assert secret not in str(caught.value)


def test_wrong_keys_and_an_unknown_bucket_are_named(s3_server, s3, monkeypatch):
    with pytest.raises(TransportError, match="there is no bucket s3://no-such-bucket"):
        Store.from_url(s3_server.url.replace("s3://fedpriv/", "s3://no-such-bucket/")).get("k", max_bytes=1)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(TransportError, match="does not allow it to these credentials"):
        Store.from_url(s3_server.url).get("k", max_bytes=1)


# -- WebDAV ----------------------------------------------------------------------------------------------------------


def test_a_wrong_password_of_webdav_is_named_and_not_shown(webdav, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login cohort password unmistakable\n")
    url = webdav.replace("NAME", "x").partition("?")[0] + f"?netrc={tmp_path / 'netrc'}"
    with pytest.raises(TransportError, match="answered 401") as caught:
        Store.from_url(url)
    assert "unmistakable" not in str(caught.value)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 password unmistakable loginn\n")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        Store.from_url(url)
    assert "unmistakable" not in str(caught.value)


def test_what_a_refused_write_over_webdav_leaves_is_removed(webdav, tmp_path, monkeypatch):
    store = Store.from_url(webdav.replace("NAME", tmp_path.name))
    store.put("a/k", b"old")

    def refuse(*_, **__):
        raise OSError("no")

    monkeypatch.setattr("webdav4.client.Client.move", refuse)
    with pytest.raises(TransportError, match="refused to write a/k"):
        store.put("a/k", b"new")
    monkeypatch.undo()
    assert store.get("a/k", max_bytes=9) == b"old"
    assert [item.name for item in store._files.list(f"{store._root}/a", 9)] == ["k"]


# -- servers that are away -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/x?endpoint_url=http://127.0.0.1:1&region=us-east-1",
        "webdav://127.0.0.1:1/x",
    ],
)
def test_a_server_that_is_away_is_a_sentence(url, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr("fedpriv.transport.retrying.FIRST_PAUSE_SECONDS", 0.01)
    with pytest.raises(TransportError, match="cannot be reached") as caught:
        Store.from_url(url).get("k", max_bytes=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://bucket/x", "obstore", "s3"),
        ("gs://bucket/x", "obstore", "gcs"),
        ("az://name/bucket/x", "obstore", "azure"),
        ("webdavs://host/x", "webdav4.client", "webdav"),
    ],
)
def test_a_kind_without_its_package_names_the_extra(url, package, extra, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ConfigError, match="is not installed") as caught:
        Store.from_url(url)
    assert f'pip install "fedpriv[{extra}]"' in caught.value.todo
