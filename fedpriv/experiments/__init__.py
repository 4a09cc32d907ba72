"""Studies run on purpose to be measured or shown: the demo, and later the baselines."""

from fedpriv.experiments.federation import Federation
from fedpriv.experiments.lab import demo_federation

__all__ = ["Federation", "demo_federation"]
