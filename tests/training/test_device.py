import pytest
import torch

from fedpriv.errors import ConfigError
from fedpriv.training import device
from fedpriv.training.device import choose_device, training_device


@pytest.fixture(autouse=True)
def afterwards_the_processor(monkeypatch):
    monkeypatch.setattr(device, "_chosen", ["cpu"])


def gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("choice", "count", "expected"),
    [("cpu", 2, "cpu"), ("auto", 0, "cpu"), ("auto", 2, "cuda:0"), ("cuda", 1, "cuda:0")],
)
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, choice, count, expected):
    gpus(monkeypatch, count)
    assert training_device() == torch.device("cpu")
    assert choose_device(choice) == expected
    assert training_device() == torch.device(expected)


def test_each_process_has_its_own_gpu(monkeypatch):
    gpus(monkeypatch, 2)
    assert [choose_device("auto", rank=rank, size=2) for rank in (0, 1)] == ["cuda:0", "cuda:1"]
    with pytest.raises(ConfigError, match=r"3 processes for 2 GPU\(s\)"):
        choose_device("auto", rank=0, size=3)
    assert choose_device("cpu", rank=2, size=3) == "cpu"


def test_cuda_without_a_gpu_is_told_with_the_next_step(monkeypatch):
    gpus(monkeypatch, 0)
    with pytest.raises(ConfigError, match=r"torch sees none here.*resources.device to auto or cpu"):
        choose_device("cuda")
    assert training_device() == torch.device("cpu")
