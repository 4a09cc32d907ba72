"""The device that this process trains on: the processor, or a graphics processor where torch has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedpriv.errors import ConfigError

if TYPE_CHECKING:
    import torch

DeviceChoice = Literal["auto", "cpu", "cuda"]

_chosen: list[str] = ["cpu"]
"""One a process, as torch's number of threads is: models are loaded once, and everything else follows them."""


def choose_device(choice: DeviceChoice, *, rank: int = 0, size: int = 1) -> str:
    """Choose the device of this process; ``auto`` takes a graphics processor where torch sees one.

    Parameters
    ----------
    choice : {"auto", "cpu", "cuda"}
        What the domain wants.
    rank, size : int
        Which of the processes on this machine this one is, and how many there are: each has a graphics processor of
        its own.

    Returns
    -------
    str
        As torch names it: ``cpu`` or ``cuda:0``.

    Raises
    ------
    ConfigError
        If there is no graphics processor, or fewer than processes; with ``auto``, only the latter.
    """
    import torch

    count = torch.cuda.device_count() if choice != "cpu" and torch.cuda.is_available() else 0
    if choice == "cuda" and not count:
        raise ConfigError(
            "This domain trains on a GPU, and torch sees none here",
            kept="Nothing was trained",
            todo="see `fedpriv doctor`, or set resources.device to auto or cpu",
        )
    if 0 < count < size:
        raise ConfigError(
            f"There are {size} processes for {count} GPU(s), where each needs its own",
            kept="Nothing was trained",
            todo="lower resources.launcher.processes, or set resources.device to cpu",
        )
    _chosen[0] = f"cuda:{rank}" if count else "cpu"
    return _chosen[0]


def open_device(choice: DeviceChoice, *, rank: int = 0, size: int = 1) -> str:
    """Choose the device of this process and, where it is a graphics processor, start CUDA on it.

    What the driver needs of the system only at its start, a socket among it, is not needed afterwards.

    Raises
    ------
    ConfigError
        As :func:`choose_device`.
    """
    import torch

    name = choose_device(choice, rank=rank, size=size)
    if name != "cpu":
        torch.zeros(1, device=name)
    return name


def training_device() -> torch.device:
    """Return the device that was chosen, by default the processor."""
    import torch

    return torch.device(_chosen[0])
