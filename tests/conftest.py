"""What every test finds the same, whoever starts it: no terminal's width, and one thread for each process.

Set before anything is imported: rich takes the width when a console is made, and torch and BLAS make their threads
when they are loaded. Processes that tests start inherit it, so that two workers of pytest do not fight for the cores.
"""

import os

for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TERMINAL_WIDTH"):
    os.environ.pop(name, None)
os.environ["OMP_NUM_THREADS"] = "1"
