"""The methods that are compared: ways for the same domains to come to one adapter, or to one each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fedpriv.study.protection_choice import LevelRule, ProtectionChoice, ProtectionLevel

MethodName = Literal[
    "centralised",
    "local-only",
    "fl",
    "he-fl",
    "he-fl-tuned",
    "dp-fl",
    "secagg",
    "fedpriv",
    "fedpriv-hybrid",
]


def in_order(names: Iterable[MethodName]) -> list[MethodName]:
    """Return each of these methods once, in the order in which they are shown."""
    return sorted(set(names), key=get_args(MethodName).index)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to learn from the notes of several domains.

    Attributes
    ----------
    title : str
        For figures.
    about : str
        What it is, for people.
    level : str or None
        The level of the updates; None where there are none.
    private : bool
        Whether domains train with differential privacy by patients.
    hybrid : bool
        Whether the tensors that say least are masked, and not sealed.
    """

    title: str
    about: str
    level: ProtectionLevel | None
    private: bool = False
    hybrid: bool = False

    def protection(self, bits: int, sent: Sequence[str], sealed_share: float | None = None) -> ProtectionChoice:
        """Return the plan's section.

        Parameters
        ----------
        bits : int
            Of a quantised value, at the levels that quantise.
        sent : sequence of str
            Names of the adapter's tensors.
        sealed_share : float, optional
            Of a hybrid plan: which part of the tensors is sealed; by default those of ``lora_A``, a half.

        Raises
        ------
        ValueError
            If the method sends no updates.
        """
        if self.level is None:
            raise ValueError("a method without updates has no protection")
        if not self.hybrid:
            return ProtectionChoice(level=self.level, bits=bits)
        masked = _told_least(sent, sealed_share) if sealed_share is not None else ("*.lora_B.*",)
        rules = (LevelRule(tensors=masked, level="masked"),) if masked else ()
        return ProtectionChoice(level=self.level, bits=bits, rules=rules)


def _told_least(sent: Sequence[str], sealed_share: float) -> tuple[str, ...]:
    """Return the tensors that are not sealed: those of ``lora_B`` first, which tell least (docs/leakage.md)."""
    ordered = sorted(sent, key=lambda name: (".lora_A." in name, name))
    return tuple(ordered[: len(ordered) - round(sealed_share * len(ordered))])


METHODS: dict[MethodName, Method] = {
    "centralised": Method(
        title="centralised", about="all notes in one place: what is given up where they may not leave", level=None
    ),
    "local-only": Method(title="local only", about="each domain alone, an adapter each; nothing leaves", level=None),
    "fl": Method(title="FL", about="FedAvg, updates as plain fp32", level="plain"),
    "he-fl": Method(title="HE-FL", about="updates under CKKS as it is commonly used, one key for all", level="ckks"),
    "he-fl-tuned": Method(title="HE-FL, tuned", about="the same with CKKS laid out for sums", level="ckks-tuned"),
    "dp-fl": Method(
        title="DP-FL",
        about="plain fp32 updates of DP-SGD by patients, with its own batch, learning rate and layers",
        level="plain",
        private=True,
    ),
    "secagg": Method(title="SecAgg", about="quantised updates under masks that cancel in the sum", level="masked"),
    "fedpriv": Method(title="fedpriv", about="quantised updates, masked and encrypted in blocks", level="sealed"),
    "fedpriv-hybrid": Method(
        title="fedpriv, hybrid", about="lora_A sealed, lora_B masked", level="sealed", hybrid=True
    ),
}
