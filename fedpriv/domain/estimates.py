"""What a request would cost a domain, and on whose data it would run: facts, and estimates that say they are."""

from __future__ import annotations

import math
from pathlib import Path

from fedpriv.clinical.store import load_prepared
from fedpriv.domain.domain import Domain
from fedpriv.errors import DataError, ModelError, ProtectionError
from fedpriv.protection.sizes import update_bytes
from fedpriv.study.averaging import Turn, trained_tensors, turns_of
from fedpriv.study.plan import Plan
from fedpriv.study.section import Section
from fedpriv.training.adapter import lora_layout
from fedpriv.training.base_model import model_folder, weights_files


class DataScope(Section):
    """The domain's own data that a study would train on.

    Attributes
    ----------
    prepared : bool
        Whether the data are prepared here; the numbers are 0 if not.
    patients, examples : int
        Who and what is trained on.
    heldout_patients, heldout_examples : int
        Who and what only the quality is measured on.
    """

    prepared: bool
    patients: int = 0
    examples: int = 0
    heldout_patients: int = 0
    heldout_examples: int = 0


class Estimates(Section):
    """What can be said about a request's cost before it runs.

    Attributes
    ----------
    parameters, tensors : int or None
        Size of the adapter; None where the base model is not on this machine.
    sent : int or None
        Most parameters that one round trains and sends.
    model_bytes : int or None
        Size of the base model's weights.
    update_bytes, total_bytes : int or None
        What leaves in a round at most, and in all rounds; without the small messages of the protocol.
    seconds_a_round, seconds_in_all : int
        Upper bounds of the training's wall clock from the plan's ``max_seconds``.
    threads : int
        Processor threads that the domain gives to training.
    """

    parameters: int | None = None
    tensors: int | None = None
    sent: int | None = None
    model_bytes: int | None = None
    update_bytes: int | None = None
    total_bytes: int | None = None
    seconds_a_round: int
    seconds_in_all: int
    threads: int


def data_scope(domain: Domain) -> DataScope:
    """Return what the domain's service prepared last, checked against its manifest."""
    prepared = [
        entry
        for entry in domain.ledger.entries()
        if entry.kind == "dataset.prepared" and entry.facts.get("task", "language_modelling") == "language_modelling"
    ]
    if not prepared:
        return DataScope(prepared=False)
    try:
        data = load_prepared(domain.folder.data / Path(str(prepared[-1].facts["digest"])).name)
    except DataError:
        return DataScope(prepared=False)
    return DataScope(
        prepared=True,
        patients=data.patients,
        examples=data.examples,
        heldout_patients=data.heldout_patients,
        heldout_examples=data.heldout_examples,
    )


def tensor_sizes(plan: Plan, *, cache: Path | None = None) -> dict[str, int]:
    """Return the parameters of each tensor of the plan's adapter, or nothing if the base model is not here."""
    try:
        layout = lora_layout(model_folder(plan.base_model.name, cache=cache), plan.lora)
    except ModelError:
        return {}
    return {name: math.prod(shape) for name, shape in layout.items()}


def estimates_of(plan: Plan, *, threads: int, cache: Path | None = None) -> Estimates:
    """Estimate a plan's cost at one domain.

    Parameters
    ----------
    threads : int
        Processor threads for training, from ``domain.yaml``.
    cache : Path, optional
        Where base models are; by default fedpriv's cache. Nothing is fetched.
    """
    rounds, seconds = plan.training.rounds, plan.training.max_seconds
    tensors = tensor_sizes(plan, cache=cache)
    turns = turns_of(plan.averaging, tensors)
    sizes = [
        sum(tensors[name] for name in trained_tensors(plan.averaging, tensors, number)) for number in (1, 2)[:rounds]
    ]
    updates = _update_bytes(plan, {name: tensors[name] for name in turns}, turns)
    base = model_folder(plan.base_model.name, cache=cache)
    return Estimates(
        parameters=sum(tensors.values()) or None,
        tensors=len(tensors) or None,
        sent=max(sizes) or None,
        model_bytes=sum((base / file).stat().st_size for file in weights_files(base)) if tensors else None,
        update_bytes=max(updates[:rounds], default=None),
        total_bytes=sum(updates[number % 2] for number in range(rounds)) if updates else None,
        seconds_a_round=seconds,
        seconds_in_all=seconds * rounds,
        threads=threads,
    )


def _update_bytes(plan: Plan, tensors: dict[str, int], turns: dict[str, Turn]) -> list[int]:
    """Return the bytes of an update of an odd and of an even round, or nothing where they are not known."""
    if not tensors:
        return []
    try:
        clients = len(plan.cohort)
        bits = max(plan.protection.bits, *plan.protection.bits_choices, 0)
        return [
            update_bytes(plan.protection, tensors=tensors, turns=turns, clients=clients, round_number=number, bits=bits)
            for number in (1, 2)
        ]
    except ProtectionError:
        return []
