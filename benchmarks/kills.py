"""Does a study end with the same adapter, whoever is killed in it, and whenever? Prints JSON.

    python benchmarks/kills.py                            100 killed studies: an hour on two cores
    python benchmarks/kills.py --studies 5 --seed 7

Every party is a process of its own: the domains serve (`fedpriv domain serve`), the researcher runs `fedpriv study
run`. A study trains the tiny model. Between its submission and its end, one to four times, a party chosen at random is
sent SIGKILL at a random moment and started again after a short pause: a domain as it was, the researcher with `fedpriv
study resume`. The moments of one half are spread over a study's time, most of which it takes to start; those of the
other half over what the researcher writes down, most of it in rounds. The domains outlive their studies, which come
one after the other. Two kinds of weights (known before a round, and of its losses, which takes a step more) and two
seeds are taken in turn; the study of each that nobody disturbs, run first, says which adapter is right.

Reported: how many studies were killed in, kills by party and by the step that it had last written down, and
deviations. A deviation is another adapter, a round that stands in a domain's ledger twice or not at all, an update
that was sealed or confirmed otherwise than once, or in a sum otherwise than it was sealed, domains that confirmed or
opened different sums, a ledger that is not whole, a party that ends by itself, or a study that does not end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpriv.domain.ledger import Entry
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import FedprivError
from fedpriv.experiments.federation import Federation
from fedpriv.researcher import Study
from fedpriv.study import Plan
from fedpriv.training.recipe import stock_recipe

WEIGHTS, SEEDS = ("fedavg", "inverse-loss"), (0, 1)
RESEARCHER = "researcher"
ONCE = ("round.started", "round.trained", "update.sealed", "update.confirmed", "aggregate.opened")
"""What stands in a domain's ledger exactly once a round."""
LONGEST_S = 300.0
"""A study that takes longer does not end."""


@dataclass
class Outcome:
    """What came of one study: its adapters, seconds from submission to end, kills, and what should not have been."""

    adapters: set[str] = field(default_factory=set)
    seconds: float = 0.0
    lines: int = 0
    kills: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A moment of a study: a time has come, so many lines stand in the researcher's history, and a bit later."""

    time: float = 0.0
    lines: int = 0
    later_s: float = 0.0


@dataclass
class KilledStudies:
    """Runs studies in one federation and kills its parties."""

    federation: Federation
    rounds: int
    steps: int
    random: random.Random
    _parties: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """Start the domains."""
        self._parties = {name: self.federation.serve(name) for name in self.federation.domains}

    def run(self, name: str, *, weights: str, seed: int, kills: int = 0, usual_s: float = 0, usual: int = 0) -> Outcome:
        """Run one study with so many kills; undisturbed, it takes ``usual_s`` and writes down ``usual`` lines."""
        study = Study.create(self.federation.researcher, name, self._plan(name, weights, seed), recipe=stock_recipe())
        identity, outcome, begun = study.submit(), Outcome(), time.monotonic()
        self._parties[RESEARCHER], moment = self._research(study, "run"), self._moment(usual_s, usual)
        while (code := self._parties[RESEARCHER].poll()) is None and time.monotonic() - begun < LONGEST_S:
            time.sleep(0.01)
            if len(outcome.kills) == kills or time.monotonic() < moment.time or len(_history(study)) < moment.lines:
                continue
            time.sleep(moment.later_s)
            party = self.random.choice([RESEARCHER, *self.federation.domains])
            if self._parties[party].poll() is not None:
                if party == RESEARCHER:
                    continue
                outcome.wrong.append(f"{party} ended by itself")
            last = self._last_step(party, study, identity)
            outcome.kills.append((party if party == RESEARCHER else "domain", last))
            self._kill(party, study)
            moment = self._moment(usual_s, max(0, usual - len(_history(study))), len(_history(study)))
        outcome.seconds, outcome.lines = time.monotonic() - begun, len(_history(study))
        self.stop()
        self._judge(study, identity, code, outcome)
        return outcome

    def stop(self) -> None:
        """End the researcher's process, if it is still there; the domains are the federation's."""
        researcher = self._parties.pop(RESEARCHER, None)
        if researcher is not None:
            researcher.kill()
            researcher.wait()

    def _moment(self, within_s: float, within: int, since: int = 0) -> Moment:
        """Return a random moment from now: in the time that a study takes, or in what it writes down."""
        if self.random.random() < 0.5:
            return Moment(time=time.monotonic() + self.random.uniform(0, within_s))
        return Moment(lines=since + self.random.randint(0, within), later_s=self.random.uniform(0, 0.3))

    def _plan(self, title: str, weights: str, seed: int) -> Plan:
        plan = self.federation.plan(rounds=self.rounds, steps=self.steps, seed=seed, title=title)
        return plan.model_copy(update={"aggregation": plan.aggregation.model_copy(update={"weights": weights})})

    def _research(self, study: Study, command: str) -> subprocess.Popen[bytes]:
        home = str(study.researcher.root)
        words = [sys.executable, "-m", "fedpriv", "study", command, study.folder.root.name, "--home", home]
        with self._log(study).open("ab") as log:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def _log(self, study: Study) -> Path:
        return self.federation.work / f"{study.folder.root.name}.log"

    def _kill(self, party: str, study: Study) -> None:
        """Kill a party and start it again."""
        self._parties[party].kill()
        self._parties[party].wait()
        time.sleep(self.random.uniform(0, 1))
        again = self._research(study, "resume") if party == RESEARCHER else self.federation.serve(party)
        self._parties[party] = again

    def _last_step(self, party: str, study: Study, identity: str) -> str:
        """Return what a party wrote down last about a study."""
        if party == RESEARCHER:
            lines = _history(study)
            return json.loads(lines[-1])["event"] if lines else "submitted"
        entries = self._entries(party, identity)
        return entries[-1].kind if entries else "submitted"

    def _entries(self, name: str, identity: str) -> list[Entry]:
        entries = self.federation.domains[name].ledger.entries()
        return [entry for entry in entries if entry.facts.get("study") == identity]

    def _judge(self, study: Study, identity: str, code: int | None, outcome: Outcome) -> None:
        """Note the adapters of an ended study, and whatever is not as it should be."""
        if code != 0:
            last = self._log(study).read_text(errors="replace").splitlines()[-3:]
            how = "did not end" if code is None else f"ended with {code}"
            outcome.wrong.append(f"the researcher {how}: {' / '.join(last)}")
            return
        outcome.adapters.add((study.folder.record("finished") or {})["adapter_sha256"])
        sums: dict[tuple[int, str], set[str]] = defaultdict(set)
        for name, domain in self.federation.domains.items():
            if self._parties[name].poll() is not None:
                outcome.wrong.append(f"{name} ended by itself")
                self._parties[name] = self.federation.serve(name)
            opened = StudyFolder(domain.folder.study(identity)).opened(self.rounds)
            outcome.adapters.add(opened.adapter_sha256 if opened else "")
            entries = self._entries(name, identity)
            seen = Counter(entry.kind for entry in entries)
            outcome.wrong += [f"{name}: {seen[kind]} {kind}" for kind in ONCE if seen[kind] != self.rounds]
            for entry in entries:
                for fact in {"updates_sha256", "aggregate_sha256", "adapter_sha256"} & entry.facts.keys():
                    sums[entry.facts.get("round", 0), fact].add(entry.facts[fact])
                if entry.kind == "update.sealed" and entry.facts["container_sha256"] not in _added(study, entry):
                    outcome.wrong.append(f"{name}: round {entry.facts['round']} was sealed otherwise than added")
        outcome.wrong += [f"round {key[0]}: different {key[1]}" for key, values in sums.items() if len(values) != 1]


def _history(study: Study) -> list[bytes]:
    path = study.folder.history_path
    return path.read_bytes().splitlines() if path.exists() else []


def _added(study: Study, sealed: Entry) -> set[str]:
    """Return the digests of the updates that the researcher added in a round."""
    manifest = study.folder.manifest(sealed.facts["round"])
    return {update.container_sha256 for update in manifest.updates} if manifest else set()


def measure(
    work: Path, *, studies: int, seed: int, domains: int, rounds: int, steps: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Kill in so many studies and return what came of them."""
    kinds = [(weights, number) for weights in WEIGHTS for number in SEEDS]
    begun, killed, wrong = time.monotonic(), list[Outcome](), list[str]()
    with contextlib.ExitStack() as cleanup:
        federation = cleanup.enter_context(
            contextlib.closing(Federation.create(model="tiny", domains=domains, work=work))
        )
        suite = KilledStudies(federation, rounds, steps, random.Random(seed))
        cleanup.callback(suite.stop)
        suite.start()
        whole = {kind: suite.run(f"whole-{n}", weights=kind[0], seed=kind[1]) for n, kind in enumerate(kinds)}
        wrong += [f"undisturbed {kind}: {word}" for kind, outcome in whole.items() for word in outcome.wrong]
        wrong += [f"undisturbed {kind}: two adapters" for kind, outcome in whole.items() if len(outcome.adapters) != 1]
        usual = statistics.median(outcome.seconds for outcome in whole.values())
        lines = round(statistics.median(outcome.lines for outcome in whole.values()))
        say(f"undisturbed: {usual:.1f} s, {lines} lines")
        number = 0
        while len(killed) < studies:
            kind, name = kinds[number % len(kinds)], f"killed-{number}"
            kills, number = suite.random.randint(1, 4), number + 1
            outcome = suite.run(name, weights=kind[0], seed=kind[1], kills=kills, usual_s=usual, usual=lines)
            if outcome.adapters != whole[kind].adapters and not outcome.wrong:
                outcome.wrong.append("another adapter")
            wrong += [f"{name} (kills: {outcome.kills}): {word}" for word in outcome.wrong]
            killed += [outcome] if outcome.kills else []
            say(f"{name}: {outcome.seconds:.1f} s, {outcome.kills} {outcome.wrong}")
        for domain in federation.domains.values():
            try:
                domain.ledger.verify()
            except FedprivError as error:
                wrong.append(f"{domain.config.name}: {error.what}")
    return {
        "studies": len(killed),
        "domains": domains,
        "rounds": rounds,
        "steps": steps,
        "kills": dict(Counter(party for outcome in killed for party, _ in outcome.kills)),
        "after": dict(Counter(f"{party}: {step}" for outcome in killed for party, step in outcome.kills).most_common()),
        "seconds": {
            "undisturbed": round(usual, 1),
            "killed": round(statistics.median(outcome.seconds for outcome in killed), 1),
            "all": round(time.monotonic() - begun, 1),
        },
        "deviations": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments, the parties and the pauses")
    parser.add_argument("--domains", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--work", type=Path, help="keep the parties' folders here")
    args = parser.parse_args()
    given = {key: value for key, value in vars(args).items() if key != "work"}
    with tempfile.TemporaryDirectory() as folder:
        done = measure(
            args.work or Path(folder) / "work",
            **given,
            say=lambda sentence: print(sentence, file=sys.stderr, flush=True),
        )
    json.dump(done, sys.stdout, indent=1)
    sys.exit(1 if done["deviations"] else 0)


if __name__ == "__main__":
    main()
