"""A federation across clouds: a domain behind each slow link, a store on an SFTP server, a researcher beside it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpriv.errors import StudyError
from fedpriv.experiments.crosscloud.bed import Bed, Traffic
from fedpriv.experiments.crosscloud.links import Link
from fedpriv.experiments.crosscloud.sftp_server import SftpServer
from fedpriv.experiments.federation import Federation
from fedpriv.researcher import Study
from fedpriv.study import Plan
from fedpriv.training.recipe import stock_recipe

RESEARCHER, STORE = "researcher", "store"
STORE_PORT = 2222
BESIDE_THE_STORE = Link(rate_mbps=1000, delay_ms=1)
_LOOK_SECONDS = 0.2


@dataclass(kw_only=True)
class Clouds:
    """The parties, their places and their links.

    Attributes
    ----------
    bed : Bed
        The links.
    server : SftpServer
        The store.
    federation : Federation
        The domains, which run in their places, and the researcher's home.
    cloud_of : dict of str to str
        The place of each domain, by the domain's short name.
    """

    bed: Bed
    server: SftpServer
    federation: Federation
    cloud_of: dict[str, str]

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        links: Sequence[Link],
        work: Path,
        *,
        model: str = "tiny",
        seed: int = 0,
        around_store: Sequence[str] = (),
        around_domain: Callable[[Path], Sequence[str]] = lambda root: (),
    ) -> Iterator[Clouds]:
        """Make everything, start the store and the domains, and end them all on the way out.

        Parameters
        ----------
        links : sequence of Link
            Of the domains, in the order of their names.
        work : Path
            A folder for everything.
        around_store : sequence of str
            More words before the store's command.
        around_domain : Callable[[Path], sequence of str]
            Gives more words before a domain's command, from the domain's folder.
        """
        places = [f"cloud{number}" for number in range(len(links))]  # the domains have no names yet
        nodes = dict(zip(places, links, strict=True)) | {RESEARCHER: BESIDE_THE_STORE, STORE: Link()}
        with contextlib.ExitStack() as stack:
            bed = stack.enter_context(Bed(nodes))
            server = SftpServer(
                folder=work / "sshd",
                root=work / "served" / "store",
                address=bed.address(STORE),
                port=STORE_PORT,
                prefix=(*bed.inside(STORE), *around_store),
            )
            stack.enter_context(server)
            federation = Federation.create(
                model=model, domains=len(links), seed=seed, work=work / "parties", store=server.url
            )
            stack.callback(federation.close)
            cloud_of = dict(zip(federation.domains, places, strict=True))
            federation.places = {
                name: (*bed.inside(place), *around_domain(federation.domains[name].folder.root))
                for name, place in cloud_of.items()
            }
            federation.start()
            yield cls(bed=bed, server=server, federation=federation, cloud_of=cloud_of)

    def study(self, name: str, plan: Plan) -> Study:
        """Make a study in the researcher's home; nothing is sent."""
        return Study.create(self.federation.researcher, name, plan, recipe=stock_recipe())

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a ``fedpriv study`` command in the researcher's place; what it says goes to ``study.log``."""
        home = self.federation.researcher.root
        command = [sys.executable, "-m", "fedpriv", "study", *words, "--home", str(home)]
        with (home / "study.log").open("ab") as log:
            return subprocess.Popen(
                [*self.bed.inside(RESEARCHER), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self, process: subprocess.Popen[bytes], seconds: float, look: Callable[[], None] = lambda: None) -> None:
        """Wait for a researcher's command.

        Parameters
        ----------
        look : Callable[[], None]
            Called a few times a second.

        Raises
        ------
        StudyError
            If it fails, takes longer than ``seconds``, or a domain's process ends.
        """
        deadline = time.monotonic() + seconds
        try:
            while process.poll() is None:
                self.federation.require_all()
                look()
                if time.monotonic() > deadline:
                    raise StudyError(f"The study took longer than {seconds:.0f} s", todo="read its study.log")
                time.sleep(_LOOK_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(20)
        if process.returncode != 0:
            raise StudyError(f"The study ended: {self.last_words()}", todo="read its study.log")

    def last_words(self) -> str:
        """Return the last line that a researcher's command said."""
        lines = (self.federation.researcher.root / "study.log").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")

    def submit(self, name: str, plan: Plan, seconds: float) -> Study:
        """Make a study and send it to the domains, from the researcher's place."""
        study = self.study(name, plan)
        self.wait(self.start("submit", name), seconds)
        return study

    def run(
        self, name: str, seconds: float, on_record: Callable[[dict[str, Any]], None] = lambda record: None
    ) -> list[dict[str, Any]]:
        """Run a submitted study to its end; return its history.

        Parameters
        ----------
        on_record : Callable[[dict], None]
            Called with each record of the history as it comes.
        """
        history, seen = Study.open(self.federation.researcher, name).history, 0

        def look() -> None:
            nonlocal seen
            records = history.records()
            for record in records[seen:]:
                on_record(record)
            seen = len(records)

        self.wait(self.start("run", name), seconds, look)
        look()
        return history.records()

    def traffic(self) -> dict[str, Traffic]:
        """Return what crossed the link of each domain so far."""
        counts = self.bed.traffic()
        return {name: counts[place] for name, place in self.cloud_of.items()}
