"""The plan's section on protection: a level for every tensor of an update, with rules for some of them."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints, model_validator

from fedpriv.study.section import Section

ProtectionLevel = Literal["sealed", "masked", "ckks", "ckks-tuned", "plain"]
"""From the strictest to none; `docs/plan.md` says what each one hides from whom."""

QUANTISED: tuple[ProtectionLevel, ...] = ("sealed", "masked")
"""The levels that round a value to ``bits`` bits."""

SecurityLevel = Literal["tc192", "tc256"]

TensorPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*?!\[\]-]{1,200}$")]
"""A shell glob over the names of the adapter's tensors; nothing in it means something to a terminal or a page."""

WHO_SEES: dict[ProtectionLevel, str] = {
    "sealed": "nobody sees a single update, and only the domains open the sum",
    "masked": "the researcher sees their sum, but no single update",
    "ckks": "the researcher sees nothing, but a domain that got hold of a single update could read it",
    "ckks-tuned": "the researcher sees nothing, but a domain that got hold of a single update could read it",
    "plain": "the researcher sees EVERY SINGLE update",
}
"""What a level means, for a person who decides about it."""


class LevelRule(Section):
    """An exception from the default level, for some tensors of the adapter."""

    tensors: tuple[TensorPattern, ...] = Field(
        default=(), max_length=1024, description="names of tensors, with shell wildcards (* ? [...])"
    )
    layers: tuple[Annotated[int, Field(ge=0, le=9999)], ...] = Field(
        default=(), max_length=1024, description="numbers of transformer blocks, from 0"
    )
    level: ProtectionLevel
    bits: int | None = Field(
        default=None, ge=4, le=16, description="bits of a quantised value; by default those of protection"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> LevelRule:
        if bool(self.tensors) == bool(self.layers):
            raise ValueError("a rule needs either tensors or layers, and not both")
        if len(set(self.tensors)) != len(self.tensors) or len(set(self.layers)) != len(self.layers):
            raise ValueError("a rule names something twice")
        if self.bits is not None and self.level not in QUANTISED:
            raise ValueError(f"bits have no meaning at level {self.level}: leave them out")
        return self

    def matches(self, tensor: str) -> bool:
        """Say whether the rule is about the tensor of this name."""
        return any(names_tensor(what, tensor) for what in (*self.tensors, *self.layers))

    def in_words(self) -> str:
        """Return what the rule is about: its layers, or its patterns with the shortest, hence widest, first."""
        if self.layers:
            return f"layer{'s' if len(self.layers) > 1 else ''} {_few([str(n) for n in self.layers])}"
        return f"tensors matching {_few(sorted(self.tensors, key=len))}"


def names_tensor(what: str | int, tensor: str) -> bool:
    """Say whether a glob, or the number of a transformer block, is about the tensor of this name.

    Blocks are the ``.layers.N.`` of Llama, Mistral, Qwen and Gemma, or the ``.h.N.`` of GPT-2 and Falcon.
    """
    if isinstance(what, int):
        return f".layers.{what}." in tensor or f".h.{what}." in tensor
    return fnmatchcase(tensor, what)


def _few(names: Collection[str]) -> str:
    shown = list(names)[:4]
    return ", ".join(shown) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


class ProtectionChoice(Section):
    """How an update is protected before it leaves; with rules, tensor by tensor (a hybrid plan)."""

    level: ProtectionLevel = Field(default="sealed", description="the level of every tensor that no rule is about")
    bits: int = Field(default=10, ge=4, le=16, description="bits of a quantised value (levels sealed and masked)")
    bits_choices: tuple[Annotated[int, Field(ge=4, le=16)], ...] = Field(
        default=(),
        max_length=13,
        description="what a round's ticket may say in place of bits, for every tensor without bits of its own",
    )
    clip: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="largest magnitude of one parameter's update in round 1 (levels sealed and masked); "
        "by default training's learning_rate * steps",
    )
    security: SecurityLevel = Field(
        default="tc192", description="security of the encryption against classical attacks (level sealed)"
    )
    rules: tuple[LevelRule, ...] = Field(
        default=(), max_length=64, description="exceptions by tensor; the first rule that matches a tensor counts"
    )
    max_update_norm: float = Field(
        default=50.0, gt=0, le=1e6, description="the gatekeeper refuses an update of larger L2 norm"
    )

    @model_validator(mode="after")
    def _rules_can_be_reached(self) -> ProtectionChoice:
        seen: set[str | int] = set()
        for number, rule in enumerate(self.rules, 1):
            asked: set[str | int] = {*rule.tensors, *rule.layers}
            if again := sorted(f"layer {what}" if isinstance(what, int) else what for what in asked & seen):
                raise ValueError(f"rule {number} repeats {again[0]} of an earlier rule, which counts alone")
            if "*" in seen:
                raise ValueError(f"rule {number} is never reached: an earlier rule is about every tensor")
            seen |= asked
        return self

    @model_validator(mode="after")
    def _choices_mean_something(self) -> ProtectionChoice:
        if not self.bits_choices:
            return self
        if len(set(self.bits_choices)) != len(self.bits_choices) or self.bits not in self.bits_choices:
            raise ValueError("bits_choices must name bits, and each number once")
        following = [(self.level, None), *((rule.level, rule.bits) for rule in self.rules)]
        if not any(level in QUANTISED and bits is None for level, bits in following):
            raise ValueError("bits_choices have no meaning where no tensor has the bits of protection: leave them out")
        return self

    @property
    def levels(self) -> tuple[ProtectionLevel, ...]:
        """Every level that the plan names, in the order of :data:`ProtectionLevel`."""
        named = {self.level, *(rule.level for rule in self.rules)}
        return tuple(level for level in get_args(ProtectionLevel) if level in named)

    @property
    def is_hybrid(self) -> bool:
        """Whether tensors may have different levels."""
        return len(self.levels) > 1

    def of_tensor(self, name: str) -> tuple[ProtectionLevel, int]:
        """Return the level and the bits of a tensor: those of the first rule about it, else the default.

        Bits are 0 at the levels that do not quantise.
        """
        level, bits = self._own(name)
        return level, (bits or self.bits) if level in QUANTISED else 0

    def choices_of_tensor(self, name: str) -> tuple[int, ...]:
        """Return the bits among which a round chooses for a tensor; nothing where it has the same in every round."""
        level, bits = self._own(name)
        return self.bits_choices if level in QUANTISED and bits is None else ()

    def _own(self, name: str) -> tuple[ProtectionLevel, int | None]:
        rule = next((rule for rule in self.rules if rule.matches(name)), None)
        return (self.level, None) if rule is None else (rule.level, rule.bits)

    def in_words(self, tensors: Collection[str] = ()) -> str:
        """Return what the plan's protection means, for a person who decides about it.

        Parameters
        ----------
        tensors : Collection[str]
            Names of the adapter's tensors where they are known: then the sentence counts them.
        """
        if not self.rules:
            return f"{self._with_bits(self.level)}: {WHO_SEES[self.level]}"
        left, parts = sorted(tensors), []
        for rule in self.rules:
            mine = [name for name in left if rule.matches(name)]
            left = [name for name in left if name not in set(mine)]
            number = f"{len(mine)} " if tensors else ""
            about = rule.in_words() if rule.tensors else f"tensors of {rule.in_words()}"
            if len(mine) == 1:
                about = about.replace("tensors", "tensor", 1)
            verb = "is" if len(mine) == 1 else "are"
            which = f"{number}{about}, which {verb} {self._with_bits(rule.level, rule.bits)}"
            parts.append(f"{which}: {WHO_SEES[rule.level]}")
        rest = f" ({len(left)} tensor{'' if len(left) == 1 else 's'})" if tensors else ""
        first = f"{self._with_bits(self.level)}{rest}: {WHO_SEES[self.level]}"
        return f"{first}; except {'; and '.join(parts)}"

    def _with_bits(self, level: ProtectionLevel, own: int | None = None) -> str:
        if level not in QUANTISED:
            return level
        if own is None and len(self.bits_choices) > 1:
            least, most = min(self.bits_choices), max(self.bits_choices)
            return f"{level} at {least} to {most} bits, as the researcher chooses for each round"
        return f"{level} at {own or self.bits} bits"
