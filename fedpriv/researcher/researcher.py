"""The researcher's home: who they are, their keys, and their studies."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml
from pydantic import Field

from fedpriv.errors import ConfigError, ExistsError, InputError, PlanError
from fedpriv.files import private_folder, write_atomic
from fedpriv.protection import IdentityKeys, parse_identity
from fedpriv.protection.shown import shown_to_all
from fedpriv.researcher.peers import PeersFile
from fedpriv.study import Identity, load_yaml, validate_section
from fedpriv.study.names import Email, Slug
from fedpriv.study.section import Section
from fedpriv.transport import (
    TransportChoice,
    checked_address,
    create_transport_keys,
    read_identity,
    require_whole,
    show_to_all,
)

if TYPE_CHECKING:
    from fedpriv.transport import ResearcherSession

CONFIG_FILE = "researcher.yaml"
_STUDY_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class ResearcherConfig(Section):
    """``researcher.yaml``."""

    fedpriv: Literal[1] = 1
    name: Slug
    email: Email
    store: str = Field(min_length=1, description="folder or URL of the store that all parties reach")
    transport: TransportChoice = TransportChoice()


@dataclass(frozen=True, kw_only=True)
class Researcher:
    """A researcher on this machine.

    Attributes
    ----------
    root : Path
        The home folder, with ``researcher.yaml``, ``state/`` and ``studies/``.
    config : ResearcherConfig
        ``researcher.yaml``.
    keys : IdentityKeys
        The private keys. They sign tickets; none of them can open an update.
    """

    root: Path
    config: ResearcherConfig
    keys: IdentityKeys

    @classmethod
    def create(cls, root: Path, config: ResearcherConfig) -> Researcher:
        """Make a researcher's home with new keys; a store's relative path counts from the current folder, once.

        Raises
        ------
        ExistsError
            If there is one already; it is left as it is.
        ConfigError
            If the store's address cannot be one; nothing is made.
        """
        root = root.resolve()
        if (root / CONFIG_FILE).exists():
            what = f"{root} is a researcher's home already"
            raise ExistsError(what, kept="It was left as it is", todo="go on with it, or give another --home")
        config = config.model_copy(update={"store": checked_address(config.store)})
        private_folder(root / "state")
        transport_key = create_transport_keys(config.email, root / "state" / "keys" / "transport.json")
        keys = IdentityKeys.create(config.email, config.name, transport_key)
        keys.save(root / "state" / "keys" / "identity.json")
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_atomic(root / CONFIG_FILE, text.encode(), mode=0o644)
        return cls(root=root, config=config, keys=keys)

    @classmethod
    def open(cls, root: Path) -> Researcher:
        """Open a researcher's home.

        Raises
        ------
        ConfigError
            If it is none, or its configuration or keys cannot be used.
        """
        root = root.resolve()
        try:
            value = load_yaml((root / CONFIG_FILE).read_text(encoding="utf-8"), source=CONFIG_FILE)
            config = validate_section(ResearcherConfig, value, source=CONFIG_FILE)
        except OSError as error:
            raise ConfigError(f"{root} is no researcher's home", todo="run `fedpriv study init` first") from error
        except PlanError as error:
            raise ConfigError(error.what, todo=f"correct {root / CONFIG_FILE}") from error
        require_whole(config.store)
        keys = IdentityKeys.load(root / "state" / "keys" / "identity.json", email=config.email)
        return cls(root=root, config=config, keys=keys)

    @property
    def studies(self) -> Path:
        """The folder with one folder for each study."""
        return self.root / "studies"

    def study_folder(self, name: str) -> Path:
        """Return the folder of a study, whether there is one or not; of another name than is allowed, only if there is.

        Raises
        ------
        InputError
            If ``name`` is no name: it becomes a folder's, and stands in commands.
        """
        path = self.studies / name
        is_there = path.parent == self.studies and name != ".." and path.is_dir()  # made when any name was allowed
        if not _STUDY_NAME.fullmatch(name) and not is_there:
            raise InputError(
                f"{name!r} is no name for a study",
                kept="Nothing was made",
                todo="choose up to 64 of a-z, 0-9, dots, dashes and underscores, the first a letter or a digit",
            )
        return path

    def free_name(self, stem: str) -> str:
        """Return a name that no study has: ``stem`` itself, or with the first number that is free."""
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        return next(name for name in names if not (self.studies / name).exists())

    @property
    def peers(self) -> PeersFile:
        """The domains that this researcher knows."""
        return PeersFile(self.root)

    def publish_identity(self) -> None:
        """Put our versions and our public keys on the store, where domains that pinned our fingerprint find them."""
        show_to_all(self.config.store, self.config.email, shown_to_all(self.keys))

    def identity_of(self, email: str, pinned: str) -> Identity | None:
        """Return a domain's verified public keys, or None if it has not put them on the store yet.

        Raises
        ------
        SignatureError
            If the store holds other keys than the pinned ones.
        """
        data = read_identity(self.config.store, email)
        return None if data is None else parse_identity(data, email, pinned)

    def session(self, cohort: Mapping[str, Identity]) -> ResearcherSession:
        """Open a syft session with these domains."""
        from fedpriv.transport import ResearcherSession, SessionSettings

        return ResearcherSession(
            SessionSettings(
                email=self.config.email,
                store_url=self.config.store,
                folder=self.root / "state",
                keys_path=self.root / "state" / "keys" / "transport.json",
                pins={email: identity.transport_key for email, identity in cohort.items()},
                transport=self.config.transport,
                public=shown_to_all(self.keys),
            )
        )
