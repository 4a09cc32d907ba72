"""Fetches the mock sides of a cohort's datasets, each as soon as its domain answers; no study is needed for that."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpriv.errors import FedprivError
from fedpriv.researcher.researcher import Researcher
from fedpriv.study import Identity
from fedpriv.study.plan import MemberChoice

if TYPE_CHECKING:
    from fedpriv.transport import ResearcherSession

LOOK_EVERY_S = 0.5
GIVE_UP_S = 120.0


def fetch_mock_sides(
    researcher: Researcher,
    members: Sequence[MemberChoice],
    dataset: str,
    *,
    on_folder: Callable[[str, Path], None],
    on_wait: Callable[[str, str], None],
    stop: Callable[[], bool] = lambda: False,
    give_up_s: float = GIVE_UP_S,
) -> None:
    """Fetch the mock side of a dataset from every member of a cohort.

    Everything in the folders is of another party, and says of itself that it is made up: check what you read
    (:func:`fedpriv.clinical.mock_reading.read_mock`).

    Parameters
    ----------
    dataset : str
        Its name.
    on_folder : Callable[[str, Path], None]
        Called with a domain's address and the folder, as soon as it is there.
    on_wait : Callable[[str, str], None]
        Called with a domain's address and what is waited for, or why it is not had.
    stop : Callable[[], bool]
        Asked twice a second.
    give_up_s : float
        After so many seconds without an answer of a domain.
    """
    fetching = _Fetching(researcher, dataset)
    left, deadline = {member.email: member for member in members}, time.monotonic() + give_up_s
    while left and not stop():
        for email, member in list(left.items()):
            try:
                folder = fetching.folder(member)
            except FedprivError as error:
                on_wait(email, str(error))
                del left[email]
                continue
            if folder is not None:
                on_folder(email, folder)
                del left[email]
            else:
                on_wait(email, fetching.waits_for(email))
        if left and time.monotonic() > deadline:
            for email in left:
                on_wait(email, f"gave up after {give_up_s:.0f} s: {fetching.waits_for(email)}")
            return
        if left:
            time.sleep(LOOK_EVERY_S)


class _Fetching:
    """One session a domain: a cohort's session would have to wait for the keys of all."""

    def __init__(self, researcher: Researcher, dataset: str) -> None:
        self._researcher, self._dataset = researcher, dataset
        self._identities: dict[str, Identity] = {}
        self._session: ResearcherSession | None = None
        researcher.publish_identity()

    def waits_for(self, email: str) -> str:
        return "waiting for its answer" if email in self._identities else "waiting for its public keys on the store"

    def folder(self, member: MemberChoice) -> Path | None:
        """Return the folder with a domain's mock side, or None while it has not answered."""
        email = member.email
        if email not in self._identities:
            identity = self._researcher.identity_of(email, member.fingerprint)
            if identity is None:
                return None
            self._identities[email] = identity
            self._session = None
        if self._session is None:
            self._session = self._researcher.session(self._identities)
        if not self._session.connect(email):
            return None
        self._session.fetch_datasets(email)
        manager = self._session.client.dataset_manager
        found = next((one for one in manager.get_all(email) if one.name == self._dataset), None)
        return None if found is None else Path(found.mock_dir)
