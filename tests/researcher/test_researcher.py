"""A researcher's home is read wherever a command is run, and says what is wrong in it."""

import pytest

from fedpriv.errors import ConfigError
from fedpriv.researcher.researcher import Researcher, ResearcherConfig


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


def test_another_address_than_that_of_the_keys_is_refused(home):
    path = home / "researcher.yaml"
    email = Researcher.open(home).config.email
    path.write_text(path.read_text().replace(f"email: {email}", "email: other@x.org"))
    with pytest.raises(ConfigError, match=rf"are those of {email}, not of other@x.org.*Next: write"):
        Researcher.open(home)


def test_a_new_home_keeps_a_relative_store_with_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Researcher.create(tmp_path / "home", ResearcherConfig(name="ada", email="ada@y.org", store="store"))
    monkeypatch.chdir("/")
    assert Researcher.open(tmp_path / "home").config.store == made.config.store == str(tmp_path / "store")


def test_a_home_with_a_store_that_cannot_be_one_is_not_made(tmp_path):
    with pytest.raises(ConfigError, match="the kind ftp is unknown"):
        Researcher.create(tmp_path / "home", ResearcherConfig(name="ada", email="ada@y.org", store="ftp://host/x"))
    assert list(tmp_path.iterdir()) == []
