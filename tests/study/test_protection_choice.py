import pytest
from study_plans import as_yaml, refusal

from fedpriv.study.plan import parse_plan


def rule(level="masked", **settings):
    return {"protection__rules": [{"level": level, **settings}]}


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
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
    ],
)
def test_a_wrong_setting_is_named_by_its_path(changes, words):
    assert words in refusal(as_yaml(**changes))
