import pytest

from fedpriv.errors import ExistsError, PlanError
from fedpriv.study import parse_plan
from fedpriv.training import ensure_model
from fedpriv.widgets.draft import OFFERED_BITS, OFFERED_WEIGHTS, changed, choose, sizes_of


def chosen(plan, *choices):
    text = plan.to_yaml()
    for choice, value in choices:
        text = changed(text, choice, value)
    return parse_plan(text)


def test_what_belongs_to_a_choice_changes_with_it(study):
    plan = chosen(study.plan, ("weights", "paper"), ("alpha", 1.5))
    assert (plan.aggregation.weights, plan.aggregation.alpha) == ("paper", 1.5)
    assert chosen(plan, ("weights", "fedavg")).aggregation.alpha == 0.5
    buffered = chosen(plan, ("mode", "buffered"))
    assert buffered.schedule.mode == "buffered"
    assert buffered.schedule.buffer >= 2
    assert chosen(buffered, ("mode", "synchronous")).schedule == plan.schedule


def test_what_a_person_wrote_beside_it_stays(study):
    text = study.plan.to_yaml().replace("training:", "# as agreed on the phone\ntraining:")
    new = changed(text, "rounds", 7.0)
    assert "# as agreed on the phone" in new
    assert parse_plan(new).training.rounds == 7


@pytest.mark.parametrize("rule", OFFERED_WEIGHTS)
def test_every_rule_that_is_offered_can_be_chosen(study, rule):
    assert chosen(study.plan, ("weights", rule)).aggregation.weights == rule


@pytest.mark.parametrize(
    ("choice", "value"),
    [("bits", 3.0), ("bits", 4.5), ("bits", "many"), ("rounds", 0.0), ("mode", "sometimes"), ("alpha", float("nan"))],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(study, choice, value):
    before = (study.folder.root / "plan.yaml").read_bytes()
    with pytest.raises(PlanError):
        choose(study, choice, value)
    assert (study.folder.root / "plan.yaml").read_bytes() == before


def test_a_submitted_plan_is_never_edited(study):
    study.folder.freeze(study.folder.draft())
    with pytest.raises(ExistsError, match="submitted already"):
        choose(study, "bits", 4.0)


def test_sizes_are_those_of_the_planner_at_every_choice(study):
    ensure_model("tiny")
    sizes = sizes_of(study.plan)
    assert sizes.fp32_bytes == 4 * sizes.parameters
    assert {bits for level, bits in sizes.by_choice if level == "sealed"} == set(OFFERED_BITS)
    assert sizes.by_choice["plain", 0] >= sizes.fp32_bytes
    assert sizes.by_choice["ckks", 0] > sizes.by_choice["sealed", 10]


def test_without_the_model_no_size_is_said(study):
    plan = study.plan.model_copy(update={"base_model": study.plan.base_model.model_copy(update={"name": "nowhere"})})
    assert sizes_of(plan) is None
