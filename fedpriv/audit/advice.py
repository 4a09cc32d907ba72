"""Advice of an audit: what to change in a plan, each sentence with the numbers that it follows from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedpriv.audit.attacks import ENOUGH_TRIALS, SILENT
from fedpriv.audit.result import GUESSING, Advice, Measure, PartyName, Range
from fedpriv.audit.words import ASKS, between, in_words, percent
from fedpriv.study import Plan

_BY_LUCK = 40
"""Of so many 95 % intervals one lies above guessing where there is nothing."""


def advice_of(measures: Sequence[Measure], plan: Plan, sent: Sequence[str]) -> tuple[Advice, ...]:
    """Return what follows from the measures, the gravest first.

    Parameters
    ----------
    measures : sequence of Measure
        All of an audit.
    plan : Plan
        The request's.
    sent : sequence of str
        Names of the tensors that a round sends.
    """
    return (
        *_control(measures),
        *_aggregator(measures, plan, sent),
        *_sums(measures, plan),
        *_collusion(measures, plan),
        *_released(measures, plan),
        *_epsilons(measures, plan),
    )


def _of(measures: Sequence[Measure], party: PartyName) -> list[Measure]:
    """Return a party's measures of the plan as it is: single passages first, as the attacker's best case."""
    return [m for m in measures if m.party == party and m.epsilon is None]


def _worst(measures: Sequence[Measure], party: PartyName) -> Measure | None:
    """Return the first measure of a party that shows more than guessing."""
    return next((m for m in _of(measures, party) if m.leaks), None)


def _control(measures: Sequence[Measure]) -> Iterator[Advice]:
    failed = sorted({m.attack for m in measures if m.found is None and m.control is not None and m.epsilon is None})
    for attack in failed:
        (first, *_) = [m for m in measures if m.attack == attack and m.found is None and m.control is not None]
        what = {
            "tokens": "recovering word pieces",
            "text": "reading notes word for word",
            "membership": "telling which passage was in it",
        }[attack]
        then = "Judge the plan by its protection and by what else was tried."
        if _is_of_too_few(first):
            option = "texts" if attack == "text" else "rounds" if first.scene == "round" else "passages"
            them = "rounds" if option == "rounds" else "passages"
            then = f"These {them} are too few to tell anything: measure again with --{option} {ENOUGH_TRIALS} or more."
        yield Advice(kind="control", text=f"Take no comfort from the attack {what}: {first.why_not}. {then}")


def _is_of_too_few(measure: Measure) -> bool:
    """Say whether more passages may show what an attack finds where nothing protects the update."""
    return measure.why_not == SILENT and measure.trials < ENOUGH_TRIALS


def _aggregator(measures: Sequence[Measure], plan: Plan, sent: Sequence[str]) -> Iterator[Advice]:
    protection = plan.protection
    open_ones = [name for name in sent if protection.of_tensor(name)[0] == "plain"]
    weaker = [name for name in sent if protection.of_tensor(name)[0] in ("ckks", "ckks-tuned")]
    worst = _worst(measures, "aggregator")
    if worst is not None and not open_ones:
        looks = sum(m.found is not None for m in _of(measures, "aggregator"))
        yield Advice(
            kind="limits",
            text=f"The plan leaves nothing open to the researcher and the store, and yet the attack reached "
            f"{in_words(worst)}. One of the {looks} numbers about them is as high by chance in one audit of "
            f"{max(2, round(_BY_LUCK / looks))}. Measure again with --seed 1 and more --passages; if "
            "it comes again, do not approve, and report it.",
        )
    elif worst is not None:
        sealed = _same(measures, "aggregator-all-sealed", worst)
        after = f" With every tensor sealed, the same attack gave {in_words(sealed)}." if sealed else ""
        yield Advice(
            kind="seal",
            text=f"The researcher and the store get {in_words(worst)} from a single update of yours, because "
            f"{_tensors(open_ones, sent)} {_are(open_ones)} not protected from them. Ask for a plan that seals "
            f"{'it' if len(open_ones) == 1 else 'them'}.{after}",
        )
    elif open_ones:
        yield Advice(
            kind="seal",
            text=f"The plan leaves {_tensors(open_ones, sent)} without protection. These attacks read nothing "
            "from them above chance, but better ones exist: ask why they are not masked or sealed.",
        )
    reader = _worst(measures, "reader")
    if reader is not None and weaker:
        yield Advice(
            kind="seal",
            text=f"One other domain that gets hold of your single update reads {in_words(reader)} from it: the plan "
            f"puts {_tensors(weaker, sent)} under CKKS, where every domain has the one key and no masks lie between "
            "them. Ask for the level sealed.",
        )
    mine = _of(measures, "aggregator")
    measured = [m for m in mine if m.found is not None]
    if measured and worst is None and not open_ones and not any(map(_is_of_too_few, mine)):
        found = "; ".join(in_words(m) for m in measured if m.scene == measured[0].scene)
        yield Advice(
            kind="fine",
            text=f"Nothing to change for the researcher and the store: from what they hold, the attacks gave {found}.",
        )


def _sums(measures: Sequence[Measure], plan: Plan) -> Iterator[Advice]:
    worst = _worst(measures, "sum") or _other_of_two(measures)
    if worst is None:
        return
    more = _same(measures, "sum-of-all", worst)
    if worst.domains == 2:
        gives = (
            "You allow sums of two domains. The other one can take its own part off and gets "
            f"{in_words(worst)} from what is left, whatever protects it."
        )
    else:
        gives = (
            f"A sum of {worst.domains} domains, the fewest that you allow, gives each of the others, which takes its "
            f"own part off, {in_words(worst)}."
        )
    yield Advice(kind="cohort", text=f"{gives} {_larger_sum(worst, more, plan)}")


def _other_of_two(measures: Sequence[Measure]) -> Measure | None:
    """Return what one other domain holds where it is the only other one: its secrets are all that there are."""
    reader = _worst(measures, "reader")
    return reader if reader is not None and reader.domains == 2 else None


def _larger_sum(worst: Measure, more: Measure | None, plan: Plan) -> str:
    """Return what a sum of more domains gives, or would."""
    cohort = len(plan.cohort)
    if more is not None and more.found is not None and worst.found is not None:
        better = not more.leaks or more.found.value < worst.found.low
        return f"A sum of all {more.domains} gives {in_words(more)}. " + (
            _asking_for(more.domains, plan)
            if better
            else "More domains did not help here; what a sum tells is bounded by differential privacy alone."
        )
    if worst.domains >= cohort:
        return "The plan has no more domains: ask for a plan with more, or for differential privacy."
    return (
        f"The plan has {cohort} domains. {_asking_for(cohort, plan)} That mixes your update with more; "
        "how much it helps was not measured."
    )


def _asking_for(domains: int, plan: Plan) -> str:
    """Return how to have sums of so many: an approval cannot ask for more than the plan's sums are sure to hold."""
    if domains > plan.smallest_sum:
        return f"This plan lets {plan.smallest_sum} make a sum: ask for one whose quorum or buffer is {domains}."
    return f"Approve with --minimum-cohort {domains}, or raise policy > minimum_cohort in domain.yaml."


def _collusion(measures: Sequence[Measure], plan: Plan) -> Iterator[Advice]:
    worst = _worst(measures, "collusion")
    if worst is None or plan.privacy is not None:
        return
    yield Advice(
        kind="epsilon",
        text=f"If all other domains of a sum put their own updates together, what is left is yours, and gives "
        f"them {in_words(worst)}. No encryption prevents that, since they may open the sum; "
        "differential privacy bounds it.",
    )


def _released(measures: Sequence[Measure], plan: Plan) -> Iterator[Advice]:
    worst = _worst(measures, "released")
    if worst is None:
        return
    bound = (
        "The plan's differential privacy bounds how far this can go; ask for a smaller epsilon if it is too far."
        if plan.privacy is not None
        else "Nothing bounds how far better attacks go: before you consent to its release, ask for differential "
        "privacy, or for fewer rounds."
    )
    yield Advice(kind="epsilon", text=f"Whoever gets the adapter as it is now gets {in_words(worst)}. {bound}")


def _epsilons(measures: Sequence[Measure], plan: Plan) -> Iterator[Advice]:
    tried = [m for m in measures if m.epsilon is not None and m.found is not None]
    before = {m.attack: m for m in measures if m.party == "unprotected" and m.epsilon is None and m.scene == "alone"}
    for attack in ASKS:
        mine = sorted((m for m in tried if m.attack == attack), key=lambda m: m.epsilon or 0.0)
        if not mine:
            continue
        parts = "; ".join(f"at epsilon {m.epsilon:g} {_range(m.found)}" for m in mine)
        reference = before.get(attack)
        now = "with the plan's own privacy" if plan.privacy else "without it"
        compared = f"; {now} {_range(reference.found)}" if reference and reference.found else ""
        loud = [m.epsilon or 0.0 for m in mine if m.leaks]
        quiet = [m.epsilon or 0.0 for m in mine if not loud or (m.epsilon or 0.0) < min(loud)]
        end = f" At epsilon {max(quiet):g} it could not be told from guessing." if quiet else ""
        yield Advice(
            kind="epsilon",
            text=f"Differential privacy, with nothing else around the update, changes how far the attack gets that "
            f"asks “{ASKS[attack]}”: {parts}{compared} (guessing is {percent(GUESSING[attack])}).{end} "
            "How much the adapter loses by it was not measured here.",
        )


def _range(found: Range | None) -> str:
    return "" if found is None else f"{percent(found.value)} ({between(found.low, found.high)})"


def _same(measures: Sequence[Measure], party: PartyName, like: Measure) -> Measure | None:
    """Return the measure of another party by the same attack in the same scene."""
    return next((m for m in _of(measures, party) if (m.attack, m.scene) == (like.attack, like.scene)), None)


def _tensors(names: Sequence[str], sent: Sequence[str]) -> str:
    if len(names) == len(sent):
        return "all tensors of the adapter"
    shown = ", ".join(_short(name) for name in names[:3])
    return f"{len(names)} of {len(sent)} tensors ({shown}{', ...' if len(names) > 3 else ''})"


def _short(name: str) -> str:
    return name.removeprefix("base_model.model.model.").removesuffix(".weight")


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
