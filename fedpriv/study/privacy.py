"""The privacy section of a plan: differential privacy, as the researcher offers it and a data owner reads it."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from fedpriv.study.section import Section

PrivacyUnit = Literal["patient", "domain"]

UNNOISED_METRICS = ("train_loss", "train_tokens")
"""Numbers about training patients that no noise is on: with a privacy section they never leave."""

PRIVATE_TARGETS, PRIVATE_BATCH, PRIVATE_RATE = ("v_proj",), 16, 2e-2
"""What a study by patients does well to begin with: few parameters, of which each gets noise, where the gradient is
strongest; many patients a step, and long steps (measured by ``benchmarks/private_training.py``)."""

_DEFAULT_CLIP = {"patient": 0.1, "domain": 1.0}


class PrivacyChoice(Section):
    """Differential privacy of what leaves a domain in the whole study: (epsilon, delta) with delta = 1 / n.

    Each domain has its own n, the number of its training patients, and derives its own noise from it.
    """

    unit: PrivacyUnit = Field(
        default="patient", description="what one record is: a patient (DP-SGD), or all of a domain's data"
    )
    epsilon: float = Field(gt=0, le=100, description="of the whole study, at each domain")
    clip: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="L2 norm that one patient's gradient (unit patient) or the whole update of a round (unit domain) "
        "is scaled down to; by default 0.1 and 1.0",
    )
    notes_per_patient: int = Field(
        default=1, ge=1, le=1024, description="at most so many examples of one patient in a step (unit patient)"
    )

    @property
    def bound(self) -> float:
        """The L2 norm that is clipped to."""
        return self.clip if self.clip is not None else _DEFAULT_CLIP[self.unit]

    def sampling(self, batch_size: int, patients: int) -> float:
        """Return the probability with which a record is in one step: ``batch_size / patients``, capped at 1."""
        return min(1.0, batch_size / patients) if self.unit == "patient" else 1.0

    def steps(self, steps_a_round: int) -> int:
        """Return how often a round adds noise."""
        return steps_a_round if self.unit == "patient" else 1

    def spread(self, learning_rate: float, steps: int, rounds: int) -> float:
        """Return about how large one parameter's update of a round becomes: four standard deviations of its noise.

        Unit patient: ``steps`` steps of ``learning_rate`` each in the root mean square. Unit domain: the noise of the
        classical bound for one mechanism a round at delta = 0.001, since no domain's n is known here.
        """
        if self.unit == "patient":
            return 4 * learning_rate * math.sqrt(steps)
        return 4 * self.bound * math.sqrt(2 * math.log(1.25e3) * rounds) / self.epsilon

    def in_words(self) -> str:
        """Return what the section means, for a person who decides about it."""
        factor = math.exp(self.epsilon)
        odds = (
            f"{factor:.3g}"
            if factor < 100
            else f"{factor:,.0f}"
            if factor < 1e6
            else f"10 to the power of {self.epsilon / math.log(10):.0f}"
        )
        whom, what = {
            "patient": (
                "a single patient",
                "each patient's part in a step is bounded, and every step gets noise",
            ),
            "domain": ("this domain's data as a whole", "every round's update is bounded and gets noise"),
        }[self.unit]
        return (
            f"differential privacy for {whom} with epsilon {self.epsilon:g} over the whole study: {what}, so that "
            f"whether {whom} took part changes the odds of what is sent by a factor of {odds} at most, but for a "
            "chance of 1 in the number of training patients. Not covered: the held-out loss, which is measured on "
            "other patients without noise, and the numbers of patients and examples, which count as public"
        )
