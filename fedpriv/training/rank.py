"""``python -m fedpriv.training.rank``: one of the processes that do a job together; `accelerate launch` starts it.

Its arguments are the launcher's process id and the job. It imports what training needs, while it has one thread and has
read nothing but programs; then it goes behind the same fence as every job (:mod:`fedpriv.training.child`). Its sockets
are opened between two parts of that fence: the filter of system calls comes last, so that no rank can open another one.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from fedpriv.files import parse_json
from fedpriv.study.validation import validate_section
from fedpriv.training import child
from fedpriv.training.jobs import Job
from fedpriv.training.preload import preload
from fedpriv.training.ranks import join


def main() -> NoReturn:
    """Do a rank's part of the job; the process ends here, with nothing run at its exit."""
    pipe = os.dup(0)  # not inherited any further
    status = 1
    try:
        launcher, text = sys.argv[1:]
        child.settle_rank(int(launcher))
        job = validate_section(Job, parse_json(text.encode(), source="the job"), source="the job")
        child.be_quiet()
        preload(four_bits=job.training.four_bits)
        status = child.work(job, pipe, lambda: join(job.wall_clock_s))
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
