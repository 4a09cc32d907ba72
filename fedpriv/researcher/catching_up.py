"""Bringing domains up to date: whoever missed rounds opens their sums one after the other, then takes part again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from fedpriv.errors import StudyError
from fedpriv.researcher.courier import Courier
from fedpriv.researcher.events import DomainCaughtUp, Event
from fedpriv.researcher.key_relay import KeyRelay
from fedpriv.researcher.records import Standing
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import AggregateManifest, BlobRef, Result, Ticket


class Carried(TypedDict, total=False):
    """The fields of a ticket that bring its domain up to date."""

    key: BlobRef
    aggregate: AggregateManifest
    aggregate_blob: BlobRef


class CatchingUp:
    """Knows what each domain holds, and leaves it what it lacks."""

    def __init__(self, folder: StudyFolder, courier: Courier, keys: KeyRelay, emit: Callable[[Event], None]) -> None:
        self._folder, self._courier, self._keys, self._emit = folder, courier, keys, emit

    async def ask(self, ticket: Ticket, *, after: int, required: bool = False) -> Result | None:
        """Ask a domain for something that builds on the sum of a round, which it is given first if it lacks it.

        The newest sum, and the key if it is new, travel in the ticket; older ones in replay tickets before it.

        Parameters
        ----------
        ticket : Ticket
            Without key and aggregate.
        after : int
            The round whose sum it builds on; 0 for none.
        required : bool
            As :meth:`Courier.ask`.

        Returns
        -------
        Result or None
            The answer to the ticket, or the refusal of a sum before it.
        """
        email, generation = ticket.member, self._keys.state.generation
        known = self._folder.result(ticket)
        if known is not None and known.status == "done":
            await self._note(email, opened=after, generation=generation)
            return await self._courier.ask(ticket)
        replayed = False  # what was only skipped is nothing to tell
        for number in range(self._folder.standing(email).opened + 1, after + 1):
            if self._folder.is_skipped(number):
                make = Ticket(study=ticket.study, kind="skip", round=number, attempt=generation, member=email)
                held = self._folder.standing(email).generation
            else:
                manifest = self._manifest(number)
                if number == after and manifest.attempt == generation:
                    break  # the ticket itself carries it
                held = manifest.attempt
                make = Ticket(study=ticket.study, kind="replay", round=number, attempt=held, member=email)
                make = make.model_copy(update=await self._carried(email, number, held))
                replayed = True
            result = await self._courier.ask(make, required=required)
            if result is None or result.status != "done":
                return result
            await self._note(email, opened=number, generation=held)
        carried = await self._carried(email, after, generation)
        result = await self._courier.ask(ticket.model_copy(update=carried), required=required)
        if result is not None and result.status == "done":
            await self._note(email, opened=after, generation=generation)
            if replayed:
                self._emit(DomainCaughtUp(study=ticket.study, domain=email, round=after))
        return result

    def forget(self, before: int) -> None:
        """Remove sums of rounds before this one from our disk that every domain of the cohort has opened."""
        opened = min(self._folder.standing(email).opened for email in self._courier.plan.emails)
        for number in range(1, min(before, opened + 1)):
            manifest = self._folder.manifest(number)
            if manifest is not None:
                self._folder.aggregate_path(manifest).unlink(missing_ok=True)

    async def _carried(self, email: str, after: int, generation: int) -> Carried:
        """Return what a ticket carries so that the domain can open the sum of a round with a key of a generation."""
        standing, carried = self._folder.standing(email), Carried()
        blob = self._keys.state.blob_for(email, generation)
        if standing.generation < generation and blob is not None:
            carried["key"] = await self._courier.send(email, blob.name, self._folder.blob_path(blob))
        if standing.opened < after:
            manifest = self._manifest(after)
            path = self._folder.aggregate_path(manifest)
            carried["aggregate"] = manifest
            carried["aggregate_blob"] = await self._courier.send(email, self._name(manifest), path)
        return carried

    def _manifest(self, number: int) -> AggregateManifest:
        manifest = self._folder.manifest(number)
        if manifest is None or not self._folder.aggregate_path(manifest).exists():
            raise StudyError(
                f"The sum of round {number} is not on this disk any more",
                kept="The domains that opened it have its adapter",
                todo="exclude the domain that lacks it, or make a new study",
            )
        return manifest

    async def _note(self, email: str, *, opened: int, generation: int) -> None:
        """Keep what a domain holds now, and remove what lay on the store for it."""
        before = self._folder.standing(email)
        now = Standing(opened=max(before.opened, opened), generation=max(before.generation, generation))
        if now == before:
            return
        self._folder.keep_standing(email, now)
        for number in range(before.opened + 1, now.opened + 1):
            manifest = self._folder.manifest(number)
            if manifest is not None:
                await self._courier.remove(email, self._name(manifest))
        blob = self._keys.state.blob_for(email, now.generation)
        if now.generation > before.generation and blob is not None:
            await self._courier.remove(email, blob.name)

    def _name(self, manifest: AggregateManifest) -> str:
        return f"aggregate-{manifest.study[:16]}-{manifest.round:04d}-{manifest.attempt}"
