"""What does a study cost as its cohort grows? Prints JSON.

    python benchmarks/cohorts.py                     16, 64, 128 and 256 domains: three minutes on a quiet core
    python benchmarks/cohorts.py --domains 4 16

Whole studies in virtual time: the real orchestrator and the real work of every domain on its tickets, for small
updates (2048 parameters, made-up training), so that what is left is what grows with the cohort. Each cohort has a
process of its own. Nothing is left out but transport, sandbox and waiting. What all parties of one process share,
though, each would do for itself in a real study: a signature that one simulated domain has checked is not computed
again for the others.

Reported for each cohort: wall clock and CPU seconds of the whole study, and peak memory (MB) of the process; the CPU
time that one domain takes for a ticket of each kind (median; for ``train`` in the last round, which opens a sum
first), in milliseconds, and the researcher's for a round, in seconds; the size (KB) of a ticket of each kind.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from fedpriv.experiments.simulation import SimulatedFederation, Trace
from fedpriv.experiments.simulation.domain import SimulatedDomain
from fedpriv.study import Result, Ticket

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder with a name of its own is made in it


class TimedDomains:
    """Stands around the work of all domains and notes its CPU seconds by kind of ticket and round."""

    def __init__(self, federation: SimulatedFederation) -> None:
        self.spent: dict[tuple[str, int], list[float]] = defaultdict(list)
        for domain in federation.domains.values():
            self._time(domain)

    def _time(self, domain: SimulatedDomain) -> None:
        answer = domain.answer

        def timed(ticket: Ticket) -> tuple[Result, float]:
            started = time.process_time()
            try:
                return answer(ticket)
            finally:
                self.spent[ticket.kind, ticket.round].append(time.process_time() - started)

        domain.answer = timed

    @property
    def all_s(self) -> float:
        """CPU seconds of all domains."""
        return sum(map(sum, self.spent.values()))

    def of_one(self) -> dict[str, float]:
        """Return the median for a ticket of each kind, in its last round."""
        last = {kind: seconds for (kind, _), seconds in sorted(self.spent.items(), key=lambda item: item[0][1])}
        return {kind: statistics.median(seconds) for kind, seconds in last.items()}


def measure(domains: int, rounds: int) -> dict[str, Any]:
    """Run a study of so many domains and return what it cost."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        training = {"rounds": rounds, "steps": 2}
        federation = SimulatedFederation(Path(folder), [Trace()] * domains, plan={"training": training})
        timed = TimedDomains(federation)
        wall, cpu = time.perf_counter(), time.process_time()
        run = federation.run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if {federation.digest(email) for email in federation.domains} != {run.finished.adapter_sha256}:
            raise SystemExit("the domains do not hold the same adapter")
        sizes = {path.name.split("-")[3]: path.stat().st_size for path in _tickets(federation)}
    return {
        "domains": domains,
        "rounds": rounds,
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "domain_ms": {kind: round(1000 * seconds, 1) for kind, seconds in timed.of_one().items()},
        "researcher_s": round((cpu - timed.all_s) / rounds, 2),
        "ticket_kb": {kind: round(size / 1000, 1) for kind, size in sizes.items()},
    }


def _tickets(federation: SimulatedFederation) -> list[Path]:
    return sorted((federation.study.folder.state / "tickets").iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--domains", type=int, nargs="+", default=[16, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    results = []
    for domains in args.domains:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results.append(pool.apply(measure, (domains, args.rounds)))
            print(results[-1], file=sys.stderr, flush=True)
    json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
