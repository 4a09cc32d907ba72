"""The works of approved studies, opened when a ticket needs one: base model, data, keys and limits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from fedpriv.clinical import Record
from fedpriv.clinical.statement import state_shard
from fedpriv.domain.announcer import Announcer
from fedpriv.domain.context import StudyContext
from fedpriv.domain.domain import Domain
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.releasing import Releasing
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.starting import prepare_data
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.domain.tickets import StudyWork
from fedpriv.errors import RefusedError
from fedpriv.study import Progress, RequestDecision
from fedpriv.study.plan import BaseModelChoice
from fedpriv.training.base_model import LocalModel, ensure_model
from fedpriv.transport.blobs import BlobChannel


@dataclass(kw_only=True)
class StudyWorks:
    """Opens the work of a study once, and keeps it while the service runs.

    Parameters
    ----------
    domain : Domain
        The opened domain.
    announcer : Announcer
        Told what takes long.
    record : Record
        What the domain's tables hold.
    on_progress : Callable[[str, Progress], float]
        Called with a researcher and where a study of theirs is; returns the seconds that telling them took last.
    """

    domain: Domain
    announcer: Announcer
    record: Record
    on_progress: Callable[[str, Progress], float]
    _open: dict[str, StudyWork] = field(default_factory=dict)

    def of(self, stored: StoredRequest, folder: StudyFolder, blobs: BlobChannel) -> StudyWork:
        """Return the work of an approved study.

        Raises
        ------
        RefusedError
            If the base model here is not the plan's.
        FedprivError
            If its data cannot be prepared, or the model not be had.
        """
        request = stored.request
        if request.study not in self._open:
            model = self._model(request.plan.base_model)
            prepared = prepare_data(self.domain, self.record, request, self.announcer.stage)
            context = self._context(stored, folder, blobs)
            config, plan = self.domain.config, request.plan
            training = LocalTraining(
                plan=plan,
                folder=folder,
                recipe=self.domain.requests.recipe_path(request.study),
                prepared=prepared,
                model=model,
                resources=config.resources,
            )
            shard = state_shard(
                config.email, config.data.dataset, self.record.tally, prepared, task=plan.task, files=request.files
            )
            self._open[request.study] = StudyWork(
                context=context,
                releasing=Releasing(context, self.domain.requests),
                training=training,
                prepared=prepared,
                model=model,
                shard=shard,
            )
        return self._open[request.study]

    def opened(self, study: str) -> StudyWork | None:
        """Return the work of a study that was opened; None of any other."""
        return self._open.get(study)

    def close(self) -> None:
        """End what they keep running."""
        for work in self._open.values():
            work.close()

    def _model(self, choice: BaseModelChoice) -> LocalModel:
        self.announcer.state(f"fetching the base model {choice.name}")
        model = ensure_model(choice.name)
        if choice.digest is not None and choice.digest != model.digest:
            raise RefusedError(
                f"The base model {choice.name} here has other weights than the plan names",
                kept="Nothing was run",
                todo="remove it from the model cache on both sides, or agree on one source",
            )
        return model

    def _context(self, stored: StoredRequest, folder: StudyFolder, blobs: BlobChannel) -> StudyContext:
        return StudyContext(
            config=self.domain.config,
            keys=self.domain.keys,
            folder=folder,
            stored=stored,
            decision=functools.partial(self._decision, stored.request.study),
            ledger=self.domain.ledger,
            blobs=blobs,
            on_progress=functools.partial(self._on_progress, stored.researcher),
            notify=self.announcer.notify,
        )

    def _decision(self, study: str) -> RequestDecision:
        self.announcer.vitals.sign()  # a job that trains asks for it four times a second
        return self.domain.requests.decision(study)

    def _on_progress(self, researcher: str, progress: Progress) -> float:
        steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
        self.announcer.state(f"{progress.state}{steps}, round {progress.round}")
        return self.on_progress(researcher, progress)
