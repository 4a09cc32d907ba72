import pytest

from fedpriv.errors import ConfigError, StudyError
from fedpriv.experiments.crosscloud.bench import ModeReport, Report, targets
from fedpriv.experiments.crosscloud.curve import Point, curve_of, seconds_to
from fedpriv.experiments.crosscloud.links import Link, parse_links
from fedpriv.experiments.crosscloud.modes import MODES, modes_named
from fedpriv.experiments.crosscloud.picture import write_picture
from fedpriv.study import Plan
from tests.study.study_plans import SMALL

HISTORY = [
    {"event": "StudyStarted", "time_s": 100.0},
    {"event": "TicketSent", "kind": "prepare", "time_s": 101.0},
    {"event": "TicketSent", "kind": "train", "time_s": 110.0},
    {"event": "RoundFinished", "round": 1, "heldout_loss": 3.0, "time_s": 120.0},
    {"event": "RoundFinished", "round": 2, "heldout_loss": 2.5, "time_s": 130.0},
    {"event": "StudyFinished", "loss_after": 2.25, "time_s": 140.0},
]


def test_a_curve_pairs_each_round_s_end_with_the_loss_measured_after_it():
    curve = curve_of(HISTORY)
    assert curve == (Point(10.0, 0, 3.0), Point(20.0, 1, 2.5), Point(30.0, 2, 2.25))
    assert seconds_to(curve, 2.5) == 20.0
    assert seconds_to(curve, 2.0) is None


@pytest.mark.parametrize("cut", [5, 0, slice(3, 4)])
def test_a_history_without_an_end_is_no_curve(cut):
    records = list(HISTORY)
    del records[cut]
    with pytest.raises(StudyError):
        curve_of(records)


def test_the_baseline_comes_first_and_once():
    assert [mode.name for mode in modes_named(("sealed", "fedavg-fp32"))] == ["fedavg-fp32", "sealed"]
    with pytest.raises(ConfigError, match="no mode warp"):
        modes_named(("warp",))


@pytest.mark.parametrize("mode", MODES.values(), ids=lambda mode: mode.name)
def test_every_mode_is_a_valid_plan_that_differs_where_it_says(mode):
    base = Plan.model_validate(SMALL | {"training": {"rounds": 7}}, strict=False)
    plan = mode.plan(base)
    assert plan.training.rounds == 7
    assert all(
        getattr(getattr(plan, section), k) == v for section, keys in mode.changes.items() for k, v in keys.items()
    )


def mode_report(mode, seconds):
    return ModeReport(
        mode=mode,
        words="w",
        curve=(Point(seconds, 0, 2.0),),
        seconds=seconds,
        up_bytes={"micu": 10},
        down_bytes={"micu": 20},
        seconds_to_target=seconds,
    )


@pytest.mark.parametrize(("seconds", "met"), [(50.0, True), (51.0, False), (None, False)])
def test_the_target_is_half_the_baseline_s_time(seconds, met, tmp_path):
    other = mode_report("sealed", 1.0) if seconds is None else mode_report("sealed", seconds)
    other = ModeReport(**{**vars(other), "seconds_to_target": seconds})
    report = Report(model="tiny", links={"micu": "<slow>"}, target_loss=2.0, modes=(mode_report("base", 100.0), other))
    (target,) = targets(report)
    assert target.met is met
    assert report.as_json()["targets"][0]["measured"].split()[0] == (
        "not" if seconds is None else f"{seconds / 100:.2f}"
    )
    page = write_picture(report, tmp_path / "page.html").read_text()
    assert "&lt;slow&gt;" in page
    assert "<slow>" not in page


def test_links_from_the_command_line():
    assert parse_links("100,2.5", "10,150") == (Link(rate_mbps=100, delay_ms=10), Link(rate_mbps=2.5, delay_ms=150))
    for rates, delays in (("100", "10"), ("1,2", "3"), ("a,2", "1,2"), ("0,2", "1,2"), ("nan,2", "1,2")):
        with pytest.raises(ConfigError):
            parse_links(rates, delays)
