"""Doing something for each peer, so that what one of them left on the store keeps no other one waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedpriv.errors import FedprivError, HostKeyError, TransportError, UnreachableError, UntrustedError
from fedpriv.unforeseen import is_of_the_machine, unforeseen


class EachPeer:
    """Tells once what is wrong with one peer, and goes on with the next.

    *Guarantee*: whatever lies in one peer's place, the others are served in the same pass. *Assumption*: a peer writes
    below its own prefix only; whoever runs the store can keep everybody waiting.

    Parameters
    ----------
    tell : Callable[[str, str], None]
        Called with a peer's address and what is wrong; the same is told once.
    """

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._told: dict[str, str] = {}

    def do(self, emails: Sequence[str], work: Callable[[str], object]) -> None:
        """Do something for each peer; where it goes wrong with all of them, it is the store.

        Raises
        ------
        TransportError
            If the store does not answer, is another one, or refuses what is asked for every peer.
        OSError
            If it is this machine, such as a full disk.
        """
        refused: dict[str, TransportError] = {}
        for email in emails:
            try:
                work(email)
            except (UnreachableError, HostKeyError):
                raise
            except UntrustedError as error:
                self._say(email, error.what)
            except TransportError as error:
                refused[email] = error
            except Exception as error:  # syft's native module, say: of what this peer sent, until it is known better
                if isinstance(error, FedprivError) or is_of_the_machine(error):
                    raise
                self._say(email, unforeseen(error).what)
        if len(refused) == len(emails):
            for error in refused.values():
                raise error
        for email, error in refused.items():
            self._say(email, error.what)

    def _say(self, email: str, what: str) -> None:
        if self._told.get(email) != what:
            self._told[email] = what
            self._tell(email, what)
