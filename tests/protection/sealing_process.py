"""Seals a large update with a worker process; says so when it is at work."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from tests.protection.helpers import make_cohort


def main(folder: Path) -> None:
    cohort = make_cohort(folder, "sealed", clients=2, bits=10, tensors={"a": 40_000_000})
    create = os.memfd_create

    def announced(name: str, *flags: int) -> int:
        descriptor = create(name, *flags)
        if name == "fedpriv-vector":
            sys.stdout.write("sealing\n")
            sys.stdout.flush()
        return descriptor

    os.memfd_create = announced
    cohort.seal(cohort.members[0], np.full(cohort.size, 0.001, np.float32), workers=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
