"""From parsed YAML or JSON to a section of ours, or to a sentence about each setting that is wrong."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fedpriv.errors import PlanError
from fedpriv.study.names import FORMS

SectionT = TypeVar("SectionT", bound="BaseModel")


def validate_section(model: type[SectionT], value: Any, *, source: str) -> SectionT:
    """Validate ``value`` (parsed YAML or JSON) as ``model``, strictly: no text where a number belongs.

    Raises
    ------
    PlanError
        Naming each wrong setting by its path, such as ``training > rounds``.
    """
    try:
        return model.model_validate_json(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise PlanError(
                f"{source}: {in_words(error)}", kept="Nothing was changed", todo="correct it and try again"
            ) from error
        raise PlanError(f"{source} holds a value that is no number, text or list ({error})") from error


def in_words(error: ValidationError) -> str:
    """Return a validation error as one line a person can act on."""
    return "; ".join(words for _, words in problems(error)[:5])


def problems(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """Return each problem of a validation error: where it is, and a sentence that begins with that place."""
    return [(problem["loc"], _problem_in_words(problem)) for problem in error.errors(include_url=False)]


def _problem_in_words(problem: Any) -> str:  # noqa: PLR0911 - one for each kind of problem
    parts = [str(part + 1) if isinstance(part, int) else part for part in problem["loc"]]
    # where a setting may be one of two things, pydantic names each behind the setting
    path = " > ".join(part for part in parts if not part.startswith(("literal[", "constrained-str"))) or "the whole"
    given = repr(problem.get("input"))
    given = given if len(given) <= 60 else given[:57] + "..."
    match problem["type"]:
        case "extra_forbidden":
            return f"{path}: there is no such setting"
        case "missing":
            return f"{path}: this setting is missing"
        case "value_error":  # one about several sections names them itself
            said = problem["msg"].removeprefix("Value error, ")
            return f"{path}: {said}" if problem["loc"] else said
        case "string_pattern_mismatch" if problem["ctx"]["pattern"] in FORMS:
            return f"{path}: {FORMS[problem['ctx']['pattern']]} must stand here, not {given}"
        case "too_short":
            return f"{path}: at least {problem['ctx']['min_length']} are needed, not {problem['ctx']['actual_length']}"
        case "too_long":
            return f"{path}: at most {problem['ctx']['max_length']} may stand here"
        case kind if kind.startswith(("int", "float")):
            unit = _unit_of(problem["loc"])
            number = "a whole number" if kind.startswith("int") else "a number"
            return f"{path}: {number}{unit} is needed, not {given}"
        case _:
            message = problem["msg"]
            return f"{path}: {message[0].lower() + message[1:]}, not {given}"


def _unit_of(location: tuple[int | str, ...]) -> str:
    units = {"_seconds": "seconds", "_s": "seconds", "_bytes": "bytes", "_tokens": "tokens", "_mb": "megabytes"}
    name = str(location[-1]) if location else ""
    return next((f" of {unit}" for suffix, unit in units.items() if name.endswith(suffix)), "")
