import copy
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from study_plans import SMALL, plans

from fedpriv.errors import PlanError
from fedpriv.study.plan import MAX_PLAN_BYTES, Plan, load_plan, load_yaml, parse_plan

PAGE = Path(__file__).parents[2] / "docs" / "plan.md"


def as_yaml(**changes):
    """The small plan as YAML; ``training__rounds=5`` changes a setting of a section, ``None`` included."""
    value = copy.deepcopy(SMALL)
    for path, setting in changes.items():
        *sections, name = path.split("__")
        section = value
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = setting
    return yaml.safe_dump(value)


def refusal(text):
    with pytest.raises(PlanError) as caught:
        parse_plan(text)
    assert caught.value.exit_code == 2
    return caught.value.what


def rule(level="masked", **settings):
    return {"protection__rules": [{"level": level, **settings}]}


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


HYBRID = {
    "level": "sealed",
    "bits": 10,
    "rules": [
        {"layers": [0, 1], "level": "sealed", "bits": 12},
        {"tensors": ["*.lora_A.*"], "level": "masked"},
        {"tensors": ["*.h.3.*"], "level": "plain"},
    ],
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.1.q_proj.lora_A.weight", ("sealed", 12)),
        ("model.layers.11.q_proj.lora_A.weight", ("masked", 10)),
        ("model.layers.2.q_proj.lora_B.weight", ("sealed", 10)),
        ("model.h.0.attn.lora_A.weight", ("sealed", 12)),
        ("model.h.3.attn.lora_B.weight", ("plain", 0)),
        ("MODEL.LAYERS.2.LORA_A.weight", ("sealed", 10)),
    ],
)
def test_the_first_rule_about_a_tensor_counts(name, expected):
    protection = parse_plan(as_yaml(protection=HYBRID)).protection
    assert protection.of_tensor(name) == expected
    assert protection.levels == ("sealed", "masked", "plain")
    assert protection.is_hybrid


def test_a_plan_of_one_level_says_so_in_words():
    protection = parse_plan(as_yaml(protection={"level": "ckks"})).protection
    assert not protection.is_hybrid
    assert protection.in_words().startswith("ckks: the researcher sees nothing, but a domain")
    assert "EVERY SINGLE update" in parse_plan(as_yaml(protection={"level": "plain"})).protection.in_words()


def test_a_hybrid_plan_says_in_words_what_the_exceptions_mean():
    protection = parse_plan(as_yaml(protection=HYBRID)).protection
    names = [f"m.layers.{n}.{p}_proj.lora_{half}.weight" for n in range(6) for p in "qv" for half in "AB"]
    nobody = "nobody sees a single update, and only the domains open the sum"
    assert protection.in_words([*names, "m.h.3.x"]) == (
        f"sealed at 10 bits (8 tensors): {nobody}; "
        f"except 8 tensors of layers 0, 1, which are sealed at 12 bits: {nobody}; "
        "and 8 tensors matching *.lora_A.*, which are masked at 10 bits: "
        "the researcher sees their sum, but no single update; "
        "and 1 tensor matching *.h.3.*, which is plain: the researcher sees EVERY SINGLE update"
    )
    assert "; except tensors of layers 0, 1, which are sealed at 12 bits: " in protection.in_words()
    hidden = parse_plan(as_yaml(**rule(tensors=["*.a.*", "*.b.*", "*.c.*", "*.d.*", "*"]))).protection
    assert "tensors matching *, *.a.*" in hidden.in_words()  # a wide one does not hide behind narrow ones
    many = parse_plan(as_yaml(**rule(tensors=[f"*.{n}.*" for n in range(40)]))).protection
    assert "tensors matching *.0.*, *.1.*, *.2.*, *.3.* and 36 more, which are masked" in many.in_words()


@pytest.mark.parametrize("text", ["2e-3", "2.0e-3", "0.002", "2E-3", "2.e-3"])
def test_numbers_may_be_written_in_every_usual_way(text):
    assert parse_plan(as_yaml() + f"training: {{learning_rate: {text}}}").training.learning_rate == 0.002


def test_text_that_looks_like_a_number_stays_text():
    plan = parse_plan(as_yaml(title="'1e5'").replace("'''1e5'''", "'1e5'").replace("name: tiny", "name: '7e3'"))
    assert (plan.title, plan.base_model.name) == ("1e5", "7e3")
    assert parse_plan(plan.to_yaml()) == plan


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
        ({"protection__clip": 0}, "protection > clip: input should be greater than 0"),
        ({"protection__bits": 32}, "protection > bits: "),
        ({"protection__bits": 3}, "protection > bits: input should be greater than or equal to 4, not 3"),
        ({"protection__bits_choices": [4, 8]}, "bits_choices must name bits, and each number once"),
        ({"protection__bits_choices": [10, 10]}, "bits_choices must name bits, and each number once"),
        ({"protection__bits_choices": [10, 17]}, "protection > bits_choices > 2: "),
        (
            {"protection": {"level": "ckks", "bits_choices": [4, 10]}},
            "bits_choices have no meaning where no tensor has the bits of protection",
        ),
        ({"protection__security": "tc128"}, "protection > security: "),
        ({"protection__level": "none"}, "protection > level: "),
        ({"protection__rules": [{"layers": [0]}]}, "protection > rules > 1 > level: this setting is missing"),
        (
            {"protection__rules": [{"level": "masked"}]},
            "rules > 1: a rule needs either tensors or layers",
        ),
        (rule(tensors=["*.q"], layers=[1]), "a rule needs either tensors or layers, and not both"),
        (rule(tensors=["*.q"], bits=3), "protection > rules > 1 > bits: "),
        (rule(tensors=["*.q"], level="ckks", bits=8), "bits have no meaning at level ckks: leave them out"),
        (rule(tensors=["*.q"], level="plain", bits=8), "bits have no meaning at level plain"),
        (rule(tensors=["*.q", "*.v", "*.q"]), "a rule names something twice"),
        (rule(layers=[2, 2]), "a rule names something twice"),
        (rule(layers=[-1]), "protection > rules > 1 > layers > 1: "),
        (rule(layers=[True]), "layers > 1: a whole number is needed"),
        *((rule(tensors=[text]), "tensors > 1: ") for text in ("", "a b", "a/b", "a\n", "\x1b[2J", "<b>", "x" * 201)),
        (rule(layers=list(range(1025))), "layers: "),
        ({"protection__rules": [{"layers": [n], "level": "masked"} for n in range(65)]}, "protection > rules: "),
        ({"protection__rules": [{"layers": [n, 2], "level": "masked"} for n in (1, 0)]}, "rule 2 repeats layer 2"),
        (
            {"protection__rules": [{"tensors": ["*"], "level": "masked"}, {"layers": [1], "level": "sealed"}]},
            "rule 2 is never reached: an earlier rule is about every tensor",
        ),
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


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("training: {rounds: 1}\ntraining: {rounds: 999}", "the key 'training' stands twice"),
        ("training: {rounds: 1, rounds: 999}", "the key 'rounds' stands twice"),
        ("lora: &a {rank: 4}\ntitle: *a", "aliases are not allowed"),
        ("training: {<<: {rounds: 1}, rounds: 2}", "stands twice"),
        ("title: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("title: !!python/name:os.system", "could not determine a constructor"),
        ("? [a, b]\n: 1", "not readable YAML"),
        ("title: [", "not readable YAML"),
        ("title: 'a\x00b'", "not readable YAML"),
        ("--- \na: 1", "not readable YAML"),
    ],
)
def test_yaml_that_two_readers_could_read_differently_is_refused(extra, words):
    assert words in refusal(as_yaml() + extra)


@pytest.mark.parametrize(
    "extra", ["title: 2026-01-01", "title: !!binary aGk=", "metrics: !!set {examples}", "title: ~"]
)
def test_yaml_values_that_json_lacks_are_refused(extra):
    refusal(as_yaml() + extra)


@pytest.mark.parametrize("text", ["", "3", "- a", "# nothing", "\ud800", "a: \ud800"])
def test_text_that_is_no_mapping_is_refused(text):
    refusal(text)


def test_a_plan_beyond_its_limit_is_not_parsed():
    assert "larger than" in refusal("#" * (MAX_PLAN_BYTES + 1))


@pytest.mark.parametrize("piece", ["[", "{a: ", "- ", "? "])
def test_deep_text_does_not_keep_the_reader_busy(piece):
    begun = time.monotonic()
    assert "nested more than 16 deep" in refusal(piece * 50_000)
    assert time.monotonic() - begun < 20


def test_many_keys_do_not_keep_the_reader_busy():
    text = "\n".join(f"a{number}: 1" for number in range(20_000))
    begun = time.monotonic()
    assert len(load_yaml(text, source="it")) == 20_000
    assert time.monotonic() - begun < 20


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
