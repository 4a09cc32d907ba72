"""The data owner's console: everything that a data owner decides, on one page of a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpriv.domain import Domain
from fedpriv.widgets.action_queue import ActionQueue, Answer
from fedpriv.widgets.owner_actions import ACTIONS, OwnerDesk
from fedpriv.widgets.owner_state import OwnerState
from fedpriv.widgets.owner_view import owner_text, owner_view
from fedpriv.widgets.owner_watch import OwnerWatch
from fedpriv.widgets.panel import STATIC, Panel


class DataOwnerConsole(Panel):
    """Shows a domain's requests, releases, privacy budget and ledger, and takes its data owner's decisions.

    It works on the domain's folder; the service that trains and answers runs in another process
    (``fedpriv domain serve``), and may be started and stopped at any time.

    Parameters
    ----------
    domain : Domain, Path or str
        An opened domain, or its folder.

    Raises
    ------
    ConfigError
        If the folder is no domain.
    """

    script = "owner_console.js"

    def __init__(self, domain: Domain | Path | str, **kwargs: Any) -> None:
        opened = domain if isinstance(domain, Domain) else Domain.open(Path(domain).expanduser())
        super().__init__(**kwargs)
        self._desk = OwnerDesk(opened.folder.root)
        self._actions = ActionQueue(
            ACTIONS, self._desk.carry_out, self.show_answer, name=f"actions {opened.config.name}"
        )
        self._text = f"The data owner's console of {opened.config.name}"
        self._watch = OwnerWatch(self._desk, self._show, self._show_problem)
        self._watch.start()
        self.listen(self._actions)

    def show_answer(self, answer: Answer) -> None:
        """Show what came of a click; turning a page is seen as it is, and takes the answer before it off the screen."""
        if answer.text:
            super().show_answer(answer)
        else:
            self.answer = {}

    def _end(self) -> None:
        self._watch.close()
        self._actions.close()

    def as_text(self) -> str:
        """Return the domain in a few lines."""
        return self._text

    def _show(self, state: OwnerState) -> None:
        self._text = owner_text(state)
        self.view = owner_view(state)

    def _show_problem(self, problem: str) -> None:
        self.view = {**self.view, "problem": problem}


# Set here, since a panel's own style is set when its class is made.
DataOwnerConsole._css = DataOwnerConsole._css + (STATIC / "owner_console.css").read_text(encoding="utf-8")
