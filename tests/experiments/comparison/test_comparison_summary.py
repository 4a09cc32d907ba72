"""The table, what had to be reached and the paper's claims follow from the records alone; what is missing is said."""

import pytest

from fedpriv.audit.result import Range
from fedpriv.experiments.comparison.cases import Case
from fedpriv.experiments.comparison.charts import Panel, Series, least_range, write_pictures
from fedpriv.experiments.comparison.figures import charts_of
from fedpriv.experiments.comparison.leakage import LeakageCase, LeakageRecord
from fedpriv.experiments.comparison.page import headline
from fedpriv.experiments.comparison.record import Cost, Quality, Record
from fedpriv.experiments.comparison.summary import INSIDE, OUTSIDE, claims_of, rows_of, targets_of


def run(method, *, loss=2.0, up=100, other=1.0, seed=0, part="methods"):
    cost = Cost(training_cpu_s=9.0, other_cpu_s=other, wall_s=5.0, peak_bytes=10**8, peak_all_bytes=10**9, load=0.5)
    quality = Quality(loss_before=3.0, loss=loss, loss_by_domain={"micu": loss}, tokens=100)
    return Record(
        case=Case(part=part, method=method, seed=seed),
        how="processes",
        parameters=10,
        rounds=2,
        bytes_up=up,
        bytes_down=up,
        cost=cost,
        quality=quality,
    )


def leak(method, holder, value, *, spread=0.1, measured=True):
    rate = Range(value=value, low=value - spread, high=value + spread) if measured else None
    return LeakageRecord(
        case=LeakageCase(method=method, holder=holder),
        rate=rate,
        named=min(1.0, value + 0.2),
        control=Range(value=1.0, low=1.0, high=1.0),
        trials=10,
    )


RUNS = [
    run("centralised", loss=1.98),
    run("fl", loss=2.0, seed=0),
    run("fl", loss=2.02, seed=1),
    run("he-fl", up=3000, other=3.0),
    run("fedpriv", up=50, other=1.2, loss=2.01),
]
LEAKS = [
    leak("fl", OUTSIDE, 0.8),
    leak("he-fl", INSIDE, 0.8),
    leak("fedpriv", OUTSIDE, 0.0),
    leak("fedpriv", INSIDE, 0.01),
]


def test_rows_are_means_over_seeds():
    rows = {row.method: row for row in rows_of(RUNS, LEAKS)}
    assert list(rows) == ["centralised", "fl", "he-fl", "fedpriv"]
    assert rows["fl"].loss == pytest.approx(2.01)
    assert (rows["fl"].least_loss, rows["fl"].most_loss, rows["fl"].seeds) == (2.0, 2.02, 2)
    assert rows["fl"].leakage_inside is None
    assert rows["fedpriv"].leakage_outside == 0.0


def test_targets_are_met_or_missed_by_the_numbers():
    found = {target.what: target for target in targets_of(rows_of(RUNS, LEAKS), LEAKS)}
    assert found["fedpriv's bytes up over FL's"].met
    assert found["HE-FL's bytes up over fedpriv's"].measured == "60 x"
    assert found["CPU seconds that protection adds to FL"].measured == "+2.00%"
    assert found["fedpriv's held-out loss against FL's"].met
    assert found["FL's held-out loss against centralised training's"].met
    worse = [*RUNS[:-1], run("fedpriv", up=101, other=1.6, loss=2.1)]
    missed = {target.what for target in targets_of(rows_of(worse, LEAKS), LEAKS) if target.met is False}
    assert missed == {
        "fedpriv's bytes up over FL's",
        "CPU seconds that protection adds to FL",
        "fedpriv's held-out loss against FL's",
    }


def test_leakage_above_chance_misses_its_target():
    leaks = [*LEAKS[:2], leak("fedpriv", OUTSIDE, 0.2), leak("fedpriv", INSIDE, 0.0, measured=False)]
    found = {target.what: target.met for target in targets_of(rows_of(RUNS, leaks), leaks)}
    assert found[f"leakage rate of fedpriv, {OUTSIDE}"] is False
    assert found[f"leakage rate of fedpriv, {INSIDE}"] is None, "an attack that measured nothing shows nothing"


def test_what_was_not_measured_is_neither_met_nor_missed():
    assert all(target.met is None for target in targets_of([], []))
    assert all(claim.met is None for claim in claims_of([]))
    assert "needed" in headline([])


def test_claims_are_held_against_the_rows():
    by = {claim.what: claim.met for claim in claims_of(rows_of(RUNS, LEAKS))}
    assert by == {
        "It leaks less than FL, HE-FL and DP-FL.": None,  # DP-FL was not run
        "It communicates less than FL and HE-FL.": True,
        "It computes less than FL and HE-FL.": False,
        "It learns better than FL.": False,
    }


def test_pictures_are_the_same_for_the_same_records(tmp_path):
    charts = charts_of(RUNS, LEAKS)
    assert [chart.name for chart in charts] == ["leakage", "communication", "computation", "quality"]
    for chart in charts:
        first = [path.read_bytes() for path in write_pictures(chart, tmp_path)]
        assert [path.read_bytes() for path in write_pictures(chart, tmp_path)] == first
        assert first[0].startswith(b"\x89PNG")
        assert b"</svg>" in first[1]


def test_what_was_not_measured_says_so_beside_its_bar(tmp_path):
    leaks = [leak("fl", OUTSIDE, 0.8), leak("fedpriv", OUTSIDE, 0.0, measured=False)]
    svg = write_pictures(charts_of([], leaks)[0], tmp_path)[1].read_text()
    assert "not measured" in svg


def test_differences_that_mean_nothing_are_not_blown_up():
    panel = Panel(title="", kind="lines", places=[1, 2], series=[Series(name="", values=[2.0, 2.0001])])
    low, high = least_range(panel, (2.0, 2.0001))
    assert high - low == pytest.approx(0.02 * 2.0001)
    assert least_range(panel, (0.0, 3.0)) == (0.0, 3.0)
