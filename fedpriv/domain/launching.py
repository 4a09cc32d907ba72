"""The domain's launcher: how many processes train together, from ``domain.yaml`` or a file of ``accelerate config``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from fedpriv.domain.folder import ResourcesChoice
from fedpriv.errors import ConfigError, PlanError
from fedpriv.study import load_yaml, validate_section
from fedpriv.study.section import Section
from fedpriv.training.launch import Launch

_MAX_BYTES = 64 * 1024


class AccelerateConfig(Section):
    """What a file of ``accelerate config`` may say here: data parallel, on one machine. Anything else is named.

    Sharded models (FSDP, DeepSpeed, Megatron) would change what a job computes; mixed precision is the plan's; and
    several machines would need a network, which training does not have.
    """

    compute_environment: Literal["LOCAL_MACHINE"] = "LOCAL_MACHINE"
    distributed_type: Literal["MULTI_GPU", "MULTI_CPU"]
    num_processes: int = Field(ge=2, le=64)
    num_machines: Literal[1] = 1
    machine_rank: Literal[0] = 0
    gpu_ids: str | int | None = None
    mixed_precision: Literal["no"] | None = None
    rdzv_backend: Literal["static"] = "static"
    main_training_function: Literal["main"] = "main"
    downcast_bf16: Literal["no", False] = False
    dynamo_backend: Literal["NO", "no"] | None = None
    use_cpu: bool = False
    debug: bool = False
    same_network: bool = True
    enable_cpu_affinity: Literal[False] = False
    main_process_ip: str | None = None
    main_process_port: int | None = None
    tpu_env: tuple[()] | None = None
    tpu_use_cluster: Literal[False] = False
    tpu_use_sudo: Literal[False] = False


def launch_of(resources: ResourcesChoice) -> Launch | None:
    """Return how training jobs are launched, or None where one process does them.

    Raises
    ------
    ConfigError
        If the file of ``accelerate config`` cannot be read, or says what does not go here (named by its key).
    """
    choice = resources.launcher
    if choice is None:
        return None
    if choice.processes is not None:
        return Launch(processes=choice.processes)
    path = Path(choice.config or "").expanduser()
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_BYTES).decode()
        config = validate_section(AccelerateConfig, load_yaml(text, source=path.name), source=path.name)
        named = {} if config.gpu_ids is None else {"gpu_ids": str(config.gpu_ids)}
        return validate_section(Launch, {"processes": config.num_processes, **named}, source=path.name)
    except PlanError as error:
        raise ConfigError(error.what, kept="Nothing was trained", todo=f"correct {path}, or name processes") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The launcher's file {path} cannot be read",
            kept="Nothing was trained",
            todo="write one with `accelerate config --config_file FILE`, or name processes instead",
        ) from error


def check_launcher(resources: ResourcesChoice, *, closed_network: bool) -> Launch | None:
    """Return how training jobs are launched (:func:`launch_of`), if there is a sandbox for it.

    Processes that train together ask nobody who they are: on this machine's own network, anyone could be one of them,
    and would get the gradients.

    Parameters
    ----------
    closed_network : bool
        Whether training has a network of its own that leads nowhere (bubblewrap).

    Raises
    ------
    ConfigError
        If there is none, or as :func:`launch_of`.
    """
    launch = launch_of(resources)
    if launch is not None and not closed_network:
        raise ConfigError(
            "Several processes train together only inside bubblewrap, which is off or does not work here",
            kept="Nothing was run",
            todo="install bubblewrap (see `fedpriv doctor`) and set resources.sandbox to required, or take "
            "resources > launcher out of domain.yaml",
        )
    return launch
