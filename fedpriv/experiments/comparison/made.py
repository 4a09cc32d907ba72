"""By what a record was made, and when: so that a number can be traced to the code that gave it."""

from __future__ import annotations

import functools
import hashlib
import platform
import time
from pathlib import Path

import psutil
from pydantic import Field

import fedpriv
from fedpriv.study.names import Sha256
from fedpriv.study.section import Section


class Made(Section):
    """What measured one record.

    ``source``     SHA-256 over the names and contents of fedpriv's own Python files
    ``version``    fedpriv's
    ``processor``  as the system names it; ``cores`` of it
    ``at_s``       when the measurement ended, in seconds since 1970, UTC
    """

    source: Sha256
    version: str
    processor: str
    cores: int = Field(ge=1)
    at_s: int = Field(ge=0)

    @classmethod
    def now(cls) -> Made:
        """Return what is running here."""
        return cls(
            source=source_digest(),
            version=fedpriv.__version__,
            processor=processor(),
            cores=psutil.cpu_count() or 1,
            at_s=int(time.time()),
        )


@functools.cache
def source_digest() -> str:
    """Return the digest of the package as it was when this process first asked."""
    root = Path(fedpriv.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
