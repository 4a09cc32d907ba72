import time

import pytest

from fedpriv.domain import PolicyChoice, StandingApproval, Terms
from fedpriv.domain.policy import approve, review
from fedpriv.errors import InputError, RefusedError, UntrustedError
from fedpriv.study import CodeRequest, TaskChoice
from fedpriv.study.plan import MemberChoice, TrainingChoice
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.study.schedule import ScheduleChoice
from fedpriv.training.recipe import stock_recipe
from tests.domain.conftest import ADA, STOCK


def decide(domain, request, researcher=ADA, **policy):
    config = domain.config.model_copy(update={"policy": domain.config.policy.model_copy(update=policy)})
    return review(config, request, researcher, fingerprint=domain.keys.fingerprint, stock=stock_recipe())


def with_plan(request, **changes):
    return CodeRequest.new(request.plan.model_copy(update=changes), request.files["train.py"])


def test_the_stock_recipe_within_limits_is_approved_and_says_what_was_checked(domain, code_request):
    decision = decide(domain, code_request)
    assert decision.decision == "approved"
    assert decision.limits.rounds == 3
    assert not decision.limits.release
    assert decision.reason == "standing approval stock-recipe"
    assert any("to the byte" in sentence for sentence in decision.checked)


def test_without_a_standing_approval_a_person_is_asked(domain, code_request):
    assert decide(domain, code_request, standing=()).decision == "pending"


def test_a_standing_approval_is_for_the_default_task_unless_it_lists_others(domain, code_request):
    def decided(task, tasks=None, code="stock-recipe"):
        standing = (StandingApproval(name="ours", code=code, tasks=tasks),)
        return decide(domain, with_plan(code_request, task=task), standing=standing)

    nursing, mortality = TaskChoice(notes=("nursing",)), TaskChoice(kind="mortality")
    assert decided(TaskChoice()).decision == "approved"
    for task in (nursing, mortality):
        assert "ours: it is not for the task" in decided(task).reason
        assert decided(task, tasks=(task.kind,)).decision == "approved"
        assert decided(task, code=with_plan(code_request, task=task).study).decision == "approved"
    assert decided(mortality, tasks=("language_modelling",)).decision == "pending"


# Each of these passed the standing approvals of other tools: they compare file names, or one folder, or one file.
CHANGES = {
    "one byte of code": lambda files: files | {"train.py": files["train.py"] + "#"},
    "a helper module": lambda files: files | {"helper.py": "x = 1\n"},
    "a second main file below": lambda files: files | {"sub/train.py": files["train.py"]},
    "a module that shadows a library": lambda files: files | {"torch.py": "x = 1\n"},
    "a command": lambda files: files | {"run.txt": "python other.py\n"},
    "a configuration": lambda files: files | {"config.yaml": "steps: 9\n"},
    "dependencies": lambda files: files | {"requirements.txt": "evil\n"},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("code", ["stock-recipe", "code", "request"])
def test_a_standing_approval_is_of_the_whole_bundle(domain, code_request, change, code):
    digest = {"code": code_request.code, "request": code_request.study}.get(code, code)
    standing = (StandingApproval(name="ours", code=digest),)
    assert decide(domain, code_request, standing=standing).decision == "approved"
    changed = CodeRequest.from_files(CHANGES[change](dict(code_request.files)))
    decision = decide(domain, changed, standing=standing)
    assert decision.decision == "pending"
    assert "ours: the code is not what it names" in decision.reason


def test_a_changed_plan_is_another_request_but_the_same_code(domain, code_request):
    changed = with_plan(code_request, training=TrainingChoice(rounds=2))
    of_code = (StandingApproval(name="ours", code=code_request.code),)
    of_request = (StandingApproval(name="this-one", code=code_request.study),)
    assert decide(domain, changed, standing=of_code).decision == "approved"
    assert decide(domain, changed, standing=of_request).decision == "pending"
    assert decide(domain, changed, standing=of_request + of_code).reason == "standing approval ours"


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"researchers": ("bob@y.org",)}, "it is not for ada@y.org"),
        ({"rounds": 2}, "at most 2 rounds"),
        ({"minimum_cohort": 3}, "at least 3 domains in every sum, and this plan has 2"),
        ({"epsilon": 4.0}, "it is for studies with differential privacy, of at most epsilon 4"),
        ({"metrics": ("examples", "heldout_loss", "heldout_tokens")}, "lets only examples"),
    ],
)
def test_a_standing_approval_that_does_not_fit_leaves_it_to_a_person_and_says_why(domain, code_request, terms, reason):
    decision = decide(domain, code_request, standing=(STOCK.model_copy(update=terms),))
    assert decision.decision == "pending"
    assert reason in decision.reason


def test_the_terms_of_a_standing_approval_are_the_limits(domain, code_request):
    terms = {"researchers": (ADA,), "hours": "19:00-07:00", "days": 30, "epsilon": 4.0, "release": True}
    limits = decide(domain, private(code_request), standing=(STOCK.model_copy(update=terms),)).limits
    assert (limits.hours, limits.epsilon, limits.release) == ("19:00-07:00", 4.0, True)
    assert limits.expires_s == pytest.approx(time.time() + 30 * 86_400, abs=60)


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


QUORUM = {"schedule": ScheduleChoice(quorum=2)}
BUFFERED = {"schedule": ScheduleChoice(mode="buffered", buffer=2)}


def of_three(request, **changes):
    third = MemberChoice(email="tsicu@x.org", fingerprint="33" * 32)
    return with_plan(request, cohort=(*request.plan.cohort, third), **changes)


@pytest.mark.parametrize(("schedule", "name"), [(QUORUM, "quorum"), (BUFFERED, "buffer")])
def test_a_plan_whose_smallest_sum_is_below_the_minimum_is_rejected_though_its_cohort_is_not(
    domain, code_request, schedule, name
):
    assert decide(domain, of_three(code_request), minimum_cohort=3).decision == "approved"
    decision = decide(domain, of_three(code_request, **schedule), minimum_cohort=3)
    assert decision.decision == "rejected"
    sentence = f"at least 3 domains are in every sum: this plan lets 2 make one (schedule > {name})"
    assert decision.reason == f"not so: {sentence}"
    allowed = decide(domain, of_three(code_request, **schedule))
    assert allowed.decision == "approved"
    assert sentence.replace("3", "2", 1) in allowed.checked


def test_a_standing_approval_is_of_a_plans_smallest_sum(domain, code_request):
    standing = (STOCK.model_copy(update={"minimum_cohort": 3}),)
    assert decide(domain, of_three(code_request), standing=standing).decision == "approved"
    decision = decide(domain, of_three(code_request, **QUORUM), standing=standing)
    assert decision.decision == "pending"
    assert "at least 3 domains in every sum, and this plan lets 2 make one (schedule > quorum)" in decision.reason


@pytest.mark.parametrize(("schedule", "why"), [({}, "this plan has 3"), (QUORUM, "lets 2 make one")])
def test_nobody_approves_with_a_minimum_that_no_round_would_reach(domain, code_request, schedule, why):
    request = of_three(code_request, **schedule)
    domain.requests.receive(request, ADA)
    with pytest.raises(RefusedError, match=why) as refused:
        domain.approve(request.study, Terms(minimum_cohort=request.plan.smallest_sum + 1))
    assert f"--minimum-cohort of at most {request.plan.smallest_sum}" in str(refused.value)
    assert domain.requests.get(request.study).decision.decision == "pending"
    limits = domain.approve(request.study, Terms(minimum_cohort=request.plan.smallest_sum)).limits
    assert limits.minimum_cohort == request.plan.smallest_sum


def test_a_person_cannot_approve_beyond_the_limits_by_accident(domain, code_request):
    request = with_plan(code_request, protection=ProtectionChoice(level="plain"))
    domain.requests.receive(request, ADA)
    with pytest.raises(RefusedError, match=r"outside this domain's limits"):
        domain.approve(request.study[:8])
    assert domain.requests.get(request.study).decision.decision == "pending"


def test_approve_and_revoke_are_kept_and_entered(domain, code_request):
    study = code_request.study
    domain.requests.receive(code_request, ADA)
    assert domain.approve(study[:8], Terms(rounds=2, release=True)).limits.rounds == 2
    assert domain.requests.get(study).decision.limits.release
    with pytest.raises(RefusedError, match="is approved"):
        domain.reject(study[:8], "no")
    with pytest.raises(InputError, match=r"The reason is empty\. Nothing was changed"):
        domain.revoke(study[:8], " ")
    domain.revoke(study[:8], "changed my mind")
    assert domain.requests.get(study).decision.decision == "revoked"
    assert domain.requests.decision(study) == domain.requests.get(study).decision
    with pytest.raises(RefusedError, match="no approval to withdraw"):
        domain.revoke(study[:8], "again")
    domain.reject(study[:8], "never")
    kinds = ["request.approved", "request.revoked", "request.rejected"]
    assert [entry.kind for entry in domain.ledger.entries()][-3:] == kinds
    assert domain.ledger.entries()[-3].facts["limits"]["rounds"] == 2


def test_approving_again_changes_what_is_given_and_keeps_the_rest(domain, code_request):
    domain.requests.receive(code_request, ADA)
    first = domain.approve(code_request.study, Terms(rounds=2, hours="19:00-07:00", days=7))
    again = domain.approve(code_request.study, Terms(release=True))
    assert again.limits == first.limits.model_copy(update={"release": True})
    longer = domain.approve(code_request.study, Terms(days=70, rounds=99))
    assert longer.limits.expires_s > first.limits.expires_s
    assert longer.limits.rounds == 3, "never more than the plan asks for"
    assert longer.limits.release


def test_an_approval_is_never_wider_than_plan_and_policy(domain, code_request):
    policy = domain.config.policy.model_copy(update={"max_rounds": 3, "minimum_cohort": 2})
    config = domain.config.model_copy(update={"policy": policy})
    terms = Terms(rounds=9, minimum_cohort=2, metrics=("examples", "heldout_loss", "heldout_tokens", "train_loss"))
    plan = code_request.plan.model_copy(update={"metrics": ("heldout_loss", "heldout_tokens", "examples")})
    limits = approve(config, CodeRequest.new(plan, "x = 1\n"), checked=(), reason="", terms=terms).limits
    assert limits.rounds == 3
    assert limits.metrics == ("heldout_loss", "heldout_tokens", "examples")


def test_a_number_that_rounds_need_cannot_be_left_out(domain, code_request):
    domain.requests.receive(code_request, ADA)
    with pytest.raises(RefusedError, match="Without heldout_loss no round"):
        domain.approve(code_request.study, Terms(metrics=("examples", "heldout_tokens")))
    assert domain.requests.get(code_request.study).decision.decision == "pending"


def test_a_bundle_swapped_after_the_approval_is_not_run(domain, code_request):
    domain.requests.receive(code_request, ADA)
    domain.approve(code_request.study)
    recipe = domain.requests.recipe_path(code_request.study)
    recipe.chmod(0o600)
    recipe.write_text("evil = 1\n")
    with pytest.raises(UntrustedError, match="changed on disk"):
        domain.requests.get(code_request.study)
    recipe.write_text(code_request.files["train.py"])
    assert domain.requests.get(code_request.study).request == code_request
    (recipe.parent / "extra.py").write_text("evil = 1\n")
    with pytest.raises(UntrustedError, match="changed on disk"):
        domain.requests.get(code_request.study)


def test_the_same_request_again_does_not_touch_the_frozen_copy_or_the_decision(domain, code_request):
    assert domain.requests.receive(code_request, ADA)
    domain.approve(code_request.study)
    assert not domain.requests.receive(code_request, "eve@z.org")
    stored = domain.requests.get(code_request.study)
    assert (stored.researcher, stored.decision.decision) == (ADA, "approved")


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


def test_an_epsilon_that_would_limit_nothing_is_not_approved(domain, code_request):
    domain.requests.receive(code_request, ADA)
    with pytest.raises(RefusedError, match="no differential privacy: an epsilon would limit nothing"):
        domain.approve(code_request.study, Terms(epsilon=1.0))
    assert domain.requests.get(code_request.study).decision.decision == "pending"
    # An approval that an older version gave with one can be changed, and loses it.
    old = approve(domain.config, code_request, checked=(), reason="")
    old = old.model_copy(update={"limits": old.limits.model_copy(update={"epsilon": 1.0})})
    domain.requests.decide(old)
    assert domain.approve(code_request.study, Terms(rounds=2)).limits.epsilon is None
    domain.requests.receive(private(code_request), ADA)
    assert domain.approve(private(code_request).study, Terms(epsilon=1.0)).limits.epsilon == 1.0


def test_with_a_budget_a_study_needs_a_privacy_section_within_it(domain, code_request):
    assert decide(domain, private(code_request), epsilon=8.0).decision == "approved"
    for request in (code_request, private(code_request)):
        decision = decide(domain, request, epsilon=7.5)
        assert decision.decision == "rejected"
        assert "an epsilon of at most 7.5, the budget of these data" in decision.reason
