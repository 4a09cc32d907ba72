import pytest

from fedpriv.domain import PolicyChoice
from fedpriv.domain.policy import review
from fedpriv.errors import RefusedError
from fedpriv.study import CodeRequest
from fedpriv.study.plan import LevelRule, MemberChoice, ProtectionChoice, TrainingChoice
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.training.recipe import stock_recipe
from tests.domain.conftest import ADA


def decide(domain, request, researcher=ADA, **policy):
    config = domain.config.model_copy(update={"policy": domain.config.policy.model_copy(update=policy)})
    return review(config, request, researcher, fingerprint=domain.keys.fingerprint, stock=stock_recipe())


def with_plan(request, **changes):
    return CodeRequest.new(request.plan.model_copy(update=changes), request.files["train.py"])


def test_the_stock_recipe_within_limits_is_approved_and_says_what_was_checked(domain, code_request):
    decision = decide(domain, code_request)
    assert decision.decision == "approved"
    assert decision.max_rounds == 3
    assert not decision.release
    assert any("to the byte" in sentence for sentence in decision.checked)


def test_ask_leaves_it_to_a_person(domain, code_request):
    assert decide(domain, code_request, approve="ask").decision == "pending"


def test_one_changed_byte_of_code_is_for_a_person(domain, code_request):
    request = CodeRequest.new(code_request.plan, code_request.files["train.py"] + "#")
    assert decide(domain, request).decision == "pending"


def test_a_smuggled_file_is_for_a_person(domain, code_request):
    request = CodeRequest.from_files({**code_request.files, "helper.py": "x = 1\n"})
    assert decide(domain, request).decision == "pending"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"researcher": MemberChoice(email=ADA, fingerprint="33" * 32)}, "fingerprint pinned"),
        ({"training": TrainingChoice(rounds=500)}, "at most 20 rounds"),
        ({"training": TrainingChoice(steps=5000)}, "at most 1000 steps"),
        ({"protection": ProtectionChoice(level="plain")}, "protected as one of"),
        ({"dataset": "eicu"}, "dataset is mimic-iii"),
    ],
)
def test_a_plan_outside_the_limits_is_rejected_with_the_limit(domain, code_request, changes, reason):
    decision = decide(domain, with_plan(code_request, **changes))
    assert decision.decision == "rejected"
    assert reason in decision.reason


def hybrid(*levels, default="sealed"):
    rules = tuple(LevelRule(layers=(number,), level=level) for number, level in enumerate(levels))
    return {"protection": ProtectionChoice(level=default, rules=rules)}


def test_masked_tensors_need_the_data_owners_word(domain, code_request):
    request = with_plan(code_request, **hybrid("ckks", "masked"))
    decision = decide(domain, request)
    assert decision.decision == "rejected"
    assert decision.reason == (
        "not so: rule 2 of the plan's protection (masked for layer 1) keeps to one of: sealed, ckks"
    )
    assert decide(domain, request, protection=("sealed", "masked", "ckks")).decision == "approved"


@pytest.mark.parametrize("level", ["masked", "ckks-tuned", "plain"])
def test_the_careful_default_takes_only_what_hides_the_sum_from_the_researcher(domain, code_request, level):
    assert PolicyChoice().protection == ("sealed", "ckks")
    assert decide(domain, with_plan(code_request, protection=ProtectionChoice(level=level))).decision == "rejected"


def test_every_wrong_level_of_a_plan_is_named(domain, code_request):
    reason = decide(domain, with_plan(code_request, **hybrid("plain", "sealed", "plain", default="masked"))).reason
    assert "not so: updates leave only protected as one of: sealed, ckks" in reason
    assert "rule 1 of" in reason
    assert "rule 2 of" not in reason
    assert "rule 3 of" in reason


def test_another_sender_than_the_plans_researcher_is_rejected(domain, code_request):
    assert decide(domain, code_request, researcher="eve@z.org").decision == "rejected"


def test_a_cohort_without_this_domains_own_key_is_rejected(domain, code_request):
    cohort = (MemberChoice(email="micu@x.org", fingerprint="44" * 32), code_request.plan.cohort[1])
    assert decide(domain, with_plan(code_request, cohort=cohort)).decision == "rejected"


def test_a_cohort_smaller_than_the_minimum_is_rejected(domain, code_request):
    assert decide(domain, code_request, minimum_cohort=3).decision == "rejected"


def test_a_person_cannot_approve_beyond_the_limits_by_accident(domain, code_request):
    request = with_plan(code_request, protection=ProtectionChoice(level="plain"))
    domain.requests.receive(request, ADA)
    with pytest.raises(RefusedError, match=r"outside this domain's limits"):
        domain.approve(request.study[:8])
    assert domain.requests.get(request.study).decision.decision == "pending"


def test_approve_and_reject_are_kept_and_entered(domain, code_request):
    domain.requests.receive(code_request, ADA)
    assert domain.approve(code_request.study[:8], max_rounds=2, release=True).max_rounds == 2
    assert domain.requests.get(code_request.study).decision.release
    domain.reject(code_request.study[:8], "changed my mind")
    assert domain.requests.get(code_request.study).decision.decision == "rejected"
    assert [entry.kind for entry in domain.ledger.entries()][-2:] == ["request.approved", "request.rejected"]


# -- differential privacy ------------------------------------------------------------------------------------------


def private(request, **changes):
    return with_plan(request, privacy=PrivacyChoice(epsilon=8.0, **changes))


def test_privacy_by_patients_needs_the_stock_recipe_because_fedpriv_trains_in_its_place(domain, code_request):
    assert decide(domain, private(code_request)).decision == "approved"
    own = CodeRequest.new(private(code_request).plan, code_request.files["train.py"] + "#")
    decision = decide(domain, own)
    assert decision.decision == "rejected"
    assert "unchanged stock recipe, in whose place fedpriv trains privately" in decision.reason
    helper = CodeRequest.from_files({**private(code_request).files, "helper.py": "x = 1\n"})
    assert decide(domain, helper).decision == "rejected"


def test_privacy_by_domains_takes_any_recipe(domain, code_request):
    own = CodeRequest.new(private(code_request, unit="domain").plan, code_request.files["train.py"] + "#")
    assert decide(domain, own).decision == "pending"


def test_with_a_budget_a_study_needs_a_privacy_section_within_it(domain, code_request):
    assert decide(domain, private(code_request), epsilon=8.0).decision == "approved"
    for request in (code_request, private(code_request)):
        decision = decide(domain, request, epsilon=7.5)
        assert decision.decision == "rejected"
        assert "an epsilon of at most 7.5, the budget of these data" in decision.reason
