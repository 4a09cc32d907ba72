import json
import sys
from dataclasses import fields

import numpy as np
import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.errors import ProtectionError
from fedpriv.experiments import protection_bench
from fedpriv.experiments.protection_bench import Report, Row, measure, run_protection_bench, targets
from fedpriv.experiments.protection_case import Case, Cohort
from fedpriv.experiments.protection_memory import sealing_memory
from fedpriv.protection.packed import PackedOpener

SCHEMA = {
    "scheme",
    "parameters",
    "clients",
    "bits",
    "up_bytes_per_parameter",
    "down_bytes_per_parameter",
    "seal_ns_per_parameter",
    "aggregate_ns_per_parameter_client",
    "open_ns_per_parameter",
    "client_rss_mb",
    "rms_error",
    "exact",
}


def case(scheme, *, clients=3, bits=0, measured=20_000):
    return Case(scheme=scheme, parameters=measured, clients=clients, bits=bits, measured=measured)


@pytest.fixture
def few(monkeypatch):
    """Let the quick run take seconds."""
    monkeypatch.setattr(protection_bench, "SMALL", 9_000)
    monkeypatch.setattr(protection_bench, "LARGE", 36_000)
    monkeypatch.setattr(protection_bench, "CLIENTS", (4, 5, 6))
    monkeypatch.setattr(protection_bench, "_TIMED_BLOCKS", 2)


@pytest.mark.parametrize(("scheme", "bits"), [("sealed", 4), ("sealed", 16), ("masked", 10)])
def test_a_quantised_row_is_exact_and_as_wrong_as_rounding_makes_it(scheme, bits, tmp_path):
    found = case(scheme, bits=bits)
    row = measure(found, tmp_path)
    step = found.clip / (2 ** (bits - 1) - 1)
    rounding = step / 6**0.5 / found.clients**0.5
    assert row.exact
    assert rounding * 0.8 < row.rms_error < rounding * 1.8  # the clip adds some
    assert row.measured_parameters == row.parameters == 20_000


@pytest.mark.parametrize(("scheme", "error"), [("ckks", 1e-6), ("ckks-tuned", 3e-4), ("plain", 1e-6)])
def test_a_baseline_row_is_close_but_not_called_exact(scheme, error, tmp_path, monkeypatch):
    monkeypatch.setattr(protection_bench, "_TIMED_BLOCKS", 1)
    row = measure(case(scheme, measured=5_000), tmp_path)
    assert not row.exact
    assert 0 < row.rms_error < error


def test_the_expected_sum_is_computed_without_sealing(tmp_path):
    cohort = Cohort(case("masked", bits=6))
    update = cohort.update(0)
    levels = cohort.levels(0, update)
    assert np.array_equal(cohort.levels_of(cohort.floats_of(levels).astype(np.float32)), levels)
    inside = np.abs(update) < cohort.deviation * cohort.case.clip
    step = cohort.deviation * cohort.case.clip / 31
    assert (np.abs(cohort.floats_of(levels) - update) <= step * 1.001)[inside].all()
    assert np.array_equal(levels, cohort.levels(0, update))


def test_a_wrong_sum_ends_the_benchmark(tmp_path, monkeypatch):
    honest = PackedOpener.open_sums

    def off_by_one(self, *given):
        sums = honest(self, *given)
        sums[7] += 1
        return sums

    monkeypatch.setattr(PackedOpener, "open_sums", off_by_one)
    with pytest.raises(ProtectionError, match="not the sum of the quantised updates"):
        measure(case("sealed", bits=10), tmp_path)


def test_memory_is_measured_in_a_process_of_its_own(tmp_path):
    assert 0 <= sealing_memory(case("sealed", bits=10, measured=200_000), tmp_path) < 50


GREEDY = """#!{python}
import runpy
from fedpriv.experiments.protection_case import Cohort

seal = Cohort.seal

def greedy(self, member, masks, update, path, *, workers):
    taken = bytearray(b"x" * 30_000_000) if path.name == "measured" else b""
    return seal(self, member, masks, update, path, workers=workers)

Cohort.seal = greedy
runpy.run_module("fedpriv.experiments.protection_memory", run_name="__main__")
"""


def test_memory_that_is_known_to_be_taken_is_seen(tmp_path, monkeypatch):
    """The process that is measured takes 30 MB more than it needs."""
    script = tmp_path / "greedy"
    script.write_text(GREEDY.format(python=sys.executable))
    script.chmod(0o700)
    measured = case("masked", bits=10, measured=2_000_000)
    assert sealing_memory(measured, tmp_path) < 15
    assert sealing_memory(measured, tmp_path, workers=2) < 60
    monkeypatch.setattr(sys, "executable", str(script))
    assert 27 < sealing_memory(measured, tmp_path) < 80


def test_a_failed_process_is_an_error(tmp_path):
    with pytest.raises(ProtectionError, match="failed"):
        sealing_memory(case("sealed", bits=10), tmp_path / "missing" / ("x" * 300))


@pytest.mark.usefixtures("few")
def test_a_quick_report_has_the_promised_rows_ratios_and_targets():
    seen = []
    report = run_protection_bench(quick=True, on_progress=lambda what, done: seen.append(done))
    body = json.loads(json.dumps(report.as_json()))
    assert set(body) == {"rows", "ratios"}
    assert SCHEMA <= set(body["rows"][0]) == {field.name for field in fields(Row)}
    cases = {(row["scheme"], row["clients"], row["bits"]) for row in body["rows"]}
    assert {("sealed", 4, bits) for bits in (4, 5, 8, 10, 16)} <= cases
    assert {(scheme, clients, 0) for scheme in ("ckks", "ckks-tuned", "plain") for clients in (4, 5, 6)} <= cases
    assert set(body["ratios"]["default_ckks_over_sealed_bytes"]) == {"4", "5", "6"}
    assert body["ratios"]["matched_bits"]["4"] in range(12, 17)
    assert body["ratios"]["two_workers_speedup"] > 0
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert {target.what for target in targets(report)} >= {"upload at 4 bits, K=4, 0.01M", "two workers"}


@pytest.mark.usefixtures("few")
def test_the_command_prints_pure_json_on_stdout_and_keeps_a_file(tmp_path, monkeypatch):
    row = measure(case("masked", bits=10), tmp_path)
    report = Report(rows=(row,), ratios={"plain_over_sealed_bytes": {"4": 2.4}, "two_workers_speedup": 1.5})
    monkeypatch.setattr(protection_bench, "run_protection_bench", lambda **given: report)
    out = tmp_path / "bench.json"
    result = CliRunner().invoke(app, ["bench", "protection", "--quick", "--json", "--out", str(out)])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(out.read_text()) == json.loads(json.dumps(report.as_json()))


def test_the_time_of_workers_that_have_ended_counts(tmp_path):
    cohort = Cohort(case("sealed", bits=10, measured=4_000_000))
    update, masks = cohort.update(0), cohort.masks(0)
    cohort.seal(0, masks, update, tmp_path / "first", workers=2)
    seconds = {}
    for workers in (1, 2):
        before = protection_bench._cpu_seconds()
        cohort.seal(0, masks, update, tmp_path / "update", workers=workers)
        seconds[workers] = protection_bench._cpu_seconds() - before
    assert seconds[2] > 0.75 * seconds[1]  # the work is the same, whoever does it
