import pytest

from fedpriv.domain.difference import code_difference, plan_changes
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.training.recipe import stock_recipe

STOCK = {"train.py": stock_recipe()}


def against_stock(text, **more):
    return code_difference(STOCK, {"plan.yaml": "title: x", "train.py": text, **more}, against="the stock recipe")


def test_the_same_code_has_no_difference():
    difference = against_stock(stock_recipe())
    assert difference.changed == ()
    assert difference.in_words == "The code is that of the stock recipe, to the byte."


def test_a_changed_line_is_shown_with_its_surroundings():
    difference = against_stock(stock_recipe().replace("return train_local(context)", "return None"))
    (file,) = difference.changed
    assert (file.kind, file.layout_only) == ("changed", False)
    assert "-    return train_local(context)" in file.lines
    assert "+    return None" in file.lines
    assert sum(line.startswith(" ") for line in file.lines) == 3


def test_other_files_are_named():
    difference = against_stock(stock_recipe(), **{"helper.py": "x = 1\n"})
    (file,) = difference.changed
    assert (file.name, file.kind) == ("helper.py", "added")
    assert difference.in_words == "Against the stock recipe: helper.py is new."
    (gone,) = code_difference({"a.py": "x"}, {}, against="y").changed
    assert gone.kind == "removed"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n\n# done\n",
        lambda text: text.replace("    return train_local(context)", "    return   train_local( context )  # go"),
        lambda text: text.replace("\n", "\r\n"),
    ],
)
def test_layout_is_told_from_code(change):
    difference = against_stock(change(stock_recipe()))
    assert difference.changed[0].layout_only
    assert "Only comments, blank lines and spacing differ" in difference.in_words


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n# nothing\rimport os\n",
        lambda text: "# coding: utf-7\n" + text,
        lambda text: text.replace("How one domain trains", "How a domain trains"),
        lambda text: text + "x = (\n",
        lambda text: text + "if x:\n    a\n    b\n",
    ],
)
def test_what_could_do_something_is_not_called_layout(change):
    assert not against_stock(change(stock_recipe())).changed[0].layout_only


def test_where_a_line_stands_counts():
    one, other = (f"def f():\n    if a:\n        b\n{indent}    c\n" for indent in ("", "    "))
    (file,) = code_difference({"a.py": one}, {"a.py": other}, against="x").changed
    assert not file.layout_only


def test_every_character_of_a_difference_is_visible():
    difference = against_stock("x = '\x1b[2J\u202e'\n\u3164 = 1\n" + "y" * 10_000)
    for line in difference.changed[0].lines:
        assert line.isprintable()
        assert len(line) <= 401
    assert any("<U+001B>[2J<U+202E>" in line for line in difference.changed[0].lines)


def test_a_huge_file_is_not_compared_line_by_line():
    (file,) = against_stock("x = 1\n" * 5000).changed
    assert len(file.lines) == 1
    assert "too many" in file.lines[0]


def test_every_changed_setting_of_a_plan_is_named(plan):
    rules = (LevelRule(layers=(1,), level="masked"),)
    other = plan.model_copy(
        update={
            "training": TrainingChoice(rounds=9, steps=plan.training.steps),
            "lora": LoraChoice(targets=("q_proj",)),
            "protection": ProtectionChoice(rules=rules),
        }
    )
    changes = {change.setting: (change.before, change.after) for change in plan_changes(plan, other)}
    assert changes == {
        "training > rounds": ("3", "9"),
        "lora > targets": ("q_proj, v_proj", "q_proj"),
        "protection > rules": ("none", "layers 1 level masked"),
    }
    assert plan_changes(plan, plan) == ()
