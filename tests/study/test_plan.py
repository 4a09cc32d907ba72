import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from study_plans import SMALL, as_yaml, plans, refusal

from fedpriv.errors import PlanError
from fedpriv.study.plan import Plan, load_plan, parse_plan

PAGE = Path(__file__).parents[2] / "docs" / "plan.md"


# -- what is accepted ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(plans())
def test_a_plan_survives_its_own_text(plan):
    text = plan.to_yaml()
    assert parse_plan(text) == plan
    assert parse_plan(text).to_yaml() == text


def test_what_is_left_out_has_the_default_of_the_page():
    plan = parse_plan(as_yaml())
    assert (plan.training.rounds, plan.lora.rank, plan.protection.level) == (3, 8, "sealed")
    assert plan.aggregation.weights == "fedavg"


def test_the_first_clip_is_about_what_adam_moves_in_a_round_unless_the_plan_gives_one():
    assert parse_plan(as_yaml(training__steps=20, training__learning_rate=1e-3)).first_clip == pytest.approx(0.02)
    assert parse_plan(as_yaml(protection__clip=0.5)).first_clip == 0.5


def test_everyone_sees_the_cohort_in_the_same_order():
    plan = parse_plan(as_yaml())
    assert plan.emails == ("chest@south.example", "heart@north.example")
    assert plan.key_maker == "chest@south.example"
    assert plan.fingerprint_of("rita@lab.example") == "0" * 64
    with pytest.raises(KeyError):
        plan.fingerprint_of("nobody@lab.example")


def test_a_plan_cannot_be_changed():
    plan = parse_plan(as_yaml())
    with pytest.raises(ValidationError):
        plan.training.rounds = 1000


# -- what is refused, in words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training__round": 3}, "training > round: there is no such setting"),
        ({"rounds": 3}, "rounds: there is no such setting"),
        ({"training__max_seconds": "15 min"}, "training > max_seconds: a whole number of seconds is needed"),
        ({"training__max_tokens": "96 tokens"}, "training > max_tokens: a whole number of tokens is needed"),
        ({"training__rounds": "3"}, "training > rounds: a whole number is needed, not '3'"),
        ({"training__rounds": 3.5}, "training > rounds: a whole number is needed"),
        ({"training__rounds": True}, "training > rounds: a whole number is needed"),
        ({"training__learning_rate": "high"}, "training > learning_rate: a number is needed, not 'high'"),
        ({"training__rounds": 0}, "training > rounds: input should be greater than or equal to 1, not 0"),
        ({"training__rounds": 1001}, "less than or equal to 1000"),
        ({"researcher__email": "Rita@lab.example"}, "researcher > email: an address in lower case, such as"),
        (
            {"researcher__fingerprint": "12"},
            "researcher > fingerprint: 64 digits of 0-9 and a-f must stand here, not '12'",
        ),
        ({"dataset": "Our Notes"}, "dataset: a name of at most 48 lower-case letters"),
        (
            {"cohort": [{"email": "heart@north.example", "fingerprint": "1" * 64}]},
            "cohort: at least 2 are needed, not 1",
        ),
        ({"lora__targets": ["q_proj"] * 17}, "lora > targets: at most 16 may stand here"),
        ({"aggregation__weights": "median"}, "aggregation > weights: "),
        ({"aggregation__alpha": 1.0}, "aggregation: alpha has no meaning with the weights fedavg: leave it out"),
        ({"aggregation": {"weights": "custom", "alpha": 1.0}}, "alpha has no meaning with the weights custom"),
        ({"schedule__patience_s": 60}, "schedule: patience_s has no meaning without a quorum, when every domain"),
        (
            {"schedule": {"mode": "buffered", "buffer": 2, "late_updates": "drop"}},
            "late_updates has no meaning in mode buffered",
        ),
        (
            {"schedule": {"mode": "buffered", "buffer": 2, "local_steps": "balanced"}},
            "local_steps has no meaning in mode buffered",
        ),
        ({"aggregation__averaging": "a_only"}, "aggregation > averaging: "),
        ({"aggregation__server": {"optimizer": "adagrad"}}, "aggregation > server > optimizer: "),
        ({"aggregation__server": {"beta1": 0.5}}, "beta1 has no meaning with the optimizer none"),
        ({"aggregation__server": {"optimizer": "momentum", "tau": 0.5}}, "tau has no meaning with the optimizer mom"),
        ({"aggregation__server": {"optimizer": "adam", "beta2": 1.0}}, "aggregation > server > beta2: "),
        ({"training__proximal": -1}, "training > proximal: "),
        (
            {"aggregation__averaging": "alternate", "privacy__epsilon": 8.0},
            "averaging cannot be alternate with privacy of unit patient, which trains lora_B alone",
        ),
        ({"aggregation__averaging": "both", "privacy__epsilon": 8.0}, "averaging cannot be both with privacy"),
        (
            {"aggregation__averaging": "alternate", "schedule": {"mode": "buffered", "buffer": 2}},
            "averaging cannot be alternate in a buffered schedule",
        ),
        ({"training__proximal": 0.1, "privacy__epsilon": 8.0}, "training > proximal has no meaning with privacy"),
        ({"fedpriv": 2}, "fedpriv: "),
        ({"lora__targets": []}, "lora > targets: "),
        ({"lora__targets": ["q_proj.*"]}, "lora > targets > 1: "),
        ({"metrics": ["heldout_loss"]}, "metrics must list examples, heldout_tokens"),
        ({"metrics": ["examples", "heldout_loss", "heldout_tokens", "raw_text"]}, "metrics > 4: "),
        ({"cohort": SMALL["cohort"][:1]}, "cohort: "),
        ({"cohort": [SMALL["cohort"][0], dict(SMALL["cohort"][0])]}, "a domain stands in the cohort twice"),
        (
            {"cohort": [SMALL["cohort"][0], {"email": "b@c.example", "fingerprint": "1" * 64}]},
            "two domains of the cohort have the same fingerprint",
        ),
        ({"researcher": SMALL["cohort"][0]}, "the researcher cannot be a domain of the cohort"),
        ({"base_model": {}}, "base_model > name: this setting is missing"),
        ({"base_model__name": None}, "base_model > name: "),
        ({"base_model__name": "../../etc"}, "base_model > name: "),
    ],
)
def test_a_wrong_setting_is_named_by_its_path(changes, words):
    assert words in refusal(as_yaml(**changes))


@pytest.mark.parametrize("missing", ["researcher", "cohort", "base_model"])
def test_a_missing_section_is_named(missing):
    text = yaml.safe_dump({key: value for key, value in SMALL.items() if key != missing})
    assert f"{missing}: this setting is missing" in refusal(text)


@pytest.mark.parametrize(
    "email",
    [
        "Heart@north.example",
        "a/b@c.example",
        "../a@c.example",
        "a@",
        "@c",
        "a b@c",
        "a@c\n",
        "a@c/..",
        "<b>@c",
        ".a@c",
        "a@.c",
    ],
)
def test_an_address_that_means_something_to_a_path_or_a_page_is_refused(email):
    refusal(as_yaml(researcher__email=email))


@pytest.mark.parametrize(
    "title", ["", "x" * 121, "two\nlines", "a\tb", "\x1b[2Jgone", "safe\u202eelif", "\u200b", "a\u3164", "\ufe0f"]
)
def test_a_title_that_cannot_be_shown_as_it_is_is_refused(title):
    refusal(as_yaml(title=title))


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e999"])
def test_numbers_that_are_none_are_refused(number):
    refusal(as_yaml() + f"protection: {{clip: {number}}}")


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=60) | st.text("{}[]:,&*!|>'\"%@`#-? \nab01.e", max_size=60))
def test_any_text_is_a_plan_or_a_sentence(text):
    with pytest.raises(PlanError):
        parse_plan(text)


@settings(deadline=None, max_examples=60)
@given(plans(), st.data())
def test_a_plan_with_one_letter_changed_is_another_plan_or_a_sentence(plan, data):
    text = plan.to_yaml()
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.characters()) + text[place + 1 :]
    try:
        parse_plan(changed)
    except PlanError as error:
        assert "\n" not in error.what


def test_a_plan_is_loaded_from_a_file(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(as_yaml())
    assert load_plan(path) == parse_plan(as_yaml())
    path.write_bytes(b"\xff\xfe")
    for wrong in (path, tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(PlanError, match="cannot be read"):
            load_plan(wrong)


# -- the page ------------------------------------------------------------------------------------------------------


def fields(model, path=()):
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        yield (*path, name), field
        if inner:
            yield from fields(inner, (*path, name))


@pytest.mark.parametrize("path", [".".join(path) for path, _ in fields(Plan)])
def test_every_setting_stands_on_the_page(path):
    assert f"| `{path}` |" in PAGE.read_text(encoding="utf-8")


def test_the_page_gives_the_defaults_and_ranges_of_the_code():
    rows = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    known = {".".join(path): field for path, field in fields(Plan)}
    assert set(rows) == set(known)
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    for path, field in known.items():
        _unit, default, limits, _meaning = (cell.strip() for cell in rows[path].split(" | "))
        if isinstance(field.default, (int, float, str)):
            assert default == f"`{field.default}`", path
        bounds = [(word, getattr(rule, bound, None)) for rule in field.metadata for bound, word in words.items()]
        for word, number in bounds:
            if number is not None:
                assert f"{word} {number:.0f}" in limits.replace("_", ""), (path, limits)


def test_the_examples_of_the_page_are_valid_plans():
    examples = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        parse_plan(example)
