"""What every test finds the same, whoever starts it: no terminal's width, one thread for each process, no deadlines.

Set before anything is imported: rich takes the width when a console is made, and torch and BLAS make their threads
when they are loaded. Processes that tests start inherit it, so that two workers of pytest do not fight for the cores.
"""

import gc
import os

from hypothesis import settings

for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TERMINAL_WIDTH"):
    os.environ.pop(name, None)
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("fedpriv", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("fedpriv")


def pytest_collection():
    """Import all tests without looking for garbage meanwhile: nothing of it is any."""
    gc.disable()


def pytest_collection_finish():
    gc.enable()
