"""What the researcher's panel shows, as JSON: made of a study's state and facts alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

from fedpriv.aggregation import MemberFacts, weights_for
from fedpriv.domain.finding import visible
from fedpriv.errors import StudyError
from fedpriv.researcher.event_words import link_in_words
from fedpriv.study import Plan
from fedpriv.study.aggregation import RULES_WITH_LINKS, WEIGHTS_IN_WORDS
from fedpriv.study.protection_choice import QUANTISED, ProtectionLevel
from fedpriv.widgets.draft import OFFERED_BITS, OFFERED_WEIGHTS, Sizes
from fedpriv.widgets.epsilon_left import epsilon_spent
from fedpriv.widgets.study_facts import StudyFacts
from fedpriv.widgets.study_state import DomainState, RoundState, StudyState

MOST_POINTS = 64
"""Of a line: more could not be told apart."""

ALPHAS = tuple(number / 10 for number in range(21))
"""Where the weights are shown for, before one is chosen."""

_LINES = 60
_SILENT_S = 60
_WORDS = 400
_PARTS = ("train", "seal", "confirm", "transfer", "aggregate", "open")

Json = dict[str, Any]


def view_of(state: StudyState, facts: StudyFacts, *, name: str, now_s: float, trouble: str = "") -> Json:
    """Return everything that is to be seen but the charts.

    Parameters
    ----------
    name : str
        Of the study's folder.
    now_s : float
        Seconds since the epoch at the kernel, so that a page with another clock shows right ages.
    trouble : str
        Why nothing more can be read, if so.
    """
    plan = facts.plan
    emails = list(plan.emails) if plan else list(state.domains)
    known = [state.domains.get(email, DomainState(email=email)) for email in emails]
    return {
        "name": name,
        "title": visible(plan.title, _WORDS) if plan else "",
        "study": state.study[:12],
        "now_s": now_s,
        "phase": _phase(state, facts),
        "next": _next(state, facts),
        "round": state.at_round,
        "rounds": plan.training.rounds if plan else state.of_rounds,
        "summed": state.summed,
        "running": facts.running,
        "paused_after": facts.paused_after,
        "problem": visible(trouble or facts.problem, 2000),
        "warning": "" if state.warning is None else visible(state.warning.text, _WORDS),
        "silent_s": _silent_s(facts),
        "can": _can(state, facts),
        "domains": [_card(domain, facts) for domain in known],
        "weights": _weights(state, facts),
        "draft": None if plan is None else _choices(plan, facts),
        "log": [{"time_s": line.time_s, "text": visible(line.text, _WORDS)} for line in reversed(state.log[-_LINES:])],
        "released": None if state.released is None else visible(state.released.folder, _WORDS),
        "result": None
        if state.finished is None
        else {"before": state.finished.loss_before, "after": state.finished.loss_after},
    }


def charts_of(state: StudyState, facts: StudyFacts) -> Json:
    """Return the rounds as series to be drawn, of at most :data:`MOST_POINTS` points each."""
    rounds = thinned(state.rounds)
    cohort = [(past.round, past.heldout_loss) for past in rounds]
    if state.finished is not None and rounds:
        cohort.append((rounds[-1].round + 1, state.finished.loss_after))
    last = state.rounds[-1] if state.rounds else None
    fp32 = 4 * last.parameters if last else 0

    def by_domain(of: Callable[[RoundState, str], float | None]) -> list[Json]:
        return [_line(short_name(email), _points(rounds, email, of)) for email in state.domains]

    return {
        "loss": [_line("cohort", cohort, strong=True), *by_domain(lambda past, email: past.heldout.get(email))],
        "weights": by_domain(lambda past, email: past.weights.get(email, 0.0)),
        "bytes": [] if last is None else _byte_rows(last, fp32),
        "seconds": {
            "parts": list(_PARTS),
            "rows": [
                {"name": f"round {past.round}", "values": [past.seconds.get(part, 0.0) for part in _PARTS]}
                for past in state.rounds[-4:]
            ],
        },
        "epsilon": _epsilon_lines(state, facts),
    }


def short_name(email: str) -> str:
    """Return the part of an address that people call a domain by."""
    return visible(email.partition("@")[0], 40)


def thinned(rounds: Sequence[RoundState], most: int = MOST_POINTS) -> list[RoundState]:
    """Return some of the rounds, evenly, with the first and the last."""
    if len(rounds) <= most:
        return list(rounds)
    step = (len(rounds) - 1) / (most - 1)
    return [rounds[round(number * step)] for number in range(most)]


def _line(name: str, points: list[tuple[int, float]], *, strong: bool = False) -> Json:
    return {"name": name, "points": [[x, round(y, 5)] for x, y in points], "strong": strong}


def _points(
    rounds: Sequence[RoundState], email: str, of: Callable[[RoundState, str], float | None]
) -> list[tuple[int, float]]:
    return [(past.round, value) for past in rounds if (value := of(past, email)) is not None]


def _byte_rows(last: RoundState, fp32: int) -> list[Json]:
    return [
        {"name": "one protected update", "value": last.bytes_up},
        {"name": "the same as plain fp32", "value": fp32},
        {"name": "the sum, sent back", "value": last.bytes_down},
    ]


def _epsilon_lines(state: StudyState, facts: StudyFacts) -> list[Json]:
    plan = facts.plan
    if plan is None or plan.privacy is None:
        return []
    ends = sorted({0, *(past.round for past in thinned(state.rounds, 9))})
    lines = []
    for email in plan.emails:
        spent = ((number, epsilon_spent(plan, facts.patients.get(email, 0), number)) for number in ends)
        lines.append(_line(short_name(email), [(number, value) for number, value in spent if value is not None]))
    return [line for line in lines if line["points"]]


def _phase(state: StudyState, facts: StudyFacts) -> str:
    if not facts.submitted:
        return "draft"
    if state.released is not None:
        return "released"
    if facts.finished:
        return "releasing" if facts.running else "finished"
    if not facts.running:
        return "interrupted" if facts.interrupted else "stopped" if state.phase != "new" else "submitted"
    return {"new": "starting", "deciding": "waiting for data owners"}.get(state.phase, state.phase)


_NEXT = {
    "draft": "Choose below, then submit it to the data owners.",
    "submitted": "Start it: it waits for the data owners' decisions, then the rounds begin.",
    "waiting for data owners": "The rounds begin when the data owners have approved.",
    "stopped": "Start it to go on where it stopped; nothing is trained twice.",
    "interrupted": "Its process was killed. Start it to go on where it stopped; nothing is trained twice.",
    "paused": "Start lets it go on; Step does one round.",
    "finished": "Ask the data owners to release the adapter.",
    "releasing": "The adapter is written as soon as the data owners have decided on its release.",
    "released": "peft.PeftModel.from_pretrained loads the adapter.",
}


def _next(state: StudyState, facts: StudyFacts) -> str:
    """Return what to do next, as a sentence."""
    after = facts.paused_after
    return _NEXT.get(_phase(state, facts), "" if after is None else f"It pauses after round {after}.")


def _silent_s(facts: StudyFacts) -> int:
    """Return after how many seconds without a word a domain may be lost."""
    patience = facts.patience_s or (facts.plan.schedule.patience_s if facts.plan else _SILENT_S)
    return min(patience, _SILENT_S)


def _can(state: StudyState, facts: StudyFacts) -> dict[str, bool]:
    done, running = facts.finished, facts.running
    going = facts.submitted and not done
    return {
        "submit": not facts.submitted,
        "start": going and (not running or facts.paused_after is not None),
        "pause": going and running and state.phase != "paused",
        "step": going and not facts.interrupted,
        "stop": running,
        "exclude": going,
        "skip": going and any(domain.excluded is not None for domain in state.domains.values()),
        "release": done and not running,
    }


def _card(domain: DomainState, facts: StudyFacts) -> Json:
    plan = facts.plan
    epsilon = None
    if plan is not None and plan.privacy is not None:
        spent = epsilon_spent(plan, facts.patients.get(domain.email, 0), domain.trained)
        epsilon = {"of": plan.privacy.epsilon, "spent": None if spent is None else round(spent, 3)}
    return {
        "email": domain.email,
        "name": short_name(domain.email),
        "doing": visible(domain.doing, _WORDS),
        "step": domain.step,
        "steps": domain.steps,
        "since_s": domain.since_s,
        "seen_s": domain.seen_s,
        "decision": domain.decision,
        "reason": visible(domain.reason, _WORDS),
        "excluded": None if domain.excluded is None else visible(domain.excluded or "no reason given", _WORDS),
        "missed": domain.missed,
        "heldout": domain.heldout_loss,
        "train": domain.train_loss,
        "share": domain.share,
        "link": link_in_words(domain.up_mbps, domain.down_mbps, domain.latency_s),
        "bytes": domain.update_bytes,
        "limits": list(facts.limits.get(domain.email, ())),
        "epsilon": epsilon,
    }


def _weights(state: StudyState, facts: StudyFacts) -> Json:
    plan = facts.plan
    rule = plan.aggregation.weights if plan else "fedavg"
    alpha = facts.alpha if facts.alpha is not None else plan.aggregation.alpha if plan else None
    return {
        "rule": WEIGHTS_IN_WORDS[rule],
        "has_alpha": rule in RULES_WITH_LINKS,
        "alpha": alpha,
        "used": state.alpha,
        "preview": _preview(state, plan),
    }


def _preview(state: StudyState, plan: Plan | None) -> list[Json]:
    """Return each domain's share for each alpha, by the rule itself, from what was measured last."""
    if plan is None or plan.aggregation.weights not in RULES_WITH_LINKS:
        return []
    facts = {
        email: MemberFacts(examples=domain.examples, loss=loss, bandwidth=domain.bandwidth or 1.0)
        for email, domain in state.domains.items()
        if domain.excluded is None and domain.examples and (loss := domain.train_loss or domain.heldout_loss)
    }
    if not facts:
        return []
    try:
        by_alpha = [weights_for(plan.aggregation.model_copy(update={"alpha": alpha}), facts) for alpha in ALPHAS]
    except StudyError:
        return []
    return [{"name": short_name(email), "shares": [round(shares[email], 4) for shares in by_alpha]} for email in facts]


def _choices(plan: Plan, facts: StudyFacts) -> Json:
    protection = plan.protection
    return {
        "editable": not facts.submitted,
        "weights": plan.aggregation.weights,
        "weights_offered": list(OFFERED_WEIGHTS),
        "aggregation": plan.aggregation.in_words(),
        "alpha": plan.aggregation.alpha,
        "has_alpha": plan.aggregation.weights in RULES_WITH_LINKS,
        "mode": plan.schedule.mode,
        "schedule": plan.schedule.in_words(),
        "level": protection.level,
        "levels_offered": list(get_args(ProtectionLevel)),
        "protection": protection.in_words(),
        "bits": protection.bits,
        "bits_offered": sorted({*OFFERED_BITS, protection.bits}),
        "has_bits": protection.level in QUANTISED,
        "steps": plan.training.steps,
        "rounds": plan.training.rounds,
        "sizes": _sizes(facts.sizes),
    }


def _sizes(sizes: Sizes | None) -> Json | None:
    if sizes is None:
        return None
    return {
        "parameters": sizes.parameters,
        "fp32": sizes.fp32_bytes,
        "of": [[level, bits, size] for (level, bits), size in sizes.by_choice.items()],
    }
