"""The templates that fedpriv brings, one for each task, and which template a request uses."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources

from fedpriv.study.task import TaskChoice, TaskKind
from fedpriv.study.template import Template, parse_template


def stock_template(kind: TaskKind) -> str:
    """Return the text of the template that a task uses unless the request has its own."""
    return resources.files("fedpriv.clinical").joinpath("templates", f"{kind}.txt").read_text(encoding="utf-8")


@functools.lru_cache(maxsize=16)
def _parsed(text: str, source: str) -> Template:
    return parse_template(text, source=source)


def template_of(task: TaskChoice, files: Mapping[str, str]) -> Template:
    """Return the template of a request that was checked (:class:`~fedpriv.study.CodeRequest`), or the stock one.

    Parameters
    ----------
    files : Mapping[str, str]
        The request's files; none are needed for a stock template.
    """
    if task.template is None:
        return _parsed(stock_template(task.kind), f"{task.kind}.txt of fedpriv")
    return _parsed(files[task.template], task.template)
