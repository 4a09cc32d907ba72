"""Weights & Biases: one run for each study, whose id derives from the study's."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from fedpriv.errors import ConfigError
from fedpriv.files import private_folder, read_json, write_json
from fedpriv.researcher.trackers.rows import Row
from fedpriv.researcher.trackers.tracking import TrackedRun

if TYPE_CHECKING:
    from wandb import Run, Settings

_PROJECT = "fedpriv"
_INIT_SECONDS = 60.0


class WandbSink:
    """Logs the rows and the plan, and nothing that wandb would add by itself: no console, code, git, machine, packages.

    wandb's own variables count (``WANDB_MODE=offline``, ``WANDB_PROJECT``, ``WANDB_BASE_URL``). A run that is offline
    cannot be asked what it holds: the last row is noted beside it.
    """

    def __init__(self) -> None:
        self._run: Run | None = None

    def open(self, run: TrackedRun) -> Collection[tuple[int, int]]:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it is read when wandb is imported
        import wandb

        folder = private_folder(run.folder / "wandb")
        self._note = folder / f"{run.id}.json"
        settings = _settings()
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):  # it would ask on the terminal
            raise ConfigError("wandb is not logged in", todo="run `wandb login`, or set WANDB_MODE=offline")
        self._run = wandb.init(
            project=wandb.setup().settings.project or _PROJECT,
            id=f"fedpriv-{run.study[:32]}",
            name=run.name,
            resume="allow",
            dir=str(folder),
            config={"study": run.study, **run.parameters},
            settings=settings,
        )
        self._run.define_metric("round")
        self._run.define_metric("*", step_metric="round")
        return {tuple(read_json(self._note)["last"])} if self._note.exists() else set()

    def log(self, row: Row) -> None:
        if self._run is None:
            raise RuntimeError("it was not opened")
        self._run.log({"round": row.step, **row.values})
        write_json(self._note, {"last": row.key})

    def close(self, *, finished: bool) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if finished else 1)


def _settings() -> Settings:
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        host="undisclosed",  # by default this machine's name
        save_code=False,
        init_timeout=_INIT_SECONDS,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
