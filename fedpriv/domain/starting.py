"""What a domain's service does before it serves: prepare the data, connect to the store, show the mock side."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedpriv.clinical import PreparedData, Record, Telling, load_mapping, prepare_examples, write_mock
from fedpriv.clinical.harmonize import Progress, harmonize, silent
from fedpriv.domain.domain import Domain
from fedpriv.files import write_json
from fedpriv.protection.shown import shown_to_all
from fedpriv.study import CodeRequest, Identity
from fedpriv.study.task import TaskChoice
from fedpriv.transport import OwnerSession, SessionSettings, show_to_all


def read_record(domain: Domain, on_progress: Progress = silent, *, again: bool = False) -> Record:
    """Return the domain's tables as the common record; what is harmonised already is only checked.

    A database is read once, and once more with ``again``.
    """
    data = domain.config.data
    mapping = domain.folder.mapping_path(data)
    record = harmonize(
        data.location,
        domain.folder.data,
        mapping=mapping and load_mapping(mapping),
        refused_share=data.refused_rows,
        again=again,
        on_progress=on_progress,
    )
    domain.ledger.append(
        "dataset.harmonized",
        once=f"record/{record.digest}",
        dataset=data.dataset,
        digest=record.digest,
        tables=len(record.tally.tables),
        refused=record.tally.refused,
    )
    return record


def prepare_data(
    domain: Domain, record: Record, request: CodeRequest | None = None, on_progress: Progress = silent
) -> PreparedData:
    """Return the examples of a request's task, or of the default one; what is told already is only checked.

    The ledger names each once.
    """
    data, task = domain.config.data, request.plan.task if request else TaskChoice()
    telling = Telling(
        dataset=data.dataset,
        task=task,
        template=request.files[task.template] if request and task.template else None,
        heldout_fraction=data.heldout_fraction,
        split=data.split,
    )
    prepared = prepare_examples(record, domain.folder.data, telling, on_progress=on_progress)
    domain.ledger.append(
        "dataset.prepared",
        once=f"dataset/{prepared.digest}",
        dataset=data.dataset,
        task=task.kind,
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
    config, folder, shown = domain.config, domain.folder, shown_to_all(domain.keys)
    session = OwnerSession(
        SessionSettings(
            email=config.email,
            store_url=config.store,
            folder=folder.state,
            keys_path=folder.transport_keys_path,
            pins={email: identity.transport_key for email, identity in researchers.items()},
            on_refusal=on_refusal,
            transport=config.transport,
            public=shown,
        )
    )
    show_to_all(config.store, config.email, shown)
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
