import pytest

from fedpriv.errors import TrainingError
from fedpriv.study.plan import Plan
from fedpriv.study.request import CodeRequest
from fedpriv.study.validation import validate_section
from fedpriv.training import stock_recipe
from fedpriv.training.recipe import load_recipe, recipe_line


def test_stock_recipe_is_short_readable_and_may_be_submitted(tmp_path):
    text = stock_recipe()
    assert len(text.splitlines()) <= 40
    assert all(ord(character) < 128 for character in text)
    member = {"email": "a@example.org", "fingerprint": "0" * 64}
    cohort = [member, {"email": "b@example.org", "fingerprint": "1" * 64}]
    researcher = {"email": "r@example.org", "fingerprint": "2" * 64}
    plan = {"researcher": researcher, "cohort": cohort, "base_model": {"name": "tiny"}}
    assert CodeRequest.new(validate_section(Plan, plan, source="plan"), text).files["train.py"] == text
    (tmp_path / "train.py").write_text(text)
    assert callable(load_recipe(tmp_path / "train.py"))


def test_recipe_without_train_is_refused(tmp_path):
    (tmp_path / "train.py").write_text("x = 1\n")
    with pytest.raises(TrainingError, match=r"no function train\(context\)"):
        load_recipe(tmp_path / "train.py")


@pytest.mark.parametrize(("text", "line"), [("x = 1\n\nx / 0\n", 3), ("x = 1\ndef f(:\n", 2)])
def test_line_of_a_failing_recipe(tmp_path, text, line):
    (tmp_path / "train.py").write_text(text)
    with pytest.raises((ZeroDivisionError, SyntaxError)) as caught:
        load_recipe(tmp_path / "train.py")
    assert recipe_line(caught.value) == line
