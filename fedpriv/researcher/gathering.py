"""Waiting for the answers of several domains: all of them, or enough of them once the others have gone quiet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fedpriv.study import Result

_LOOK_SECONDS = 1.0

Asking = Coroutine[Any, Any, Result | None]
"""Asks one domain; gives None for one that is not waited for any more."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What came of asking several domains.

    Attributes
    ----------
    results : dict of str to Result
        The answers, whatever they are, by address.
    silent : dict of str to float
        Seconds since the last sign of life of those who were given up.
    """

    results: dict[str, Result]
    silent: dict[str, float]

    @property
    def done(self) -> dict[str, Result]:
        """The answers of those who did what they were asked."""
        return {email: result for email, result in self.results.items() if result.status == "done"}

    @property
    def failed(self) -> list[Result]:
        """The answers of the others."""
        return [result for result in self.results.values() if result.status != "done"]


async def gather(
    work: Mapping[str, Asking],
    *,
    enough: Callable[[], int | None],
    patience_s: Callable[[], float],
    last_sign: Callable[[str], float],
) -> Gathered:
    """Wait until every domain has answered, or until enough have and none of the others shows any progress.

    The deadline of a domain is so many seconds after its last visible sign: whoever is seen to move is waited for.

    Parameters
    ----------
    work : mapping of str to coroutine
        What asks a domain, by address.
    enough : Callable[[], int or None]
        So many must have done it before anyone is given up; None: nobody is.
    patience_s : Callable[[], float]
        Seconds without a sign after which a domain is given up.
    last_sign : Callable[[str], float]
        When a domain was last seen to do something, on the clock of the event loop.

    Raises
    ------
    FedprivError
        The first that a coroutine raises; the others are cancelled.
    """
    clock = asyncio.get_running_loop().time
    started, silent = clock(), dict[str, float]()
    tasks = {email: asyncio.create_task(coroutine) for email, coroutine in work.items()}
    try:
        while waiting := [email for email, task in tasks.items() if not task.done() and email not in silent]:
            await asyncio.wait([tasks[e] for e in waiting], timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks.values():
                if task.done():
                    task.result()  # raises what went wrong
            quiet = {email: clock() - max(started, last_sign(email)) for email in waiting if not tasks[email].done()}
            needed, done = enough(), _number_done(tasks)
            if quiet and needed is not None and done >= needed and min(quiet.values()) > patience_s():
                silent |= quiet
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    answers = {email: task.result() for email, task in tasks.items() if not task.cancelled()}
    return Gathered(results={e: result for e, result in answers.items() if result is not None}, silent=silent)


def _number_done(tasks: Mapping[str, asyncio.Task[Result | None]]) -> int:
    results = [task.result() for task in tasks.values() if task.done()]
    return sum(result is not None and result.status == "done" for result in results)
