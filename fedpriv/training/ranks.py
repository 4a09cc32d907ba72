"""Processes that train one adapter together: each takes a share of every batch, and they add their gradients up.

All of them ("ranks") draw the same batches and take the same steps, so that they hold the same adapter, to the bit. The
sums go through gloo, between graphics processors too: a LoRA gradient is some megabytes, and NCCL would need sockets of
further kinds and other processes' memory, which the fence around a job is there to refuse.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fedpriv.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    import torch

T = TypeVar("T", bound=Sequence[int])

_ROUTES, _ROUTES_6 = Path("/proc/self/net/route"), Path("/proc/self/net/ipv6_route")
_LOOPBACK = "lo"


class PeerLostError(TrainingError):
    """Another process of this training ended. The reason that counts is that one's."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes
    ----------
    rank : int
        Its number, from 0 on. The first one evaluates, tells the progress and writes the result.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch: Sequence[T]) -> list[T]:
        """Return this rank's examples of a batch: the longest first, each to the rank that has the fewest tokens.

        Seen together, the ranks' shares are the batch. With fewer examples than ranks, some are empty.
        """
        shares: list[list[T]] = [[] for _ in range(self.size)]
        tokens = [0] * self.size
        for example in sorted(batch, key=len, reverse=True) if self.size > 1 else batch:
            least = tokens.index(min(tokens))
            shares[least].append(example)
            tokens[least] += len(example)
        return shares[self.rank]

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Put the sum over all ranks in the place of each parameter's gradient; no gradient counts as zero.

        Every rank gets the same bits.

        Raises
        ------
        PeerLostError
            If another rank has ended.
        """
        if self.size == 1:
            return
        import torch

        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients]).cpu()
        _sum(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.device)

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Return the sum over all ranks of each of these numbers, the same on every rank.

        Raises
        ------
        PeerLostError
            If another rank has ended.
        """
        if self.size == 1:
            return numbers
        import torch

        sums = torch.tensor(numbers, dtype=torch.float64)
        _sum(sums)
        return tuple(sums.tolist())


ALONE = Ranks()


def ranks_now() -> Ranks:
    """Return the ranks that this process is one of; a process that never joined any is alone."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Ranks(dist.get_rank(), dist.get_world_size())


def join(patience_s: float) -> Ranks:
    """Find the other ranks, as the launcher's environment variables say, and connect to each of them.

    All sockets are open afterwards, so that a process can give up the right to open any. *Guarantee*: they lead to
    processes of the same network namespace, which has no way out. *Assumption*: nobody else is in it; gloo asks nobody
    who they are.

    Parameters
    ----------
    patience_s : float
        How long a rank waits for another one, here and in every sum.

    Raises
    ------
    ConfigError
        If this network is not one of the sandbox's own.
    """
    if not _is_closed_network():
        raise ConfigError(
            "Several processes train together only in a network of their own",
            kept="Nothing was trained",
            todo="install bubblewrap (see `fedpriv doctor`), or take resources > launcher out of domain.yaml",
        )
    import torch.distributed as dist

    os.environ["GLOO_SOCKET_IFNAME"] = _LOOPBACK
    dist.init_process_group("gloo", timeout=timedelta(seconds=patience_s))
    return ranks_now()


def meet() -> None:
    """Wait until every rank is here.

    Raises
    ------
    PeerLostError
        If another rank has ended.
    """
    ranks_now().total(0.0)


def _is_closed_network() -> bool:
    """Say whether no route leads out of this process's network namespace (Linux); unless that is sure, no."""
    try:
        routes = _ROUTES.read_text(encoding="ascii").splitlines()[1:]  # the first line is the heading
        routes_6 = _ROUTES_6.read_text(encoding="ascii").splitlines() if _ROUTES_6.exists() else []
    except OSError:
        return False
    return not routes and all(route.split()[-1] == _LOOPBACK for route in routes_6)


def _sum(tensor: torch.Tensor) -> None:
    import torch.distributed as dist

    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:
        raise PeerLostError("Another process of this training ended", todo="see its reason in the log") from error
