import json
import os

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from study_plans import RECIPE, SMALL, as_yaml, plans

from fedpriv.errors import PlanError, UntrustedError
from fedpriv.study.plan import Plan, parse_plan
from fedpriv.study.request import MAX_BUNDLE_BYTES, MAX_FILES, CodeRequest, bundle_digest, check_bundle, code_digest

PLAN = Plan.model_validate_json(json.dumps(SMALL)).to_yaml()
FILES = {"plan.yaml": PLAN, "train.py": RECIPE}


def refusal(**extra):
    with pytest.raises(UntrustedError) as caught:
        check_bundle(FILES | extra)
    return caught.value.what


# -- the study id ----------------------------------------------------------------------------------------------------

some_text = st.text(st.characters(codec="utf-8"), max_size=12)
bundles = st.dictionaries(some_text, some_text, max_size=4)


@given(bundles, bundles)
def test_different_bundles_have_different_digests(one, other):
    assert (bundle_digest(one) == bundle_digest(other)) == (one == other)


@given(st.text("ab", max_size=6), st.text("ab", max_size=6), st.integers(0, 6))
def test_no_byte_can_move_between_two_files(first, second, cut):
    assume(cut)
    assume(second[:cut])
    before = {"a.py": first, "b.py": second}
    after = {"a.py": first + second[:cut], "b.py": second[cut:]}
    assert bundle_digest(before) != bundle_digest(after)


@given(st.text("ab", min_size=1, max_size=6), st.text("ab", max_size=6))
def test_no_byte_can_move_between_a_name_and_its_content(name, text):
    assert bundle_digest({name: "a" + text}) != bundle_digest({name + "a": text})


def test_the_digest_does_not_depend_on_the_order_of_files():
    assert bundle_digest(FILES) == bundle_digest(dict(reversed(FILES.items())))


def test_the_digest_is_what_it_always_was():
    """A change here would change the id of every study there is."""
    expected = "a6e1f9a3d982435a63e30ff4b6ab7d774f751f4d2bee6ab300a655693af33712"
    assert bundle_digest({"plan.yaml": "a: 1\n", "train.py": "pass\n"}) == expected


@settings(deadline=None, max_examples=30)
@given(plans())
def test_a_new_request_reads_back_from_its_files(plan):
    request = CodeRequest.new(plan, RECIPE, "{person}")
    again = CodeRequest.from_files(request.files)
    assert (again, again.study) == (request, request.study)
    assert again.plan == plan


# -- what a person could not read completely ---------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["plan.yaml", "train.py"])
def test_a_bundle_without_plan_or_code_is_refused(missing):
    with pytest.raises(UntrustedError, match=f"no {missing}"):
        CodeRequest.from_files({name: text for name, text in FILES.items() if name != missing})


@pytest.mark.parametrize(
    "name",
    [
        "../train.py",
        "a/../../b.py",
        "/etc/b.py",
        "./train.py",
        "a//b.py",
        "a/./b.py",
        "train.py/",
        "//train.py",
        ".hidden.py",
        "a/.git/b.py",
        "~/b.py",
        "a b.py",
        "a\\b.py",
        "a\nb.py",
        "a\x00.py",
        "tr\u0430in.py",
        "\ud800.py",
        "%2e%2e.py",
        "c:b.py",
        "",
        ".",
    ],
)
def test_a_name_that_is_not_the_one_spelling_of_a_plain_path_is_refused(name):
    assert "unusual name" in refusal(**{name: "pass\n"})


@pytest.mark.parametrize("name", ["weights.pt", "run.sh", "code.pyc", "Makefile", "a.py.exe", "train.PY"])
def test_a_file_that_is_not_text_by_its_name_is_refused(name):
    assert "not of a readable kind" in refusal(**{name: "x"})


@pytest.mark.parametrize("names", [("Train.py",), ("notes/a.md", "Notes/A.md"), ("a.py", "a.py/b.py"), ("PLAN.yaml",)])
def test_two_names_that_some_system_takes_for_one_are_refused(names):
    assert "take for one" in refusal(**dict.fromkeys(names, "x"))


@pytest.mark.parametrize("name", ["helpers.py", "src/my_code-2/a.py", "README.md", "words.v2.json"])
def test_ordinary_names_are_taken(name):
    check_bundle(FILES | {name: "x = 'Grüße, 世界 🙂'\r\n\tpass\n"})


@pytest.mark.parametrize(
    "character",
    [
        "\u200b",  # zero width space
        "\u202e",  # right-to-left override
        "\u2066",  # isolate
        "\ufeff",  # byte order mark
        "\u00ad",  # soft hyphen
        "\u3164",  # Hangul filler, a letter to Python
        "\u115f",
        "\ufe0f",  # variation selector
        "\U000e0100",  # variation selector supplement: carries hidden bytes
        "\U000e0041",  # tag
        "\u2800",  # blank Braille pattern
        "\u2028",  # a line separator that editors show as nothing
        "\x00",
        "\x0c",
        "\x1b",  # terminal escapes
        "\x7f",
        "\x85",
        "\ud800",  # a lone surrogate
        "\ue000",  # private use
    ],
)
def test_code_with_invisible_characters_is_refused(character):
    assert "invisible characters" in refusal(**{"train.py": f"x = 1{character}\n"})
    assert "invisible characters" in refusal(**{"plan.yaml": PLAN + f"# {character}\n"})


def test_too_many_files_or_bytes_are_refused():
    assert "more than" in refusal(**{f"f{number}.py": "" for number in range(MAX_FILES)})
    assert "more than" in refusal(**{"long.txt": "x" * MAX_BUNDLE_BYTES})
    assert "more than" in refusal(**{"long.txt": "ü" * (MAX_BUNDLE_BYTES // 2 + 1)})


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.text(max_size=30), max_size=4))
def test_any_bundle_is_taken_or_refused_with_a_sentence(extra):
    try:
        check_bundle(FILES | extra)
    except UntrustedError as error:
        assert str(error).endswith(".")


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "more.py").write_text("x = 1\n")
    return tmp_path


def test_a_folder_is_the_same_request_as_its_files(folder):
    request = CodeRequest.from_folder(folder)
    assert request == CodeRequest.from_files(FILES | {"src/more.py": "x = 1\n"})
    assert request.plan == parse_plan(PLAN)


def test_links_and_other_things_in_a_folder_are_refused(folder):
    (folder / "notes.txt").symlink_to("/etc/hostname")
    with pytest.raises(UntrustedError, match="not a plain file"):
        CodeRequest.from_folder(folder)
    (folder / "notes.txt").unlink()
    os.mkfifo(folder / "notes.txt")
    with pytest.raises(UntrustedError, match="not a plain file"):
        CodeRequest.from_folder(folder)


def test_a_link_to_a_folder_is_refused(folder, tmp_path_factory):
    (folder / "lib").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(UntrustedError, match="not a plain file"):
        CodeRequest.from_folder(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "not UTF-8"), (b"x" * (MAX_BUNDLE_BYTES + 1), "too large"), (b"\x80PK", "UTF-8")],
)
def test_files_that_cannot_be_read_by_a_person_are_refused(folder, content, words):
    (folder / "data.txt").write_bytes(content)
    with pytest.raises(UntrustedError, match=words):
        CodeRequest.from_folder(folder)


def test_a_request_with_a_wrong_plan_is_refused(folder):
    (folder / "plan.yaml").write_text("title: only\n")
    with pytest.raises(PlanError, match="cohort: this setting is missing"):
        CodeRequest.from_folder(folder)


# -- the code alone --------------------------------------------------------------------------------------------------


def test_the_code_digest_leaves_out_the_plan_and_nothing_else():
    digest = code_digest(FILES)
    assert digest == bundle_digest({"train.py": RECIPE}) != bundle_digest(FILES)
    assert code_digest(FILES | {"plan.yaml": PLAN + "# more\n"}) == digest
    for name in ("helper.py", "sub/train.py", "sub/plan.yaml", "README.md"):
        assert code_digest(FILES | {name: "x = 1\n"}) != digest
    assert CodeRequest.from_files(FILES).code == digest


# -- the template of a task -------------------------------------------------------------------------------------------


def with_template(text, **task):
    files = {"plan.yaml": as_yaml(task={"template": "own.txt", **task}), "train.py": RECIPE}
    return CodeRequest.from_files(files | ({} if text is None else {"own.txt": text}))


def test_a_template_that_fits_its_task_is_taken():
    assert with_template("{person}: {outcome}.").plan.task.template == "own.txt"


@pytest.mark.parametrize(
    ("text", "task", "words"),
    [
        (None, {}, "has no file own.txt"),
        ("{nobody}", {}, "there is no field {nobody}"),
        ("{outcome}", {"kind": "mortality"}, "uses {outcome}"),
        ("{diagnoses}", {"kind": "icd9_chapters"}, "uses {diagnoses}"),
    ],
)
def test_a_template_that_does_not_is_refused_where_a_request_is_read(text, task, words):
    with pytest.raises(PlanError) as caught:
        with_template(text, **task)
    assert words in caught.value.what
