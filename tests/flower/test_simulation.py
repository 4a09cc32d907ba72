"""Flower's simulation, where Flower and fedpriv are installed together; else what it says."""

import importlib.util

import pytest

from fedpriv.errors import ConfigError
from fedpriv.experiments.flower.simulation import simulate

INSTALLED = importlib.util.find_spec("ray") is not None and importlib.util.find_spec("flwr") is not None


@pytest.mark.skipif(INSTALLED, reason="Flower is installed here")
def test_without_flower_the_next_step_is_said_and_nothing_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"constraints-flower\.txt 'fedpriv\[flower\]'"):
        simulate(tmp_path / "work", domains=3)
    assert not (tmp_path / "work").exists()


@pytest.mark.nightly
@pytest.mark.skipif(not INSTALLED, reason="needs an environment with fedpriv[flower]: docs/flower.md")
def test_a_study_runs_in_flower_s_simulation(tmp_path):
    found = simulate(tmp_path, domains=3, rounds=2)
    assert len(found.rounds_s) == 2
    assert len(found.adapter_sha256) == 64
    assert found.bytes_up > found.bytes_down > 0
