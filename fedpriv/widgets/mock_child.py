"""Fetches and reads mock sides in a process of its own: what others wrote is not unpacked in a notebook's kernel.

It reads a :class:`Wish` from standard input and writes one :class:`News` a line.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from fedpriv.clinical.mock_reading import MockSide, read_mock
from fedpriv.errors import FedprivError
from fedpriv.researcher import Researcher
from fedpriv.study.plan import MemberChoice
from fedpriv.study.section import Section


class Wish(Section):
    """Whose mock sides of which dataset are wanted."""

    home: str
    dataset: str
    cohort: tuple[MemberChoice, ...] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class News:
    """What is new of a domain: its mock side, or what is waited for or wrong, in words."""

    domain: str
    words: str = ""
    mock: MockSide | None = None


_NEWS = TypeAdapter(News)


class MockChild:
    """The process, from the side of who wants to know.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(self, wish: Wish) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self._process.stdin is not None:
            self._process.stdin.write(wish.model_dump_json().encode())
            self._process.stdin.close()

    def news(self) -> Iterator[News]:
        """Yield what it says until it ends."""
        for line in self._process.stdout or ():
            yield _NEWS.validate_json(line)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(timeout=30)
        if self._process.stdout is not None:
            self._process.stdout.close()


def main() -> None:
    """Fetch what is wished, and say so line by line."""
    from fedpriv.researcher.mock_side import fetch_mock_sides

    wish = Wish.model_validate_json(sys.stdin.read())
    out = sys.stdout
    said: dict[str, str] = {}

    def tell(news: News) -> None:
        if news.mock is not None or said.get(news.domain) != news.words:
            said[news.domain] = news.words
            out.write(_NEWS.dump_json(news).decode() + "\n")
            out.flush()

    def read(domain: str, folder: Path) -> None:
        try:
            tell(News(domain=domain, mock=read_mock(folder)))
        except FedprivError as error:
            tell(News(domain=domain, words=str(error)))

    try:
        fetch_mock_sides(
            Researcher.open(Path(wish.home)),
            wish.cohort,
            wish.dataset,
            on_folder=read,
            on_wait=lambda domain, words: tell(News(domain=domain, words=words)),
        )
    except (FedprivError, OSError) as error:
        for member in wish.cohort:
            if member.email not in said or said[member.email]:
                tell(News(domain=member.email, words=str(error)))


if __name__ == "__main__":
    main()
