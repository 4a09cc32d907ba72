"""The live view of a study in a terminal; plain lines where the output is no terminal."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedpriv.domain.finding import visible
from fedpriv.researcher.event_words import link_in_words, sentence
from fedpriv.researcher.events import Event, TrackerStopped, Waiting
from fedpriv.widgets.study_state import DomainState, RoundState, StudyState, after, is_quiet

REPORT_TO_HELP = "Experiment tracker: tensorboard, mlflow or wandb; once for each; or all that are installed."
_BAR_WIDTH, _MOST_WEIGHTS = 24, 4
_WAITING_SECONDS = 30.0
_MOST_SHOWN = 500


class StudyView:
    """A subscriber that shows the domains, their progress, and the finished rounds.

    Assumption: events come from one thread; rich's refresh thread only reads.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(self, console=console, refresh_per_second=8, transient=True)
        self._lock = threading.Lock()
        self._state = StudyState()
        self._waited: dict[str, float] = {}
        self._stage: tuple[str, float] | None = None

    def __enter__(self) -> StudyView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()
        if self._state.rounds:
            self._console.print(_rounds_table(self._state))

    def show(self, state: StudyState) -> None:
        """Show a state that was made elsewhere."""
        with self._lock:
            self._state = state

    def show_stage(self, stage: str, fraction: float) -> None:
        """Show a stage with its progress (0 to 1), such as the download of a model."""
        with self._lock:
            new = self._stage is None or self._stage[0] != stage
            self._stage = None if fraction >= 1 else (stage, fraction)
        if new and not self._console.is_terminal:
            self._console.print(f"• {escape(stage)}", highlight=False)

    def __call__(self, event: Event) -> None:
        with self._lock:
            line = self._take(event)
        if line and (isinstance(event, TrackerStopped) or not self._console.is_terminal):
            self._console.print(f"• {escape(visible(line, _MOST_SHOWN))}", highlight=False)

    def _take(self, event: Event) -> str | None:
        """Note an event and return a line for outputs that are no terminal, if it is worth one."""
        self._stage = None
        before = self._state.domains.get(getattr(event, "domain", ""))
        self._state = after(self._state, event)
        if isinstance(event, Waiting):
            return self._waiting_line(event, before.doing if before else "")
        return None if is_quiet(event) else sentence(event)

    def _waiting_line(self, event: Waiting, doing: str) -> str | None:
        now = time.monotonic()
        if now - self._waited.get(event.domain, -_WAITING_SECONDS) < _WAITING_SECONDS:
            return None
        self._waited[event.domain] = now
        return f"waiting for {event.domain}: {event.what}" + (f" ({doing})" if doing else "")

    def __rich__(self) -> RenderableType:
        with self._lock:
            parts: list[RenderableType] = []
            if self._stage is not None:
                stage = Table.grid(padding=(0, 1))
                stage.add_row(Text(self._stage[0]), ProgressBar(total=1, completed=self._stage[1], width=_BAR_WIDTH))
                parts.append(stage)
            if self._state.domains:
                parts.append(_domains_table(self._state))
            if self._state.rounds:
                parts.append(_rounds_table(self._state))
            return Group(*parts)


def _domains_table(state: StudyState) -> Table:
    links = any(_link(domain) for domain in state.domains.values())
    table = Table("domain", "state", "", "for", *(["link"] if links else []), title=_title(state))
    now = time.time()
    for domain in state.domains.values():
        bar = ProgressBar(total=domain.steps, completed=domain.step, width=_BAR_WIDTH) if domain.steps else Text("")
        count = f" {domain.step}/{domain.steps}" if domain.steps else ""
        since = f"{max(0.0, now - domain.since_s):.0f} s" if domain.since_s else ""
        table.add_row(
            escape(domain.email), escape(domain.doing + count), bar, since, *([_link(domain)] if links else [])
        )
    return table


def _title(state: StudyState) -> str | None:
    if state.phase == "paused":
        return f"Paused before round {state.at_round + 1}"
    return f"Round {max(1, state.at_round)} of {state.of_rounds}" if state.of_rounds else None


def _link(domain: DomainState) -> str:
    if domain.up_mbps is None and domain.down_mbps is None and domain.latency_s is None:
        return ""
    return link_in_words(domain.up_mbps, domain.down_mbps, domain.latency_s)


def _rounds_table(state: StudyState) -> Table:
    table = Table("round", "held-out loss at start", "train loss", "weights", "up", "down", "seconds")
    for past in state.rounds:
        table.add_row(
            str(past.round),
            f"{past.heldout_loss:.4f}",
            "-" if past.train_loss is None else f"{past.train_loss:.4f}",
            escape(_shown_weights(past)),
            f"{past.bytes_up / 2**20:.2f} MiB",
            f"{past.bytes_down / 2**20:.2f} MiB",
            f"{past.seconds['wall']:.1f}",
        )
    return table


def _shown_weights(past: RoundState) -> str:
    """Return each domain's share of a sum, or the largest where they are many."""
    if len(past.weights) > _MOST_WEIGHTS:
        return f"{max(past.weights.values()):.0%} at most, of {len(past.weights)}"
    return " ".join(f"{email.partition('@')[0]} {share:.0%}" for email, share in sorted(past.weights.items()))


def quieten_transformers() -> None:
    """Keep its bars and its warnings, and those of what comes with it, off a terminal with a progress bar of ours."""
    from transformers.utils import logging as of_transformers

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it asks for another package to be installed
    of_transformers.disable_progress_bar()
    of_transformers.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
