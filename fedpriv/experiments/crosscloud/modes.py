"""What is compared across clouds: ways to run the same study, each a change of the same plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedpriv.errors import ConfigError
from fedpriv.study import Plan

BASELINE = "fedavg-fp32"


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to run the study.

    Attributes
    ----------
    name : str
        For the command line and the figures.
    words : str
        What it is, for people.
    changes : mapping of str to mapping
        Sections of the plan and the keys that differ from the base plan.
    rounds : int
        For each round of the baseline: a mode whose rounds hold less work has more of them to reach the target in.
    """

    name: str
    words: str
    changes: Mapping[str, Mapping[str, Any]]
    rounds: int = 1

    def plan(self, base: Plan) -> Plan:
        """Return ``base`` in this mode, validated like any plan."""
        value = base.model_dump()
        for section, keys in self.changes.items():
            value[section] = {**(value.get(section) or {}), **keys}
        value["title"] = f"Across clouds: {self.name}"
        return Plan.model_validate(value)


EVERY_LINEAR_LAYER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What LoRA is put on most often (Dettmers et al. 2023, arXiv 2305.14314)."""

_SEALED = {"level": "sealed", "bits": 10}
_MODES = (
    Mode(
        name=BASELINE,
        words="synchronous FedAvg, updates as plain fp32: what others do",
        changes={"protection": {"level": "plain"}},
    ),
    Mode(
        name="sealed",
        words="synchronous FedAvg, updates quantised to 10 bits and sealed",
        changes={"protection": _SEALED},
    ),
    Mode(
        name="balanced",
        words="synchronous and sealed; domains on slow links take fewer steps, so that all are ready together",
        changes={"protection": _SEALED, "schedule": {"local_steps": "balanced"}},
        rounds=2,
    ),
    Mode(
        name="network-aware",
        words="synchronous and sealed; as many bits as the slowest link moves while all train, between 4 and 10",
        changes={"protection": {"level": "sealed", "bits": 4, "bits_choices": (4, 6, 8, 10)}},
    ),
    Mode(
        name="buffered",
        words="asynchronous and sealed: the first two updates that are ready make a sum",
        changes={"protection": _SEALED, "schedule": {"mode": "buffered", "buffer": 2}},
        rounds=2,
    ),
)
MODES = {mode.name: mode for mode in _MODES}


def modes_named(names: tuple[str, ...]) -> list[Mode]:
    """Return the baseline and the modes that are asked for, each once, the baseline first.

    Raises
    ------
    ConfigError
        If there is no mode of a name.
    """
    unknown = [name for name in names if name not in MODES]
    if unknown:
        raise ConfigError(f"There is no mode {unknown[0]}", todo=f"choose of {', '.join(MODES)}")
    return [MODES[name] for name in dict.fromkeys((BASELINE, *names))]
