import pytest

from fedpriv.errors import ConfigError, UntrustedError
from tests.domain.conftest import ADA


def test_a_request_is_frozen_once(domain, code_request):
    assert domain.requests.receive(code_request, ADA)
    assert not domain.requests.receive(code_request, ADA)
    stored = domain.requests.get(code_request.study[:6])
    assert stored.request == code_request
    assert stored.researcher == ADA
    assert stored.decision.decision == "pending"


def test_a_frozen_copy_changed_on_disk_is_not_used(domain, code_request):
    domain.requests.receive(code_request, ADA)
    path = domain.requests.recipe_path(code_request.study)
    path.chmod(0o600)
    path.write_text(path.read_text() + "import os\n")
    with pytest.raises(UntrustedError, match="changed on disk"):
        domain.requests.get(code_request.study)


@pytest.mark.parametrize("wanted", ["", "ffff"])
def test_an_unknown_request_is_named(domain, code_request, wanted):
    domain.requests.receive(code_request, ADA)
    with pytest.raises(ConfigError, match="No request"):
        domain.requests.get(wanted)
