"""Moving a domain's copy of the adapter by an opened sum, with the server optimiser's memory kept beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpriv.domain.context import StudyContext
from fedpriv.errors import RefusedError
from fedpriv.files import write_atomic
from fedpriv.training.adapter import AdapterState, layout_of, read_plain_file, save_state
from fedpriv.training.server import Float64, ServerState, server_step

_PARTS = ("mean", "square")
_HEAD_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Moving:
    """Moves the adapter of one study at one domain.

    The adapter and the memory after a round follow from those after the round before and from the sum alone, so that a
    later attempt of the round, or a domain that comes back and catches up, computes the same.
    """

    context: StudyContext

    def move(self, round_number: int, total: np.ndarray, weight: float) -> AdapterState:
        """Write the adapter after a round, and what the server optimiser keeps, and return the adapter.

        Parameters
        ----------
        round_number : int
            The round whose sum was opened.
        total : ndarray of float32, shape (P,)
            The weighted sum of the updates, of the tensors that the round sent.
        weight : float
            The sum of the weights.

        Raises
        ------
        RefusedError
            If the optimiser's memory of the round before is gone.
        """
        context, plan = self.context, self.context.plan
        before = context.adapter(round_number - 1)
        mean = _shaped(total.astype(np.float64) / weight, context.sent(before, round_number))
        state = self._memory(round_number - 1, before)
        after, state = server_step(plan.aggregation.server, plan.server_rate, before, mean, state)
        save_state(after, context.folder.adapter(round_number))
        self._keep(round_number, state)
        return after

    def _keep(self, round_number: int, state: ServerState) -> None:
        """Write the memory after a round, and remove those that no attempt of a round starts from any more."""
        from safetensors.numpy import save

        if self.context.plan.aggregation.server.optimizer == "none":
            return
        arrays = {f"{part}/{name}": array for part in _PARTS for name, array in getattr(state, part).items()}
        folder = self.context.folder
        write_atomic(folder.server_state(round_number), save(dict(sorted(arrays.items()))))
        for number in range(1, round_number - 1):
            folder.server_state(number).unlink(missing_ok=True)

    def _memory(self, round_number: int, adapter: AdapterState) -> ServerState:
        """Return the memory after a round; before the first there is none."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if round_number == 0 or self.context.plan.aggregation.server.optimizer == "none":
            return ServerState()
        path, layout = self.context.folder.server_state(round_number), layout_of(adapter)
        if not path.exists():
            raise RefusedError(
                f"The server optimiser's memory of round {round_number} is gone",
                kept="Nothing was opened",
                todo="put the study's folder back from a backup, or make a new study",
            )
        limit = 16 * sum(array.size for array in adapter.values()) + _HEAD_BYTES
        parts: dict[str, dict[str, Float64]] = {part: {} for part in _PARTS}
        changed = RefusedError("The server optimiser's memory was changed on disk", kept="Nothing was opened")
        try:
            arrays = load(read_plain_file(path, max_bytes=limit))
        except (SafetensorError, ValueError) as error:
            raise changed from error
        for name, array in arrays.items():
            part, _, tensor = name.partition("/")
            fits = part in parts and array.dtype == np.float64 and array.shape == layout.get(tensor)
            if not fits or not np.isfinite(array).all():
                raise changed
            parts[part][tensor] = array
        return ServerState(**parts)


def _shaped(vector: Float64, like: AdapterState) -> dict[str, Float64]:
    """Return a flattened update by tensors, in their shapes."""
    ends = np.cumsum([like[name].size for name in sorted(like)])[:-1]
    parts = np.split(vector, ends)
    return {name: part.reshape(like[name].shape) for name, part in zip(sorted(like), parts, strict=True)}
