"""The environment of commands whose sentences a panel reads."""

from __future__ import annotations

import os

_ASKING_FOR_COLOUR = frozenset({"FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PY_COLORS"})


def plain_output() -> dict[str, str]:
    """Return an environment in which a command prints each sentence in one line, without colours or moving bars.

    A notebook's kernel asks all programs for colours, as if they had a terminal.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _ASKING_FOR_COLOUR}
    return kept | {"COLUMNS": "10000", "NO_COLOR": "1", "TERM": "dumb"}
