"""The words of an audit, for people who are no programmers: who the parties are, and what a number means."""

from __future__ import annotations

from typing import Literal

from fedpriv.audit.result import GUESSING, AttackName, LeakageAudit, Measure, PartyName

PARTIES: tuple[PartyName, ...] = (
    "unprotected",
    "aggregator",
    "reader",
    "sum",
    "sum-of-all",
    "collusion",
    "aggregator-all-sealed",
)
"""In the order in which they are told."""

WHO: dict[PartyName, str] = {
    "unprotected": "If nothing protected your update",
    "aggregator": "The researcher, and the store",
    "reader": "One other domain, with the store's bytes",
    "sum": "Each other domain, from the sum",
    "sum-of-all": "The same, all taking part",
    "collusion": "All other domains of a sum together",
    "aggregator-all-sealed": "The researcher, if all were sealed",
    "released": "Whoever gets the adapter",
}

HOLDS: dict[PartyName, str] = {
    "unprotected": "The bare update, as plain federated learning sends it. Nobody holds it under this plan; it shows "
    "what there is to protect.",
    "aggregator": "Your single update as it leaves your domain under this plan. The researcher adds the updates up; "
    "the store, and anybody on the way, has the same bytes. None of them has the keys. When the round is over, the "
    "researcher also knows what takes the masks off the sum.",
    "reader": "The same single update in the hands of one other domain of the study, which has the study's key and its "
    "own secrets beside: as if somebody at another hospital got into the store.",
    "sum": "The opened sum of {sum} domains' updates, the fewest that you allow. Each domain that takes part opens it "
    "and takes off what it put in itself. Where the plan leaves the sum unencrypted, the researcher has it, too.",
    "sum-of-all": "The same if all {sum-of-all} domains of the plan take part.",
    "collusion": "The opened sum of {collusion} domains, from which all others take off what they put in themselves. "
    "What is left is your update. This is the worst that other hospitals can do together.",
    "aggregator-all-sealed": "For comparison: what the researcher would hold if the plan sealed all of the update.",
    "released": "The study's newest adapter: every domain has it in each round, and others once it is released.",
}

ASKS: dict[AttackName, str] = {
    "tokens": "Which word pieces stood in the note?",
    "text": "How much of the note can be read, word for word?",
    "membership": "Was this very note among those trained on?",
}

VERDICTS = {True: "above guessing", False: "not told from guessing"}


def percent(share: float) -> str:
    """Return a share in percent, with a sign that reads as one."""
    return f"{round(100 * share):d} %".replace("-", "\N{MINUS SIGN}")


def between(low: float, high: float) -> str:
    """Return an interval in percent."""
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def verdict(measure: Measure) -> str:
    """Return what a measure comes to."""
    return "not measured" if measure.found is None else VERDICTS[measure.leaks]


def in_words(measure: Measure) -> str:
    """Return what was found, as a part of a sentence."""
    found = measure.found
    if found is None:
        return "no number"
    interval = f"95 % interval {between(found.low, found.high)}"
    if measure.attack == "tokens":
        return f"{percent(found.value)} of a note's telling word pieces above chance ({interval})"
    if measure.attack == "text":
        return f"{percent(found.value)} of a note's text in order, above chance ({interval})"
    return (
        f"the right answer to “was this note in it?” {percent(found.value)} of the time ({interval}; guessing is 50 %)"
    )


def briefly(measure: Measure) -> str:
    """Return what was found without its interval, as a part of a sentence; for a measure that has a value."""
    value = percent(measure.found.value) if measure.found else "no number"
    if measure.attack == "tokens":
        return f"{value} of a note's telling word pieces above chance"
    if measure.attack == "text":
        return f"{value} of a note's text in order, above chance"
    return f"the right answer to “was this note in it?” {value} of the time, where guessing is 50 %"


def holds(audit: LeakageAudit, party: PartyName) -> str:
    """Return what a party has in its hands."""
    numbers = {name: found.domains for name in PARTIES if (found := audit.of(name))}
    return HOLDS[party].format_map({name: str(number) for name, number in numbers.items()})


def tone(audit: LeakageAudit) -> Literal["leak", "calm", "grey"]:
    """Return what the headline's colour is of; it says nothing that its words do not."""
    found = [m for attack in GUESSING if (m := audit.of("aggregator", attack=attack))]
    if any(m.leaks for m in found):
        return "leak"
    return "calm" if found and all(m.found is not None for m in found) else "grey"


def headline(audit: LeakageAudit) -> str:
    """Return what the audit comes to, in two or three sentences, from its numbers alone."""
    return " ".join(filter(None, (_researcher(audit), _unprotected(audit), _others(audit))))


def _researcher(audit: LeakageAudit) -> str:
    found = [m for attack in GUESSING if (m := audit.of("aggregator", attack=attack))]
    measured = [m for m in found if m.found is not None]
    if worst := next((m for m in measured if m.leaks), None):
        return f"The researcher and the store can read from a single update of yours: {briefly(worst)}."
    if not measured:
        return "What the researcher and the store can read was not measured: do not take this page for an all-clear."
    if len(measured) < len(found):
        return (
            f"{len(measured)} of {len(found)} attacks could be measured here; what came of it on what the researcher "
            "and the store hold could not be told from guessing."
        )
    return "What the attacks made of what the researcher and the store hold could not be told from guessing."


def _unprotected(audit: LeakageAudit) -> str:
    bare = audit.of("unprotected")
    if bare is None or bare.found is None or not bare.leaks:
        return ""
    return f"Were your updates not protected at all, they would reach {briefly(bare)}."


def _others(audit: LeakageAudit) -> str:
    parts = []
    told: dict[PartyName, str] = {
        "reader": "your single update in the hands of one of them",
        "sum": "the sum that each of them opens",
        "collusion": "what all of them hold together",
    }
    for party, who in told.items():
        found = [m for attack in GUESSING if (m := audit.of(party, attack=attack)) and m.leaks]
        if found:
            parts.append(f"from {who}, {briefly(found[0])}")
    return f"Other domains can read more than nothing: {'; '.join(parts)}." if parts else ""
