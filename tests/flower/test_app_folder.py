"""The Flower app as it is written for a researcher."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

import fedpriv.flower.relay
from fedpriv.errors import ConfigError, ExistsError
from fedpriv.flower import write_app

MODULES = ["client_app", "domain_side", "mirror", "parcel", "records", "researcher_side", "server_app"]


@pytest.fixture
def app(tmp_path):
    return write_app(tmp_path / "app", researcher="me@lab.example", exchange=str(tmp_path / "box"))


def test_the_app_has_its_settings_and_all_modules(app, tmp_path):
    settings = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert settings["config"] == {"researcher": "me@lab.example", "exchange": str(tmp_path / "box")}
    assert sorted(path.name for path in (app / "fedpriv_relay").iterdir()) == [
        "__init__.py",
        *(f"{name}.py" for name in MODULES),
    ]
    for component in settings["components"].values():
        module, _, name = component.partition(":")
        assert name == "app"
        assert (app / f"{module.replace('.', '/')}.py").exists()


def test_the_app_needs_flower_and_the_standard_library_only(app):
    found = set()
    for path in (app / "fedpriv_relay").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add((node.module or "").partition(".")[0])
    assert found - sys.stdlib_module_names == {"flwr"}


def test_the_modules_are_the_ones_that_are_tested(app):
    source = Path(fedpriv.flower.relay.__path__[0])
    for name in MODULES:
        assert (app / "fedpriv_relay" / f"{name}.py").read_bytes() == (source / f"{name}.py").read_bytes()


def test_a_folder_with_something_in_it_is_left_as_it_is(app):
    with pytest.raises(ExistsError, match="is not empty"):
        write_app(app, researcher="me@lab.example", exchange="box")


def test_a_store_that_all_reach_needs_no_flower(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        write_app(tmp_path / "app", researcher="me@lab.example", exchange="sftp://store.example/x")
    assert not (tmp_path / "app").exists()
