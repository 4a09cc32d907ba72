"""What a person asks for on a screen: checked, and carried out one after the other in a thread of its own.

A click never waits for a lock, a store or a domain, and what goes wrong comes back as a sentence. Nothing here knows
Jupyter.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from fedpriv.errors import FedprivError
from fedpriv.study.validation import in_words

_LONGEST_NAME = 20

A = TypeVar("A")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of something that was asked for.

    Attributes
    ----------
    number : int
        Counts up from 1, so that the same sentence twice is two answers.
    do : str
        What was asked for.
    good : bool
        Whether it was done.
    text : str
        What came of it, as a sentence; where it was not done, what was wrong, what was kept and what to do.
    """

    number: int
    do: str
    good: bool
    text: str


class ActionQueue(Generic[A]):
    """Checks and carries out what is asked for.

    Parameters
    ----------
    actions : TypeAdapter
        What may be asked for: a union of frozen sections that differ in their field ``do``.
    carry_out : Callable
        Does one of them and returns a sentence; may raise, and may take its time.
    on_answer : Callable[[Answer], None]
        Called from the queue's thread, once for each thing that was asked for.
    name : str
        Of the thread.
    """

    def __init__(
        self,
        actions: TypeAdapter[A],
        carry_out: Callable[[A], str],
        on_answer: Callable[[Answer], None],
        *,
        name: str = "actions",
    ) -> None:
        self._actions, self._carry_out, self._on_answer = actions, carry_out, on_answer
        self._asked: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, action: object) -> None:
        """Take something asked for, as the JSON object that a screen sent; from any thread, returns at once."""
        self._asked.put(action)

    def close(self) -> None:
        """Do what was asked for until now, and end; not from the queue's own thread."""
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            do = str(asked.get("do", "?"))[:_LONGEST_NAME] if isinstance(asked, dict) else "?"
            good, text = self._answered(asked)
            self._on_answer(Answer(number=next(self._numbers), do=do, good=good, text=text))

    def _answered(self, asked: object) -> tuple[bool, str]:
        try:
            return True, self._carry_out(self._actions.validate_python(asked))
        except ValidationError as error:
            return False, f"This cannot be asked for here: {in_words(error)}"
        except (FedprivError, OSError) as error:
            return False, str(error)
        except Exception as error:  # a mistake of ours must not end the thread, and the person must see it
            _log.exception("an action failed")
            return False, (
                f"fedpriv itself made a mistake ({type(error).__name__}). What was done before is kept. "
                f"Next: reload the page and try again; the kernel's log has the details."
            )
