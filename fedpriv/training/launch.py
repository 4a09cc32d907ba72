"""``accelerate launch``: a job that several processes do together, each on its share of every batch.

The worker's child becomes the launcher instead of doing the job. It runs accelerate's and fedpriv's code only, and
starts :mod:`fedpriv.training.rank` once a process; these fence themselves in before any code of a request is read.
Nothing that an earlier job left behind is read on the way: the ranks' home is a new folder, the launcher's settings are
its own file in it, and the job is in their arguments, which no other process can change.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from fedpriv.files import write_atomic
from fedpriv.study.section import Section

if TYPE_CHECKING:
    from fedpriv.training.jobs import Job

RANK = "fedpriv.training.rank"


class Launch(Section):
    """How a job is launched: in so many processes, on these graphics processors if there are any."""

    processes: int = Field(ge=2, le=64)
    gpu_ids: str = Field(default="all", pattern=r"^(all|[0-9]{1,2}(,[0-9]{1,2}){0,63})$")


def launch(job: Job, pipe: int) -> int:
    """Start the ranks of a job, wait for all of them, and return the exit status. Called in the worker's child.

    Standard input becomes the way on which the ranks tell the worker how they are: it is the one descriptor beside the
    log that programs which start programs hand on. If a rank is ended by a signal, this process ends by the same.
    """
    home = Path(tempfile.mkdtemp(prefix="launch-"))
    try:
        os.dup2(pipe, 0)
        _settle_in(home, job.threads_each)
        _end_as(_run(job, home))
    except BaseException:  # the process ends here; this is accelerate's and fedpriv's own code
        traceback.print_exc()
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


def _run(job: Job, home: Path) -> list[int]:
    """Run `accelerate launch` in this process, which has it loaded; return the exit codes of ranks that failed."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    settings = home / "accelerate.yaml"
    write_atomic(settings, _settings(job.launch or Launch(processes=2)).encode(), durable=False)
    arguments = ["--config_file", str(settings), "--module", RANK, str(os.getpid()), job.model_dump_json()]
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except ChildFailedError as error:
        traceback.print_exc()
        return [failure.exitcode for failure in error.failures.values()]
    return []


def _settings(choice: Launch) -> str:
    """Return the file that `accelerate config` would write.

    MULTI_GPU is accelerate's name for "several processes that find each other", on processors as well. The static
    rendezvous takes nothing from the ranks; the other one would unpickle what it finds in the store that they share.
    """
    lines = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "debug": "false",
        "gpu_ids": f'"{choice.gpu_ids}"',
        "machine_rank": 0,
        "main_process_ip": "127.0.0.1",
        "main_process_port": 0,  # any that is free
        "mixed_precision": '"no"',  # which numbers a model computes in is said by the plan
        "num_machines": 1,
        "num_processes": choice.processes,
        "rdzv_backend": "static",
        "same_network": "true",
        "use_cpu": "false",
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


def _settle_in(home: Path, threads: int) -> None:
    """Let the ranks start in a new home, with packages from the installation alone and no threads before their time."""
    os.environ.update(
        HOME=str(home),
        TMPDIR=str(home),
        HF_HOME=str(home / "hf"),
        XDG_CACHE_HOME=str(home / "cache"),
        XDG_CONFIG_HOME=str(home / "config"),
        PYTHONNOUSERSITE="1",
        PYTHONSAFEPATH="1",
        OMP_NUM_THREADS=str(threads),
        OPENBLAS_NUM_THREADS="1",  # else numpy starts threads when it is imported, before the fence is up
    )
    tempfile.tempdir = str(home)


def _end_as(statuses: list[int]) -> None:
    """End as the ranks did that failed: by a signal, if it was not the launcher's own SIGTERM, or with status 1."""
    for status in statuses:
        if status < 0 and -status != signal.SIGTERM:
            os.kill(os.getpid(), -status)
    if statuses:
        raise SystemExit(1)
