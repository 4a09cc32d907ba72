"""A study in Flower's simulation: real domains with folders, keys and ledgers, each a virtual SuperNode.

Runs where the study's own engine and Flower are installed together (``fedpriv[flower]``). All is as in a deployment but
three things: Flower's engine (Ray) carries the messages in one machine, one process works for all domains in turn, and
training runs in it, without a sandbox, on made-up notes.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedpriv.clinical import Record, write_synthetic
from fedpriv.clinical.shards import shard_by_hash
from fedpriv.domain import Domain
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.service import DomainService
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.domain.study_works import StudyWorks
from fedpriv.domain.tickets import StudyWork
from fedpriv.errors import ConfigError, StudyError
from fedpriv.experiments.federation import Federation
from fedpriv.experiments.flower.bed import apart
from fedpriv.files import private_folder
from fedpriv.flower.relay.domain_side import answer_parcel
from fedpriv.flower.relay.parcel import Parcel
from fedpriv.flower.relay.researcher_side import Relay
from fedpriv.researcher import Study
from fedpriv.researcher.events import Event, RoundFinished, RoundStarted
from fedpriv.training.jobs import Job, do_job
from fedpriv.training.recipe import stock_recipe
from fedpriv.transport.blobs import BlobChannel

OnProgress = Callable[[str, float], None]
_PATIENTS = 12
"""Of each domain, on average."""

_SILENT_S, _WAIT_S = 300.0, 0.2
_OPENS_S = 30.0
"""The most that a domain takes to open or to answer; one process works for all, so that each waits for the others."""

_STORE_BYTES = 128 * 2**20
_services: dict[str, SimulatedService] = {}


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """How a simulated study went.

    Attributes
    ----------
    domains : int
        How many there were.
    adapter_sha256 : str
        Digest of the adapter that all domains hold in the end.
    rounds_s : tuple of float
        Wall clock of each round.
    study_s : float
        Wall clock from submitting to the end.
    messages, bytes_down, bytes_up : int
        Flower messages to domains; bytes of files to and from them.
    """

    domains: int
    adapter_sha256: str
    rounds_s: tuple[float, ...]
    study_s: float
    messages: int
    bytes_down: int
    bytes_up: int

    def as_json(self) -> dict[str, Any]:
        """Return everything."""
        return asdict(self)


class InProcessTraining(LocalTraining):
    """Runs fedpriv's own training loop in this process; the recipe is not run."""

    def start(self) -> None:  # type: ignore[override] - there is no worker
        pass

    def _tokens(self, job: dict[str, Any], max_seconds: int, watch: Callable[[], object]) -> None:
        return None

    def _run(
        self,
        job: dict[str, Any],
        max_seconds: int,
        on_step: Callable[[int, int], None],
        watch: Callable[[], object],
    ) -> None:
        private_folder(Path(job["out"]))
        do_job(Job.model_validate_json(json.dumps(job | {"id": "simulated", "recipe": None})), on_step)


class SimulatedWorks(StudyWorks):
    """Works that train in this process."""

    def of(self, stored: StoredRequest, folder: StudyFolder, blobs: BlobChannel) -> StudyWork:
        work = super().of(stored, folder, blobs)
        if not isinstance(work.training, InProcessTraining):
            given = vars(work.training)
            names = ("plan", "folder", "recipe", "prepared", "model", "resources")
            work.training = InProcessTraining(**{name: given[name] for name in names})
        return work


class SimulatedService(DomainService):
    """A domain's service that works when it is called."""

    def open(self) -> SimulatedService:
        """Prepare the data and connect, and return the service."""
        self._start()
        return self

    def poll(self) -> None:
        """Look at the exchange folder once, and do what is asked."""
        self._loop(once=True)

    def _works(self, record: Record) -> StudyWorks:
        return SimulatedWorks(**vars(super()._works(record)))


def simulate(
    work: Path,
    *,
    domains: int = 16,
    rounds: int = 1,
    steps: int = 2,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done: None,
) -> Simulated:
    """Run a study of the tiny model in Flower's simulation.

    Parameters
    ----------
    work : Path
        A new folder.
    domains, rounds, steps : int
        Of the study; the steps are of a round.
    seed : int
        Of notes and training.
    on_progress : callable
        Called with what is done, and which part of the whole is over.

    Raises
    ------
    ConfigError
        If Flower and Ray are not installed here.
    StudyError
        If the study ends early.
    """
    missing = [name for name in ("flwr", "ray") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"Flower's simulation is not installed here: there is no {missing[0]}",
            kept="Nothing was run",
            todo="make an environment with `pip install -c constraints-flower.txt 'fedpriv[flower]'`",
        )
    from flwr.simulation import run_simulation

    with (
        contextlib.closing(_federation(work, domains, seed, on_progress)) as federation,  # no domain is a process
        tempfile.TemporaryDirectory(prefix="fp-") as short,
    ):
        on_progress("the study in Flower's simulation", 0.5)
        study = _Run(federation, rounds, steps, seed)
        server, client, relay = _apps(federation, study)
        settings = {
            "include_dashboard": False,
            "num_cpus": 1,  # one worker, which keeps every domain's service
            "object_store_memory": _STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": short,  # Ray's sockets below it have a limit of 107 letters
        }
        study.start()
        backend = {"init_args": settings, "client_resources": {"num_cpus": 1}}
        run_simulation(server, client, domains, backend_config=backend)
        return study.result(domains, relay[0] if relay else None)


def _federation(work: Path, domains: int, seed: int, on_progress: OnProgress) -> Federation:
    """Make the parties, and let every domain prepare its data."""
    on_progress("notes and parties", 0.0)
    write_synthetic(work / "tables", patients=_PATIENTS * domains, seed=seed)
    made = Federation.create(
        mimic=work / "tables", model="tiny", domains=domains, seed=seed, work=work / "parties", divide=shard_by_hash
    )
    made.close()
    apart(work / "parties")
    federation = Federation.take_up(work / "parties")
    for number, domain in enumerate(federation.domains.values()):
        on_progress("the data of the domains", 0.1 + 0.4 * number / domains)
        SimulatedService(domain=domain, notify=_silent).open()
    return federation


def _apps(federation: Federation, study: _Run) -> tuple[Any, Any, list[Relay]]:
    """Return the server app and the client app of a simulation, and where the relay is once it works."""
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

    from fedpriv.flower.relay.records import from_records, to_records
    from fedpriv.flower.relay.server_app import GridPost

    server, client, relays = ServerApp(), ClientApp(), list[Relay]()
    config = federation.researcher.config
    roots = [str(domain.folder.root) for domain in federation.domains.values()]

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        relay = Relay(GridPost(grid), Path(config.store), config.email, waits=False, late_s=_OPENS_S * len(roots))
        relays.append(relay)
        relay.run(lambda: study.is_over() or time.monotonic() - relay.heard_s > _SILENT_S)  # the engine may have failed

    @client.query()
    def carry(message: Message, context: Context) -> Message:
        answer = _answer(roots[int(context.node_config["partition-id"])], from_records(message.content))
        return Message(to_records(answer), reply_to=message)

    return server, client, relays


def _answer(root: str, asked: Parcel) -> Parcel:
    """Answer a parcel as the domain in a folder; its service stays open in this process.

    What it wrote is sent once it has lain there for a moment.
    """
    asked = replace(asked, wait_s=_WAIT_S)
    if root not in _services:
        os.environ["OMP_NUM_THREADS"] = "1"
        _services[root] = SimulatedService(domain=Domain.open(Path(root)), notify=_silent).open()
    service = _services[root]
    config = service.domain.config
    return answer_parcel(asked, Path(config.store), config.email, service.poll)


class _Run(threading.Thread):
    """Runs the study as its researcher would, beside the simulation."""

    def __init__(self, federation: Federation, rounds: int, steps: int, seed: int) -> None:
        super().__init__(daemon=True)
        plan = federation.plan(rounds=rounds, steps=steps, seed=seed)
        self._study = Study.create(federation.researcher, "simulated", plan, recipe=stock_recipe())
        self._began: dict[int, float] = {}
        self._rounds_s: list[float] = []
        self._digest, self._study_s = "", 0.0
        self._failure: BaseException | None = None

    def run(self) -> None:
        started = time.perf_counter()
        try:
            self._submit()
            self._digest = self._study.run(self._watch).adapter_sha256
        except BaseException as error:  # it is raised where somebody waits for the result
            self._failure = error
        self._study_s = time.perf_counter() - started

    def _submit(self) -> None:
        """Submit once all virtual SuperNodes are open, one after the other: no domain says who it is before."""
        end = time.monotonic() + _OPENS_S * len(self._study.plan.cohort)
        while True:
            try:
                self._study.submit()
                return
            except StudyError:
                if time.monotonic() > end:
                    raise
            time.sleep(_WAIT_S)

    def is_over(self) -> bool:
        return not self.is_alive()

    def result(self, domains: int, relay: Relay | None) -> Simulated:
        """Return how it went.

        Raises
        ------
        StudyError
            If it did not go to its end.
        """
        if self._failure is not None:
            raise self._failure
        if relay is None or not self._digest:
            raise StudyError("Flower's simulation ended before the study", kept="What was done is kept")
        return Simulated(
            domains=domains,
            adapter_sha256=self._digest,
            rounds_s=tuple(self._rounds_s),
            study_s=self._study_s,
            messages=relay.messages,
            bytes_down=relay.bytes_down,
            bytes_up=relay.bytes_up,
        )

    def _watch(self, event: Event) -> None:
        if isinstance(event, RoundStarted):
            self._began[event.round] = time.perf_counter()
        elif isinstance(event, RoundFinished):
            self._rounds_s.append(time.perf_counter() - self._began[event.round])


def _silent(sentence: str) -> None:
    pass
