"""A request's own code, run on passages within the walls of a real round: what it puts into an update is attacked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fedpriv.clinical import PreparedData
from fedpriv.domain import Domain, sandbox
from fedpriv.domain.folder import ResourcesChoice
from fedpriv.domain.gatekeeper import check_update
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.policy import is_stock
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.files import private_folder, write_atomic
from fedpriv.study import CodeRequest, Plan
from fedpriv.training.adapter import AdapterState, layout_of, load_state, save_state
from fedpriv.training.base_model import LocalModel
from fedpriv.training.recipe import stock_recipe

_STAND_IN = 0
"""The number under which a trial's study folder has the adapter that rounds begin with."""


class OwnCode:
    """A worker that runs a request's code for local rounds; a context manager that ends it.

    *Guarantee*: the code gets the passages, the base model and the adapter, in the sandbox of a real round, and what it
    returns is held to what the gatekeeper lets out.
    *Limit*: code can see that it is given a few passages and not a shard, and behave.

    Parameters
    ----------
    request : CodeRequest
        Whose code it is.
    model : LocalModel
        The plan's base model.
    resources : ResourcesChoice
        What it may use; there must be a sandbox on this machine.
    prepared : PreparedData
        The shard, for what is known of it.
    root : Path
        A private folder for its files; the caller removes it afterwards.
    """

    def __init__(
        self, request: CodeRequest, *, model: LocalModel, resources: ResourcesChoice, prepared: PreparedData, root: Path
    ) -> None:
        bundle = private_folder(root / "bundle")
        for name, text in request.files.items():  # what was read and digested is what runs
            write_atomic(bundle / name, text.encode(), mode=0o400)
        passages = private_folder(root / "passages")
        self.shard = passages / "train.jsonl"
        """Where the passages of the next round are written to."""
        self._training = LocalTraining(
            plan=request.plan,
            folder=StudyFolder(root / "study"),
            recipe=bundle / "train.py",
            prepared=replace(prepared, folder=passages, train=self.shard, heldout=self.shard),
            model=model,
            resources=resources,
            keep_tokens=False,  # each round has other passages
        )
        self.tried: set[str] = set()
        """What the code tried that training never needs, as the walls saw it."""

    def __enter__(self) -> OwnCode:
        return self

    def __exit__(self, *_: object) -> None:
        self._training.stop()

    @property
    def walls(self) -> str:
        """What stands around the code, in words."""
        return self._training.walls

    def train(self, plan: Plan, number: int, before: AdapterState) -> AdapterState:
        """Run the code on the passages in :attr:`shard` for round ``number`` of a plan; return the adapter after it.

        Raises
        ------
        TrainingError
            If it fails or breaks a limit.
        GatekeeperError
            If what it returned would not be let out.
        """
        folder = self._training.folder
        save_state(before, folder.adapter(_STAND_IN))
        self._training.plan = plan
        output = folder.output("audit")
        try:
            self._training.run("train", number, _STAND_IN, output, lambda step, steps: None)
        finally:
            self.tried |= set(self._training.report.tried)
        after = output / "adapter_after.safetensors"
        check_update(after, before, plan, number)
        return load_state(after, layout_of(before))


@contextlib.contextmanager
def own_code(
    domain: Domain, request: CodeRequest, model: LocalModel, prepared: PreparedData, root: Path
) -> Iterator[OwnCode | None]:
    """Give what runs the request's own code; None where its rounds run none, or where nothing would stand around it."""
    privacy, resources = request.plan.privacy, domain.config.resources
    by_patient = privacy is not None and privacy.unit == "patient"
    walled = resources.sandbox != "off" and sandbox.bubblewrap() is not None
    if by_patient or not walled or is_stock(request, stock_recipe(), besides=request.plan.task.template):
        yield None
        return
    with OwnCode(request, model=model, resources=resources, prepared=prepared, root=root) as own:
        yield own
