import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.errors import ConfigError, ProtectionError
from fedpriv.experiments import adding_slope, round_overhead, rounds_bench
from fedpriv.experiments.adding_slope import Line, Point, Slope, line_through, measure_adding
from fedpriv.experiments.flower import environment
from fedpriv.experiments.round_overhead import Overhead, RoundCost, _Clock
from fedpriv.experiments.rounds_bench import Flower, Report, targets
from fedpriv.protection.packed import PackedOpener
from fedpriv.researcher.events import ResultReceived, RoundFinished, TicketSent, UpdateReceived

STRAIGHT = Line(ms_per_domain=20.0, start_ms=5.0, ns_per_parameter=4.0, r_squared=0.999)
ADDING = Slope(
    parameters=5_000_000,
    bits=10,
    update_bytes=14_000_000,
    points=(
        Point(domains=4, memory_mb=2.0, seconds=0.1, cpu_s=0.1),
        Point(domains=256, memory_mb=5.9, seconds=5.1, cpu_s=5.0),
    ),
    seconds=STRAIGHT,
    cpu=STRAIGHT,
    seal_s=1.0,
    open_s=2.0,
    workers=2,
    exact=True,
)
ROUNDS = tuple(RoundCost(round=n, wall_s=3.0 + n / 10, training_s=2.8, parts={"answer": 0.1 * n}) for n in (2, 3, 4))
OVERHEAD = Overhead(
    model="tiny", domains=3, steps=1, parameters=4096, update_bytes=26_000, tensors=(4096,), rounds=ROUNDS
)
REPORT = Report(
    overhead=OVERHEAD, flower=Flower(version="1.0", rounds_s=(0.25, 0.3, 0.2)), adding=ADDING, cores=2, load=0.5
)


# -- the report ------------------------------------------------------------------------------------------------------


def test_medians_ratios_and_everything_in_json():
    assert REPORT.overhead.median_s == pytest.approx(0.5)
    assert REPORT.overhead.worst_s == pytest.approx(0.6)
    assert REPORT.overhead.parts == {"answer": pytest.approx(0.3)}
    assert REPORT.over_flower == pytest.approx(2.0)
    body = json.loads(json.dumps(REPORT.as_json()))
    assert body["flower"]["overhead_over_flower"] == pytest.approx(2.0)
    assert body["overhead"]["rounds"][1]["overhead_s"] == pytest.approx(0.5)
    assert "cohort of 256" in body["adding"]["how"]
    assert [target["met"] for target in body["targets"]] == [True] * 4


def slower(seconds):
    return replace(OVERHEAD, rounds=tuple(replace(cost, wall_s=cost.wall_s + seconds) for cost in ROUNDS))


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"overhead": slower(1.6), "flower": Flower(version="1.0", rounds_s=(2.0,))}, 0),
        ({"flower": Flower(version="1.0", rounds_s=(0.24,))}, 1),
        ({"adding": replace(ADDING, points=(ADDING.points[0], replace(ADDING.points[1], memory_mb=6.1)))}, 2),
        ({"adding": replace(ADDING, cpu=replace(STRAIGHT, r_squared=0.979))}, 3),
    ],
)
def test_each_target_can_be_missed(change, missed):
    found = [target.met for target in targets(replace(REPORT, **change))]
    assert found == [number != missed for number in range(4)]


def test_what_was_not_compared_is_not_called_met_or_missed():
    report = replace(REPORT, flower=Flower(version="1.0", why_not="no network"))
    compared = targets(report)[1]
    assert compared.met is None
    assert "no network" in compared.measured
    assert report.as_json()["flower"]["overhead_over_flower"] is None


# -- the line --------------------------------------------------------------------------------------------------------


@given(
    slope=st.floats(1e-4, 10),
    start=st.floats(-1, 1),
    domains=st.lists(st.integers(2, 256), min_size=3, max_size=6, unique=True),
)
def test_a_straight_line_is_found(slope, start, domains):
    line = line_through([(number, start + slope * number) for number in domains], 1000)
    assert line.ms_per_domain == pytest.approx(slope * 1e3, rel=1e-6)
    assert line.ns_per_parameter == pytest.approx(slope * 1e6, rel=1e-6)
    assert line.start_ms == pytest.approx(start * 1e3, rel=1e-6, abs=1e-6)
    assert line.r_squared == pytest.approx(1.0, abs=1e-6)


def test_what_grows_with_the_square_is_no_straight_line():
    points = [(number, number**2 / 1e4) for number in (4, 16, 64, 256)]
    assert line_through(points, 1000).r_squared < rounds_bench._LEAST_LINEAR
    assert line_through([(4, 1.0), (16, 1.0), (64, 1.0)], 1000).r_squared == 0.0


# -- adding ----------------------------------------------------------------------------------------------------------


def test_updates_are_really_sealed_added_and_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(adding_slope, "_REPEATS", 1)
    told = []
    slope = measure_adding(
        tmp_path, parameters=3000, domains=(2, 3, 5), on_progress=lambda what, done: told.append(done)
    )
    assert [point.domains for point in slope.points] == [2, 3, 5]
    assert all(point.seconds > 0 and point.memory_mb >= 0 for point in slope.points)
    assert slope.update_bytes == (tmp_path / "update-0").stat().st_size
    assert len({(tmp_path / f"update-{member}").read_bytes() for member in range(5)}) == 5
    assert told == sorted(told)


def test_a_wrong_sum_ends_the_benchmark(tmp_path, monkeypatch):
    honest = PackedOpener.open_sums

    def off_by_one(self, *given):
        sums = honest(self, *given)
        sums[7] += 1
        return sums

    monkeypatch.setattr(PackedOpener, "open_sums", off_by_one)
    monkeypatch.setattr(adding_slope, "_REPEATS", 0)
    monkeypatch.setattr(
        adding_slope, "_point", lambda number, costs: Point(domains=number, memory_mb=0, seconds=number, cpu_s=0)
    )
    with pytest.raises(ProtectionError, match="not the sum of what was sealed"):
        measure_adding(tmp_path, parameters=3000, domains=(2, 3, 4))


def test_a_disk_that_is_too_small_is_named_before_anything_is_sealed(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000))
    with pytest.raises(ConfigError, match="GB left"):
        measure_adding(tmp_path, parameters=300_000, domains=(2, 3, 4))
    assert list(tmp_path.iterdir()) == []


# -- rounds ----------------------------------------------------------------------------------------------------------


def finished(number):
    return RoundFinished(
        study="s",
        round=number,
        attempt=1,
        train_loss=1.0,
        heldout_loss=1.0,
        weights={},
        bytes_up=1,
        bytes_down=1,
        parameters=1,
        seconds={"aggregate": 0.125, "wall": 9.0},
    )


def answer(domain, kind, **seconds):
    return ResultReceived(study="s", domain=domain, kind=kind, round=2, metrics={}, seconds=seconds)


def test_the_parts_of_a_round_make_up_all_of_it(monkeypatch):
    clock, now = _Clock(), 0.0
    monkeypatch.setattr(round_overhead.time, "perf_counter", lambda: now)
    events = [
        (10.0, finished(1)),
        (10.25, TicketSent(study="s", domain="a", kind="train", round=2)),
        (10.5, TicketSent(study="s", domain="b", kind="train", round=2)),
        (16.0, answer("a", "train", train=4.0, evaluate=1.0, seal=0.25)),
        (16.5, answer("b", "train", train=4.5, seal=0.25, open=0.5, transfer=0.125)),
        (16.75, UpdateReceived(study="s", domain="a", round=2, size_bytes=1, seconds=0.1)),
        (17.0, UpdateReceived(study="s", domain="b", round=2, size_bytes=1, seconds=0.1)),
        (17.0, TicketSent(study="s", domain="a", kind="confirm", round=2)),
        (17.5, answer("a", "confirm")),
        (18.0, answer("b", "confirm")),
        (18.25, finished(2)),
    ]
    for now, event in events:  # noqa: B007  the clock above reads it
        clock(event)
    cost = clock.cost(2)
    assert (cost.wall_s, cost.training_s, cost.overhead_s) == (8.25, 5.0, 3.25)
    assert cost.parts == {
        "tickets": 0.5,
        "open": 0.5,
        "seal": 0.25,
        "transfer": 0.125,
        "answer": 0.625,
        "fetch": 0.5,
        "confirm": 1.0,
        "aggregate": 0.125,
        "rest": 0.125,
    }
    assert sum(cost.parts.values()) == cost.wall_s - 4.5  # without the training of the domain that answered last


# -- Flower ----------------------------------------------------------------------------------------------------------


def test_every_package_beside_flower_is_pinned_and_no_place_is_named():
    lines = [line for line in environment.PINS.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert {"flwr", "ray"} <= {line.partition("==")[0] for line in lines}
    assert environment.flower_version() == "1.42.0"


def test_without_a_network_flower_is_left_out_with_a_sentence(tmp_path, monkeypatch):
    pins = tmp_path / "pins.txt"
    pins.write_text("flwr==1.42.0\n")
    monkeypatch.setattr(environment, "PINS", pins)
    monkeypatch.setenv("FEDPRIV_CACHE", str(tmp_path / "cache"))
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    flower = rounds_bench._flower(OVERHEAD, rounds=1)
    assert flower.rounds_s == ()
    assert flower.why_not.startswith("Flower 1.42.0, which is compared with, could not be installed: ")
    (left,) = (tmp_path / "cache" / "bench").iterdir()
    assert not (left / "ready").exists()  # it is made anew the next time


def test_a_simulation_that_fails_is_told_with_its_last_line(tmp_path, monkeypatch):
    script = tmp_path / "round.py"
    script.write_text("raise SystemExit('ray is tired')\n")
    monkeypatch.setattr(environment, "SCRIPT", script)
    monkeypatch.setattr(environment, "flower_environment", lambda: environment.sys.executable)
    assert rounds_bench._flower(OVERHEAD, rounds=1).why_not == "Flower's simulation failed: ray is tired"


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.nightly
def test_the_command_measures_real_rounds_and_real_sums(monkeypatch):
    monkeypatch.setattr(rounds_bench, "DOMAINS", (2, 3, 4))
    monkeypatch.setattr(rounds_bench, "SMALL", 9000)
    monkeypatch.setattr(adding_slope, "_REPEATS", 1)
    order = ["bench", "rounds", "--model", "tiny", "--quick", "--without-flower", "--json"]
    done = CliRunner().invoke(app, order)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    costs = report["overhead"]["rounds"]
    assert [cost["round"] for cost in costs] == [2, 3, 4]
    for cost in costs:
        assert cost["wall_s"] > cost["training_s"] > 0
        assert all(seconds > 0 for seconds in cost["parts"].values())
    assert report["overhead"]["parameters"] == sum(report["overhead"]["tensors"])
    assert report["flower"]["why_not"] == "left out"
    assert [target["met"] for target in report["targets"]].count(None) == 1
    assert report["adding"]["exact"] is True


def test_people_are_shown_what_was_met_missed_and_not_measured(monkeypatch):
    report = replace(REPORT, flower=Flower(version="1.0", why_not="left out"), load=9.0)
    monkeypatch.setattr(rounds_bench, "run_rounds_bench", lambda **given: report)
    shown = CliRunner().invoke(app, ["bench", "rounds"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for words in ("not measured", "met", "left out", "9 processes shared 2 cores", "Adding sealed updates"):
        assert words in shown.output
    assert np.isfinite(report.memory_growth_mb)
