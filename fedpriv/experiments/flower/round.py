"""Flower's own simulation of a few rounds in which nobody trains: every client sends the same payload back at once.

Runs in an environment of its own (``flower_round.py`` makes it) and is imported by nobody. The one argument is a JSON
object: ``sizes`` of the tensors, ``clients``, ``rounds``, a folder ``temporary``, and a file ``out`` for the seconds of
each round, from choosing its clients to the new mean.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

ORDER: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
_STORE_BYTES = 256 * 2**20

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Send back what came."""
    content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


class TimedFedAvg(FedAvg):
    """FedAvg that notes how long each round took.

    Attributes
    ----------
    seconds : list of float
        Wall clock of each round.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seconds: list[float] = []
        self._started = 0.0

    def configure_train(self, *given: Any, **named: Any) -> Iterable[Message]:
        self._started = time.perf_counter()
        return super().configure_train(*given, **named)

    def aggregate_train(self, *given: Any, **named: Any) -> tuple[Any, Any]:
        mean = super().aggregate_train(*given, **named)
        self.seconds.append(time.perf_counter() - self._started)
        return mean


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds, without evaluating, and write their seconds."""
    clients = ORDER["clients"]
    strategy = TimedFedAvg(
        fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
    )
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size, np.float32) for size in ORDER["sizes"]]
    strategy.start(grid=grid, initial_arrays=ArrayRecord(arrays), num_rounds=ORDER["rounds"])
    Path(ORDER["out"]).write_text(json.dumps(strategy.seconds), encoding="utf-8")


if __name__ == "__main__":
    ray = {
        "include_dashboard": False,
        "num_cpus": ORDER["clients"],
        "object_store_memory": _STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": ORDER["temporary"],
    }
    run_simulation(
        server, client, ORDER["clients"], backend_config={"init_args": ray, "client_resources": {"num_cpus": 1}}
    )
