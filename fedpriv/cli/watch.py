"""``fedpriv study watch``: a study that runs in another process, as if it ran here."""

from __future__ import annotations

import threading

from rich.console import Console
from rich.markup import escape

from fedpriv.cli.options import DEFAULT_HOME, Home, Name
from fedpriv.cli.view import StudyView
from fedpriv.domain.finding import visible
from fedpriv.researcher import Researcher, Study
from fedpriv.widgets.study_process import last_error
from fedpriv.widgets.study_state import StudyState
from fedpriv.widgets.study_watch import StudyWatch

_LOOK_EVERY_S = 1.0


def watch(name: Name, home: Home = DEFAULT_HOME) -> None:
    """Show the domains, their progress and the rounds of a study that runs in another process, until that ends.

    Ctrl-C ends the watching and nothing else. Where this is no terminal, `fedpriv study events --follow` says more.
    """
    console = Console()
    study = Study.open(Researcher.open(home), name)
    ended = threading.Event()

    def on_problem(sentence: str) -> None:
        console.print(escape(visible(sentence)))
        ended.set()

    with StudyView(console) as view:

        def on_state(state: StudyState) -> None:
            view.show(state)
            if state.finished is not None:
                ended.set()

        watching = StudyWatch(study, on_state, on_problem)
        watching.start()
        try:
            while not ended.wait(_LOOK_EVERY_S) and study.status()["running"]:
                pass
        except KeyboardInterrupt:
            ended.set()
        finally:
            watching.close()
    console.print(_how_it_is(study, watching.state, name))


def _how_it_is(study: Study, state: StudyState, name: str) -> str:
    """Return the last line: what became of the study, and what to do next."""
    shown = escape(name)
    if state.finished is not None:
        loss = f"Held-out loss {state.finished.loss_before:.4f} before, [bold]{state.finished.loss_after:.4f}[/] after."
        return f"{loss} Next: `fedpriv study release {shown} --out adapter`."
    if study.status()["running"]:
        return f"{shown} goes on; `fedpriv study watch {shown}` shows it again."
    error = escape(visible(last_error(study), 2000))
    next_step = f"`fedpriv study {'resume' if state.of_rounds else 'run'} {shown}`"
    if error:  # a whole sentence, with a next step of its own
        return f"No process runs {shown}; the last one ended with: {error} To go on: {next_step}."
    return f"No process runs {shown}. Next: {next_step}."
