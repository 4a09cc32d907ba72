"""Tells IPython how fedpriv's values are shown. It imports nothing of them: that waits until one is shown."""

from __future__ import annotations

from typing import Any

KINDS = (
    "fedpriv.domain.ledger.Ledger",
    "fedpriv.researcher.events.RoundFinished",
    "fedpriv.researcher.study.Study",
    "fedpriv.study.messages.SignedUpdate",
    "fedpriv.study.messages.UpdateHeader",
    "fedpriv.study.plan.Plan",
    "fedpriv.study.protection_choice.ProtectionChoice",
    "fedpriv.widgets.study_state.RoundState",
)
"""The types that :mod:`fedpriv.widgets.displays` knows, by their whole names."""


def register(shell: Any) -> None:
    """Have an IPython shell show these values as sheets; None, where there is no shell, is left alone."""
    if shell is not None:
        for name in KINDS:
            module, _, kind = name.rpartition(".")
            shell.display_formatter.mimebundle_formatter.for_type_by_name(module, kind, _display)


def _display(value: Any) -> dict[str, str]:
    from fedpriv.widgets.displays import display

    return display(value)
