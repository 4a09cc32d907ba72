"""A researcher's place in a notebook: who they are, the domains they know, and how a plan begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedpriv.domain import Terms
from fedpriv.researcher import Researcher, Study
from fedpriv.study import Plan
from fedpriv.study.plan import BaseModelChoice, LoraChoice, MemberChoice, TrainingChoice
from fedpriv.study.privacy import PRIVATE_BATCH, PRIVATE_RATE, PRIVATE_TARGETS, PrivacyChoice
from fedpriv.study.protection_choice import ProtectionChoice, ProtectionLevel
from fedpriv.training.base_model import LocalModel, ensure_model

_MAX_TOKENS = 64
"""Shorter than a plan's default: the demo is to end within five minutes on two cores."""


@dataclass(kw_only=True)
class Site:
    """A researcher with domains elsewhere, whose data owners decide for themselves.

    The demo's federation is one, too, with domains of its own: a notebook that is written for the one runs on the
    other.

    Attributes
    ----------
    researcher : Researcher
        The researcher's home; its peers are the cohort.
    model : LocalModel
        The base model.

    Examples
    --------
    >>> federation = Site.open(Path("my-home"))  # doctest: +SKIP
    """

    researcher: Researcher
    model: LocalModel

    @classmethod
    def open(cls, home: Path, *, model: str = "smollm2-135m-instruct") -> Site:
        """Open a researcher's home, with a base model that is fetched if it is not here.

        Raises
        ------
        ConfigError
            If it is none.
        """
        return cls(researcher=Researcher.open(home), model=ensure_model(model))

    def arrived(self, study: Study) -> None:
        """Do nothing: a request arrives when its domain runs."""

    def approve(self, study: Study, terms: Terms | None = None) -> None:
        """Do nothing: data owners decide for themselves, and a study waits for them."""

    def release(self, study: Study) -> None:
        """Do nothing: data owners decide for themselves, and a release waits for them."""

    def plan(
        self,
        *,
        rounds: int = 3,
        steps: int = 4,
        protection: ProtectionLevel = "sealed",
        bits: int = 10,
        seed: int = 0,
        title: str = "Demo: LoRA on ICU notes",
        epsilon: float | None = None,
    ) -> Plan:
        """Return a plan with all domains that the researcher knows, pinned by fingerprint.

        With ``epsilon``, it has differential privacy by patients, and settings that suit its noise.
        """
        me = self.researcher
        training = {"rounds": rounds, "steps": steps, "seed": seed, "max_tokens": _MAX_TOKENS}
        if epsilon is not None:
            training |= {"batch_size": PRIVATE_BATCH, "learning_rate": PRIVATE_RATE}
        return Plan(
            title=title,
            researcher=MemberChoice(email=me.config.email, fingerprint=me.keys.fingerprint),
            cohort=me.peers.read(),
            base_model=BaseModelChoice(name=self.model.name, digest=self.model.digest),
            lora=LoraChoice() if epsilon is None else LoraChoice(targets=PRIVATE_TARGETS),
            training=TrainingChoice.model_validate(training),
            protection=ProtectionChoice(level=protection, bits=bits),
            privacy=None if epsilon is None else PrivacyChoice(epsilon=epsilon),
        )
