"""Studies run on purpose to be measured: the demo, and later the baselines."""
