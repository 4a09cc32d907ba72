"""The live view of a study in a terminal; plain lines where the output is no terminal."""

from __future__ import annotations

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
from fedpriv.researcher.event_words import sentence, words
from fedpriv.researcher.events import (
    DomainCaughtUp,
    DomainExcluded,
    DomainJoined,
    DomainMissed,
    DomainProgress,
    DomainReadmitted,
    Event,
    LinkMeasured,
    Paused,
    ResultReceived,
    RoundFinished,
    StudyStarted,
    TicketSent,
    TrackerStopped,
    Unpaused,
    UpdateReceived,
    Waiting,
)

REPORT_TO_HELP = "Experiment tracker: tensorboard, mlflow or wandb; once for each; or all that are installed."
_BAR_WIDTH, _MOST_WEIGHTS = 24, 4
_WAITING_SECONDS = 30.0
_MOST_SHOWN = 500
_QUIET = (TicketSent, DomainProgress, UpdateReceived)


class StudyView:
    """A subscriber that shows the domains, their progress, and the finished rounds.

    Assumption: events come from one thread; rich's refresh thread only reads.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(self, console=console, refresh_per_second=8, transient=True)
        self._lock = threading.Lock()
        self._domains: dict[str, tuple[str, int, int, float]] = {}
        self._rounds: list[RoundFinished] = []
        self._waited: dict[str, float] = {}
        self._links: dict[str, str] = {}
        self._paused: str | None = None
        self._expected = 0
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
        if self._rounds:
            self._console.print(self._rounds_table())

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
        now = time.monotonic()
        shown = _shown_state(event)
        if shown is not None:
            domain, state, step, steps = shown
            self._domains[domain] = (state, step, steps, now)
        match event:
            case StudyStarted():
                self._expected = event.rounds
                for domain in event.domains:
                    self._domains.setdefault(domain, ("waiting", 0, 0, now))
            case Paused():
                self._paused = words(event)
            case Unpaused():
                self._paused = None
            case LinkMeasured():
                self._links[event.domain] = words(event)
                return None  # after every ticket: too much for a line each
            case RoundFinished():  # a round that was summed again takes the place of its first sum
                self._rounds = [before for before in self._rounds if before.round < event.round] + [event]
            case Waiting():
                return self._waiting_line(event, now)
        return None if _is_quiet(event) else sentence(event)

    def _waiting_line(self, event: Waiting, now: float) -> str | None:
        if now - self._waited.get(event.domain, -_WAITING_SECONDS) < _WAITING_SECONDS:
            return None
        self._waited[event.domain] = now
        state = self._domains.get(event.domain, ("", 0, 0, now))[0]
        return f"waiting for {event.domain}: {event.what}" + (f" ({state})" if state else "")

    def __rich__(self) -> RenderableType:
        with self._lock:
            parts: list[RenderableType] = []
            if self._stage is not None:
                stage = Table.grid(padding=(0, 1))
                stage.add_row(Text(self._stage[0]), ProgressBar(total=1, completed=self._stage[1], width=_BAR_WIDTH))
                parts.append(stage)
            if self._domains:
                parts.append(self._domains_table())
            if self._rounds:
                parts.append(self._rounds_table())
            return Group(*parts)

    def _domains_table(self) -> Table:
        title = f"Round {min(len(self._rounds) + 1, self._expected)} of {self._expected}" if self._expected else None
        if self._paused is not None:
            title = self._paused
        table = Table("domain", "state", "", "for", *(["link"] if self._links else []), title=title)
        now = time.monotonic()
        for domain, (state, step, steps, since) in self._domains.items():
            bar = ProgressBar(total=steps, completed=step, width=_BAR_WIDTH) if steps else Text("")
            count = f" {step}/{steps}" if steps else ""
            link = [self._links.get(domain, "")] if self._links else []
            table.add_row(escape(domain), state + count, bar, f"{now - since:.0f} s", *link)
        return table

    def _rounds_table(self) -> Table:
        table = Table("round", "held-out loss at start", "train loss", "weights", "up", "down", "seconds")
        for event in self._rounds:
            table.add_row(
                str(event.round),
                f"{event.heldout_loss:.4f}",
                "-" if event.train_loss is None else f"{event.train_loss:.4f}",
                escape(_shown_weights(event)),
                f"{event.bytes_up / 2**20:.2f} MiB",
                f"{event.bytes_down / 2**20:.2f} MiB",
                f"{event.seconds['wall']:.1f}",
            )
        return table


def _is_quiet(event: Event) -> bool:
    """Say whether an event is not worth a line: it follows from another one, or comes too often."""
    if isinstance(event, ResultReceived):  # confirm follows each update
        return event.kind == "confirm" and event.status == "done"
    return isinstance(event, _QUIET)


def _shown_weights(event: RoundFinished) -> str:
    """Return each domain's share of a sum, or the largest where they are many."""
    if len(event.weights) > _MOST_WEIGHTS:
        return f"{max(event.weights.values()):.0%} at most, of {len(event.weights)}"
    return " ".join(f"{email.partition('@')[0]} {share:.0%}" for email, share in sorted(event.weights.items()))


def _shown_state(event: Event) -> tuple[str, str, int, int] | None:
    """Return a domain, what it is doing, and its steps so far and in all, as far as an event says it."""
    match event:
        case TicketSent():
            return event.domain, f"asked to {event.kind}", 0, 0
        case DomainProgress():
            return event.domain, event.progress.state, event.progress.step, event.progress.steps
        case ResultReceived():
            return event.domain, f"{event.kind} {event.status}", 0, 0
        case UpdateReceived():
            return event.domain, f"update of {event.size_bytes / 2**20:.1f} MiB here", 0, 0
        case DomainExcluded():
            return event.domain, "excluded", 0, 0
        case DomainMissed():
            return event.domain, f"missed round {event.round}", 0, 0
        case DomainJoined() | DomainReadmitted():
            return event.domain, "takes part from the next round on", 0, 0
        case DomainCaughtUp():
            return event.domain, f"caught up with round {event.round}", 0, 0
    return None


def quieten_transformers() -> None:
    """Keep its bars and its warnings about itself off a terminal with a progress bar of ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
