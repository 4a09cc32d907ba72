"""A real Flower deployment: SuperLink, SuperNodes and domains are processes of their own, with TLS between them."""

import subprocess

import pytest

from fedpriv.experiments.flower.bed import make_certificates
from fedpriv.experiments.flower.deployment import compare_flower
from fedpriv.experiments.flower.environment import installed_flower

needs_flower = pytest.mark.skipif(
    installed_flower() is None, reason="Flower is not installed: run `sh bootstrap.sh flower`"
)


def test_the_certificate_is_its_authority_s_and_for_this_machine_only(tmp_path):
    make_certificates(tmp_path)
    check = ["openssl", "verify", "-CAfile", tmp_path / "ca.pem", "-verify_ip"]
    assert subprocess.run([*check, "127.0.0.1", tmp_path / "server.pem"], check=False).returncode == 0
    assert subprocess.run([*check, "10.0.0.1", tmp_path / "server.pem"], check=False).returncode != 0
    assert (tmp_path / "server.key").stat().st_mode & 0o077 == 0


@pytest.mark.e2e
@needs_flower
def test_the_same_study_ends_with_the_same_adapter(tmp_path):
    found = compare_flower(tmp_path, rounds=1)
    assert found.same
    assert len(found.flower.adapter_sha256) == 64


@pytest.mark.nightly
@pytest.mark.e2e
@needs_flower
def test_a_supernode_that_is_killed_in_a_round_costs_time_and_nothing_else(tmp_path):
    found = compare_flower(tmp_path, rounds=2, kill=True)
    assert found.same
    assert found.away_s is not None
