"""The study key on its way: the researcher keeps the copies that the key maker sealed to the other members."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from fedpriv.errors import StudyError, UntrustedError
from fedpriv.protection.study_key import MAX_SEALED_KEY_BYTES
from fedpriv.researcher.courier import Courier
from fedpriv.researcher.events import Event, KeyRenewed
from fedpriv.researcher.records import KeyState
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import Result, Ticket


class KeyRelay:
    """Keeps what the key maker made, and has a new key made in place of a retired one.

    Every key is of one generation, and every ticket that uses it is of the attempt of that number: nothing that was
    sealed for one key can be mistaken for what is sealed for the next.
    """

    def __init__(self, folder: StudyFolder, courier: Courier, emit: Callable[[Event], None]) -> None:
        self._folder, self._courier, self._emit = folder, courier, emit
        self._maker = courier.plan.key_maker

    @property
    def state(self) -> KeyState:
        """Where the key stands.

        Raises
        ------
        StudyError
            If none was made.
        """
        keys = self._folder.keys()
        if keys is None:
            raise StudyError(
                f"{self._maker}, which makes the study's key, was excluded before it made one",
                kept="Nothing was trained",
                todo="make a new study without it",
            )
        return keys

    @property
    def public(self) -> bytes:
        """The key's public bytes: all that adding needs."""
        return self._folder.blob_path(self.state.public).read_bytes()

    async def take(self, made: Result, *, generation: int, from_round: int) -> None:
        """Fetch what the key maker made, once.

        Raises
        ------
        UntrustedError
            If it answered without a key.
        """
        public = made.public_context_blob
        if public is None:
            raise UntrustedError(f"{made.member} answered without a study key", kept="Nothing was run")
        if strangers := made.key_blobs.keys() - set(self._courier.plan.emails):
            raise UntrustedError(
                f"{made.member} sealed the study key for {min(strangers)}, who is no member", kept="Nothing was fetched"
            )
        before = self._folder.keys()
        blobs = (*made.key_blobs.values(), public)
        fetch = functools.partial(self._courier.fetch, made.member, max_bytes=MAX_SEALED_KEY_BYTES)
        await asyncio.gather(*(fetch(blob, self._folder.blob_path(blob)) for blob in blobs))
        self._folder.keep_keys(
            KeyState(
                generation=generation,
                from_round=from_round,
                key_id=public.sha256,
                key_blobs=made.key_blobs,
                public=public,
                earlier={} if before is None else before.earlier | {before.generation: before.key_blobs},
            )
        )

    async def renew(self) -> None:
        """Have a new key made if a domain retired the one in use; the round whose sum it refused is summed again.

        Raises
        ------
        StudyError
            If the key maker was excluded.
        """
        state = self.state
        if not state.redo_round:
            return
        if self._folder.excluded(self._maker) is not None:
            raise StudyError(
                f"The study's key was retired, and {self._maker}, which alone can make another, was excluded",
                kept="The finished rounds are kept",
                todo="make a new study with the other domains",
            )
        generation, number = state.generation + 1, state.redo_round
        results = await self._courier.ask_all(
            lambda email: Ticket(
                study=self._courier.study, kind="rekey", round=number, attempt=generation, member=email
            ),
            [self._maker],
            required=True,
        )
        for email in self._courier.plan.emails:  # the sum that is made again is opened again
            standing = self._folder.standing(email)
            opened = min(standing.opened, number - 1)
            self._folder.keep_standing(email, standing.model_copy(update={"opened": opened}))
        await self.take(results[self._maker], generation=generation, from_round=number)
        self._emit(
            KeyRenewed(study=self._courier.study, generation=generation, round=number, retired_by=state.retired_by)
        )
