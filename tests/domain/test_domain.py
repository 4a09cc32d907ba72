import json
import stat

import pytest

from fedpriv.domain import Domain
from fedpriv.errors import ConfigError, ExistsError, SignatureError
from fedpriv.protection import IdentityKeys, parse_identity, signed_identity
from tests.domain.conftest import ADA


def test_a_domain_opens_again_with_the_same_keys(domain):
    again = Domain.open(domain.folder.root)
    assert again.keys.fingerprint == domain.keys.fingerprint
    assert again.config == domain.config


def test_a_second_init_changes_nothing(domain):
    before = {p: p.read_bytes() for p in domain.folder.root.rglob("*") if p.is_file()}
    with pytest.raises(ExistsError):
        Domain.create(domain.folder.root, domain.config)
    assert {p: p.read_bytes() for p in domain.folder.root.rglob("*") if p.is_file()} == before


def test_a_new_domain_keeps_a_relative_store_with_its_whole_path(domain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Domain.create(tmp_path / "another", domain.config.model_copy(update={"store": "shared/store"}))
    monkeypatch.chdir("/")
    assert Domain.open(tmp_path / "another").config.store == str(tmp_path / "shared" / "store")


def test_everything_secret_is_private(domain):
    assert stat.S_IMODE(domain.folder.state.stat().st_mode) == 0o700
    for path in (domain.folder.identity_path, domain.folder.transport_keys_path, domain.folder.ledger_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_domain_yaml_holds_no_secret(domain):
    text = domain.folder.config_path.read_text()
    for secret in json.loads(domain.folder.identity_path.read_text()).values():
        if isinstance(secret, str) and len(secret) == 44:
            assert secret not in text


def test_a_wrong_setting_is_named_by_its_path(domain):
    path = domain.folder.config_path
    path.write_text(path.read_text().replace("poll_seconds: 0.2", "poll_seconds: fast"))
    with pytest.raises(ConfigError, match=r"resources > poll_seconds: a number of seconds is needed"):
        Domain.open(domain.folder.root)


def test_another_address_than_that_of_the_keys_is_refused(domain):
    path = domain.folder.config_path
    path.write_text(path.read_text().replace(f"email: {domain.config.email}", "email: other@x.org"))
    with pytest.raises(ConfigError, match=rf"are those of {domain.config.email}, not of other@x.org.*Next: write"):
        Domain.open(domain.folder.root)


def test_a_folder_without_a_domain_is_named(tmp_path):
    with pytest.raises(ConfigError, match="is no domain"):
        Domain.open(tmp_path)


def test_a_researchers_keys_are_trusted_only_by_the_pinned_fingerprint(ada):
    data = signed_identity(ada)
    assert parse_identity(data, ADA, ada.fingerprint) == ada.identity
    stranger = IdentityKeys.create(ADA, "ada", "11" * 32)
    with pytest.raises(SignatureError, match="not the pinned ones"):
        parse_identity(signed_identity(stranger), ADA, ada.fingerprint)
