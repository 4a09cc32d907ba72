"""Studies in virtual time: the real orchestrator, aggregation and domains, with simulated links and training."""

from fedpriv.experiments.simulation.clock import run_in_virtual_time
from fedpriv.experiments.simulation.federation import SimulatedFederation
from fedpriv.experiments.simulation.traces import Trace, read_traces, spread_traces
from fedpriv.experiments.simulation.training import ModelTraining

__all__ = ["ModelTraining", "SimulatedFederation", "Trace", "read_traces", "run_in_virtual_time", "spread_traces"]
