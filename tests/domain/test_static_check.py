import ast
import os
import random
import subprocess
import sys
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpriv.domain.finding import LOOKED_FOR, lines_of, visible
from fedpriv.domain.static_check import MOST_FINDINGS, findings
from fedpriv.training.recipe import stock_recipe
from tests.domain.honest import HONEST
from tests.domain.snippets import BAD

SHORT = {name: code for name, (_, code) in BAD.items() if len(code) < 2000}


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_found_as_what_it_is(name):
    category, code = BAD[name]
    found = findings({"train.py": code})
    assert category in {finding.category for finding in found}
    for finding in found:
        assert finding.file == "train.py"
        assert 0 <= finding.line <= len(lines_of(code))
        assert finding.sentence.endswith(".")


@pytest.mark.parametrize("name", BAD)
def test_it_is_found_inside_a_whole_recipe_too(name):
    category, code = BAD[name]
    if category == "unreadable" or name == "an encoding":
        pytest.skip("this is about a whole file")
    text = f"{stock_recipe()}\n\n{code}\n"
    before = stock_recipe().count("\n") + 2
    assert any(f.category == category and f.line > before for f in findings({"train.py": text}))


@pytest.mark.parametrize("name", HONEST)
def test_honest_recipes_give_information_at_most(name):
    ast.parse(HONEST[name])
    found = findings({"train.py": HONEST[name], "helper.py": "def half(x):\n    return x / 2\n"})
    assert [finding for finding in found if finding.severity != "information"] == []


def test_the_stock_recipe_has_no_finding():
    assert findings({"plan.yaml": "title: x", "train.py": stock_recipe()}) == ()


def test_a_sentence_is_plain():
    (finding, *_) = findings({"train.py": "import math\n\nimport socket\n"})
    assert finding.sentence == (
        "Line 3 imports what can open a network connection (socket). The sandbox has no network, so it would fail "
        "there; code for training has no reason to try."
    )
    assert finding.code == "import socket"
    assert finding.severity == "danger"


def test_bandit_agrees_where_it_has_a_rule():
    (finding, *_) = findings({"train.py": "import pickle\nx = pickle.loads(b'')\n"})
    assert finding.analyser == "fedpriv, bandit B403"


@pytest.mark.parametrize("comment", ["# nosec", "# nosec B602", "# noqa: S602", "# type: ignore"])
def test_a_comment_silences_nothing(comment):
    found = findings({"train.py": f"import subprocess\nsubprocess.call('x', shell=True)  {comment}\n"})
    assert {finding.line for finding in found if finding.category == "subprocess"} == {1, 2}


@pytest.mark.parametrize("name", ["json.py", "numpy.py", "torch/__init__.py", "fedpriv/training/recipe.py"])
def test_a_file_that_would_be_taken_for_a_library_is_named(name):
    (finding,) = findings({"train.py": stock_recipe(), name: "x = 1\n"})
    assert (finding.severity, finding.category, finding.file) == ("danger", "replaced-code", name)


def test_a_second_train_py_is_named():
    (finding,) = findings({"train.py": stock_recipe(), "sub/train.py": "x = 1\n"})
    assert (finding.severity, finding.category, finding.file) == ("warning", "obfuscation", "sub/train.py")


def test_files_that_are_no_code_are_looked_at_as_text():
    blob = "QUJD" * 60
    found = findings({"train.py": stock_recipe(), "notes.txt": f"import os\n{blob}\n", "a.json": f'{{"x": "{blob}"}}'})
    assert [(f.file, f.line, f.category) for f in found] == [
        ("a.json", 1, "obfuscation"),
        ("notes.txt", 2, "obfuscation"),
        ("notes.txt", 1, "dynamic-code"),
    ]


def test_the_most_severe_come_first_and_a_flood_is_counted():
    code = "print('x')\n" * 500 + "import socket\n"
    found = findings({"train.py": code})
    assert found[0].category == "network"
    assert len(found) == MOST_FINDINGS + 1
    assert any("has 301 more findings" in finding.sentence for finding in found)


def test_what_is_too_large_to_be_read_is_said():
    long = findings({"train.py": "x = 1\n" * 3000})
    assert ["has 3000 lines" in finding.sentence for finding in long] == [True]
    larger = findings({"train.py": "x = 1\n" * 60_000 + "import socket\n"})
    assert [(finding.severity, finding.category) for finding in larger] == [("danger", "unreadable")]


def test_text_of_a_request_cannot_do_anything_to_a_terminal():
    code = "x = '\x1b[2J\x07\u202e'\rimport socket\n"
    for finding in findings({"train.py": code}):
        assert finding.code.isprintable()
        assert finding.sentence.isprintable()
    assert visible("a\tb\x1b[0m\r\u200b") == "a    b<U+001B>[0m<U+000D><U+200B>"
    assert len(visible("\x1b" * 10_000)) == 160


def test_every_category_has_words():
    assert {category for category, _ in BAD.values()} == set(LOOKED_FOR)


def test_looking_leaves_no_trace(tmp_path):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    code = (
        "import warnings; before = warnings.formatwarning\n"
        "from fedpriv.domain.static_check import findings\n"
        "print(len(findings({'train.py': 'import os; open(chr(120), chr(119)); os.system(chr(120))'})))\n"
        "assert warnings.formatwarning is before\n"
    )
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert int(done.stdout) > 1
    assert set(tmp_path.rglob("*")) == {home, here}


def check_any(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for finding in findings({"train.py": text, "more.txt": text, "sub/x.py": text}):
            assert finding.sentence.isprintable()
            assert finding.code.isprintable()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(), max_size=200))
def test_no_text_makes_it_raise(text):
    check_any(text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(sorted(SHORT.values())), max_size=4), st.randoms(use_true_random=False))
def test_no_mixture_of_code_makes_it_raise(parts, chance: random.Random):
    text = "\n".join(parts)
    for _ in range(chance.randrange(6)):
        if text:
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice("()[]:=.,'\"\\\n\t *@xé\x00") + text[at + chance.randrange(3) :]
    check_any(text)
