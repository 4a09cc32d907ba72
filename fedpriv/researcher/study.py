"""A study as its researcher handles it, from a script, a notebook or the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from fedpriv.aggregation import WeightFunction
from fedpriv.errors import ExistsError, LockError, StudyError
from fedpriv.files import folder_lock, stale_lock_pid, write_atomic
from fedpriv.researcher import excluding
from fedpriv.researcher.connecting import connect_enough
from fedpriv.researcher.courier import Courier
from fedpriv.researcher.ending import members_of_sums, require_unfinished, result_of
from fedpriv.researcher.event_stream import EventStream
from fedpriv.researcher.events import AdapterReleased, StudyFinished, Subscriber
from fedpriv.researcher.history import History
from fedpriv.researcher.listeners import Listeners
from fedpriv.researcher.live import LiveFile
from fedpriv.researcher.model_card import model_card
from fedpriv.researcher.orchestrator import Orchestrator
from fedpriv.researcher.own_thread import run_in_thread
from fedpriv.researcher.researcher import Researcher
from fedpriv.researcher.status import status_of
from fedpriv.researcher.steering import Steering, SteeringFile, require_meaning
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.researcher.submitting import submit
from fedpriv.researcher.trackers import ReportTo, open_trackers
from fedpriv.researcher.versions import require_same_protocol
from fedpriv.study import CodeRequest, Plan, RequestDecision, parse_plan
from fedpriv.training.adapter import load_state, write_peft_folder
from fedpriv.training.base_model import hub_id

_ENDS_S = 15.0


class Study:
    """One federated fine-tuning project.

    Examples
    --------
    >>> study = Study.create(researcher, "icu-notes", plan, recipe=stock_recipe())  # doctest: +SKIP
    >>> study.submit()                                                              # doctest: +SKIP
    >>> study.run(print)                                                            # doctest: +SKIP
    >>> study.release(Path("adapter"))                                              # doctest: +SKIP
    """

    def __init__(self, folder: StudyFolder, researcher: Researcher) -> None:
        self.folder = folder
        self.researcher = researcher
        self.history = History(folder.history_path)
        self._listeners = Listeners(self.history)

    @classmethod
    def create(
        cls, researcher: Researcher, name: str, plan: Plan, *, recipe: str, template: str | None = None
    ) -> Study:
        """Write a new study's ``plan.yaml``, ``train.py`` and the template that the plan names; nothing is sent.

        Raises
        ------
        ExistsError
            If there is a study of that name.
        InputError
            If it is no name for a study.
        """
        folder = researcher.study_folder(name)
        request = CodeRequest.new(plan, recipe, template)
        return cls(StudyFolder.create(folder, request), researcher)

    @classmethod
    def open(cls, researcher: Researcher, name: str) -> Study:
        """Open a study by its name.

        Raises
        ------
        ConfigError
            If there is none.
        InputError
            If it is no name for a study.
        """
        study = cls(StudyFolder(researcher.study_folder(name)), researcher)
        study.folder.draft()
        return study

    @property
    def plan(self) -> Plan:
        """The plan as it stands in the folder."""
        return self.folder.draft().plan

    def rewrite(self, text: str) -> Path:
        """Write another ``plan.yaml`` in place of the draft's, and return where the one before is kept.

        Raises
        ------
        ExistsError
            If the study was submitted.
        PlanError
            If the text is no plan; nothing is written then.
        """
        self.require_draft()
        parse_plan(text)
        return self.folder.rewrite(text)

    def require_draft(self) -> None:
        """Refuse to change a plan that data owners have.

        Raises
        ------
        ExistsError
            If the study was submitted.
        """
        if self.folder.is_submitted:
            raise ExistsError(
                f"The study {self.folder.root.name} was submitted already",
                kept="Its plan was left as it is",
                todo="make a new study with `fedpriv study new`",
            )

    @property
    def trackers_folder(self) -> Path:
        """Where experiment trackers that write files write them, for all studies of a researcher."""
        return self.researcher.root / "trackers"

    def submit(self, *, on_wait: Callable[[str], None] = lambda what: None) -> str:
        """Send the code request to every domain of the cohort and return the study id.

        Parameters
        ----------
        on_wait : Callable[[str], None]
            Called with what is waited for, when it takes long.

        Raises
        ------
        ExistsError
            If it was submitted already, or another study with the same plan and code was.
        StudyError
            If a domain does not answer within two minutes.
        SignatureError
            If the store holds other keys for a domain than the plan pins.
        VersionError
            If a domain runs a version that does not understand ours, with what to install where.
        """
        return submit(self.folder, self.researcher, on_wait)

    def wait_for_decisions(self, *subscribers: Subscriber) -> dict[str, RequestDecision]:
        """Wait until every domain approved; see :meth:`Orchestrator.wait_for_decisions`."""
        with self._listeners.during(subscribers), self._orchestrator() as orchestrator:
            return run_in_thread(orchestrator.wait_for_decisions())

    def events(self, *, limit: int = 1024) -> EventStream:
        """Return what happens from now on, to be read with ``async for``; it ends with the run.

        It may be read in a notebook's event loop while :meth:`run` works in another thread. Before a run it waits for
        one. A reader that is slower than ``limit`` events misses progress, and nothing else.
        """
        return self._listeners.stream(limit)

    def run(
        self,
        *subscribers: Subscriber,
        resume: bool = False,
        weights: WeightFunction | None = None,
        report_to: ReportTo = "none",
    ) -> StudyFinished:
        """Run the rounds to the end; of a finished study, return how it ended, and ask nobody.

        Parameters
        ----------
        *subscribers : Callable[[Event], None]
            Called for each event, beside the history file.
        resume : bool
            Go on with a study whose last run was killed. Without it such a study is not touched.
        weights : Callable, optional
            How much each domain's update counts, where the plan's weights are ``custom``: a function of
            :class:`~fedpriv.aggregation.MemberFacts` by address that gives a weight by address. It is called once a
            round; what it gives is kept, so that a resumed round does not call it again.
        report_to : str or sequence of str, optional
            Experiment trackers: ``tensorboard``, ``mlflow``, ``wandb``; ``all`` that are installed, or ``none``.

        Raises
        ------
        ConfigError
            If a tracker is unknown or not installed.
        LockError
            If another process runs it, or a run was killed and ``resume`` is false.
        StoppedError
            If it is asked to stop.
        StudyError
            If a domain refuses or fails, or ``weights`` is given without the plan asking for it or the reverse.
        """
        if (ended := result_of(self.folder)) is not None:
            return ended
        with self._listeners.during(subscribers):
            self._require_whole_end(resume=resume)
            self._require_function(weights)
            trackers = open_trackers(report_to, self, self._listeners)
            live = LiveFile(self.folder.state)
            with self._locked(), self._listeners.during((*trackers, live)), self._orchestrator(weights) as orchestrator:
                self.steering.change(stopped=False)
                return run_in_thread(orchestrator.run())

    def _require_function(self, weights: WeightFunction | None) -> None:
        if (self.folder.submitted().plan.aggregation.weights == "custom") != (weights is not None):
            raise StudyError(
                "A function of weights goes with aggregation > weights: custom in the plan, and only with that",
                kept="Nothing was run",
                todo="call run(weights=FUNCTION) for such a plan, and run() for every other one",
            )

    def _require_whole_end(self, *, resume: bool) -> None:
        dead = stale_lock_pid(self.folder.lock_path)
        if dead is not None and not resume:
            raise LockError(
                f"The last run of this study (process {dead}) ended without putting its lock away",
                kept="Everything it did is kept; nothing was changed",
                todo="run `fedpriv study resume` to go on where it stopped",
            )

    def resume(
        self, *subscribers: Subscriber, weights: WeightFunction | None = None, report_to: ReportTo = "none"
    ) -> StudyFinished:
        """Go on with a study that was paused or stopped, or whose run was killed, in the middle of a round if need be.

        No domain trains again what it has trained. Parameters and errors as :meth:`run`.
        """
        if result_of(self.folder) is None:
            self.unpause()
        return self.run(*subscribers, resume=True, weights=weights, report_to=report_to)

    # -- steering, from any process -----------------------------------------------------------------------------------

    @property
    def steering(self) -> SteeringFile:
        """What is asked of the study beside its plan; the process that runs it looks at it all the time."""
        return SteeringFile(self.folder.state)

    def pause(self) -> int:
        """Begin no further round; return the last one that is finished before the study pauses (0: none)."""
        return self.step(0)

    def step(self, rounds: int = 1) -> int:
        """Pause after so many more rounds; return the number of the last one.

        Raises
        ------
        StudyError
            If the study is finished.
        """
        require_unfinished(self.folder)
        after = min(self.folder.last_begun() + rounds, self.plan.training.rounds)
        self.steering.change(paused_after=after)
        return after

    def unpause(self) -> None:
        """Go on after a pause."""
        self.steering.change(paused_after=None, stopped=False)

    def stop(self) -> None:
        """End the run, wherever it is; :meth:`resume` goes on from there."""
        self.steering.change(stopped=True)

    def adjust(self, **changes: float) -> Steering:
        """Change ``alpha`` or ``patience_s`` from the next round on, and return all that is asked for.

        Raises
        ------
        StudyError
            If the study is finished, a value is out of range, or has no meaning in its plan; nothing is changed then.
        """
        require_unfinished(self.folder)
        require_meaning(self.plan, changes)
        return self.steering.change(**changes)

    def skip_round(self) -> int:
        """Leave the round at work without a sum, because a member of it is gone for good, and return its number.

        The adapter after it is the one before it. What its domains trained is lost where they have confirmed the sum
        already; the others carry it on, as the plan says. A run that is at work does it within seconds, else the next.

        Raises
        ------
        StudyError
            If the study is finished, no round is at work, it is summed already, or it waits for nobody who was
            excluded.
        """
        number = excluding.skippable_round(self.folder)
        self.steering.change(skipped_round=number)
        return number

    def readmit(self, email: str) -> None:
        """Let a domain that was excluded take part again, from the next round on.

        It opens the sums that it missed first. Readmitting a domain that is not excluded changes nothing.

        Raises
        ------
        InputError
            If it is not in the cohort.
        """
        excluding.readmit(self.folder, email)

    def release(self, target: Path, *subscribers: Subscriber) -> Path:
        """Ask the data owners for the plain adapter and write it to ``target`` as a PEFT folder with its model card.

        Waits until every data owner has decided; those who refuse are named in the card.

        Raises
        ------
        ExistsError
            If ``target`` holds something.
        StudyError
            If the study is not finished, or nobody hands the adapter over.
        """
        if target.exists() and any(target.iterdir()):
            raise ExistsError(f"{target} is not empty", kept="It was left as it is", todo="give another folder")
        if self.folder.record("finished") is None:
            raise StudyError("The study is not finished yet", todo="run `fedpriv study run` first")
        with self._listeners.during(subscribers), self._run_ended(), self._orchestrator() as orchestrator:
            released = run_in_thread(orchestrator.release())
            request, digest = orchestrator.request, released.adapter_sha256
            notes = {"study": request.study, "adapter_sha256": digest}
            base = hub_id(request.plan.base_model.name)
            state = load_state(released.path)
            write_peft_folder(state, target, lora=request.plan.lora, base_model_name=base, notes=notes)
            ended, rounds = self.folder.record("finished") or {}, request.plan.training.rounds
            members = members_of_sums(self.folder, rounds)
            card = model_card(request, released, finished=ended, base_model=base, members=members)
            write_atomic(target / "README.md", card.encode(), mode=0o644)
            orchestrator._emit(AdapterReleased(study=request.study, folder=str(target), adapter_sha256=digest))
        return target

    def ping(self, times: int = 1) -> dict[str, list[float]]:
        """Ask every domain for an answer and nothing else, so many times; return the seconds that each took.

        Raises
        ------
        StudyError
            If a domain has not approved the study (any more).
        """
        with self._locked(), self._orchestrator() as orchestrator:
            return run_in_thread(orchestrator.ping(times))

    def exclude(self, email: str, reason: str = "") -> str:
        """Wait for a domain no more; the others go on without it, also in a study that runs in another process.

        If they have sealed already, the sum is of their updates alone, and they give what takes the masks towards the
        missing domain off it. From the next round on it takes no part. Excluding it again changes nothing.

        Parameters
        ----------
        email : str
            The domain's address.
        reason : str
            What people are shown; at most 500 characters.

        Returns
        -------
        str
            What still waits for the domain and what to do about it; empty if nothing does.

        Raises
        ------
        InputError
            If it is not in the cohort.
        StudyError
            If fewer than two domains would remain, or nobody else can make the study's key.
        """
        return excluding.exclude(self.folder, email, reason)

    def mock_folders(self) -> dict[str, Path]:
        """Fetch the mock side of every domain's dataset and return the folders by address.

        Everything in them is made up: same schema as the private side, safe to print.
        """
        request, cohort = self.folder.submitted(), self.folder.cohort()
        session = self.researcher.session(cohort)
        folders = {}
        for email in cohort:
            session.fetch_datasets(email)
            folders[email] = session.client.dataset_manager.get(request.plan.dataset, email).mock_dir
        return folders

    def status(self) -> dict[str, Any]:
        """Return where the study is: submitted or not, decisions, finished rounds, whether it runs.

        Of a study that was submitted, it is what the domains have that counts, not what was edited since.
        """
        return status_of(self.folder)

    # -- running ----------------------------------------------------------------------------------------------------

    def _locked(self) -> Any:
        return folder_lock(self.folder.lock_path, holder="The study", todo="wait for it, or stop that process")

    @contextmanager
    def _run_ended(self) -> Iterator[None]:
        """Lock the study; a run that has just finished it may still be putting its things away."""
        end = time.monotonic() + _ENDS_S
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self._locked())
                    break
                except LockError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.1)
            yield

    @contextmanager
    def _orchestrator(self, weights: WeightFunction | None = None) -> Iterator[Orchestrator]:
        request = self.folder.submitted()
        cohort = self.folder.cohort()
        session = self.researcher.session(cohort)
        self.researcher.publish_identity()  # our version may be another one than when the study was submitted
        connect_enough(session, request.plan, self.folder)
        require_same_protocol(self.researcher, cohort, self.folder.active(request.plan.emails))
        courier = Courier(self.folder, request, self.researcher, session, self._listeners)
        with closing(Orchestrator(self.folder, courier, self._listeners, weights)) as orchestrator:
            yield orchestrator
