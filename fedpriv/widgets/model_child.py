"""Finds a base model in a process of its own: fetching, converting and looking at its layers need torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from fedpriv.errors import FedprivError, ModelError
from fedpriv.files import parse_json
from fedpriv.study.section import Section
from fedpriv.widgets.builder_work import Working

_MOST_LINE = 64 * 1024


class FoundModel(Section):
    """A base model on this machine.

    Attributes
    ----------
    name, digest : str
        As a plan names it.
    wished, targets : tuple of str
        Layers that were to get an adapter, and those that do: the same if the model has them.
    """

    name: str
    digest: str
    wished: tuple[str, ...]
    targets: tuple[str, ...]


def find_model(name: str, wished: tuple[str, ...], working: Working) -> FoundModel:
    """Return a base model, which is fetched if it is not on this machine.

    Raises
    ------
    ModelError
        If it cannot be had.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, name, *wished],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    said: dict[str, Any] = {}
    with process:
        while process.stdout is not None and (line := process.stdout.readline(_MOST_LINE)):
            said = parse_json(line, source="what looks for a base model")
            if "stage" in said:
                working(f"Base model {name}: {said['stage']}", said["percent"], 100)
    if "found" in said:
        return FoundModel.model_validate(said["found"], strict=False)
    raise ModelError(str(said.get("error", f"The base model {name} could not be looked for")))


def main() -> None:
    """Find the model that the first argument names, for the layers that the others do."""
    import json

    from fedpriv.training.base_model import ensure_model
    from fedpriv.training.usual_targets import usual_targets

    name, *layers = sys.argv[1:]
    out, told = sys.stdout, set[tuple[str, int]]()

    def tell(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    def progress(stage: str, share: float) -> None:
        now = stage, round(100 * share)
        if now not in told:
            told.add(now)
            tell({"stage": stage, "percent": now[1]})

    try:
        model = ensure_model(name, on_progress=progress)
        wished = tuple(layers)
        targets = usual_targets(model.folder, wished=wished)
        found = FoundModel(name=name, digest=model.digest, wished=wished, targets=targets)
        tell({"found": found.model_dump(mode="json")})
    except (FedprivError, OSError) as error:
        tell({"error": str(error)})


if __name__ == "__main__":
    main()
