"""Studies run on purpose to be measured or shown: the demo, and later the baselines."""

from fedpriv.experiments.federation import Federation
from fedpriv.experiments.lab import demo_federation
from fedpriv.experiments.site import Site

__all__ = ["Federation", "Site", "demo_federation"]
