"""Writes the Flower app that ``flwr run`` takes."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from fedpriv import __version__
from fedpriv.errors import ConfigError, ExistsError
from fedpriv.files import write_atomic

PACKAGE = "fedpriv_relay"
_PROJECT = """\
[project]
name = "fedpriv-relay"
version = "{version}"
description = "Carries sealed updates between a fedpriv researcher and domains, and reads none of them"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = ["flwr>=1.42,<1.43"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.flwr.app]
publisher = "fedpriv"

[tool.flwr.app.components]
serverapp = "{package}.server_app:app"
clientapp = "{package}.client_app:app"

[tool.flwr.app.config]
researcher = {researcher}
exchange = {exchange}
"""


def write_app(target: Path, *, researcher: str, exchange: str) -> Path:
    """Write the Flower app of a researcher to a new folder and return it.

    It is the same code for everybody, so that its reviewers know it again; only ``pyproject.toml`` differs.

    Parameters
    ----------
    target : Path
        The folder.
    researcher : str
        The researcher's address.
    exchange : str
        The researcher's store, which is a folder on the SuperLink's machine.

    Raises
    ------
    ExistsError
        If ``target`` holds something.
    ConfigError
        If the store is no local folder.
    """
    if "://" in exchange:
        raise ConfigError(
            f"The store {exchange} is no folder: what Flower carries lies in a folder of each party's own",
            kept="Nothing was written",
            todo="make a home with `fedpriv study init --store FOLDER`; Flower is in the place of a common store",
        )
    if target.exists() and any(target.iterdir()):
        raise ExistsError(f"{target} is not empty", kept="It was left as it is", todo="give another folder")
    folder = Path(exchange).expanduser().resolve()
    project = _PROJECT.format(
        version=__version__.partition("+")[0],
        package=PACKAGE,
        researcher=json.dumps(researcher),
        exchange=json.dumps(str(folder)),
    )
    for source in sorted(files("fedpriv.flower.relay").iterdir(), key=lambda source: source.name):
        if source.name.endswith(".py"):
            write_atomic(target / PACKAGE / source.name, source.read_bytes(), mode=0o644)
    write_atomic(target / "pyproject.toml", project.encode(), mode=0o644)
    return target
