"""``fedpriv study new``: from options to a plan that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.cli import plan_options as options
from fedpriv.cli.new_domain import parse_pin
from fedpriv.cli.options import DEFAULT_HOME, Home, Name
from fedpriv.domain import PolicyChoice
from fedpriv.errors import ConfigError, PlanError
from fedpriv.researcher import Researcher, Study
from fedpriv.study import Plan, validate_section
from fedpriv.study.averaging import IN_WORDS as AVERAGING
from fedpriv.study.plan import ANSWER_METRICS, BaseModelChoice, MemberChoice

console = Console()


def new(
    name: Name,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="EMAIL=FINGERPRINT of a domain; once for each. By default all of `fedpriv study peers`."),
    ] = None,
    model: Annotated[str, typer.Option(help="Base model; see `fedpriv model list`.")] = "smollm2-135m-instruct",
    title: options.Title = None,
    recipe: Annotated[Path | None, typer.Option(help="Your own train.py; by default the stock recipe.")] = None,
    home: Home = DEFAULT_HOME,
    task: options.Task = None,
    notes: options.Notes = None,
    window_hours: options.WindowHours = None,
    template: options.Template = None,
    rounds: options.Rounds = None,
    steps: options.Steps = None,
    proximal: options.Proximal = None,
    protection: options.Protection = None,
    bits: options.Bits = None,
    bits_choices: options.BitsChoices = None,
    epsilon: options.Epsilon = None,
    privacy_unit: options.PrivacyUnit = None,
    weights: options.Weights = None,
    alpha: options.Alpha = None,
    largest_share: options.LargestShare = None,
    averaging: options.Averaging = None,
    server: options.Server = None,
    server_rate: options.ServerRate = None,
    mode: options.Mode = None,
    buffer: options.Buffer = None,
    quorum: options.Quorum = None,
    patience: options.Patience = None,
    late: options.Late = None,
    balanced: options.Balanced = False,
) -> None:
    """Write a study's plan.yaml and train.py for you to read and edit. Nothing is sent.

    The options are the plan's usual settings; docs/plan.md explains them and has all others.
    """
    from fedpriv.training.recipe import stock_recipe

    settings = {
        "title": title,
        "task": {
            "kind": task,
            "notes": options.names(notes),
            "window_hours": window_hours,
            "template": template.name if template else None,
        },
        "training": {"rounds": rounds, "steps": steps, "proximal": proximal},
        "protection": {"level": protection, "bits": bits, "bits_choices": options.numbers(bits_choices)},
        "privacy": {"unit": privacy_unit, "epsilon": epsilon},
        "aggregation": {
            "weights": weights,
            "alpha": alpha,
            "largest_share": largest_share,
            "averaging": averaging,
            "server": {"optimizer": server, "learning_rate": server_rate},
        },
        "schedule": {
            "mode": mode,
            "buffer": buffer,
            "quorum": quorum,
            "patience_s": patience,
            "late_updates": late,
            "local_steps": "balanced" if balanced else None,
        },
    }
    researcher = Researcher.open(home)
    researcher.study_folder(name)  # before a model is fetched
    cohort = [parse_pin(text) for text in domain] if domain else list(researcher.peers.read())
    if not cohort:
        raise ConfigError(
            "No domain is named, and none is known",
            kept="Nothing was written",
            todo="give --domain EMAIL=FINGERPRINT for each, or note them once with `fedpriv study peers`",
        )
    plan = _plan(researcher, cohort, model, options.suited_to_privacy(options.given(settings)))
    text = _text_of(recipe) if recipe else stock_recipe()
    told = _text_of(template) if template else None
    study = Study.create(researcher, name, plan, recipe=text, template=told)
    console.print(f"Wrote {escape(str(study.folder.root / 'plan.yaml'))} and train.py:", soft_wrap=True)
    console.print(_in_words(plan))
    if plan.smallest_sum < (usual := PolicyChoice().minimum_cohort):
        console.print(
            f"A sum may hold {plan.smallest_sum} updates: a data owner whose policy > minimum_cohort is {usual}, as it "
            "is in a new domain, rejects this plan."
        )
    console.print(f"Next: read and edit them, then `fedpriv study submit {escape(name)}`.")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} cannot be read as text", kept="Nothing was written", todo="check the path") from error


def _plan(researcher: Researcher, cohort: list[MemberChoice], model: str, settings: dict[str, Any]) -> Plan:
    """Return the plan; the model, which may have to be fetched, is looked for once all else is right."""
    from fedpriv.training.base_model import ensure_model
    from fedpriv.training.usual_targets import usual_targets

    parties = {
        "researcher": {"email": researcher.config.email, "fingerprint": researcher.keys.fingerprint},
        "cohort": [member.model_dump() for member in cohort],
    }
    plan = validate_section(Plan, parties | {"base_model": {"name": model}} | settings, source="the options")
    found = ensure_model(model)
    changes: dict[str, Any] = {
        "base_model": BaseModelChoice(name=model, digest=found.digest),
        "lora": plan.lora.model_copy(update={"targets": usual_targets(found.folder, wished=plan.lora.targets)}),
    }
    if plan.task.is_predictive:
        changes["metrics"] = (*plan.metrics, *ANSWER_METRICS)
    return plan.model_copy(update=changes)


def _in_words(plan: Plan) -> Table:
    """Return what the options came to, in the words that data owners read."""
    rows = {
        "task": plan.task.in_words(),
        "rounds": f"{plan.training.rounds} of {plan.training.steps} steps; {plan.schedule.in_words()}",
        "protection": plan.protection.in_words(),
        "privacy": plan.privacy.in_words() if plan.privacy else "",
        "weights": plan.aggregation.in_words(),
        "averaging": f"{plan.averaging}. {AVERAGING[plan.averaging]}",
        "mean": plan.aggregation.server.in_words(),
    }
    table = Table(show_header=False, box=None, padding=(0, 2))
    for row, words in rows.items():
        if words:
            table.add_row(row, escape(words))
    return table
