"""A domain's backup: all that it promised, none of its data; and never an older memory over a newer one."""

import shutil
import tarfile

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.domain import Domain, backup
from fedpriv.domain.backup import back_up, backed_up, look_into, restore
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import ConfigError, ExistsError, LockError, RefusedError, UntrustedError
from fedpriv.files import folder_lock, write_atomic
from fedpriv.protection import vault
from tests.domain.conftest import ADA
from tests.domain.test_restore import modes

PASSPHRASE = "five quiet words nobody guesses"
NOTE = b"Mrs Jones was admitted with chest pain"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    original = vault._Head

    def head(**values):
        return original(**({"n": 2**14} | values))

    head.model_validate_json = original.model_validate_json
    monkeypatch.setattr(vault, "_Head", head)


@pytest.fixture
def used(domain, code_request):
    """A domain with a request, a decision, a study in the middle of a round, and patient data in every corner."""
    domain.requests.receive(code_request, ADA)
    domain.approve(code_request.study[:12])
    folder = StudyFolder(domain.folder.study(code_request.study))
    write_atomic(folder.key_path, b"a study key")
    write_atomic(folder.residual_path(1, 1), b"a residual")
    write_atomic(folder.adapter(1), b"an adapter")
    write_atomic(folder.root / "identities.json", b"[]")
    job = folder.output("train-0001-0000")
    write_atomic(job / "adapter_after.safetensors", b"trained")
    for place in (
        job / "worker.log",
        job / "notes.txt",
        folder.workspace / "worker.log",
        folder.tokens / "a.safetensors",
        domain.folder.data / "prepared" / "examples.jsonl",
        domain.folder.state / "quarantine" / "message.json",
        domain.folder.state / "datasite" / ".staging" / "half",
    ):
        write_atomic(place, NOTE)
    (job / "metrics.json").symlink_to(domain.folder.data / "prepared" / "examples.jsonl")
    write_atomic(domain.folder.state / "transport" / "journal.db", b"a journal")
    return domain


@pytest.fixture
def made(used, tmp_path):
    path = tmp_path / "micu.backup"
    return back_up(used, path, PASSPHRASE), path


def test_what_is_in_it_is_all_but_the_data(used):
    files = list(backed_up(used.folder))
    assert len(set(files)) == len(files)
    assert not any(NOTE in path.read_bytes() for path in files)
    names = {path.relative_to(used.folder.root).as_posix() for path in files}
    assert {"domain.yaml", "state/ledger.jsonl", "state/keys/identity.json", "state/transport/journal.db"} < names
    ends = {name.rpartition("/")[2] for name in names}
    assert {"study.key", "residual.f32", "0001.safetensors", "adapter_after.safetensors", "decision.json"} < ends
    assert not ends & {"worker.log", "notes.txt", "metrics.json", "examples.jsonl", "serve.lock", "status.json"}


def test_a_new_machine_gets_the_same_domain(used, made, tmp_path, code_request):
    manifest, path = made
    before, fingerprint = used.ledger.verify(), used.keys.fingerprint
    was = modes(used.folder.root)
    shutil.rmtree(used.folder.root)
    restored = restore(path, tmp_path / "elsewhere" / "micu", PASSPHRASE)
    again = Domain.open(tmp_path / "elsewhere" / "micu")
    assert restored.before is None
    assert again.keys.fingerprint == fingerprint == manifest.fingerprint
    assert again.ledger.verify() == before + 1
    assert again.ledger.entries()[-1].kind == "domain.restored"
    assert again.requests.get(code_request.study).decision.decision == "approved"
    assert StudyFolder(again.folder.study(code_request.study)).key_path.read_bytes() == b"a study key"
    now = modes(again.folder.root)
    files = {name: mode for name, mode in now.items() if (again.folder.root / name).is_file()}
    assert files == {name: mode for name, mode in was.items() if name in files}
    assert {mode for name, mode in now.items() if name not in files} == {0o700}
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == ["micu"]


def test_the_file_tells_nothing_without_the_passphrase(made):
    manifest, path = made
    data = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    for secret in (b"a study key", manifest.member.encode(), manifest.fingerprint.encode(), b"domain.yaml", b"ustar"):
        assert secret not in data


def test_a_memory_that_is_newer_is_not_set_back(used, made, tmp_path):
    _, path = made
    used.ledger.append("epsilon.charged", study="ab" * 32)
    used.ledger.append("round.trained")
    with pytest.raises(RefusedError, match="lacks the last 2 of them, with 1 charges to the privacy budget"):
        restore(path, used.folder.root, PASSPHRASE)
    assert Domain.open(used.folder.root).ledger.entries()[-1].kind == "round.trained"
    assert used.folder.data.exists()


def test_the_newest_backup_may_follow_an_older_one_that_only_said_it_was_restored(used, made, tmp_path):
    _, older = made
    used.ledger.append("round.trained")
    back_up(used, tmp_path / "newer.backup", PASSPHRASE)
    restore(older, tmp_path / "new", PASSPHRASE)
    Domain.open(tmp_path / "new").ledger.append("dataset.prepared")  # its service was started, and saw the store's mark
    restore(tmp_path / "newer.backup", tmp_path / "new", PASSPHRASE)
    kinds = [entry.kind for entry in Domain.open(tmp_path / "new").ledger.entries()]
    assert kinds[-2:] == ["round.trained", "domain.restored"]
    Domain.open(tmp_path / "new").ledger.append("update.confirmed")
    with pytest.raises(RefusedError, match="lacks the last 2"):
        restore(tmp_path / "newer.backup", tmp_path / "new", PASSPHRASE)


def test_another_future_is_not_taken_for_the_same(used, made, tmp_path):
    """A domain that was restored and went on, and one that went on where it was: neither replaces the other."""
    _, path = made
    restore(path, tmp_path / "twin", PASSPHRASE)
    twin = Domain.open(tmp_path / "twin")
    back_up(twin, tmp_path / "twin.backup", PASSPHRASE)
    used.ledger.append("round.trained")
    with pytest.raises(RefusedError, match="lacks the last 1"):
        restore(tmp_path / "twin.backup", used.folder.root, PASSPHRASE)


def test_a_backup_that_knows_as_much_replaces_and_keeps_the_folder(used, made):
    _, path = made
    (used.folder.state / "transport" / "journal.db").unlink()
    restored = restore(path, used.folder.root, PASSPHRASE)
    assert (used.folder.state / "transport" / "journal.db").read_bytes() == b"a journal"
    assert restored.before is not None
    assert (restored.before / "state" / "data").exists()
    assert not (restored.before / "state" / "serve.lock").exists()
    assert not (used.folder.state / "serve.lock").exists()


def test_a_ledger_that_is_broken_is_not_overwritten(used, made):
    _, path = made
    with used.folder.ledger_path.open("ab") as stream:
        stream.write(b"broken\n")
    with pytest.raises(RefusedError, match="is not whole"):
        restore(path, used.folder.root, PASSPHRASE)


def test_another_domain_or_folder_is_left_alone(made, tmp_path, domain):
    _, path = made
    other = Domain.create(tmp_path / "other", domain.config)
    with pytest.raises(ExistsError, match="another domain"):
        restore(path, other.folder.root, PASSPHRASE)
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "thesis.txt").write_text("x")
    with pytest.raises(ExistsError, match="no domain"):
        restore(path, tmp_path / "things", PASSPHRASE)
    assert (tmp_path / "things" / "thesis.txt").exists()
    assert restore(path, make_empty(tmp_path), PASSPHRASE).before is None


def make_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.mark.parametrize("broken", ["passphrase", "cut", "byte", "nothing"])
def test_a_broken_backup_is_a_sentence_and_leaves_nothing(made, tmp_path, broken):
    _, path = made
    data = bytearray(path.read_bytes())
    if broken == "cut":
        data = data[:-1000]
    elif broken == "byte":
        data[len(data) // 2] ^= 1
    elif broken == "nothing":
        data = b""
    (tmp_path / "broken").write_bytes(data)
    words = {
        "passphrase": "The passphrase is wrong",
        "cut": "damaged",
        "byte": "damaged",
        "nothing": "no backup of fedpriv",
    }
    with pytest.raises(UntrustedError, match=words[broken]) as caught:
        restore(tmp_path / "broken", tmp_path / "new", PASSPHRASE + (" " if broken == "passphrase" else ""))
    assert "Nothing was restored" in str(caught.value)
    assert not list(tmp_path.glob("*new*"))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "state/../../evil"])
def test_an_archive_cannot_write_elsewhere(used, made, tmp_path, monkeypatch, name):
    real = backup._add_file
    monkeypatch.setattr(backup, "_add_file", lambda tar, _, path: real(tar, name, path))
    monkeypatch.setattr(backup, "look_into", lambda path, passphrase: None)
    with pytest.raises(UntrustedError):
        back_up(used, tmp_path / "evil.backup", PASSPHRASE)
    with pytest.raises(UntrustedError, match="belongs to no domain"):
        restore(tmp_path / "evil.backup", tmp_path / "new", PASSPHRASE)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "evil").exists()


def test_links_and_devices_are_refused():
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
        info = tarfile.TarInfo("state/x")
        info.type, info.mode = kind, 0o600
        with pytest.raises(UntrustedError):
            backup._checked(info)


def test_not_while_the_service_runs(used, made, tmp_path):
    _, path = made
    with folder_lock(used.folder.lock_path, holder="x", todo="y"):
        with pytest.raises(LockError):
            back_up(used, tmp_path / "b", PASSPHRASE)
        with pytest.raises(LockError):
            restore(path, used.folder.root, PASSPHRASE)
    assert not (tmp_path / "b").exists()


def test_nobody_is_asked_for_a_passphrase_in_vain(used, tmp_path):
    with folder_lock(used.folder.lock_path, holder="x", todo="y"):
        asked = CliRunner().invoke(app, ["domain", "backup", str(used.folder.root), str(tmp_path / "b")])
    assert isinstance(asked.exception, LockError)
    assert asked.output == ""


def test_looking_reads_all_of_it(made):
    manifest, path = made
    assert look_into(path, PASSPHRASE) == manifest
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UntrustedError):
        look_into(path, PASSPHRASE)


def test_the_commands(used, tmp_path):
    secret, file, root = tmp_path / "passphrase", tmp_path / "b", tmp_path / "again"
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    run = lambda *words: CliRunner().invoke(app, ["domain", *map(str, words)])  # noqa: E731
    done = run("backup", used.folder.root, file, "--passphrase-file", secret)
    assert done.exit_code == 0, done.output
    assert "read it again" in done.output
    assert "is whole" in run("restore", file, root, "--check", "--passphrase-file", secret).output
    assert not root.exists()
    done = run("restore", file, root, "--passphrase-file", secret)
    assert "must never serve again" in " ".join(done.output.split())
    assert Domain.open(root).keys.fingerprint == used.keys.fingerprint
    secret.chmod(0o644)
    failed = run("restore", file, tmp_path / "more", "--passphrase-file", secret)
    assert isinstance(failed.exception, ConfigError)
    assert "chmod 600" in str(failed.exception)
    asked = CliRunner().invoke(
        app, ["domain", "restore", str(file), str(tmp_path / "typed")], input=PASSPHRASE + "\n", catch_exceptions=False
    )
    assert asked.exit_code == 0
    assert PASSPHRASE not in asked.output
