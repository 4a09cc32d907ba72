from hypothesis import given
from hypothesis import strategies as st

from fedpriv.domain.finding import lines_of, visible
from fedpriv.training.recipe import stock_recipe
from fedpriv.widgets.highlight import LONGEST_LINE, highlighted

PYTHON = st.lists(
    st.sampled_from(
        [
            *"()[]{}'\"\\#:=.,\t\r\n\f _0",
            '"""',
            "'''",
            "def ",
            "class f",
            "import os",
            "    ",
            "f'{x}'",
            "0x_",
            "é",
            "\u202e",
            "if",
        ]
    ),
    max_size=60,
).map("".join)


def plain(lines):
    return ["".join(text for _, text in line) for line in lines]


@given(PYTHON | st.text(max_size=80), st.sampled_from(["a.py", "plan.yaml", "a.txt", "a.json"]))
def test_whatever_the_text_its_lines_are_shown_to_the_last_character(text, name):
    assert plain(highlighted(name, text)) == [visible(line, LONGEST_LINE) for line in lines_of(text)]


def classes(name, text):
    return [[(label, part) for label, part in line if label] for line in highlighted(name, text)]


def test_python_s_words_are_told_apart():
    text = '@wraps\ndef fit(x):  # why\n    return len("a") + 12\nx.len\n"""two\nlines"""\n'
    assert classes("train.py", text) == [
        [],
        [("keyword", "def"), ("name", "fit"), ("comment", "# why")],
        [("keyword", "return"), ("builtin", "len"), ("string", '"a"'), ("number", "12")],
        [],
        [("string", '"""two')],
        [("string", 'lines"""')],
    ]
    assert {label for line in classes("train.py", stock_recipe()) for label, _ in line} >= {"keyword", "string", "name"}


def test_where_it_is_no_python_any_more_the_rest_is_plain():
    found = classes("a.py", "import os\nx = '''never closed\nimport sys\n")
    assert found == [[("keyword", "import")], [], []]


def test_keys_and_comments_of_yaml():
    text = "# top\ntraining:\n  - rounds: 3  # few\nurl: http://x\nmark: 'no # comment'\n"
    assert classes("plan.yaml", text) == [
        [("comment", "# top")],
        [("name", "training")],
        [("name", "rounds"), ("comment", "# few")],
        [("name", "url")],
        [("name", "mark")],
    ]


def test_what_is_too_long_is_shown_without_colours():
    assert classes("a.py", "import os\n" * 15_000) == [[]] * 15_000
    assert classes("a.py", "import os\n" + "x" * 1001) == [[], []]
    assert highlighted("a.py", "x" * 30_000)[0][0][1].endswith("…"), "and a cut is shown"
