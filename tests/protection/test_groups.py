import fnmatch
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ProtectionError
from fedpriv.protection.groups import Group, Span, groups_of
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice, ProtectionLevel

LEVELS = get_args(ProtectionLevel)
ADAPTER = {
    f"base_model.model.model.layers.{layer}.self_attn.{name}_proj.lora_{half}.weight": 10 * layer + ord(half)
    for layer in range(12)
    for name in "qv"
    for half in "AB"
}
patterns = st.sampled_from(["*", "*.lora_A.*", "*.q_proj.*", "*.layers.[0-3].*", "*.layers.1?.*", *sorted(ADAPTER)[:3]])


@st.composite
def protections(draw):
    rules = []
    for layers in draw(st.lists(st.booleans(), max_size=4)):
        level = draw(st.sampled_from(LEVELS))
        bits = draw(st.none() | st.integers(4, 16)) if level in ("sealed", "masked") else None
        if layers:
            chosen = draw(st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True))
            rules.append(LevelRule(layers=tuple(chosen), level=level, bits=bits))
        else:
            chosen = draw(st.lists(patterns, min_size=1, max_size=3, unique=True))
            rules.append(LevelRule(tensors=tuple(chosen), level=level, bits=bits))
    level, bits = draw(st.sampled_from(LEVELS)), draw(st.integers(4, 16))
    try:
        return ProtectionChoice(level=level, bits=bits, rules=tuple(rules))
    except ValueError:  # the same pattern in two rules
        return ProtectionChoice(level=level, bits=bits, rules=tuple(rules[:1]))


def expected(protection, name):
    """The level and bits of a tensor, said once more and differently: rules from the last to the first."""
    found = (protection.level, protection.bits)
    for rule in reversed(protection.rules):
        by_layer = any(f".layers.{n}." in name for n in rule.layers)
        if by_layer or any(fnmatch.filter([name], pattern) for pattern in rule.tensors):
            found = (rule.level, protection.bits if rule.bits is None else rule.bits)
    return (found[0], found[1] if found[0] in ("sealed", "masked") else 0)


@settings(deadline=None)
@given(protections(), st.dictionaries(st.sampled_from(sorted(ADAPTER)), st.integers(1, 50)), st.randoms())
def test_every_parameter_lies_in_exactly_one_group(protection, some, random):
    tensors = ADAPTER | some
    groups = groups_of(protection, tensors)
    covered = sorted(n for group in groups for span in group.spans for n in range(span.start, span.start + span.size))
    assert covered == list(range(sum(tensors.values())))
    for group in groups:
        assert group.parameters == sum(tensors[span.name] for span in group.spans) > 0
        assert [span.name for span in group.spans] == sorted(span.name for span in group.spans)
        assert all((group.level, group.bits) == expected(protection, span.name) for span in group.spans)
    keys = [(LEVELS.index(group.level), -group.bits) for group in groups]
    assert keys == sorted(set(keys))
    names = list(tensors)
    random.shuffle(names)
    assert groups_of(protection, {name: tensors[name] for name in names}) == groups


def test_without_rules_there_is_one_group_in_sorted_order():
    assert groups_of(ProtectionChoice(bits=4), {"b": 2, "a": 3}) == (
        Group("sealed", 4, (Span("a", 0, 3), Span("b", 3, 2))),
    )
    assert groups_of(ProtectionChoice(level="ckks-tuned"), {"a": 1})[0].bits == 0


def test_the_first_rule_about_a_tensor_counts():
    rules = (
        LevelRule(tensors=("*.1.q",), level="sealed", bits=16),
        LevelRule(layers=(1,), level="masked", bits=6),
        LevelRule(tensors=("*.q",), level="plain"),
    )
    tensors = {f"m.h.{layer}.{name}": 1 for layer in (0, 1) for name in "qv"}
    found = groups_of(ProtectionChoice(rules=rules), tensors)
    assert {span.name: (group.level, group.bits) for group in found for span in group.spans} == {
        "m.h.0.q": ("plain", 0),
        "m.h.0.v": ("sealed", 10),
        "m.h.1.q": ("sealed", 16),
        "m.h.1.v": ("masked", 6),
    }


def test_layer_one_is_not_layer_eleven():
    found = groups_of(ProtectionChoice(rules=(LevelRule(layers=(1,), level="masked"),)), ADAPTER)
    masked = next(group for group in found if group.level == "masked")
    assert len(masked.spans) == 4
    assert all(".layers.1." in span.name for span in masked.spans)


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        (LevelRule(tensors=("*.k_proj.*",), level="masked"), r"\*\.k_proj\.\*"),
        (LevelRule(tensors=("*", "q_proj"), level="masked"), "names q_proj"),
        (LevelRule(tensors=("*.LORA_A.*",), level="masked"), "LORA_A"),
        (LevelRule(layers=(0, 12), level="masked"), "layer 12"),
    ],
)
def test_a_rule_about_nothing_is_refused_by_name(rule, named):
    first = LevelRule(layers=(11,), level="plain")
    with pytest.raises(ProtectionError, match=rf"^Rule 2 .*{named}"):
        groups_of(ProtectionChoice(rules=(first, rule)), ADAPTER)


@pytest.mark.parametrize("tensors", [{}, {"a": 0}, {"a": 3, "b": -1}])
def test_nothing_to_protect_is_refused(tensors):
    with pytest.raises(ProtectionError):
        groups_of(ProtectionChoice(), tensors)
