"""Fixtures of the browser tests: where pictures go."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """The folder that screenshots are written to: FEDPRIV_PICTURES, or a temporary one."""
    named = os.environ.get("FEDPRIV_PICTURES")
    folder = Path(named) if named else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
