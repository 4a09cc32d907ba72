"""Rounds that send one of LoRA's factors, and the server optimiser, through a domain's own sealing and opening."""

import numpy as np
import pytest

from fedpriv.errors import RefusedError
from fedpriv.study.aggregation import AggregationChoice
from fedpriv.study.averaging import ServerChoice, trained_tensors
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.training.adapter import adapter_digest, flatten
from fedpriv.training.server import ServerState, server_step
from tests.domain.cohort import MEMBERS, PREFIX, START, Cohort

FIRST, SECOND, THIRD = MEMBERS
CHANGES = {FIRST: 0.012, SECOND: 0.006, THIRD: 0.0}
A, B = f"{PREFIX}.lora_A.weight", f"{PREFIX}.lora_B.weight"
PLANS = {
    "sealed": ProtectionChoice(clip=0.02),
    "masked": ProtectionChoice(clip=0.02, level="masked"),
    "hybrid": ProtectionChoice(clip=0.02, rules=(LevelRule(tensors=("*q_proj*",), level="masked", bits=12),)),
    "rounded to 4 bits": ProtectionChoice(clip=0.02, bits=4),
}


def make(tmp_path, ada, averaging="both", *, protection="sealed", server=None, **options):
    aggregation = AggregationChoice(averaging=averaging, server=server or ServerChoice())
    return Cohort(tmp_path, ada, protection=PLANS[protection], aggregation=aggregation, **options)


def whole_round(cohort, number, changes=CHANGES, **options):
    updates = cohort.seal(number, changes, **options)
    manifest, data = cohort.aggregate(number, updates, attempt=options.get("attempt", 1))
    for email in changes:
        cohort.open(email, manifest, data)
    return manifest, data


@pytest.mark.parametrize("protection", ["sealed", "masked", "hybrid"])
@pytest.mark.parametrize("averaging", ["both", "b_only", "alternate"])
def test_all_domains_move_what_the_round_sends_and_nothing_else(tmp_path, ada, averaging, protection):
    cohort = make(tmp_path, ada, averaging, protection=protection)
    for number in (1, 2, 3):
        manifest, _ = whole_round(cohort, number)
        sent = trained_tensors(averaging, START, number)
        assert manifest.updates[0].header.parameters == sum(START[name].size for name in sent)
        assert len({adapter_digest(context.adapter(number)) for context in cohort.domains.values()}) == 1
        assert len({context.scales(number + 1) for context in cohort.domains.values()}) == 1
        before, after = (cohort.domains[FIRST].adapter(n) for n in (number - 1, number))
        for name in START:
            if name in sent:
                assert float((after[name] - before[name]).mean()) == pytest.approx(0.006, abs=3e-4)
            else:
                assert after[name].tobytes() == before[name].tobytes()


def test_a_rule_about_a_factor_that_is_never_sent_is_refused_by_name(tmp_path, ada, monkeypatch):
    monkeypatch.setitem(PLANS, "odd", ProtectionChoice(rules=(LevelRule(tensors=("*.lora_A.*",), level="masked"),)))
    with pytest.raises(Exception, match=r"Rule 1 .* \*\.lora_A\.\*, which no tensor that is sent matches"):
        make(tmp_path, ada, "b_only", protection="odd")


def test_what_rounding_left_out_comes_with_the_next_round_of_the_same_factor(tmp_path, ada):
    cohort = make(tmp_path, ada, "alternate", protection="rounded to 4 bits")
    context = cohort.domains[FIRST]
    for number in (1, 2, 3, 4):
        whole_round(cohort, number)
        path = context.folder.residual_path(number, 1)
        sent = trained_tensors("alternate", START, number)
        assert path.stat().st_size == 4 * sum(START[name].size for name in sent)
    assert context.residual(3) == context.folder.residual_path(1, 1)
    assert context.residual(5) == context.folder.residual_path(3, 1)
    assert context.residual(6) == context.folder.residual_path(4, 1)
    moved = {name: float((context.adapter(4)[name] - START[name]).mean()) for name in START}
    assert moved == {name: pytest.approx(0.012, abs=5e-4) for name in START}  # twice 0.006, with nothing lost


def test_a_residual_waits_for_its_turn_while_rounds_of_the_other_factor_pass(tmp_path, ada):
    """A domain that is left out of round 3 still needs, in round 5, what it left out in round 1."""
    cohort = make(tmp_path, ada, "alternate")
    others = {SECOND: 0.006, THIRD: 0.006}
    whole_round(cohort, 1)
    whole_round(cohort, 2)
    updates = cohort.seal(3, others, members=(SECOND, THIRD))
    manifest, data = cohort.aggregate(3, updates)
    for email in MEMBERS:
        cohort.open(email, manifest, data)
    whole_round(cohort, 4)
    context = cohort.domains[FIRST]
    assert context.residual(5) == context.folder.residual_path(1, 1)
    assert context.residual(6) == context.folder.residual_path(4, 1)
    assert cohort.domains[SECOND].residual(5) == cohort.domains[SECOND].folder.residual_path(3, 1)
    for number in (5, 6):
        whole_round(cohort, number)
    left = [number for number in range(1, 7) if context.folder.residual_path(number, 1).exists()]
    assert left == [1, 4, 5, 6]  # 1 until round 7, the next of its factor, is opened


@pytest.mark.parametrize("averaging", ["both", "b_only", "alternate"])
@pytest.mark.parametrize(
    "server",
    [ServerChoice(optimizer="momentum", beta1=0.5), ServerChoice(optimizer="adam", learning_rate=0.01, tau=1e-4)],
    ids=["momentum", "adam"],
)
def test_every_domain_runs_the_server_optimiser_to_the_same_bits(tmp_path, ada, averaging, server):
    cohort = make(tmp_path, ada, averaging, server=server)
    plan = cohort.request.plan
    adapter, state = START, ServerState()
    for number in (1, 2, 3, 4):
        whole_round(cohort, number)
        update = {name: np.full(START[name].shape, 0.006) for name in trained_tensors(averaging, START, number)}
        adapter, state = server_step(server, plan.server_rate, adapter, update, state)
        assert len({adapter_digest(context.adapter(number)) for context in cohort.domains.values()}) == 1
        files = [context.folder.server_state(number) for context in cohort.domains.values()]
        assert len({path.read_bytes() for path in files}) == 1
        assert files[0].stat().st_mode & 0o777 == 0o600
    found = cohort.domains[FIRST].adapter(4)
    assert {n: float(found[n].mean()) for n in START} == {n: pytest.approx(adapter[n].mean(), rel=0.05) for n in START}
    kept = sorted(path.name for path in files[0].parent.glob("*.server.safetensors"))
    assert kept == ["0003.server.safetensors", "0004.server.safetensors"]


def test_a_later_attempt_starts_from_the_memory_of_the_round_before(tmp_path, ada):
    cohort = make(tmp_path, ada, server=ServerChoice(optimizer="momentum"))
    whole_round(cohort, 1)
    whole_round(cohort, 2)
    first = flatten(cohort.domains[FIRST].adapter(2))
    cohort.rekey(2)
    whole_round(cohort, 2, attempt=2)
    np.testing.assert_allclose(flatten(cohort.domains[FIRST].adapter(2)), first, atol=2e-4)  # rounded anew, no more


def test_opening_again_after_a_kill_before_the_record_changes_nothing(tmp_path, ada, monkeypatch):
    cohort = make(tmp_path, ada, server=ServerChoice(optimizer="adam"))
    whole_round(cohort, 1)
    updates = cohort.seal(2, CHANGES)
    manifest, data = cohort.aggregate(2, updates)
    context = cohort.domains[FIRST]

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedpriv.domain.study_folder.StudyFolder.keep_opened", killed)
        with pytest.raises(KeyboardInterrupt):
            cohort.open(FIRST, manifest, data)
    assert context.folder.opened(2) is None
    before = adapter_digest(context.adapter(2)), context.folder.server_state(2).read_bytes()
    for email in MEMBERS:
        cohort.open(email, manifest, data)
    assert (adapter_digest(context.adapter(2)), context.folder.server_state(2).read_bytes()) == before
    assert adapter_digest(cohort.domains[SECOND].adapter(2)) == before[0]


@pytest.mark.parametrize("harm", ["gone", "cut", "other type", "not finite"])
def test_a_memory_that_is_gone_or_changed_is_not_made_up(tmp_path, ada, harm):
    from safetensors.numpy import load, save

    cohort = make(tmp_path, ada, server=ServerChoice(optimizer="momentum"))
    whole_round(cohort, 1)
    path = cohort.domains[FIRST].folder.server_state(1)
    arrays = load(path.read_bytes())
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    elif harm == "other type":
        path.write_bytes(save({name: array.astype(np.float32) for name, array in arrays.items()}))
    else:
        path.write_bytes(save({name: np.full_like(array, np.inf) for name, array in arrays.items()}))
    updates = cohort.seal(2, CHANGES)
    manifest, data = cohort.aggregate(2, updates)
    with pytest.raises(RefusedError, match="memory"):
        cohort.open(FIRST, manifest, data)
    assert not cohort.domains[FIRST].folder.adapter(2).exists()
    cohort.open(SECOND, manifest, data)


def test_a_private_study_by_patients_sends_lora_b_alone(tmp_path, ada):
    cohort = Cohort(tmp_path, ada, privacy=PrivacyChoice(epsilon=8.0))
    whole = make(tmp_path / "whole", ada)
    assert cohort.domains[FIRST].tensors() == {B: START[B].size}
    sealed = cohort.seal(1, CHANGES)[FIRST], whole.seal(1, CHANGES)[FIRST]
    assert [update.header.parameters for update in sealed] == [80, 120]
    assert A not in cohort.domains[FIRST].turns()


def test_an_update_that_missed_its_round_waits_for_one_that_sends_its_tensors(tmp_path, ada):
    cohort = make(tmp_path, ada, "alternate")
    updates = cohort.seal(1, CHANGES)
    manifest, data = cohort.aggregate(1, {email: updates[email] for email in (SECOND, THIRD)})
    for email in MEMBERS:
        cohort.open(email, manifest, data)
    for number in (2, 3):
        whole_round(cohort, number)
    carried = [cohort.domains[FIRST].folder.sealed(number, 1).carried for number in (1, 2, 3)]
    assert carried == [(), (), (1,)]


def test_a_round_has_the_bits_of_its_ticket_if_the_plan_has_them(tmp_path, ada, monkeypatch):
    monkeypatch.setitem(PLANS, "chosen", ProtectionChoice(clip=0.02, bits_choices=(4, 10)))
    cohort = make(tmp_path, ada, "alternate", protection="chosen")
    for number, bits in zip((1, 2, 3), (None, 4, 4), strict=True):
        manifest, _ = whole_round(cohort, number, bits=bits)
        assert {update.header.bits for update in manifest.updates} == {bits or 10}
        assert len({adapter_digest(context.adapter(number)) for context in cohort.domains.values()}) == 1
    with pytest.raises(RefusedError, match="does not provide for a round of 8 bits"):
        cohort.seal(4, CHANGES, bits=8)


def test_without_choices_a_ticket_cannot_ask_for_other_bits(tmp_path, ada):
    cohort = make(tmp_path, ada)
    with pytest.raises(RefusedError, match="does not provide for a round of 4 bits"):
        cohort.seal(1, CHANGES, bits=4)
