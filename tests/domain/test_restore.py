"""The restore path of docs/keys.md, step by step."""

import shutil
import subprocess
import sys

import pytest

from fedpriv.clinical import write_synthetic
from fedpriv.domain import Domain
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import ConfigError, UntrustedError
from fedpriv.files import write_atomic
from fedpriv.protection import IdentityKeys
from tests.domain.conftest import ADA


def modes(root):
    return {path.relative_to(root): path.stat().st_mode & 0o777 for path in sorted(root.rglob("*"))}


@pytest.fixture
def used(domain, code_request):
    """A domain with a request, a decision, a study key and a ledger of it all."""
    domain.requests.receive(code_request, ADA)
    domain.approve(code_request.study[:12])
    folder = StudyFolder(domain.folder.study(code_request.study))
    write_atomic(folder.key_path, b"a study key")
    write_atomic(folder.retired_key_path(1), b"an older one")
    return domain


def restored(domain, place, *names):
    """Back up as docs/keys.md says, with tar, and unpack in another place; without names, all but the examples."""
    archive = place.with_suffix(".tar")
    source = domain.folder.root
    command = ["tar", "-C", source, "--exclude=./state/data", "-cpf", archive, *(names or ["."])]
    subprocess.run(command, check=True)
    place.mkdir()
    subprocess.run(["tar", "-C", place, "-xpf", archive], check=True)
    return place


def serve_once(root):
    command = [sys.executable, "-m", "fedpriv", "domain", "serve", str(root), "--once"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_restored_domain_is_the_same_one(used, tmp_path, code_request):
    place = restored(used, tmp_path / "elsewhere")
    again = Domain.open(place)
    assert again.keys.fingerprint == used.keys.fingerprint
    assert again.keys.identity == used.keys.identity
    assert again.config == used.config
    assert again.ledger.verify() == used.ledger.verify() > 1
    assert again.requests.get(code_request.study).decision.decision == "approved"
    folder = StudyFolder(again.folder.study(code_request.study))
    assert folder.key_path.read_bytes() == b"a study key"
    assert folder.retired_generations() == [1]
    assert modes(place) == modes(used.folder.root)
    shutil.rmtree(used.folder.root)
    again.ledger.append("test.entry")  # it goes on, and the chain holds
    assert Domain.open(place).ledger.verify() == again.ledger.verify()


@pytest.mark.parametrize("name", ["identity.json", "transport.json"])
def test_the_private_files_of_a_domain_are_private(used, name):
    assert (used.folder.state / "keys" / name).stat().st_mode & 0o777 == 0o600
    assert used.folder.state.stat().st_mode & 0o077 == 0


def test_a_key_that_was_unpacked_for_everyone_to_read_is_refused_with_the_command(used, tmp_path):
    place = restored(used, tmp_path / "elsewhere")
    path = place / "state" / "keys" / "identity.json"
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        Domain.open(place)


def test_the_ledger_of_another_domain_is_not_whole_under_these_keys(used, tmp_path, ada):
    place = restored(used, tmp_path / "elsewhere")
    other = IdentityKeys.create("micu@x.org", "micu", "55" * 32)
    other.save(place / "state" / "keys" / "identity.json")
    with pytest.raises(UntrustedError):
        Domain.open(place).ledger.verify()


def test_with_the_keys_alone_a_domain_is_itself_and_remembers_nothing(used, tmp_path):
    again = Domain.open(restored(used, tmp_path / "elsewhere", "./domain.yaml", "./state/keys"))
    assert again.keys.fingerprint == used.keys.fingerprint
    assert again.requests.studies() == []
    assert list(again.ledger.entries()) == []
    again.ledger.append("domain.restored")
    assert again.ledger.verify() == 1


def test_a_restored_domain_serves_in_its_new_place(domain, tmp_path):
    write_synthetic(tmp_path / "tables", patients=30, seed=1)
    serve_once(domain.folder.root)
    assert (domain.folder.state / "data").exists()
    place = restored(domain, tmp_path / "elsewhere")
    assert not (place / "state" / "data").exists()
    moved = tmp_path / "moved-tables"
    (tmp_path / "tables").rename(moved)
    shutil.rmtree(domain.folder.root)
    again = Domain.open(place)
    data = again.config.data.model_copy(update={"source": str(moved)})
    again.folder.write_config(again.config.model_copy(update={"data": data}))
    serve_once(place)
    prepared = [entry for entry in again.ledger.entries() if entry.kind == "dataset.prepared"]
    assert len(prepared) == 1  # the same examples: nothing new to record
    assert again.ledger.verify() >= 2
