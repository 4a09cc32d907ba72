"""`fedpriv study new`: what was chosen stands in plan.yaml and is said; what does not fit is refused by the plan."""

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.errors import PlanError
from fedpriv.researcher import Researcher, Study
from fedpriv.study import load_plan
from fedpriv.study.plan import Plan

DOMAINS = [part for number in "234" for part in ("--domain", f"d{number}@x.org={number * 64}")]
SECTIONS = ("training", "protection", "aggregation", "schedule", "lora", "privacy", "title", "task")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPRIV_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "home"
    done = run("study", "init", "--email", "ada@y.org", "--store", tmp_path / "store", "--home", home)
    assert done.exit_code == 0
    return home


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "120"})


def new(home, *options):
    return run("study", "new", "icu", *DOMAINS, "--model", "tiny", "--home", home, *options)


def plan_of(home):
    return Study.open(Researcher.open(home), "icu").plan


def test_without_options_the_plan_has_its_own_defaults(home):
    assert new(home).exit_code == 0
    plan = plan_of(home)
    for section in SECTIONS:
        assert getattr(plan, section) == Plan.model_fields[section].default
    assert plan.base_model.digest


@pytest.mark.parametrize(
    ("options", "said"),
    [((), False), (("--quorum", 3), False), (("--quorum", 2), True), (("--mode", "buffered", "--buffer", 2), True)],
)
def test_sums_that_a_new_domain_rejects_are_told_where_the_plan_is_written(home, options, said):
    assert ("A sum may hold 2 updates" in new(home, *options).output) == said


@pytest.mark.parametrize(
    ("options", "section", "chosen"),
    [
        (("--rounds", 7, "--steps", 2, "--proximal", 0.1), "training", {"rounds": 7, "steps": 2, "proximal": 0.1}),
        *(
            (("--protection", level, "--bits", 6), "protection", {"level": level, "bits": 6})
            for level in ("sealed", "masked", "ckks", "ckks-tuned", "plain")
        ),
        (("--bits-choices", "4, 6,10"), "protection", {"bits_choices": (4, 6, 10)}),
        *((("--weights", rule), "aggregation", {"weights": rule}) for rule in ("uniform", "inverse-loss", "custom")),
        (("--weights", "paper", "--alpha", 1), "aggregation", {"weights": "paper", "alpha": 1.0}),
        (
            ("--weights", "paper-reciprocal", "--alpha", 0, "--largest-share", 0.5),
            "aggregation",
            {"weights": "paper-reciprocal", "alpha": 0.0, "largest_share": 0.5},
        ),
        *((("--averaging", way), "aggregation", {"averaging": way}) for way in ("both", "b_only", "alternate")),
        (
            ("--quorum", 2, "--patience", 60, "--late", "drop", "--balanced"),
            "schedule",
            {"quorum": 2, "patience_s": 60, "late_updates": "drop", "local_steps": "balanced"},
        ),
        (("--mode", "buffered", "--buffer", 2), "schedule", {"mode": "buffered", "buffer": 2}),
        (("--epsilon", 8, "--privacy-unit", "domain"), "privacy", {"unit": "domain", "epsilon": 8.0}),
        (
            ("--task", "mortality", "--notes", "Radiology, ecg", "--window-hours", 24),
            "task",
            {"kind": "mortality", "notes": ("radiology", "ecg"), "window_hours": 24},
        ),
        (("--task", "readmission", "--notes", "none"), "task", {"kind": "readmission", "notes": ()}),
    ],
)
def test_what_was_chosen_stands_in_plan_yaml_and_nothing_else_changed(home, options, section, chosen):
    done = new(home, *options)
    assert done.exit_code == 0, done.output
    plan = load_plan(home / "studies" / "icu" / "plan.yaml")
    written = getattr(plan, section)
    assert {name: getattr(written, name) for name in chosen} == chosen
    assert written == type(written)(**chosen)
    for other in set(SECTIONS) - {section}:
        assert getattr(plan, other) == Plan.model_fields[other].default


def test_an_own_template_is_part_of_the_request_as_it_is_edited(home, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("{person} came. {outcome}.\n")
    shown = new(home, "--template", own)
    assert "told by the template own.txt of the request" in " ".join(shown.output.split())
    study = Study.open(Researcher.open(home), "icu")
    (study.folder.root / "own.txt").write_text("{person} left.\n")
    assert study.folder.draft().files["own.txt"] == "{person} left.\n"
    (study.folder.root / "own.txt").write_text("{nobody}\n")
    with pytest.raises(PlanError, match=r"no field \{nobody\}"):
        study.folder.draft()


def test_a_template_that_its_task_may_not_use_makes_no_study(home, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("{person} came. {outcome}.\n")
    for options in (("--task", "mortality", "--template", own), ("--template", tmp_path / "missing.txt")):
        assert isinstance(new(home, *options).exception, PlanError)
        assert not (home / "studies" / "icu").exists()


def test_the_server_optimiser_and_its_rate(home):
    assert new(home, "--server", "momentum", "--server-rate", 0.5).exit_code == 0
    server = plan_of(home).aggregation.server
    assert (server.optimizer, server.learning_rate) == ("momentum", 0.5)


def test_privacy_by_patients_keeps_what_was_chosen_and_adds_what_suits_it(home):
    assert new(home, "--epsilon", 8, "--rounds", 9, "--weights", "uniform").exit_code == 0
    plan = plan_of(home)
    assert (plan.privacy.unit, plan.training.rounds, plan.training.batch_size) == ("patient", 9, 16)
    assert (plan.lora.targets, plan.averaging, plan.aggregation.weights) == (("v_proj",), "b_only", "uniform")


def test_what_was_chosen_is_said_in_words(home):
    shown = new(home, "--weights", "paper", "--alpha", 1, "--quorum", 2, "--late", "drop", "--averaging", "b_only")
    said = " ".join(shown.output.split())
    assert (
        "by mean loss, over the speed of the domain's link to the power alpha 1; no domain counts for over 80%" in said
    )
    assert "2 updates make a round when the other domains show no progress for 600 s; late ones are forgotten" in said
    assert "sealed at 10 bits: nobody sees a single update" in said
    assert "Only lora_B" in said
    assert "Next: read and edit them" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--protection", "none"), "protection > level: input should be 'sealed'"),
        (("--bits", 3), "protection > bits: "),
        (("--bits", 17), "protection > bits: "),
        (("--bits-choices", "4,6"), "protection: bits_choices must name bits"),
        (("--bits-choices", "4,ten"), "protection > bits_choices > 2: a whole number is needed, not 'ten'"),
        (("--bits-choices", ""), "protection > bits_choices > 1: a whole number is needed, not ''"),
        (("--privacy-unit", "domain"), "privacy > epsilon: this setting is missing"),
        (("--epsilon", 0), "privacy > epsilon: "),
        (
            ("--epsilon", 8, "--averaging", "both"),
            "aggregation > averaging cannot be both with privacy",
        ),
        (("--epsilon", 8, "--proximal", 1), "training > proximal has no meaning with privacy of unit patient"),
        (("--epsilon", 8, "--mode", "buffered", "--buffer", 2), "schedule > mode must be synchronous with privacy"),
        (("--epsilon", 8, "--balanced"), "schedule > local_steps must be same with privacy"),
        (("--weights", "median"), "aggregation > weights: input should be 'fedavg'"),
        (("--alpha", 1), "aggregation: alpha has no meaning with the weights fedavg: leave it out"),
        (("--weights", "paper", "--alpha", "nan"), "no number"),
        (("--largest-share", 0), "aggregation > largest_share: "),
        (("--averaging", "a_only"), "aggregation > averaging: "),
        (("--server", "sgd"), "aggregation > server > optimizer: "),
        (("--server-rate", 1), "aggregation > server: learning_rate has no meaning with the optimizer none"),
        (("--mode", "fast"), "schedule > mode: "),
        (("--buffer", 2), "schedule: buffer belongs to mode buffered"),
        (("--mode", "buffered"), "schedule: buffer belongs to mode buffered, which needs it"),
        (("--mode", "buffered", "--buffer", 2, "--quorum", 2), "schedule: quorum has no meaning in mode buffered"),
        (("--mode", "buffered", "--buffer", 2, "--late", "drop"), "schedule: late_updates has no meaning in mode buff"),
        (("--mode", "buffered", "--buffer", 2, "--balanced"), "schedule: local_steps has no meaning in mode buffered"),
        (
            ("--mode", "buffered", "--buffer", 2, "--averaging", "alternate"),
            "aggregation > averaging cannot be alternate in a buffered schedule",
        ),
        (("--quorum", 4), "the options: schedule > quorum is 4, but the cohort has 3 domains"),
        (("--patience", 60), "schedule: patience_s has no meaning without a quorum"),
        (("--late", "keep"), "schedule > late_updates: "),
    ],
)
def test_what_does_not_fit_is_refused_before_a_model_is_fetched(home, tmp_path, options, words):
    error = new(home, *options).exception
    assert isinstance(error, PlanError)
    assert words in error.what
    assert not (home / "studies" / "icu").exists()
    assert not (tmp_path / "cache").exists()


def test_every_refusal_has_the_next_step(home):
    assert "Next: correct it" in str(new(home, "--mode", "buffered").exception)


def test_the_help_shows_the_defaults_of_the_plan():
    shown = " ".join(run("study", "new", "--help").output.replace("│", " ").split())
    for section, setting in (("training", "rounds"), ("aggregation", "weights"), ("schedule", "patience_s")):
        assert f"[default: {getattr(Plan.model_fields[section].default, setting)}]" in shown
