"""A domain's counts for Prometheus: what happened how often, never to whom and never with what result.

No count of patients, notes or examples, no loss, no name and no address is among them. Studies are named by the first
digits of their ids, which say nothing without the request. An epsilon is rounded: to many digits, it would tell how
many patients there are.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from fedpriv import __version__
from fedpriv.domain.domain import Domain
from fedpriv.domain.ledger import Entry, Place
from fedpriv.domain.monitoring.vitals import PHASES, Vitals
from fedpriv.domain.privacy_budget import CHARGED, Charge
from fedpriv.domain.waiting import waits
from fedpriv.errors import FedprivError

_ROUNDS = {
    "started": "round.started",
    "trained": "round.trained",
    "stopped": "round.stopped",
    "sealed": "update.sealed",
    "confirmed": "update.confirmed",
    "opened": "aggregate.opened",
    "skipped": "round.skipped",
}
_REFUSED = {
    "ticket": "ticket.refused",
    "job": "job.refused",
    "message": "message.refused",
    "aggregate": "aggregate.refused",
}
_EPSILON_DIGITS = 2


class DomainCollector(Collector):
    """Reads a domain's folder and its service's signs of life when Prometheus asks.

    What is counted comes from the ledger, so that it goes on where it was after a restart; of the ledger only what is
    new is read each time.
    """

    def __init__(self, domain: Domain, vitals: Vitals) -> None:
        self._domain, self._vitals = domain, vitals
        self._place, self._kinds = Place(), Counter[str]()
        self._spent, self._studies = 0.0, dict[str, float]()
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        with self._lock:  # two that ask at once would count an entry twice
            readable = self._read_ledger()
        yield _gauge("fedpriv_build_info", "Version of fedpriv", [({"version": __version__}, 1.0)])
        yield from self._of_service()
        yield from self._of_ledger(readable)
        yield from self._of_budget()
        yield from self._of_people()
        free = shutil.disk_usage(self._domain.folder.root).free
        yield _gauge("fedpriv_disk_free_bytes", "Free on the disk with the domain's folder", [({}, float(free))])

    def _of_service(self) -> Iterator[Metric]:
        vitals = self._vitals
        phase, well = vitals.phase, not vitals.complaint()
        yield _gauge(
            "fedpriv_service_state",
            "1 for what the service is doing",
            [({"state": name}, float(name == phase)) for name in PHASES],
        )
        yield _gauge("fedpriv_healthy", "1 if /healthz says so", [({}, float(well))])
        yield _gauge("fedpriv_quiet_seconds", "Since the service's last sign of life", [({}, vitals.quiet_s)])
        age = vitals.contact_age_s
        yield _gauge(
            "fedpriv_store_contact_age_seconds",
            "Since the store last answered; absent before it did",
            [] if age is None else [({}, age)],
        )
        moved = [({"direction": name}, float(value)) for name, value in vitals.moved().items()]
        yield _counter("fedpriv_transferred_bytes", "Updates, aggregates and keys moved, since the start", moved)
        worked = [({"part": name}, value) for name, value in sorted(vitals.worked().items())]
        yield _counter("fedpriv_work_seconds", "Wall clock of the parts of tickets, since the start", worked)

    def _of_ledger(self, readable: bool) -> Iterator[Metric]:
        rounds = [({"step": step}, float(self._kinds[kind])) for step, kind in _ROUNDS.items()]
        yield _counter("fedpriv_rounds", "Steps of rounds in the ledger", rounds)
        refused = [({"what": what}, float(self._kinds[kind])) for what, kind in _REFUSED.items()]
        yield _counter("fedpriv_refused", "What was refused; messages are those in quarantine", refused)
        attempts = [({}, float(self._kinds["code.tried"]))]
        yield _counter("fedpriv_code_attempts", "Rounds whose code tried what training never needs", attempts)
        yield _counter("fedpriv_keys_retired", "Study keys given up after a wrong sum", [({}, self._retired())])
        yield _gauge("fedpriv_ledger_entries", "Entries of the ledger", [({}, float(self._place.number))])
        yield _gauge("fedpriv_ledger_readable", "0 if an entry is none of ours", [({}, float(readable))])

    def _of_budget(self) -> Iterator[Metric]:
        budget = self._domain.config.policy.epsilon
        limit = [] if budget is None else [({}, budget)]
        yield _gauge("fedpriv_epsilon_budget", "Of these data over all studies; absent if there is none", limit)
        spent = [({}, round(self._spent, _EPSILON_DIGITS))]
        yield _gauge("fedpriv_epsilon_spent", "Of these data over all studies together, at the last charge", spent)
        studies = [({"study": study[:12]}, round(value, _EPSILON_DIGITS)) for study, value in self._studies.items()]
        yield _gauge("fedpriv_study_epsilon_spent", "Of each study by itself", studies)

    def _of_people(self) -> Iterator[Metric]:
        requests = self._domain.requests
        mine = sum(wait.who == "you" for wait in waits(self._domain.folder, requests))
        yield _gauge("fedpriv_waiting_for_person", "Requests and releases to decide on", [({}, float(mine))])
        yield _gauge("fedpriv_requests", "Requests that were received", [({}, float(len(requests.studies())))])

    def _read_ledger(self) -> bool:
        """Count what is new in the ledger; return whether it can be read."""
        try:
            entries, place = self._domain.ledger.after(self._place)
        except (FedprivError, OSError):
            return False
        if entries and entries[0].number != self._place.number + 1:
            self._kinds, self._spent, self._studies = Counter(), 0.0, {}  # it is another file
        for entry in entries:
            self._kinds[entry.kind] += 1
            self._charge(entry)
        self._place = place
        return True

    def _charge(self, entry: Entry) -> None:
        """Note what a round's charge came to when it was made: computing it anew takes seconds."""
        if entry.kind == CHARGED:
            charge = Charge.from_facts(entry.facts)
            if charge.dataset == self._domain.config.data.dataset:
                self._spent, self._studies[charge.study] = charge.epsilon_dataset, charge.epsilon_study

    def _retired(self) -> float:
        return float(self._kinds["key.retired"])


Sample = tuple[dict[str, str], float]


def _gauge(name: str, text: str, samples: Iterable[Sample]) -> Metric:
    return _filled(GaugeMetricFamily(name, text), samples)


def _counter(name: str, text: str, samples: Iterable[Sample]) -> Metric:
    family = CounterMetricFamily(name, text)
    return _filled(family, samples, suffix="_total")


def _filled(family: Metric, samples: Iterable[Sample], *, suffix: str = "") -> Metric:
    for labels, value in samples:
        family.add_sample(family.name + suffix, labels, value)
    return family
