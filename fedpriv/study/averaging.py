"""How LoRA's factors are averaged: which tensors a round trains and sends, and what the domains do with their mean.

A LoRA layer adds the product ``B A`` to a frozen weight. The mean of products is not the product of means, so a round
in which both factors move is averaged with an error (Sun et al. 2024, arXiv 2403.12313). Where one factor is the same
at every domain, it is exact: ``mean(B_k) A = mean(B_k A)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from fedpriv.study.section import Section

Averaging = Literal["both", "b_only", "alternate"]

Turn = Literal[0, 1, 2]
"""In which rounds a tensor is trained and sent: 0 in every round, 1 in odd ones, 2 in even ones."""

_B = (".lora_B.weight", ".lora_magnitude_vector")
"""DoRA's magnitudes go with ``lora_B``: both move from where the base model is."""

IN_WORDS: dict[Averaging, str] = {
    "both": "",
    "b_only": "Only lora_B, one of the adapter's two factors, is trained and sent; lora_A stays as the plan's seed "
    "drew it.",
    "alternate": "Odd rounds train and send lora_B, even ones lora_A: one of the adapter's two factors at a time.",
}
"""What each way means, for a person who decides about it."""


def turns_of(averaging: Averaging, tensors: Iterable[str]) -> dict[str, Turn]:
    """Return the turn of every tensor that is ever trained; the others stay as they were drawn.

    ``alternate`` begins with ``lora_B``: it starts at zero, where no gradient reaches ``lora_A``.

    Parameters
    ----------
    averaging : str
        ``both`` (FedIT, Zhang et al. 2023, arXiv 2305.05644), ``b_only`` (FFA-LoRA, Sun et al. 2024) or ``alternate``
        (RoLoRA, Chen et al. 2025, arXiv 2502.01755).
    tensors : iterable of str
        Names of the adapter's tensors.
    """
    turns: dict[str, Turn] = {}
    for name in sorted(tensors):
        is_b = name.endswith(_B)
        if averaging == "alternate":
            turns[name] = 1 if is_b else 2
        elif averaging == "both" or is_b:
            turns[name] = 0
    return turns


def is_live(turn: Turn, round_number: int) -> bool:
    """Say whether it is the turn of a tensor in a round."""
    return turn in (0, 2 - round_number % 2)


def trained_tensors(averaging: Averaging, tensors: Iterable[str], round_number: int) -> tuple[str, ...]:
    """Return the names of the tensors that a round trains and sends, sorted; all others do not change in it."""
    return tuple(name for name, turn in turns_of(averaging, tensors).items() if is_live(turn, round_number))


def alike(averaging: Averaging, first: int, second: int) -> bool:
    """Say whether two rounds train the same tensors, so that what one left out belongs into the other."""
    return averaging != "alternate" or first % 2 == second % 2


class ServerChoice(Section):
    """What the domains make of the mean update once they opened it: all of them the same, bit for bit.

    Source: Reddi et al. 2021, *Adaptive Federated Optimization* (arXiv 2003.00295), algorithm 2; ``momentum`` is
    FedAvgM of Hsu et al. 2019 (arXiv 1909.06335). The researcher, who cannot open the mean, has no part in it.
    """

    optimizer: Literal["none", "momentum", "adam"] = Field(
        default="none", description="none: the parameters move by the mean update"
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="eta: factor of the mean (momentum), by default 1; about how far a parameter moves in a round "
        "(adam), by default training's learning_rate * steps",
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, description="how much of the mean updates before is kept")
    beta2: float = Field(default=0.99, ge=0, lt=1, description="how much of their squares before is kept (adam)")
    tau: float = Field(
        default=1e-4, gt=0, le=1, description="below it, the size of a mean update does not count any more (adam)"
    )

    @model_validator(mode="after")
    def _settings_have_a_meaning(self) -> ServerChoice:
        meaning = {"none": set(), "momentum": {"learning_rate", "beta1"}}.get(self.optimizer)
        if meaning is not None:
            for name in ("learning_rate", "beta1", "beta2", "tau"):
                if name not in meaning and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} has no meaning with the optimizer {self.optimizer}: leave it out")
        return self

    def in_words(self) -> str:
        """Return what the section means, for a person who decides about it; nothing where the mean is taken as is."""
        how = {"none": "", "momentum": "with momentum (FedAvgM)", "adam": "by Adam (FedAdam)"}[self.optimizer]
        return how and f"Every domain moves its copy of the adapter by the mean update {how}."
