"""A real OpenSSH server on loopback: what is put is whole, nobody else's server is used, lost connections come back."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syft_job.models import JobStatus

from fedpriv.errors import ConfigError, HostKeyError, TransportError
from fedpriv.experiments.crosscloud.programs import program
from fedpriv.experiments.crosscloud.sftp_server import SftpServer
from fedpriv.transport import Store
from fedpriv.transport.sftp import CHUNK_BYTES, SftpFiles, _chunk_bytes
from fedpriv.transport.sftp_address import SftpAddress
from tests.transport.conftest import OWNER, make_pair
from tests.transport.test_store import check_left


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    try:
        program("sshd")
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("sftp")
    with SftpServer(folder=folder / "server", root=folder / "served") as running:
        yield running


@pytest.fixture
def store(server, request):
    return Store.from_url(server.url.replace("/served?", f"/served/{abs(hash(request.node.name))}?"))


def end_connections(server):
    import psutil

    for child in psutil.Process(server.pid).children(recursive=True):
        os.kill(child.pid, signal.SIGKILL)


def test_put_get_list_delete(store):
    store.put("a@x.org/to/b@x.org/file", b"one")
    store.put("a@x.org/to/b@x.org/file", b"two")
    assert store.get("a@x.org/to/b@x.org/file", max_bytes=3) == b"two"
    assert store.names() == ["a@x.org"]
    assert [(e.name, e.size_bytes) for e in store.entries("a@x.org/to/b@x.org")] == [("file", 3)]
    assert store.exists("a@x.org/to/b@x.org/file")
    store.delete("a@x.org/to/b@x.org/file")
    store.delete("a@x.org/to/b@x.org/file")
    assert store.get("a@x.org/to/b@x.org/file", max_bytes=3) is None
    assert store.entries("nowhere") == []


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 9 * CHUNK_BYTES + 7])
def test_every_size_comes_back_as_it_was_put(store, size):
    data = os.urandom(size)
    store.put("k", data)
    assert store.get("k", max_bytes=size) == data
    assert store.get("k", max_bytes=10 * size + 1) == data


def test_names_that_are_no_text_are_passed_over(server, store):
    """Anybody can give one to a file of theirs."""
    store.put("a/k", b"one")
    folder = next(path for path in server.root.rglob("a") if store._root.endswith(path.parent.name))
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_bytes(b"x")
    assert [entry.name for entry in store.entries("a")] == ["k"]


@pytest.mark.parametrize(("server_takes", "asked"), [(16, 32), (32, 32), (100, 100), (255, 128), (4096, 128)])
def test_a_request_is_as_large_as_the_server_says_within_limits(server_takes, asked):
    assert _chunk_bytes(server_takes * 1024) == asked * 1024


def test_threads_share_a_connection_and_do_not_mix_their_files(server, store):
    data = {f"k{n}": os.urandom(n * 50_000) for n in range(12)}
    threads = [threading.Thread(target=store.put, args=item) for item in data.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key: store.get(key, max_bytes=10**6) for key in data} == data
    assert Store.from_url(server.url)._files is store._files


def test_a_lost_connection_is_made_again(server, store):
    store.put("k", b"before")
    end_connections(server)
    assert store.get("k", max_bytes=9) == b"before"
    end_connections(server)
    store.put("k", b"after")
    assert store.get("k", max_bytes=9) == b"after"


def test_a_server_that_is_away_is_a_transport_error_and_may_come_back(server, store):
    store.put("k", b"kept")
    server.stop()
    try:
        with pytest.raises(TransportError, match="cannot be reached"):
            store.get("k", max_bytes=9)
    finally:
        server.start()
    assert store.get("k", max_bytes=9) == b"kept"


def test_a_server_that_says_nothing_is_given_up(server, store, monkeypatch):
    store.put("k", b"kept")
    monkeypatch.setattr("fedpriv.transport.sftp.ANSWER_SECONDS", 0.5)
    import psutil

    sessions = psutil.Process(server.pid).children(recursive=True)
    for child in sessions:
        child.suspend()
    try:
        with pytest.raises(TransportError, match="no answer"):
            store._files.read(f"{store._root}/k", 9)
    finally:
        for child in sessions:
            child.kill()
    assert store.get("k", max_bytes=9) == b"kept"


def test_of_a_server_s_host_keys_the_ed25519_one_is_asked_for(server, store):
    """The server has an RSA key and an ECDSA one too, and names them first: the pin is the fingerprint of the third."""
    import asyncssh

    assert {path.name for path in server.folder.glob("host_key*")} == {"host_key", "host_key_rsa", "host_key_ecdsa"}
    store.put("k", b"kept")
    rsa = asyncssh.read_private_key(server.folder / "host_key_rsa").get_fingerprint("sha256")
    with pytest.raises(HostKeyError, match="of its ed25519 key"):
        Store.from_url(server.url.replace(server.fingerprint, rsa))


def test_another_host_key_is_refused(server):
    wrong = server.url.replace(server.fingerprint, "SHA256:" + "A" * 43)
    with pytest.raises(HostKeyError, match="another host key"):
        Store.from_url(wrong)


def test_a_known_hosts_file_is_enough_and_one_without_the_server_is_not(server, tmp_path):
    import asyncssh

    public = asyncssh.read_private_key(server.folder / "host_key").export_public_key().decode().strip()
    for name, host in (("right", "127.0.0.1"), ("wrong", "127.0.0.2")):
        (tmp_path / name).write_text(f"[{host}]:{server.port} {public}\n")
    url = server.url.replace(f"host_key={server.fingerprint}", f"known_hosts={tmp_path}/NAME")
    assert Store.from_url(url.replace("NAME", "right")).get("nothing", max_bytes=1) is None
    with pytest.raises(HostKeyError):
        Store.from_url(url.replace("NAME", "wrong"))


def test_a_key_that_is_not_known_there_is_named(server, tmp_path):
    import asyncssh

    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(TransportError, match="does not accept the key"):
        Store.from_url(server.url.rpartition("&key=")[0] + f"&key={tmp_path}/key")


def test_what_a_refused_write_leaves_is_removed(server, store, monkeypatch):
    store.put("k", b"old")

    async def full(self):
        import asyncssh

        raise asyncssh.SFTPFailure("no space")

    monkeypatch.setattr("asyncssh.SFTPClientFile.fsync", full)
    with pytest.raises(TransportError, match="no space"):
        store.put("k", b"new")
    monkeypatch.undo()
    assert store.get("k", max_bytes=9) == b"old"
    files, _ = SftpFiles.open(server.url)
    assert not [item.name for item in files.list(store._root, 9) if item.name != "k"]


def test_what_killed_writers_left_is_removed_when_it_is_old_and_ours(server, store, tmp_path):
    root = server.root / store._root.rpartition("/")[2]
    check_left(root, store)


# -- sessions over it ------------------------------------------------------------------------------------------------


@pytest.fixture
def requests(monkeypatch):
    """Count what is sent to the server."""
    from asyncssh.sftp import SFTPClientHandler

    sent, send = [], SFTPClientHandler._make_request

    def count(self, kind, *arguments):
        sent.append(kind)
        return send(self, kind, *arguments)

    monkeypatch.setattr(SFTPClientHandler, "_make_request", count)
    return sent


def test_a_job_and_its_answer_cross_it_and_asking_for_news_is_one_request(server, tmp_path, requests):
    pair = make_pair(tmp_path, server.url.replace("/served?", "/served/sessions?"))
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    (job,) = pair.owner.jobs()
    pair.owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    pair.owner.poll()
    pair.researcher.poll()
    assert pair.researcher.output(OWNER, "job-1", "result.json") == b"{}"
    for ask in (pair.owner.receive, pair.researcher.poll, pair.owner.poll):
        requests.clear()
        ask()
        assert len(requests) == 1


def test_a_message_after_one_that_never_came_is_found(server, tmp_path, monkeypatch):
    pair = make_pair(tmp_path, server.url.replace("/served?", "/served/gap?"))
    store = pair.researcher.connection.store

    def refuse(*_):
        raise TransportError("no space")

    monkeypatch.setattr(store, "put", refuse)
    with pytest.raises(TransportError):
        pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    monkeypatch.undo()
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    monkeypatch.setattr("fedpriv.transport.boxes._LIST_SECONDS", 0.0)
    pair.owner.poll()
    assert [job.job_name for job in pair.owner.jobs()] == ["job-1"]


def test_a_message_that_is_too_large_does_not_stop_the_next_one(server, tmp_path, monkeypatch):
    pair = make_pair(tmp_path, server.url.replace("/served?", "/served/large?"))
    connection = pair.researcher.connection
    monkeypatch.setattr("fedpriv.transport.boxes.MAX_MESSAGE_BYTES", 10**6)
    connection.watcher_send_raw_bytes_to_inbox(OWNER, "large", bytes(10**5))
    monkeypatch.setattr("fedpriv.transport.boxes.MAX_MESSAGE_BYTES", 50_000)
    pair.researcher.submit(OWNER, "job-1", pair.code(train="x = 1\n"), entrypoint="train.py")
    pair.owner.poll()
    assert [job.job_name for job in pair.owner.jobs()] == ["job-1"]
    assert "larger than 50000 bytes" in pair.refusals[0]


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sftp://host/folder?host_key=SHA256:" + "A" * 43, "lacks a user"),
        ("sftp://me@host?host_key=SHA256:" + "A" * 43, "lacks a user"),
        ("sftp://me:secret@host/f", "holds a password"),
        ("sftp://me@host/f?host_key=MD5:aa", "no SHA256 fingerprint"),
        ("sftp://me@host/f?hostkey=x", "unknown or doubled"),
        ("sftp://me@host/f?key=a&key=b", "unknown or doubled"),
        ("sftp://me@host:0/f?host_key=SHA256:" + "A" * 43 + "&key=/dev/null", "is not there"),
        ("sftp://me@host/f?known_hosts=/nowhere/at/all", "Nothing says which host key"),
        ("sftp://me@host/f?key=/nowhere&host_key=SHA256:" + "A" * 43, "is not there"),
    ],
)
def test_an_address_that_cannot_be_trusted_is_refused(url, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        SftpAddress.parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "passphrase", "reason"),
    [
        (0o644, None, r"can be read by others \(mode 0644\).*Next: chmod 600"),
        (0o640, None, r"can be read by others \(mode 0640\)"),
        (0o600, "secret", r"has a passphrase.*Next: make a key .* ssh-keygen -t ed25519 -N ''"),
        (0o600, None, None),
        (0o400, None, None),
    ],
)
def test_a_key_is_for_us_alone_and_needs_nobody_to_open_it(tmp_path, mode, passphrase, reason):
    import asyncssh

    key = tmp_path / "key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(key, "pkcs8-pem", passphrase)
    key.chmod(mode)
    url = f"sftp://me@host/f?host_key=SHA256:{'A' * 43}&key={key}"
    if reason is None:
        assert SftpAddress.parse(url).key == key
        return
    with pytest.raises(ConfigError, match=reason) as caught:
        SftpAddress.parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen")
@pytest.mark.parametrize("options", [(), ("-m", "PEM", "-t", "rsa")])
def test_a_passphrase_of_ssh_keygen_is_seen(tmp_path, options):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", key, *options], check=True)
    with pytest.raises(ConfigError, match="has a passphrase"):
        SftpAddress.parse(f"sftp://me@host/f?host_key=SHA256:{'A' * 43}&key={key}")


def test_a_public_key_is_not_taken_for_a_private_one(tmp_path):
    import asyncssh

    key = tmp_path / "key.pub"
    asyncssh.generate_private_key("ssh-ed25519").write_public_key(key)
    key.chmod(0o600)
    with pytest.raises(ConfigError, match="is no private key"):
        SftpAddress.parse(f"sftp://me@host/f?host_key=SHA256:{'A' * 43}&key={key}")


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=60))
def test_any_text_is_an_address_or_a_config_error(text):
    with contextlib.suppress(ConfigError):
        SftpAddress.parse("sftp://" + text)


def test_a_lost_connection_leaves_no_lines_of_asyncio(server, store, caplog):
    import logging

    store.put("k", b"1")  # starts the loop
    logging.getLogger("asyncio").warning("socket.send() raised exception.")
    logging.getLogger("asyncio").warning("something else")
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == ["something else"]
