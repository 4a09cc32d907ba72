"""The domain's side: takes what a parcel brings, waits for the domain's answer, and sends it. Keeps no state."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .mirror import RelayError, Shelf, is_answer, is_news, missing
from .parcel import Parcel, pack

_LOOK_S, _FOLLOWS_S = 0.1, 1.0


def answer_parcel(asked: Parcel, exchange: Path, domain: str, work: Callable[[], object] = lambda: None) -> Parcel:
    """Take a parcel of the researcher's and return what the domain has for it.

    Parameters
    ----------
    asked : Parcel
        What came.
    exchange : Path
        The domain's exchange folder.
    domain : str
        Its address.
    work : callable
        Called once the files are there: in a simulation, the domain works in it.

    Raises
    ------
    RelayError
        If the parcel is for another domain, or brings what may not be written.
    """
    ours = Shelf(root=exchange, owner=domain, reader=asked.sender)
    theirs = Shelf(root=exchange, owner=asked.sender, reader=domain)
    if asked.left is None:
        return Parcel(sender=domain, recipient=asked.sender, held=theirs.listing())
    if asked.recipient != domain:
        raise RelayError(f"a message for {asked.recipient[:80]!r} came to {domain}")
    for email, said in asked.versions.items():
        if email not in (domain, asked.sender):
            Shelf(root=exchange, owner=email, reader=domain).keep_versions(said)
    theirs.receive(asked.left, asked.files)
    work()
    _wait_for_news(ours, asked)
    left = ours.listing()
    files = pack(ours, left, asked.held)
    return Parcel(sender=domain, recipient=asked.sender, left=left, held=theirs.listing(), files=files)


def _wait_for_news(ours: Shelf, asked: Parcel) -> None:
    """Wait until the domain has something that somebody waits for, and at most as long as the other side wants.

    A message follows at once what it refers to: it is waited for, so that both go together.
    """
    end = time.monotonic() + asked.wait_s
    while (now := time.monotonic()) < end:
        news = [name for name in missing(ours.listing(), asked.held) if is_news(name)]
        if any(map(is_answer, news)):
            return
        if news:
            end = min(end, now + _FOLLOWS_S)
        time.sleep(_LOOK_S)
