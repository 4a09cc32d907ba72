"""A researcher's home is read wherever a command is run, and says what is wrong in it."""

import pytest

from fedpriv.errors import ConfigError
from fedpriv.researcher.researcher import Researcher


@pytest.fixture
def home(study):
    return study.researcher.root


def test_a_store_that_is_another_one_in_another_folder_is_refused(home):
    path = home / "researcher.yaml"
    text = path.read_text()
    store = Researcher.open(home).config.store
    path.write_text(text.replace(store, "shared/store"))
    with pytest.raises(ConfigError, match=r"relative path.*write the whole path"):
        Researcher.open(home)
    path.write_text(text)
    assert Researcher.open(home).config.store == store
