"""A domain is one user's: another one's command, above all root's, would leave files that the service cannot read."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fedpriv.domain import Domain
from fedpriv.domain.backup import restore
from fedpriv.domain.owner import require_owner, user_in_words
from fedpriv.errors import ConfigError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to another user")
NOBODY = 65534


def files_of(root):
    return {(path, path.stat().st_uid) for path in root.rglob("*")}


@pytest.fixture
def another(domain, monkeypatch):
    """A domain whose owner is not the user of this process."""
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 70_001)
    monkeypatch.setattr("fedpriv.domain.owner._writes_as", lambda _: None)  # who may not write there
    return domain


def test_another_users_domain_is_opened_by_no_command_not_even_one_that_reads(another):
    before = files_of(another.folder.root)
    with pytest.raises(
        ConfigError, match=r"The domain .* belongs to the user .*, and this command runs as #"
    ) as caught:
        Domain.open(another.folder.root)
    assert "sudo" in caught.value.todo
    assert files_of(another.folder.root) == before


def test_a_file_server_that_gives_every_file_to_one_user_is_fine(domain, monkeypatch):
    """What this process writes there belongs to the same user as what is there."""
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 70_001)
    require_owner(domain.folder.root, state=domain.folder.state)


@as_root
def test_root_is_told_to_be_the_user_of_the_service(domain):
    for path in (domain.folder.root, *domain.folder.root.rglob("*")):
        os.chown(path, 10_001, 10_001)
    with pytest.raises(ConfigError, match=r"sudo -u '#10001' fedpriv"):  # a container's user has no name here
        Domain.open(domain.folder.root)


@as_root
def test_a_volume_of_root_around_a_domain_of_ours_is_fine(domain, monkeypatch):
    for path in (domain.folder.state, *domain.folder.state.rglob("*")):
        os.chown(path, 10_001, 10_001)
    monkeypatch.setattr(os, "geteuid", lambda: 10_001)
    require_owner(domain.folder.root, state=domain.folder.state)


@as_root
def test_root_makes_and_restores_no_domain_in_the_folder_of_another_user(tmp_path, domain):
    place = tmp_path / "srv"
    place.mkdir()
    os.chown(place, 10_001, 10_001)
    for make in (lambda: Domain.create(place / "heart", domain.config), lambda: restore(tmp_path, place / "heart", "")):
        with pytest.raises(ConfigError, match=r"belongs to the user #10001.*sudo -u '#10001'"):
            make()
    assert list(place.iterdir()) == []


@as_root
def test_what_root_made_is_not_called_lost_to_the_services_user(domain):
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders let nobody else in
        Path(place).chmod(0o755)
        root = Path(shutil.copytree(domain.folder.root, Path(place) / "micu"))
        said = as_nobody("domain", "serve", root, "--once")
        assert f"chown -R '{user_in_words(NOBODY)}' {root}" in said
        assert "backup" not in said
        root.chmod(0o700)
        os.chown(root, 10_001, 10_001)
        Path(place).chmod(0o700)
        os.chown(place, 10_001, 10_001)
        assert "belongs to the user #10001" in as_nobody("domain", "status", root)


@as_root
def test_a_configuration_that_may_not_be_read_is_not_taken_for_none(domain):
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        root = Path(shutil.copytree(domain.folder.root, Path(place) / "micu"))
        for path in (root, *root.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.chown(root / "domain.yaml", 0, 0)
        (root / "domain.yaml").chmod(0o600)
        said = as_nobody("domain", "status", root)
        assert "domain.yaml cannot be read" in said
        assert "init" not in said
        os.chown(root / "domain.yaml", NOBODY, NOBODY)
        os.chown(root / "state" / "keys" / "identity.json", 0, 0)
        said = as_nobody("domain", "status", root)
        assert f"run this as the user that owns {root / 'state' / 'keys'}" in said
        assert "backup" not in said


def as_nobody(*arguments):
    """Run a command as the user nobody; return what it said on stderr, on one line."""
    code = (
        "import os, fedpriv.cli.main, fedpriv.domain.service; "  # before this user can read no module any more
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); fedpriv.cli.main.main()"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_a_user_without_a_name_is_a_number_as_sudo_takes_it():
    assert user_in_words(4_000_000_001) == "#4000000001"
