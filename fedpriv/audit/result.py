"""What an audit found: numbers and sentences, never a note, a token or a tensor."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedpriv.leakage import Interval
from fedpriv.study.names import Sha256
from fedpriv.study.section import Section

AttackName = Literal["tokens", "text", "membership"]
SceneName = Literal["alone", "round", "adapter"]
PartyName = Literal[
    "unprotected", "aggregator", "reader", "sum", "sum-of-all", "collusion", "aggregator-all-sealed", "released"
]

GUESSING: dict[AttackName, float] = {"tokens": 0.0, "text": 0.0, "membership": 0.5}
"""What an attack reaches that has seen nothing."""


class Range(Section):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval) -> Range:
        return cls(value=round(interval.value, 4), low=round(interval.low, 4), high=round(interval.high, 4))


class Measure(Section):
    """One attack on what one party holds.

    Attributes
    ----------
    scene : str
        ``alone``: a local round over a single passage, the attacker's best case. ``round``: as many as the plan reads.
        ``adapter``: no update, but the study's newest adapter.
    party : str
        Who looks.
    domains : int
        How many updates are in what is looked at.
    attack : str
        ``tokens``: share of the telling tokens named, above chance. ``text``: ROUGE-L of the passage as it
        was read word for word, above chance. ``membership``: AUROC.
    found : Range or None
        None where it was not measured.
    control : Range or None
        The same attack where it must succeed.
    trials : int
        How many passages, or rounds, were attacked.
    epsilon : float or None
        Of a differential privacy that the plan does not have; None for the plan as it is.
    why_not : str
        Why it was not measured, as a sentence; empty if it was.
    """

    scene: SceneName
    party: PartyName
    domains: int = Field(ge=1)
    attack: AttackName
    found: Range | None = None
    control: Range | None = None
    trials: int = Field(ge=0)
    epsilon: float | None = None
    why_not: str = ""

    @property
    def leaks(self) -> bool:
        """Whether the whole interval lies above guessing."""
        return self.found is not None and self.found.low > GUESSING[self.attack]


class Advice(Section):
    """One thing to do, or to know, with the numbers that it comes from in its words."""

    kind: Literal["seal", "cohort", "epsilon", "control", "fine", "limits"]
    text: str


class LeakageAudit(Section):
    """One audit of one request at one domain.

    Attributes
    ----------
    passages, tokens : int
        How many passages of the shard were used, and the most tokens of one.
    common : int
        So many of the most frequent tokens of public text do not count.
    round_notes : int
        Passages in a local round of the scene ``round``.
    members, cohort : int
        The fewest domains in a sum that this data owner allows, and all of the plan.
    steps : str
        What was computed on each passage, in words.
    stock_recipe : bool
        Whether the request's code is fedpriv's own, to the byte.
    walls : str
        What stood around the request's own code while it was run here; empty where it was not run.
    not_measured : tuple of str
        What the numbers are not about although a reader may think so, in sentences.
    notes : tuple of str
        What a reader must know about how it was measured, in sentences.
    """

    audit_version: Literal[1] = 1
    fedpriv_version: str
    study: Sha256
    title: str
    domain: str
    made_s: float
    seconds: float
    model: str
    protection: str
    privacy: str
    passages: int
    tokens: int
    common: int
    round_notes: int
    members: int
    cohort: int
    steps: str
    stock_recipe: bool
    walls: str = ""
    not_measured: tuple[str, ...] = ()
    notes: tuple[str, ...]
    measures: tuple[Measure, ...]
    advice: tuple[Advice, ...]

    def of(
        self,
        party: PartyName,
        *,
        attack: AttackName = "tokens",
        scene: SceneName = "alone",
        epsilon: float | None = None,
    ) -> Measure | None:
        """Return a measure, or None if it was not tried; of several sums of all, the one of most domains."""
        wanted = (party, attack, scene, epsilon)
        found = [m for m in self.measures if (m.party, m.attack, m.scene, m.epsilon) == wanted]
        return max(found, key=lambda measure: measure.domains, default=None)
