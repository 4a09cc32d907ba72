"""The cases of a comparison: which method, with which seed, and what a sweep varies."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, get_args

from pydantic import Field

from fedpriv.experiments.comparison.methods import METHODS, MethodName
from fedpriv.study.section import Section

Part = Literal["methods", "mortality", "epsilon", "domains", "alpha", "sealed-share", "bits"]
"""What a group of cases is about; each but the first two varies one number."""

PARTS: tuple[Part, ...] = get_args(Part)

WHOLE: tuple[Part, ...] = ("methods", "mortality", "epsilon")
"""Those in which what is learnt counts: they run all rounds, in processes of their own."""

EPSILON = 8.0
"""Of DP-FL where it is not varied, over the whole study."""

EPSILONS = (1.0, 2.0, 4.0, 8.0, 32.0)
DOMAINS = (3, 4, 8, 16)
ALPHAS = (0.0, 0.5, 1.0, 2.0)
SEALED_SHARES = (0.25, 0.5, 0.75, 1.0)
BITS = (4, 6, 8, 10, 12, 16)
DEFAULT_BITS = 10

_SWEPT_METHODS: tuple[MethodName, ...] = ("fl", "he-fl", "fedpriv")
_ANSWERING: tuple[MethodName, ...] = ("centralised", "local-only", "fl", "dp-fl", "fedpriv")


class Case(Section):
    """One run of one method."""

    part: Part
    method: MethodName
    seed: int = Field(ge=0, lt=2**31)
    domains: int = Field(default=3, ge=2, le=256)
    bits: int = Field(default=DEFAULT_BITS, ge=4, le=16)
    epsilon: float | None = Field(default=None, gt=0)
    alpha: float | None = Field(default=None, ge=0)
    sealed_share: float | None = Field(default=None, ge=0, le=1)

    @property
    def name(self) -> str:
        """A name that no other case of a comparison has, for its file and for people."""
        varied = {
            "epsilon": self.epsilon,
            "domains": self.domains,
            "alpha": self.alpha,
            "sealed-share": self.sealed_share,
            "bits": self.bits,
        }
        value = varied.get(self.part)
        ends = "" if value is None else f"-{value:g}".replace(".", "_")
        return f"{self.part}-{self.method}{ends}-seed-{self.seed}"


def cases_of(parts: Collection[Part], methods: Sequence[MethodName], seeds: int) -> list[Case]:
    """Return the cases of these parts, in the order in which they are run.

    Methods are compared with every seed; sweeps and the answers of ``mortality`` are of the first one.
    """
    found: list[Case] = []
    for part in (part for part in PARTS if part in parts):
        match part:
            case "methods":
                found += [_case(part, method, seed=seed) for seed in range(seeds) for method in methods]
            case "mortality":
                found += [_case(part, method) for method in _of(methods, _ANSWERING)]
            case "epsilon":
                found += [_case(part, "dp-fl", epsilon=epsilon) for epsilon in EPSILONS if "dp-fl" in methods]
            case "domains":
                compared = _of(methods, _SWEPT_METHODS)
                found += [_case(part, method, domains=domains) for domains in DOMAINS for method in compared]
            case "alpha":
                found += [_case(part, "fedpriv", alpha=alpha) for alpha in ALPHAS]
            case "sealed-share":
                found += [_case(part, "fedpriv-hybrid", sealed_share=share) for share in SEALED_SHARES]
            case "bits":
                found += [_case(part, "fedpriv", bits=bits) for bits in BITS]
    return found


def _of(methods: Sequence[MethodName], wanted: Sequence[MethodName]) -> list[MethodName]:
    return [method for method in wanted if method in methods]


def _case(
    part: Part,
    method: MethodName,
    *,
    seed: int = 0,
    domains: int = 3,
    bits: int = DEFAULT_BITS,
    epsilon: float | None = None,
    alpha: float | None = None,
    sealed_share: float | None = None,
) -> Case:
    private = METHODS[method].private
    return Case(
        part=part,
        method=method,
        seed=seed,
        domains=domains,
        bits=bits,
        epsilon=epsilon or (EPSILON if private else None),
        alpha=alpha,
        sealed_share=sealed_share,
    )
