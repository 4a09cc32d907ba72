"""``fedpriv domain serve`` that kills itself at a step of a ticket where it has not died before.

    python dying_service.py FOLDER SEEN EVERY

A step is a moment at which something of a ticket is about to reach the disk or the store, or has just reached the
store, named after the code that does it. SEEN lists the steps that were met; at each EVERYth new one the process kills
itself with SIGKILL.
"""

import os
import signal
import sys
from pathlib import Path

from fedpriv.cli.main import main
from fedpriv.transport.store import Store

FOLDER, SEEN, EVERY = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
seen = SEEN.read_text().splitlines() if SEEN.exists() else []
real_fsync, real_replace, real_put = os.fsync, Path.replace, Store.put


def step(what):
    """Name where we are in a ticket: its kind, and the two functions of the domain that led here."""
    frame, names, kind = sys._getframe(2), [], ""
    while frame is not None:
        if "/fedpriv/" in frame.f_code.co_filename and not frame.f_code.co_filename.endswith("/files.py"):
            names.append(frame.f_code.co_qualname)
        if frame.f_code.co_qualname == "TicketDesk.handle":
            ticket = frame.f_locals.get("ticket")
            kind = ticket.kind if hasattr(ticket, "kind") else "unread"
        frame = frame.f_back
    return f"{kind}: {what} in {' of '.join(names[:3])}" if kind else None


def maybe_die(what):
    name = step(what)
    if name is None or name in seen:
        return
    seen.append(name)
    dies = len(seen) % EVERY == 0
    with SEEN.open("a") as stream:
        stream.write(name + "\n")
        stream.flush()
        real_fsync(stream.fileno())
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)


def fsync(descriptor):
    maybe_die("fsync")
    real_fsync(descriptor)


def replace(self, target):
    maybe_die("rename")
    return real_replace(self, target)


def put(self, key, data):
    maybe_die("put")
    real_put(self, key, data)
    maybe_die("after put")


os.fsync, Path.replace, Store.put = fsync, replace, put
sys.argv = ["fedpriv", "domain", "serve", FOLDER]
sys.exit(main())
