"""A study that is being written, at work: its state, its files on the disk, and what takes long, in threads.

It knows no page. Whoever shows it is told that something changed, and reads :attr:`Builder.state`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from fedpriv.errors import ExistsError, FedprivError, StudyError
from fedpriv.researcher import Researcher, Study
from fedpriv.study import Plan
from fedpriv.study.plan import LoraChoice
from fedpriv.training.base_model import known_models, list_models
from fedpriv.widgets import builder_files as files_of
from fedpriv.widgets.builder_estimates import sizes_of, times_of
from fedpriv.widgets.builder_state import BuilderState, Notice, Work, started, with_model
from fedpriv.widgets.builder_work import outcome_of, try_on_mock
from fedpriv.widgets.epsilon_child import privacy_in_child
from fedpriv.widgets.model_child import find_model
from fedpriv.widgets.submit_child import submit_in_child

_log = logging.getLogger(__name__)

Change = Callable[[BuilderState], BuilderState]

_open: dict[tuple[Path, str], Builder] = {}
_opening = threading.RLock()


class Builder:
    """Holds the state of one study that is being written.

    *Guarantee*: after every change all texts are on the disk; what is saved is written as it stands; what was submitted
    is never changed.

    Parameters
    ----------
    researcher : Researcher
        Whose study.
    name : str
        The study's name.
    files : Callable[[], mapping of str to str]
        Gives its files where there is neither a study of this name nor a draft of one.
    """

    def __init__(self, researcher: Researcher, name: str, files: Callable[[], Mapping[str, str]]) -> None:
        self.researcher, self.name = researcher, files_of.check_name(name)
        self._listeners: list[Callable[[], None]] = []
        self._changing, self._stop_trying = threading.RLock(), threading.Event()
        self._tried: Plan | None = None
        folder = files_of.folder_of(researcher, name)
        kept = files_of.kept_files(folder)
        submitted = folder.submitted_id() if kept is not None and folder.is_submitted else ""
        draft = None if submitted else files_of.draft_files(researcher, name)
        here = {model.name for model in list_models()}
        models = tuple((known, known in here) for known in known_models())
        self.state = started(name, draft or kept or files(), kept=kept, submitted=submitted, models=models)
        self._wanted, self._closed = threading.Event(), False
        self._estimator = threading.Thread(target=self._estimate, name=f"estimates {name}", daemon=True)
        self._estimator.start()
        if not submitted and self._digest() is None:
            self.look_for_model()
        self._wanted.set()

    @classmethod
    def open(
        cls, researcher: Researcher, name: str, files: Callable[[], Mapping[str, str]], on_change: Callable[[], None]
    ) -> Builder:
        """Return the study's builder in this process: two that show one study show, and change, the same.

        Parameters
        ----------
        on_change : Callable[[], None]
            Called from any thread after the state changed, until :meth:`leave`.
        """
        with _opening:
            key = researcher.root, name
            builder = _open.get(key) or cls(researcher, name, files)
            builder._listeners.append(on_change)
            _open[key] = builder
            return builder

    def leave(self, on_change: Callable[[], None]) -> None:
        """Say that somebody needs it no more; with the last one it is closed."""
        with _opening:
            if on_change in self._listeners:
                self._listeners.remove(on_change)
            last = not self._listeners and _open.pop((self.researcher.root, self.name), None) is not None
        if last:
            self.close()

    def close(self) -> None:
        """End the threads; what stands here is on the disk. A model that is being fetched is fetched to its end."""
        self._closed = True
        self._stop_trying.set()
        self._wanted.set()
        self._estimator.join()

    # -- changes, from any thread --------------------------------------------------------------------------------------

    def change(self, how: Change) -> None:
        """Take a new state; texts that changed are kept on the disk, and the plan's cost is estimated again."""
        with self._changing:
            before, self.state = self.state, how(self.state)
            if self.state.files != before.files:
                self._keep()
        if self.state.draft.plan != before.draft.plan:
            self._wanted.set()
        for told in list(self._listeners):
            told()

    def edit(self, how: Change) -> None:
        """The same for a person's change of a text or a setting.

        Raises
        ------
        ExistsError
            If the study was submitted.
        """
        self._require_draft()
        name = self._model()
        self.change(how)
        if self._model() != name and self._digest() is None:
            self.look_for_model()

    def _keep(self) -> None:
        if self.state.is_saved:
            files_of.forget_draft(self.researcher, self.name)
        else:
            files_of.keep_draft(self.researcher, self.name, self.state.files)

    def _require_draft(self) -> None:
        if self.state.submitted:
            raise ExistsError(
                f"The study {self.name} was submitted already",
                kept="What the data owners have is never changed",
                todo="make a study of another name",
            )

    # -- files ---------------------------------------------------------------------------------------------------------

    def save(self) -> Study:
        """Write what stands here into the study's folder.

        Raises
        ------
        PlanError, UntrustedError
            If it is no request yet.
        ExistsError, StudyError
            As :func:`fedpriv.widgets.builder_files.save`; saved once more, it is written over.
        """
        self._require_draft()
        with self._changing:
            files, kept = self.state.files, self.state.kept
            try:
                study = files_of.save(self.researcher, self.name, self.state.request(), kept)
            except StudyError:
                self.state = replace(self.state, kept=files_of.kept_files(self._folder))
                raise
            self.change(lambda state: replace(state, kept=dict(files)))
            self._keep()
        return study

    def read_again(self) -> None:
        """Put the folder's files in place of what stands here.

        Raises
        ------
        StudyError
            If there is no study yet.
        """
        self._require_draft()
        kept = files_of.kept_files(self._folder)
        if kept is None:
            raise StudyError(f"There is no study {self.name} yet", kept="All that you wrote is kept", todo="save it")
        self.change(lambda state: replace(started(self.name, kept, kept=kept, models=state.models), trial=state.trial))

    @property
    def study(self) -> Study:
        """The study in its folder.

        Raises
        ------
        StudyError
            If it was not saved yet.
        """
        if self.state.kept is None:
            raise StudyError(f"The study {self.name} was not saved yet", kept="Its text is kept", todo="save it first")
        return Study(self._folder, self.researcher)

    @property
    def _folder(self) -> files_of.StudyFolder:
        return files_of.folder_of(self.researcher, self.name)

    # -- what takes long -----------------------------------------------------------------------------------------------

    def look_for_model(self) -> None:
        """Find the base model, fetching it if need be, and put its digest and its layers into the plan."""
        name, plan = self._model(), self.state.draft.plan
        wished = LoraChoice().targets if plan is None else plan.lora.targets

        def work() -> str:
            model = find_model(str(name), wished, self._working)
            self.change(lambda state: with_model(state, model))
            return f"The base model {name} is here; its digest stands in the plan."

        if isinstance(name, str):
            self._start("model", f"Looking for the base model {name}", work)

    def try_out(self, steps: int) -> None:
        """Train on mock data for so many steps, in the sandbox of a real round, in a process of its own.

        Raises
        ------
        PlanError, UntrustedError
            If it is no request yet.
        StudyError
            If other work goes on.
        """
        request = self.state.request()
        self._require_idle()
        self._stop_trying.clear()

        def work() -> str:
            trial = try_on_mock(
                request, steps, self.researcher.root / "state", stop=self._stop_trying.is_set, working=self._working
            )
            self._tried = request.plan
            self.change(lambda state: replace(state, trial=trial))
            self._wanted.set()
            return outcome_of(trial)

        self._start("try", "Starting a training worker", work)

    def stop_trying(self) -> None:
        """End a try that is going on."""
        self._stop_trying.set()

    def submit(self) -> None:
        """Save what stands here and send it to the data owners.

        Raises
        ------
        FedprivError
            As :meth:`save`; or if other work goes on.
        """
        self._require_idle()
        study = self.save()

        def work() -> str:
            sent = submit_in_child(study, self._working)
            self.change(lambda state: replace(state, submitted=sent))
            return "The request is with the data owners; RoundControl shows what they decide."

        self._start("submit", "Sending the request to every domain", work)

    def _require_idle(self) -> None:
        if (work := self.state.work) is not None:
            raise StudyError(f"Something is going on: {work.words}", kept="Nothing was changed", todo="wait for it")

    def _start(self, kind: str, words: str, work: Callable[[], str]) -> None:
        with self._changing:
            self._require_idle()
            self.change(lambda state: replace(state, work=Work(kind=kind, words=words), notice=None))
        threading.Thread(target=self._do, args=(kind, work), name=f"{kind} {self.name}", daemon=True).start()

    def _do(self, kind: str, work: Callable[[], str]) -> None:
        try:
            notice = Notice(kind=kind, text=work(), good=True)
        except (FedprivError, OSError) as error:
            notice = Notice(kind=kind, text=str(error), good=False)
        except Exception as error:  # a mistake of ours must not leave the work standing there for ever
            _log.exception("work of a study's builder failed")
            words = f"fedpriv itself made a mistake ({type(error).__name__}); your text is kept."
            notice = Notice(kind=kind, text=words, good=False)
        self.change(lambda state: replace(state, work=None, notice=notice))

    def _working(self, words: str, step: int = 0, steps: int = 0) -> None:
        def tell(state: BuilderState) -> BuilderState:
            return replace(state, work=state.work and replace(state.work, words=words, step=step, steps=steps))

        self.change(tell)

    # -- the plan as it stands -----------------------------------------------------------------------------------------

    def _model(self) -> object:
        return _inside(self.state, "name")

    def _digest(self) -> object:
        return _inside(self.state, "digest")

    # -- from the estimator's thread -----------------------------------------------------------------------------------

    def _estimate(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closed:
                return
            plan, trial = self.state.draft.plan, self.state.trial
            if plan is None:
                continue
            try:
                sizes, levels = sizes_of(plan)
                times = times_of(plan, trial, self._tried)
                self._estimated(plan, sizes=sizes, levels=levels, times=times, privacy=())
                if not self._wanted.is_set():  # epsilon takes seconds: not for a plan that is gone already
                    self._estimated(plan, privacy=privacy_in_child(plan))
            except Exception:  # an estimate is never worth more than the rest
                _log.exception("a plan's cost could not be estimated")

    def _estimated(self, plan: Plan, **found: object) -> None:
        def know(state: BuilderState) -> BuilderState:
            return replace(state, estimates=replace(state.estimates, **found)) if state.draft.plan == plan else state

        self.change(know)


def _inside(state: BuilderState, name: str) -> object:
    section = state.values.get("base_model")
    return section.get(name) if isinstance(section, Mapping) else None
