"""What of a graphics processor a training sandbox lets through: NVIDIA's device files, and where the cards are listed.

A driver's device files are a wide door into the kernel, so they are there only where a domain trains on them.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from fedpriv.errors import ConfigError
from fedpriv.training.device import DeviceChoice

_DEVICES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap[0-9]*")
_DEV = Path("/dev")

GPU_READABLE = ("/sys/bus/pci", "/sys/devices")
"""Where the driver's library looks for the cards."""


def gpu_files(choice: DeviceChoice) -> tuple[Path, ...]:
    """Return the device files that a job needs on the domain's device: none where it trains on the processor."""
    if choice == "cpu":
        return ()
    found = tuple(sorted(path for pattern in _DEVICES for path in _DEV.glob(pattern)))
    return found if any(path.name[6:].isdigit() for path in found) else ()


def check_device(choice: DeviceChoice) -> None:
    """Look whether a domain that must train on a GPU can: torch itself is asked by the first job, and by the doctor.

    Raises
    ------
    ConfigError
        If there is none, or this torch is built without CUDA.
    """
    if choice != "cuda":
        return
    if not gpu_files(choice):
        what, todo = "This machine shows no NVIDIA GPU (/dev/nvidia0)", "install NVIDIA's driver"
    elif importlib.metadata.version("torch").endswith("+cpu"):
        what, todo = "This torch is built without CUDA", "see `fedpriv doctor` for how to get the other one"
    else:
        return
    raise ConfigError(what, kept="Nothing was trained", todo=f"{todo}, or set resources.device to auto or cpu")
