"""A whole federation on one machine for demos and notebooks: real parties, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from fedpriv.clinical import ClinicalTables, Shard, shard_by_care_unit, write_shard, write_synthetic
from fedpriv.domain import DataChoice, Domain, DomainConfig, PolicyChoice, ResourcesChoice, StandingApproval, Terms
from fedpriv.errors import ConfigError, StudyError, UntrustedError
from fedpriv.experiments.site import Site
from fedpriv.files import folder_lock, private_folder, read_json, write_json
from fedpriv.researcher import Researcher, ResearcherConfig, Study
from fedpriv.researcher.events import Event, Waiting
from fedpriv.study.plan import MemberChoice
from fedpriv.study.protection_choice import ProtectionLevel
from fedpriv.training.base_model import ensure_model
from fedpriv.transport import checked_address

DEFAULT_WORK = Path(".fedpriv/demo")
RECORD = "federation.json"
_RESEARCHER = "researcher@demo.fedpriv"
_ARRIVES_S = 60.0


@dataclass(kw_only=True)
class Federation(Site):
    """A researcher and some domains; start it to run the domains' processes, and stop it to end them.

    Attributes
    ----------
    researcher : Researcher
        The researcher's home.
    domains : dict[str, Domain]
        The domains by their short names, such as ``micu``.
    model : LocalModel
        The base model.
    work : Path
        Everything lies below this folder.
    places : mapping of str to sequence of str
        Words that stand before a domain's command, such as those that run it in a network namespace.

    Examples
    --------
    >>> with Federation.create(model="tiny", domains=3) as federation:  # doctest: +SKIP
    ...     plan = federation.plan(rounds=3, steps=4)
    """

    domains: dict[str, Domain]
    work: Path
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    _lock: contextlib.ExitStack
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        *,
        mimic: Path | None = None,
        model: str = "smollm2-135m-instruct",
        domains: int = 3,
        seed: int = 0,
        work: Path = DEFAULT_WORK,
        store: str | None = None,
        epsilon: float | None = None,
        ask: bool = False,
        divide: Callable[[ClinicalTables, int], list[Shard]] = shard_by_care_unit,
        say: Callable[[str], None] = lambda sentence: None,
        on_progress: Callable[[str, float], None] = lambda stage, fraction: None,
    ) -> Federation:
        """Make the parties anew: shards by first care unit, keys, pinned fingerprints. No process runs yet.

        Parameters
        ----------
        mimic : Path, optional
            Folder with MIMIC-III tables; without it, synthetic ones are made.
        store : str, optional
            Address of the store that all parties reach; without it, a folder below ``work``.
        epsilon : float, optional
            Privacy budget of every domain's data, over all studies; without it there is none.
        ask : bool
            A person decides about requests and releases, in place of a standing policy.
        divide : callable
            Divides the tables into so many shards.
        say, on_progress
            Called with a sentence at each stage; with a stage and its done fraction.

        Raises
        ------
        DataError, ModelError
            If the tables or the model cannot be used: nothing was changed then.
        LockError
            If another federation runs in ``work``.
        """
        lock = contextlib.ExitStack()
        with tempfile.TemporaryDirectory() as scratch, _read_tables(mimic, Path(scratch), seed, say) as tables:
            shards = divide(tables, domains)
            local_model = ensure_model(model, on_progress=on_progress)
            lock.enter_context(_locked(work))
            try:
                shutil.rmtree(work, ignore_errors=True)
                private_folder(work)
                sources = _write_shards(tables, shards, work, say)
                researcher, parties = _create_parties(sources, work, store, epsilon, ask=ask)
                write_json(work / RECORD, {"model": model, "domains": list(parties)})  # last: with it all is there
            except BaseException:
                lock.close()
                raise
        return cls(researcher=researcher, domains=parties, model=local_model, work=work, _lock=lock)

    @classmethod
    def take_up(cls, work: Path = DEFAULT_WORK) -> Federation:
        """Take the parties that were made in a folder before, with all their studies. No process runs yet.

        Raises
        ------
        ConfigError
            If there are none.
        LockError
            If a federation runs there.
        """
        lock = contextlib.ExitStack()
        lock.enter_context(_locked(work))
        try:
            return cls._of(work, lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def join(cls, work: Path) -> Federation:
        """Take part in a federation whose domains another process runs; closing it ends nothing.

        Raises
        ------
        ConfigError
            If there is none.
        """
        return cls._of(work, contextlib.ExitStack())

    @classmethod
    def _of(cls, work: Path, lock: contextlib.ExitStack) -> Federation:
        try:
            record = read_json(work / RECORD)
            names, model = [str(name) for name in record["domains"]], ensure_model(str(record["model"]))
        except (OSError, KeyError, TypeError, UntrustedError) as error:
            raise ConfigError(
                f"There is no federation in {work}", todo="start one with `fedpriv lab --demo`"
            ) from error
        researcher = Researcher.open(work / "researcher")
        domains = {name: Domain.open(work / "domains" / name) for name in names}
        return cls(researcher=researcher, domains=domains, model=model, work=work, _lock=lock)

    def approve(self, study: Study, terms: Terms | None = None) -> None:
        """Be every data owner: approve a study's request as soon as it has arrived.

        Raises
        ------
        RefusedError
            If the request is outside a domain's limits.
        StudyError
            If it does not arrive within a minute.
        """
        self.arrived(study)
        for domain in self.domains.values():
            domain.approve(study.folder.submitted_id(), terms)

    def arrived(self, study: Study) -> None:
        """Wait until every domain has received a study's request.

        Raises
        ------
        StudyError
            If it does not arrive within a minute.
        """
        whole = study.folder.submitted_id()
        self._wait(lambda domain: whole in domain.requests.studies(), "get the request")

    def release(self, study: Study) -> None:
        """Be every data owner: consent to the release of a study's adapter as soon as it was asked for.

        Raises
        ------
        StudyError
            If nobody asks within a minute.
        """
        whole = study.folder.submitted_id()
        self._wait(lambda domain: domain.requests.release(whole) is not None, "get asked for the adapter")
        for domain in self.domains.values():
            domain.release(whole)

    def _wait(self, is_there: Callable[[Domain], bool], what: str) -> None:
        """Wait until something is at every domain."""
        end = time.monotonic() + _ARRIVES_S
        for name, domain in self.domains.items():
            while not is_there(domain):
                if time.monotonic() > end:
                    raise StudyError(f"The domain {name} does not {what}", todo="see whether it runs: its serve.log")
                time.sleep(0.2)

    def start(self) -> Federation:
        """Run every domain as a process of its own; they also end if this process is killed."""
        for name in self.domains:
            self.serve(name)
        return self

    def serve(self, name: str) -> subprocess.Popen[bytes]:
        """Run one domain, such as one that was ended, and return its process."""
        self._processes[name] = _serve(self.domains[name], self.places.get(name, ()))
        return self._processes[name]

    def serve_pid(self, name: str) -> int:
        """Return the process of a domain that was started."""
        return self._processes[name].pid

    def stop(self) -> None:
        """End every process that was started."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            _end(process)
        self._processes.clear()

    def close(self) -> None:
        """End every process and let go of the folder."""
        self.stop()
        self._lock.close()

    def __enter__(self) -> Federation:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def watch(self, event: Event) -> None:
        """End the wait for a domain whose process is gone (a subscriber of a study's events).

        Raises
        ------
        StudyError
            With the last line of the domain's log.
        """
        if isinstance(event, Waiting):
            self.require_all()

    def require_all(self) -> None:
        """Raise if a domain's process is gone.

        Raises
        ------
        StudyError
            With the last line of the domain's log.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = (self.domains[name].folder.root / "serve.log").read_text(errors="replace").splitlines()
                raise StudyError(
                    f"The domain {name} ended (exit code {process.returncode}): {log[-1] if log else 'no message'}",
                    kept=f"Everything is in {self.work}",
                    todo="read its serve.log there",
                )


def _locked(work: Path) -> contextlib.AbstractContextManager[None]:
    return folder_lock(work.parent / f"{work.name}.lock", holder="The demo", todo="wait until the other one ends")


def _read_tables(mimic: Path | None, scratch: Path, seed: int, say: Callable[[str], None]) -> ClinicalTables:
    if mimic is None:
        say("making synthetic tables in the MIMIC-III schema (no patient is real)")
        mimic = scratch / "synthetic"
        write_synthetic(mimic, seed=seed)
    else:
        say(f"reading MIMIC-III tables from {mimic}")
    return ClinicalTables.open(mimic)


def _write_shards(
    tables: ClinicalTables, shards: list[Shard], work: Path, say: Callable[[str], None]
) -> dict[str, Path]:
    sources = {}
    for shard in shards:
        sources[shard.name] = work / "shards" / shard.name
        write_shard(tables, shard, sources[shard.name])
    units = ", ".join(f"{shard.name} ({len(shard.subject_ids)} patients)" for shard in shards)
    say(f"one domain for each first care unit: {units}")
    return sources


def _create_parties(
    sources: dict[str, Path], work: Path, store: str | None, epsilon: float | None, *, ask: bool
) -> tuple[Researcher, dict[str, Domain]]:
    store = checked_address(store or str(work / "store"))
    if "://" not in store:  # one that went with the federation before is a new one now, and no share that is away
        Path(store).mkdir(parents=True, exist_ok=True)
    researcher = Researcher.create(
        work / "researcher", ResearcherConfig(name="researcher", email=_RESEARCHER, store=store)
    )
    pin = MemberChoice(email=_RESEARCHER, fingerprint=researcher.keys.fingerprint)
    policy = PolicyChoice(
        standing=() if ask else (StandingApproval(name="stock-recipe", code="stock-recipe"),),
        release="ask" if ask else "after-study",
        max_rounds=1000,
        minimum_cohort=2,
        protection=get_args(ProtectionLevel),
        epsilon=epsilon,
    )
    resources = ResourcesChoice(threads=max(1, (os.cpu_count() or 1) // len(sources)))
    domains = {}
    for name, source in sources.items():
        config = DomainConfig(
            name=name,
            email=f"{name}@demo.fedpriv",
            store=store,
            data=DataChoice(source=str(source.resolve())),
            researchers=(pin,),
            policy=policy,
            resources=resources,
        )
        domains[name] = Domain.create(work / "domains" / name, config)
    researcher.peers.add(
        MemberChoice(email=domain.config.email, fingerprint=domain.keys.fingerprint) for domain in domains.values()
    )
    return researcher, domains


def _serve(domain: Domain, place: Sequence[str]) -> subprocess.Popen[bytes]:
    root = domain.folder.root
    serve = [sys.executable, "-m", "fedpriv", "domain", "serve", str(root), "--parent", str(os.getpid())]
    with (root / "serve.log").open("ab") as log:
        return subprocess.Popen(
            [*place, *serve],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the domains in order
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
