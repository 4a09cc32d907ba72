"""CPU seconds of ended processes count once; memory is that of the largest and of all."""

import subprocess
import sys
import time

from fedpriv.experiments.comparison.meter import ProcessMeter

BUSY = """
import time
held = bytearray(80_000_000)
end = time.process_time() + 1.0
while time.process_time() < end:
    pass
"""
AROUND = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}], check=True)"
SERVICE = f"import sys; sys.stdin.readline(); exec({AROUND!r}); print(1, flush=True); sys.stdin.readline()"


def test_the_work_of_a_process_that_is_gone_counts_once():
    with ProcessMeter() as meter:
        subprocess.run([sys.executable, "-c", AROUND], check=True)
    cost = meter.cost()
    assert 1.0 <= cost.training_cpu_s < 2.0
    assert cost.cpu_s == cost.training_cpu_s + cost.other_cpu_s


def test_own_work_is_no_training():
    with ProcessMeter() as meter:
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
    assert meter.cost().other_cpu_s >= 0.5
    assert meter.cost().training_cpu_s < 0.2


def test_a_service_s_own_time_is_told_from_its_workers():
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert service.stdin is not None
    assert service.stdout is not None
    with service:
        with ProcessMeter([service.pid]) as meter:
            service.stdin.write(b"go\n")
            service.stdin.flush()
            service.stdout.readline()
        service.stdin.close()
    assert 1.0 <= meter.cost().training_cpu_s < 2.0
    assert meter.cost().other_cpu_s < 1.0


def test_memory_of_the_largest_process_and_of_all():
    with ProcessMeter() as meter:
        children = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
        for child in children:
            child.wait()
    cost = meter.cost()
    assert cost.peak_bytes >= 80_000_000
    assert cost.peak_all_bytes >= cost.peak_bytes + 80_000_000
