"""The recipe: the ``train.py`` of a code request. Its text for the researcher, its function for the training child."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fedpriv.errors import TrainingError

if TYPE_CHECKING:
    from fedpriv.training.local_round import LocalContext, LocalOutcome

RECIPE_NAME = "train.py"
"""The file name that every frame of a recipe's traceback has, whatever folder it was read from."""

Recipe = Callable[["LocalContext"], "LocalOutcome"]


def stock_recipe() -> str:
    """Return the text of the ``train.py`` that a request carries unless the researcher writes an own one."""
    return resources.files("fedpriv.training").joinpath("stock_recipe.py").read_text(encoding="utf-8")


def load_recipe(path: Path) -> Recipe:
    """Run a recipe file and return its ``train`` function. Untrusted code: call this in the training child only.

    The folder of the recipe is put first on the import path, so that a request may have further ``.py`` files.

    Raises
    ------
    TrainingError
        If it defines no function ``train``.
    BaseException
        Whatever the recipe raises while it is imported.
    """
    text = path.read_text(encoding="utf-8")
    module = types.ModuleType("train")
    module.__file__ = RECIPE_NAME
    sys.modules["train"] = module
    sys.path.insert(0, str(path.parent.resolve()))
    exec(compile(text, RECIPE_NAME, "exec"), module.__dict__)  # noqa: S102 - this is what the sandboxed child is for
    train = getattr(module, "train", None)
    if not callable(train):
        raise TrainingError("train.py has no function train(context)", todo="define it, as the stock recipe does")
    return cast("Recipe", train)


def recipe_line(error: BaseException) -> int:
    """Return the line of ``train.py`` that ``error`` passed through last, or 0 if it never did."""
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == RECIPE_NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == RECIPE_NAME and line == 0:
        line = error.lineno or 0
    return line
