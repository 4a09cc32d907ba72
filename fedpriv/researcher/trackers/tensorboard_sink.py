"""TensorBoard: one folder of event files for each study."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from fedpriv.files import private_folder
from fedpriv.researcher.trackers.rows import MARK, Row
from fedpriv.researcher.trackers.tracking import TrackedRun

if TYPE_CHECKING:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

_PLAN = "plan"


class TensorBoardSink:
    """Writes ``tensorboard/STUDY/``; each opening is one more file in it.

    A row that was written in part, or whose round is summed again, is taken back with all that came after it, by the
    record that TensorBoard understands as a restart at that step.
    """

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None
        self._next = 0  # the first step that is certainly not written; 0: nothing is certain

    def open(self, run: TrackedRun) -> Collection[tuple[int, int]]:
        from torch.utils.tensorboard import SummaryWriter

        folder = private_folder(run.folder / "tensorboard" / run.id)
        before = _read(folder)
        self._writer = SummaryWriter(str(folder))
        if f"{_PLAN}/text_summary" not in before.Tags()["tensors"]:
            self._write_parameters(self._writer, run)
        if MARK not in before.Tags()["scalars"]:
            return set()
        return {(event.step, round(event.wall_time * 1000)) for event in before.Scalars(MARK)}

    def _write_parameters(self, writer: SummaryWriter, run: TrackedRun) -> None:
        """Write the plan as a table to read, and as hyperparameters to compare studies by."""
        from torch.utils.tensorboard.summary import hparams

        shown = {"study": run.study, **run.parameters}
        table = "\n".join(f"| {name} | {str(value).replace('|', '/')} |" for name, value in shown.items())
        writer.add_text(_PLAN, f"| setting | value |\n| --- | --- |\n{table}", 0)
        for summary in hparams(dict(run.parameters), {"final/loss_after": 0.0}):
            writer._get_file_writer().add_summary(summary)  # add_hparams would make a run of its own

    def log(self, row: Row) -> None:
        writer = self._writer
        if writer is None:
            raise RuntimeError("it was not opened")
        if row.step < self._next or not self._next:
            self._restart_at(writer, row.step)
        for name in sorted(row.values, key=lambda name: name == MARK):
            writer.add_scalar(name, row.values[name], row.step, walltime=row.time_s)
        writer.flush()
        self._next = row.step + 1

    def _restart_at(self, writer: SummaryWriter, step: int) -> None:
        from tensorboard.compat.proto import event_pb2

        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # pyright: ignore[reportAttributeAccessIssue]
        event = event_pb2.Event(session_log=start)  # pyright: ignore[reportAttributeAccessIssue] - made at run time
        writer._get_file_writer().add_event(event, step=step)

    def close(self, *, finished: bool) -> None:
        if self._writer is not None:
            self._writer.close()


def _read(folder: Path) -> EventAccumulator:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # a file that a kill cut short is nothing to warn of
    found = EventAccumulator(str(folder), size_guidance={SCALARS: 0, TENSORS: 1})
    found.Reload()
    return found
