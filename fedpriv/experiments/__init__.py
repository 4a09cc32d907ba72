"""Studies run on purpose to be measured or shown: the demo, and later the baselines."""

from fedpriv.experiments.federation import Federation

__all__ = ["Federation"]
