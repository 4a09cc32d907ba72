"""The domains that a researcher knows: addresses with the fingerprints that were compared over the phone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from fedpriv.errors import ConfigError, PlanError
from fedpriv.files import write_atomic
from fedpriv.study import load_yaml, validate_section
from fedpriv.study.plan import MAX_COHORT, MemberChoice
from fedpriv.study.section import Section

PEERS_FILE = "peers.yaml"


class Peers(Section):
    """``peers.yaml`` in a researcher's home."""

    fedpriv: Literal[1] = 1
    domains: tuple[MemberChoice, ...] = Field(default=(), max_length=MAX_COHORT)

    @model_validator(mode="after")
    def _named_once(self) -> Peers:
        if len({member.email for member in self.domains}) != len(self.domains):
            raise ValueError("a domain is named twice")
        return self


class PeersFile:
    """The peers of one researcher on disk.

    Parameters
    ----------
    home : Path
        The researcher's home.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / PEERS_FILE

    def read(self) -> tuple[MemberChoice, ...]:
        """Return the domains, in the order they were added; none where there is no file.

        Raises
        ------
        ConfigError
            If the file is not valid.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._path} cannot be read ({error})", todo="check the file") from error
        try:
            return validate_section(Peers, load_yaml(text, source=PEERS_FILE), source=PEERS_FILE).domains
        except PlanError as error:
            raise ConfigError(error.what, kept="Nothing was changed", todo=f"correct {self._path}") from error

    def add(self, members: Iterable[MemberChoice]) -> tuple[MemberChoice, ...]:
        """Add domains, and return all; a domain that is known gets the new fingerprint.

        Raises
        ------
        ConfigError
            If the file is not valid, or there would be too many.
        """
        known = {member.email: member for member in self.read()} | {member.email: member for member in members}
        try:
            peers = validate_section(
                Peers, {"domains": [member.model_dump() for member in known.values()]}, source=PEERS_FILE
            )
        except PlanError as error:
            raise ConfigError(error.what, kept="Nothing was changed", todo="name fewer domains") from error
        text = yaml.safe_dump(peers.model_dump(mode="json"), sort_keys=False)
        write_atomic(self._path, text.encode(), mode=0o644)
        return peers.domains
