import json
from dataclasses import replace
from math import prod

import pytest

from fedpriv.errors import ConfigError, ExistsError, TrainingError
from fedpriv.files import write_json
from fedpriv.protection.groups import groups_of
from fedpriv.researcher.sensitivity import (
    SensitivityMap,
    TensorShare,
    keep_map,
    sensitivity_map,
    write_into_draft,
)
from fedpriv.researcher.study_folder import BEFORE_FILE
from fedpriv.study import parse_plan
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.training import ensure_model, lora_layout
from fedpriv.training.sensitivity import Sensitivity


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return ensure_model("tiny", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def tiny_map(tiny):
    plan = parse_plan(PLAN)
    return sensitivity_map(plan, tiny, notes=4)


PLAN = f"""
researcher: {{email: ada@y.org, fingerprint: "{"1" * 64}"}}
cohort:
- {{email: a@x.org, fingerprint: "{"2" * 64}"}}
- {{email: b@x.org, fingerprint: "{"3" * 64}"}}
base_model: {{name: tiny}}
training: {{steps: 2, batch_size: 2}}
"""


def a_map(shares, *, seal=0.9, level="masked"):
    names = [f"m.layers.{n}.w" for n in range(len(shares))]
    found = tuple(TensorShare(tensor=name, parameters=8, share=s) for name, s in zip(names, shares, strict=True))
    spread = dict(zip(names, shares, strict=True))
    return SensitivityMap(shares=found, seal=seal, level=level, measured=Sensitivity(spread=spread, notes=4, steps=2))


@pytest.mark.parametrize(
    ("shares", "seal", "sealed"),
    [
        ([0.5, 0.3, 0.15, 0.05], 0.9, 3),
        ([0.5, 0.3, 0.15, 0.05], 0.8, 2),
        ([0.5, 0.3, 0.15, 0.05], 0.01, 1),
        ([0.5, 0.3, 0.15, 0.05], 1.0, 4),
        ([0.1] * 10, 0.3, 3),  # 0.1 + 0.1 + 0.1 is a little more than 0.3 in floats
        ([0.1] * 10, 0.8, 8),  # and eight of them a little less than 0.8
        ([1.0, 0.0], 1.0, 1),
    ],
)
def test_the_fewest_tensors_that_make_up_the_wanted_part_stay_sealed(shares, seal, sealed):
    found = a_map(shares, seal=seal)
    assert len(found.sealed) == sealed
    assert found.sealed + found.others == found.shares


def test_the_rule_names_the_less_protected_so_that_the_rest_is_sealed():
    before = ProtectionChoice(level="ckks", bits=6, clip=0.5, rules=(LevelRule(layers=(1,), level="plain"),))
    after = a_map([0.6, 0.35, 0.05], level="ckks-tuned").protection(before)
    assert after == ProtectionChoice(
        level="sealed", bits=6, clip=0.5, rules=(LevelRule(tensors=("m.layers.2.w",), level="ckks-tuned"),)
    )
    assert a_map([0.6, 0.4], seal=1).protection(before).rules == ()


def test_the_map_of_the_tiny_model_divides_its_adapter(tiny, tiny_map):
    layout = lora_layout(tiny.folder, parse_plan(PLAN).lora)
    assert sum(share.share for share in tiny_map.shares) == pytest.approx(1)
    assert [s.share for s in tiny_map.shares] == sorted((s.share for s in tiny_map.shares), reverse=True)
    tensors = {name: prod(shape) for name, shape in layout.items()}
    assert {share.tensor: share.parameters for share in tiny_map.shares} == tensors
    groups = {group.level: group for group in groups_of(tiny_map.protection(ProtectionChoice()), tensors)}
    assert {span.name for span in groups["sealed"].spans} == {share.tensor for share in tiny_map.sealed}
    assert {span.name for span in groups["masked"].spans} == {share.tensor for share in tiny_map.others}


def test_the_text_to_paste_is_a_plan_with_that_protection(tiny_map):
    pasted = parse_plan(PLAN + tiny_map.rules_text())
    assert pasted.protection == tiny_map.protection(ProtectionChoice())


def test_the_map_is_kept_as_json(study, tiny_map):
    kept = json.loads(keep_map(study, tiny_map).read_text())
    assert kept["sealed_share"] >= kept["seal"] == 0.9
    assert {row["level"] for row in kept["tensors"]} == {"sealed", "masked"}
    assert [row["tensor"] for row in kept["tensors"]] == [share.tensor for share in tiny_map.shares]


def test_the_rules_go_into_a_draft_and_its_old_plan_is_kept(study, tiny_map):
    path = study.folder.root / "plan.yaml"
    old = path.read_text() + "# a comment of mine\n"
    path.write_text(old)
    backup = write_into_draft(study, tiny_map)
    assert (backup.name, backup.read_text()) == (BEFORE_FILE, old)
    assert study.plan.protection == tiny_map.protection(parse_plan(old).protection)
    assert study.plan.model_copy(update={"protection": ProtectionChoice()}) == parse_plan(old)
    assert BEFORE_FILE not in study.folder.draft().files


def test_a_submitted_plan_is_never_edited(study, tiny_map):
    write_json(study.folder.state / "submitted.json", {"study": study.folder.draft().study})
    before = (study.folder.root / "plan.yaml").read_bytes()
    with pytest.raises(ExistsError, match="submitted already"):
        write_into_draft(study, tiny_map)
    assert (study.folder.root / "plan.yaml").read_bytes() == before


@pytest.mark.parametrize("seal", [0, -1, 1.1, float("nan")])
def test_a_part_that_is_none_is_refused(tiny, seal):
    with pytest.raises(ConfigError, match="--seal"):
        sensitivity_map(parse_plan(PLAN), tiny, seal=seal)


def test_rules_that_would_seal_everything_are_refused(tiny):
    with pytest.raises(ConfigError, match="would be sealed too"):
        sensitivity_map(parse_plan(PLAN), tiny, level="sealed")


def test_own_examples_are_measured_in_place_of_the_mock(tiny, tmp_path, tiny_map):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"text": f"note {n} about {n * 7} things"}) + "\n" for n in range(5)))
    found = sensitivity_map(parse_plan(PLAN), tiny, notes=4, examples=path)
    assert found.measured.spread != tiny_map.measured.spread


def test_where_lora_a_is_never_sent_no_rule_names_it(tiny):
    found = sensitivity_map(parse_plan(PLAN + "aggregation: {averaging: b_only}\n"), tiny, notes=4)
    assert all(share.tensor.endswith("lora_B.weight") for share in found.shares)
    assert sum(share.share for share in found.shares) == pytest.approx(1)


@pytest.fixture(scope="module")
def by_attack(tiny):
    return sensitivity_map(parse_plan(PLAN), tiny, by="attack", notes=10)


def test_by_attack_the_first_block_s_first_factor_stays_sealed(by_attack):
    assert by_attack.by == "attack"
    top = {share.tensor for share in by_attack.shares[:2]}
    assert top == {f"base_model.model.model.layers.0.self_attn.{x}_proj.lora_A.weight" for x in "qv"}
    assert all(share.leaks for share in by_attack.shares[:2])
    assert top <= {share.tensor for share in by_attack.sealed}
    row = by_attack.as_json()["tensors"][0]
    assert row["low"] <= row["named"] <= row["high"]
    assert "spread" not in row
    assert sum(share.share for share in by_attack.shares) == pytest.approx(1)


def test_by_attack_whatever_leaks_stays_sealed_though_the_seal_is_reached(by_attack):
    small = replace(by_attack, seal=1e-9)
    leaking = {share.tensor for share in small.shares if share.leaks}
    assert leaking <= {share.tensor for share in small.sealed}
    assert not leaking & {share.tensor for share in small.others}
    assert {*small.sealed, *small.others} == set(small.shares)


def test_too_few_or_too_short_notes_for_an_attack_are_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="too few to attack"):
        sensitivity_map(parse_plan(PLAN), tiny, by="attack", notes=4)
    path = tmp_path / "short.jsonl"
    path.write_text('{"text": "stable"}\n' * 12)
    with pytest.raises(TrainingError, match="No note has"):
        sensitivity_map(parse_plan(PLAN), tiny, by="attack", notes=5, examples=path)
