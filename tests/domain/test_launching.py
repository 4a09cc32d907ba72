import dataclasses
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from fedpriv.domain import Domain, ResourcesChoice, gpu, runner
from fedpriv.domain.folder import LauncherChoice
from fedpriv.domain.launching import check_launcher, launch_of
from fedpriv.domain.runner import check_machine
from fedpriv.domain.sandbox import Sandbox
from fedpriv.domain.service import DomainService
from fedpriv.errors import ConfigError
from fedpriv.training.launch import Launch, _settings

# what `accelerate config` (1.15) wrote on a machine with four GPUs
WRITTEN = """\
compute_environment: LOCAL_MACHINE
debug: false
distributed_type: MULTI_GPU
downcast_bf16: 'no'
enable_cpu_affinity: false
gpu_ids: 0,2,3
machine_rank: 0
main_training_function: main
mixed_precision: 'no'
num_machines: 1
num_processes: 3
rdzv_backend: static
same_network: true
tpu_env: []
tpu_use_cluster: false
tpu_use_sudo: false
use_cpu: false
"""


def with_file(tmp_path, text):
    path = tmp_path / "accelerate.yaml"
    path.write_text(text)
    return ResourcesChoice(launcher=LauncherChoice(config=str(path)))


def test_a_file_of_accelerate_config_is_read(tmp_path):
    assert launch_of(with_file(tmp_path, WRITTEN)) == Launch(processes=3, gpu_ids="0,2,3")
    assert launch_of(ResourcesChoice(launcher=LauncherChoice(processes=2))) == Launch(processes=2)
    assert launch_of(ResourcesChoice()) is None


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("num_machines: 1", "num_machines: 2", "num_machines"),
        ("mixed_precision: 'no'", "mixed_precision: fp16", "mixed_precision"),
        ("MULTI_GPU", "DEEPSPEED", "distributed_type"),
        ("rdzv_backend: static", "rdzv_backend: c10d", "rdzv_backend"),
        ("gpu_ids: 0,2,3", "gpu_ids: '0; rm'", "gpu_ids"),
        ("debug: false", "command_file: /bin/sh", "command_file"),
        ("num_processes: 3", "num_processes: 1", "num_processes"),
        ("debug: false", "fsdp_config: {fsdp_version: 2}", "fsdp_config"),
        ("tpu_env: []", "tpu_env: [A=1]", "tpu_env"),
    ],
)
def test_what_does_not_go_here_is_named(tmp_path, before, after, named):
    assert before in WRITTEN
    with pytest.raises(ConfigError, match=named):
        launch_of(with_file(tmp_path, WRITTEN.replace(before, after)))


def test_a_file_that_is_missing_is_told_with_how_to_write_one(tmp_path):
    resources = ResourcesChoice(launcher=LauncherChoice(config=str(tmp_path / "none.yaml")))
    with pytest.raises(ConfigError, match=r"none.yaml cannot be read.*accelerate config --config_file"):
        launch_of(resources)


@pytest.mark.parametrize("choice", [{}, {"processes": 2, "config": "/x"}, {"config": "x.yaml"}, {"processes": 1}])
def test_a_launcher_says_one_thing(choice):
    with pytest.raises(ValidationError):
        LauncherChoice(**choice)


def test_without_a_network_of_its_own_nothing_is_launched():
    resources = ResourcesChoice(launcher=LauncherChoice(processes=2))
    assert check_launcher(resources, closed_network=True) == Launch(processes=2)
    with pytest.raises(ConfigError, match="only inside bubblewrap"):
        check_launcher(resources, closed_network=False)
    assert check_launcher(ResourcesChoice(), closed_network=False) is None


def test_a_sandbox_that_is_off_launches_nothing(tmp_path):
    off = Sandbox(mode="off", readable=(), writable=tmp_path)
    with pytest.raises(ConfigError, match="only inside bubblewrap"):
        runner.TrainingWorker(off, ResourcesChoice(launcher=LauncherChoice(processes=2)))
    assert list(tmp_path.iterdir()) == [], "it was refused before anything was made"


def test_accelerate_reads_the_settings_as_they_are_meant(tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file

    path = tmp_path / "settings.yaml"
    path.write_text(_settings(Launch(processes=3, gpu_ids="0,2,3")))
    settings = load_config_from_file(str(path))
    assert (settings.num_processes, settings.gpu_ids, settings.mixed_precision) == (3, "0,2,3", "no")
    assert (settings.rdzv_backend, settings.num_machines, settings.main_process_port) == ("static", 1, 0)
    assert yaml.safe_load(path.read_text())["distributed_type"] == "MULTI_GPU"


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """Device files as NVIDIA's driver names them."""
    dev = tmp_path / "dev"
    (dev / "nvidia-caps").mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "nvidia-caps/nvidia-cap1", "sda"):
        (dev / name).touch()
    monkeypatch.setattr(gpu, "_DEV", dev)
    return dev


def test_a_sandbox_shows_a_gpu_only_where_it_trains_on_it(cards, tmp_path):
    assert gpu.gpu_files("cpu") == ()
    found = gpu.gpu_files("auto")
    names = {str(path.relative_to(cards)) for path in found}
    assert names == {"nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap1"}
    walls = Sandbox(mode="preferred", readable=(), writable=tmp_path, gpu=found)
    fence = walls.fence(ResourcesChoice(), [], max_seconds=5)
    assert fence["memory_bytes"] is None
    assert {str(path) for path in found} <= set(fence["writable"])
    without = Sandbox(mode="preferred", readable=(), writable=tmp_path).fence(ResourcesChoice(), [], max_seconds=5)
    assert not [place for place in without["writable"] if "nvidia" in place]


def test_cuda_without_a_gpu_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_DEV", tmp_path)
    box = Sandbox(mode="preferred", readable=(), writable=tmp_path)
    with pytest.raises(ConfigError, match=r"no NVIDIA GPU.*resources.device to auto or cpu"):
        check_machine(box, ResourcesChoice(device="cuda"))
    assert check_machine(box, ResourcesChoice(device="auto")) is None
    assert gpu.gpu_files("auto") == ()


def test_a_service_says_so_before_it_reads_any_data(domain, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_DEV", tmp_path)
    config = domain.config.model_copy(update={"resources": ResourcesChoice(device="cuda")})
    said = []
    service = DomainService(domain=dataclasses.replace(domain, config=config), notify=said.append)
    with pytest.raises(ConfigError, match="no NVIDIA GPU"):
        service._start()
    assert not (domain.folder.data).exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("device: gpu", "resources > device"),
        ("launcher: {processes: 1}", "resources > launcher > processes"),
        ("launcher: {config: accelerate.yaml}", "resources > launcher > config"),
    ],
)
def test_a_wrong_setting_is_named_by_its_path(domain, line, message):
    path = domain.folder.config_path
    name = line.partition(":")[0]
    text = "\n".join(
        f"  {line}" if text.strip().startswith(f"{name}:") else text for text in path.read_text().splitlines()
    )
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Domain.open(domain.folder.root)


def test_cuda_with_a_torch_that_has_none_is_told(cards, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    with pytest.raises(ConfigError, match="built without CUDA"):
        check_machine(Sandbox(mode="preferred", readable=(), writable=Path(tmp_path)), ResourcesChoice(device="cuda"))


def test_processes_share_what_a_job_may_use(tmp_path):
    walls = Sandbox(mode="preferred", readable=(), writable=tmp_path)
    fence = walls.fence(ResourcesChoice(threads=2), [], max_seconds=10, processes=4)
    assert fence["cpu_s"] == 10 * 4 + 4 * 120
