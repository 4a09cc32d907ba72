import os

import pytest

from fedpriv.errors import ConfigError
from fedpriv.experiments.crosscloud.bed import Bed
from fedpriv.experiments.crosscloud.programs import program


@pytest.fixture(scope="session")
def can_make_beds():
    """Skip, with the reason, where network namespaces or the SFTP server cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    try:
        program("sshd")
        with Bed({}):
            pass
    except ConfigError as error:
        pytest.skip(str(error))
