"""A domain's and a researcher's session over one store, each with its own folder and keys."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedpriv.transport import OwnerSession, ResearcherSession, SessionSettings, create_transport_keys

OWNER, RESEARCHER = "micu@x.org", "ada@y.org"


@dataclass
class Pair:
    root: Path
    owner: OwnerSession
    researcher: ResearcherSession
    refusals: list = field(default_factory=list)

    def code(self, **files: str) -> dict[str, bytes]:
        return {f"{name}.py": text.encode() for name, text in files.items()}


def settings(root, email, pins, on_refusal=lambda peer, reason: None, store=None):
    folder = root / email
    return SessionSettings(
        email=email,
        store_url=store or str(root / "store"),
        folder=folder,
        keys_path=folder / "keys.json",
        pins=pins,
        on_refusal=on_refusal,
    )


@pytest.fixture
def pair(tmp_path):
    return make_pair(tmp_path)


def make_pair(tmp_path, store=None):
    """Connect the two over a store; by default a folder."""
    keys = {email: create_transport_keys(email, tmp_path / email / "keys.json") for email in (OWNER, RESEARCHER)}
    refusals = []
    owner = OwnerSession(
        settings(tmp_path, OWNER, {RESEARCHER: keys[RESEARCHER]}, lambda peer, reason: refusals.append(reason), store)
    )
    researcher = ResearcherSession(settings(tmp_path, RESEARCHER, {OWNER: keys[OWNER]}, store=store))
    assert not researcher.connect(OWNER)
    owner.poll()
    assert researcher.connect(OWNER)
    return Pair(root=tmp_path, owner=owner, researcher=researcher, refusals=refusals)
