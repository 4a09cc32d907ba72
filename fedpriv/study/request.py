"""The code request: plan and code as readable text, and the study id that pins both."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedpriv.errors import PlanError, UntrustedError
from fedpriv.study.names import is_invisible
from fedpriv.study.plan import Plan, parse_plan
from fedpriv.study.task import TaskChoice
from fedpriv.study.template import check_fields, parse_template

PLAN_FILE = "plan.yaml"
RECIPE_FILE = "train.py"
MAX_FILES = 32
MAX_BUNDLE_BYTES = 2 * 2**20
TEXT_SUFFIXES = (".py", ".yaml", ".md", ".txt", ".json")


@dataclass(frozen=True, kw_only=True)
class CodeRequest:
    """A study as it is submitted: every file of the bundle, and the plan read from it.

    Attributes
    ----------
    files : Mapping[str, str]
        Relative path to text. Holds ``plan.yaml`` and ``train.py`` at least.
    plan : Plan
        The plan that ``plan.yaml`` describes.
    """

    files: Mapping[str, str]
    plan: Plan

    @property
    def study(self) -> str:
        """The study id: SHA-256 over every file's name and content (64 hex digits)."""
        return bundle_digest(self.files)

    @property
    def code(self) -> str:
        """Digest of the code alone (64 hex digits); see :func:`code_digest`."""
        return code_digest(self.files)

    @classmethod
    def from_files(cls, files: Mapping[str, str]) -> CodeRequest:
        """Check a bundle and read its plan.

        Raises
        ------
        UntrustedError
            If a file is missing, too many, too large, oddly named, or not plain text.
        PlanError
            If the plan is not valid, or the template that it names is missing or cannot be used for its task.
        """
        check_bundle(files)
        plan = parse_plan(files[PLAN_FILE])
        check_template(plan.task, files)
        return cls(files=dict(files), plan=plan)

    @classmethod
    def from_folder(cls, folder: Path) -> CodeRequest:
        """Read a bundle from a folder; see :meth:`from_files`. Links are refused."""
        files: dict[str, str] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise UntrustedError(f"{name} in the request is not a plain file", kept="Nothing was run")
            if path.is_dir():
                continue
            if path.stat().st_size > MAX_BUNDLE_BYTES or len(files) >= MAX_FILES:
                raise UntrustedError("The request is too large", kept="Nothing was run")
            try:
                files[name] = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError as error:
                raise UntrustedError(f"{name} in the request is not UTF-8 text", kept="Nothing was run") from error
        return cls.from_files(files)

    @classmethod
    def new(cls, plan: Plan, recipe: str, template: str | None = None) -> CodeRequest:
        """Build the bundle of a plan, a training recipe (the text of ``train.py``) and the plan's template, if any."""
        files = {PLAN_FILE: plan.to_yaml(), RECIPE_FILE: recipe}
        if plan.task.template is not None and template is not None:
            files[plan.task.template] = template
        return cls.from_files(files)


def bundle_digest(files: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) of a bundle: for each file in name order, lengths and bytes of name and content.

    Lengths are hashed too, so that no byte can move between two files without changing the digest.
    """
    digest = hashlib.sha256(b"fedpriv bundle 1\n")
    for name in sorted(files):
        for part in (name.encode(), files[name].encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def code_digest(files: Mapping[str, str]) -> str:
    """Return the :func:`bundle_digest` of every file but ``plan.yaml``: the same code has it under any plan."""
    return bundle_digest({name: text for name, text in files.items() if name != PLAN_FILE})


def check_template(task: TaskChoice, files: Mapping[str, str]) -> None:
    """Refuse a bundle without the template that its plan names, or with one that its task may not use.

    Raises
    ------
    PlanError
        With what is wrong, by line or field.
    """
    if task.template is None:
        return
    if task.template not in files:
        raise PlanError(
            f"The request has no file {task.template}, which the plan names as its template",
            kept="Nothing was changed",
            todo="put it beside plan.yaml, or leave task > template out for the stock one",
        )
    template = parse_template(files[task.template], source=task.template)
    check_fields(template, task, source=task.template)


def check_bundle(files: Mapping[str, str]) -> None:
    """Refuse a bundle that a person could not read completely.

    Raises
    ------
    UntrustedError
        With the name of the offending file.
    """
    for needed in (PLAN_FILE, RECIPE_FILE):
        if needed not in files:
            raise UntrustedError(f"The request has no {needed}", kept="Nothing was run", todo="submit it again with it")
    if len(files) > MAX_FILES or sum(len(_utf8(text)) for text in files.values()) > MAX_BUNDLE_BYTES:
        raise UntrustedError(f"The request has more than {MAX_FILES} files or {MAX_BUNDLE_BYTES} bytes")
    for name, text in files.items():
        if not _is_plain_name(name):
            raise UntrustedError(f"The request has a file with an unusual name ({name!r})", kept="Nothing was run")
        if PurePosixPath(name).suffix not in TEXT_SUFFIXES:
            raise UntrustedError(f"{name} is not of a readable kind {TEXT_SUFFIXES}", kept="Nothing was run")
        if not _is_visible(text):
            raise UntrustedError(f"{name} holds invisible characters, which could hide code from a reader")
    folders = {str(parent).lower() for name in files for parent in PurePosixPath(name).parents}
    if len({name.lower() for name in files} - folders) != len(files):
        raise UntrustedError("The request has two files that some systems take for one", kept="Nothing was run")


@functools.lru_cache(maxsize=16)
def _is_visible(text: str) -> bool:
    """Return whether every character can be seen; remembered, since a request is read again and again."""
    return not any(is_invisible(character) for character in text)


def _is_plain_name(name: str) -> bool:
    """Return whether ``name`` is the one spelling of a relative path of ASCII letters, digits and ``_-.``."""
    path = PurePosixPath(name)
    parts_are_plain = all(part.replace("_", "").replace("-", "").replace(".", "").isalnum() for part in path.parts)
    is_hidden = any(part.startswith(".") for part in path.parts)
    return (
        name.isascii()
        and path.as_posix() == name != "."
        and not path.is_absolute()
        and parts_are_plain
        and not is_hidden
    )


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a lone surrogate is refused by name, as invisible
