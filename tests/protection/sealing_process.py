"""Seals a large update with a worker process; says the name of its shared memory when it is at work."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fedpriv.protection import vectors
from tests.protection.helpers import make_cohort


def main(folder: Path) -> None:
    cohort = make_cohort(folder, "sealed", clients=2, bits=10, tensors={"a": 20_000_000})
    create = vectors.SharedMemory

    def announced(*arguments, **options):
        memory = create(*arguments, **options)
        sys.stdout.write(f"{memory.name}\n")
        sys.stdout.flush()
        return memory

    vectors.SharedMemory = announced
    cohort.seal(cohort.members[0], np.full(cohort.size, 0.001, np.float32), workers=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
