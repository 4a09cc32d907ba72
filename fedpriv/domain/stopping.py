"""How a service ends: in the main thread and in order, when it is told to or when its parent is gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType


class Stop(BaseException):
    """Raised in the main thread by SIGTERM and SIGINT, so that everything is put away on the way out."""


def stop_on_signals(parent: int | None) -> threading.Event:
    """Have SIGTERM and SIGINT raise :class:`Stop`, and also the end of the process ``parent``.

    Returns
    -------
    threading.Event
        Set from then on: a library in whose midst it was raised may turn it into an error of its own.
    """
    asked = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        asked.set()
        raise Stop

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if parent is not None:
        threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    return asked


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
