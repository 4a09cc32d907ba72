"""What a domain's service does before it serves: prepare the data, connect to the store, show the mock side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fedpriv.clinical import PreparedData, load_mapping, prepare, write_mock
from fedpriv.domain.domain import Domain
from fedpriv.files import write_json
from fedpriv.protection import signed_identity
from fedpriv.study import Identity
from fedpriv.transport import OwnerSession, SessionSettings, publish_identity


def prepare_data(domain: Domain) -> PreparedData:
    """Return the domain's examples; preparing what is prepared already costs nothing. The ledger names each once."""
    config, folder = domain.config, domain.folder
    mapping = folder.mapping_path(config.data)
    prepared = prepare(
        Path(config.data.source).expanduser(),
        folder.data,
        dataset=config.data.dataset,
        heldout_fraction=config.data.heldout_fraction,
        mapping=mapping and load_mapping(mapping),
    )
    domain.ledger.append(
        "dataset.prepared",
        once=f"dataset/{prepared.digest}",
        dataset=config.data.dataset,
        digest=prepared.digest,
        patients=prepared.patients + prepared.heldout_patients,
        examples=prepared.examples + prepared.heldout_examples,
    )
    return prepared


def connect(
    domain: Domain, researchers: Mapping[str, Identity], on_refusal: Callable[[str, str], None]
) -> OwnerSession:
    """Return a session with the store that listens to these researchers, and publish the domain's identity there.

    Raises
    ------
    TransportError
        If the store cannot be reached.
    """
    config, folder = domain.config, domain.folder
    session = OwnerSession(
        SessionSettings(
            email=config.email,
            store_url=config.store,
            folder=folder.state,
            keys_path=folder.transport_keys_path,
            pins={email: identity.transport_key for email, identity in researchers.items()},
            on_refusal=on_refusal,
        )
    )
    publish_identity(config.store, config.email, signed_identity(domain.keys))
    return session


def register_dataset(domain: Domain, session: OwnerSession, prepared: PreparedData) -> None:
    """Show outsiders the mock side; the private side that syft sees is a pointer file without data."""
    mock = domain.folder.state / "mock"
    if not (mock / "schema.json").exists():
        write_mock(mock, seed=0)
    pointer = domain.folder.state / "pointer.json"
    write_json(pointer, {"prepared_sha256": prepared.digest})
    summary = "MIMIC-III shard; the files here are synthetic (mock), same schema"
    session.register_dataset(domain.config.data.dataset, mock=mock, pointer=pointer, summary=summary)
