"""Where the files of a study that is being written lie: in its folder once they are saved, before that among drafts.

A draft is written after every change, so that a kernel that is restarted, or killed, loses nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedpriv.errors import ConfigError, StudyError, UntrustedError
from fedpriv.files import read_json, write_json
from fedpriv.researcher import Researcher, Study
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import CodeRequest, Plan, validate_section
from fedpriv.study.names import Slug
from fedpriv.study.plan import BaseModelChoice, MemberChoice
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE
from fedpriv.study.section import Section

_SUFFIXES = (".py", ".txt")


class _Name(Section):
    name: Slug


def check_name(name: str) -> str:
    """Return a study's name if it can be one.

    Raises
    ------
    PlanError
        If it is no plain word.
    """
    return validate_section(_Name, {"name": name}, source="the study's name").name


def first_files(
    researcher: Researcher, cohort: Sequence[MemberChoice], base_model: str, recipe: str | None
) -> dict[str, str]:
    """Return the files of a new study with the plan's defaults and, if no recipe is given, the stock recipe.

    Raises
    ------
    ConfigError
        If fewer than two domains are given.
    """
    from fedpriv.training.recipe import stock_recipe

    if len(cohort) < 2:
        raise ConfigError(
            "A new study needs two domains or more",
            todo="give cohort=[MemberChoice(email=..., fingerprint=...), ...] with what their data owners told you",
        )
    me = MemberChoice(email=researcher.config.email, fingerprint=researcher.keys.fingerprint)
    plan = Plan(researcher=me, cohort=tuple(cohort), base_model=BaseModelChoice(name=base_model))
    return {PLAN_FILE: plan.to_yaml(), RECIPE_FILE: recipe or stock_recipe()}


def folder_of(researcher: Researcher, name: str) -> StudyFolder:
    """Return a study's folder, whether there is one or not."""
    return StudyFolder(researcher.study_folder(name))


def kept_files(folder: StudyFolder) -> dict[str, str] | None:
    """Return the files of a study as they lie in its folder; None if there is no study.

    Raises
    ------
    UntrustedError
        If one is no text.
    """
    if not (folder.root / PLAN_FILE).exists():
        return None
    code = [path.name for path in folder.root.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith(".")]
    try:
        return {name: (folder.root / name).read_text(encoding="utf-8") for name in sorted({PLAN_FILE, *code})}
    except UnicodeDecodeError as error:
        raise UntrustedError(
            f"A file in {folder.root} is not UTF-8 text", kept="It was left as it is", todo="remove or correct it"
        ) from error


def save(researcher: Researcher, name: str, request: CodeRequest, kept: Mapping[str, str] | None) -> Study:
    """Write a study's files into its folder, which is made if there is none.

    Parameters
    ----------
    kept : mapping of str to str, or None
        What lay there when it was read last, or that there was no study.

    Raises
    ------
    ExistsError
        If it was submitted, or somebody else made a study of this name.
    StudyError
        If the files were changed since they were read; nothing is written then.
    """
    folder = folder_of(researcher, name)
    if kept is None:
        StudyFolder.create(folder.root, request)
        return Study.open(researcher, name)
    study = Study(folder, researcher)
    study.require_draft()
    if kept_files(folder) != dict(kept):
        raise StudyError(
            f"The files in {folder.root} were changed since they were read here",
            kept="Both are kept: those in the folder, and yours on this page",
            todo="read the folder's again in place of yours, or save once more to write yours over them",
        )
    folder.write(request)
    return study


def _draft_path(researcher: Researcher, name: str) -> Path:
    return researcher.root / "drafts" / f"{name}.json"


def keep_draft(researcher: Researcher, name: str, files: Mapping[str, str]) -> None:
    """Keep files that are not saved yet."""
    write_json(_draft_path(researcher, name), dict(files), durable=False)  # the next change writes it anew


def draft_files(researcher: Researcher, name: str) -> dict[str, str] | None:
    """Return files that were not saved; None where there are none that can be read."""
    try:
        files = read_json(_draft_path(researcher, name))
    except (FileNotFoundError, UntrustedError):
        return None
    whole = isinstance(files, dict) and all(isinstance(text, str) for text in files.values())
    return files if whole and {PLAN_FILE, RECIPE_FILE} <= set(files) else None


def forget_draft(researcher: Researcher, name: str) -> None:
    """Remove what was kept of files that are saved now."""
    _draft_path(researcher, name).unlink(missing_ok=True)
