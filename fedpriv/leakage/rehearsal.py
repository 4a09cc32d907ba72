"""A cohort in one process that protects updates as domains do: the bytes that attacks are tried on.

Keys, masks, sealing, adding and opening are the product's own (:mod:`fedpriv.protection`); only the members' keys are
made up, and all of them are in one place. So it is for measuring, never for a study.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.errors import ProtectionError
from fedpriv.leakage.views import AGGREGATOR, STORE, View, aggregator_view, domain_view, sum_view
from fedpriv.protection import (
    IdentityKeys,
    MaskSource,
    adder_for,
    combine_unlocks,
    first_scales,
    make_study_key,
    needs_unlock,
    opener_for,
    scales_digest,
    sealer_for,
    sign_update,
)
from fedpriv.study.messages import AggregateManifest, SignedUpdate, Unlocked, UpdateHeader
from fedpriv.study.protection_choice import ProtectionChoice
from fedpriv.training.adapter import Float32, Layout, flatten, layout_digest


@dataclass(frozen=True, kw_only=True)
class Published:
    """One member's sealed update.

    Attributes
    ----------
    signed, path
        The signed header, and the container.
    sent : ndarray of float64, (P,)
        What the member itself knows that it put into the sum: its weighted update as it was rounded.
    """

    signed: SignedUpdate
    path: Path
    sent: np.ndarray = field(repr=False)


class Rehearsal:
    """The first round of a made-up cohort whose members all weigh the same.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's section.
    layout : dict
        Names and shapes of the adapter's tensors.
    folder : Path
        An empty folder for containers.
    members : int, default 3
        How many domains the cohort has.
    clip : float, optional
        Largest magnitude of one parameter's weighted update; by default the plan's.

    Raises
    ------
    ProtectionError
        If the plan has no clip and none is given, or such updates cannot be summed exactly.
    """

    def __init__(
        self,
        protection: ProtectionChoice,
        layout: Layout,
        folder: Path,
        *,
        members: int = 3,
        clip: float | None = None,
    ) -> None:
        clip = clip or protection.clip
        if clip is None:
            raise ProtectionError("A rehearsal needs a clip", todo="give one, or set protection > clip in the plan")
        self.protection, self.layout, self._folder = protection, layout, folder
        self._tensors = {name: int(np.prod(shape)) for name, shape in layout.items()}
        self._study = secrets.token_hex(32)
        self._keys = [
            IdentityKeys.create(f"domain-{n}@example.org", "domain", secrets.token_hex(32)) for n in range(members)
        ]
        self._key = make_study_key(protection, tensors=self._tensors, clients=members, study=self._study)
        self._scales = first_scales(clip, self._tensors)
        self._attempt = 0

    def publish(self, updates: Sequence[Mapping[str, Float32]]) -> list[Published]:
        """Seal one update for each member, in their order.

        Raises
        ------
        GatekeeperError
            If an update holds a value that is not finite.
        ProtectionError
            If there is not one for each member.
        """
        if len(updates) != len(self._keys):
            raise ProtectionError(f"A cohort of {len(self._keys)} publishes as many updates, not {len(updates)}")
        self._attempt += 1  # masks are never used twice
        return [self._seal(keys, flatten(update)) for keys, update in zip(self._keys, updates, strict=True)]

    def unlock(self, published: Sequence[Published]) -> Unlocked:
        """Return the combined unlocks of these updates: what is known to all parties after the round.

        Raises
        ------
        FedprivError
            If these are not one update each of two members or more.
        """
        if not needs_unlock(self.protection):
            return Unlocked()
        signed = [part.signed for part in published]
        sources = {keys.email: self._masks(keys) for keys in self._keys}
        return combine_unlocks(signed, {s.header.member: sources[s.header.member].unlock(signed) for s in signed})

    def aggregator_view(self, published: Published, *, unlocked: Unlocked | None = None) -> View:
        """Return what the aggregator holds of one of them; see :func:`fedpriv.leakage.views.aggregator_view`."""
        return self._outside(published, AGGREGATOR, unlocked)

    def store_view(self, published: Published) -> View:
        """Return what the store, or anybody on the way, holds of one of them: the aggregator's bytes, no unlocks."""
        return self._outside(published, STORE, None)

    def domain_view(self, published: Published, *, colluding: Sequence[int], unlocked: Unlocked | None = None) -> View:
        """Return what these members hold of another one's single update that they got hold of.

        Parameters
        ----------
        published : Published
            The update.
        colluding : sequence of int
            Numbers of the members, not that of the update's own one.
        unlocked : Unlocked, optional
            As :meth:`unlock` gives; by default the round is not over.

        Raises
        ------
        ProtectionError
            If the update is a colluding member's own.
        """
        few = "a domain" if len(colluding) == 1 else f"{len(colluding)} colluding domains"
        return domain_view(
            published.signed,
            published.path,
            key=self._key,
            sources=[self._masks(self._keys[member]) for member in colluding],
            protection=self.protection,
            layout=self.layout,
            scales=self._scales,
            unlocked=unlocked,
            party=f"{few} with the store's bytes",
        )

    def sum_view(self, published: Sequence[Published], *, colluding: Sequence[int] = ()) -> View:
        """Add, unlock and open them, and return what these members hold who put together what they know.

        Raises
        ------
        FedprivError
            As adding and opening do.
        """
        signed = [part.signed for part in published]
        path = self._folder / f"sum-{secrets.token_hex(8)}"
        digest, _ = adder_for(self._key.public).add([(part.signed, part.path) for part in published], path)
        first = signed[0].header
        manifest = AggregateManifest(
            study=first.study,
            round=first.round,
            attempt=first.attempt,
            updates=tuple(signed),
            aggregate_sha256=digest,
            unlocked=self.unlock(published),
        )
        opened = opener_for(self.protection, self._key, self._tensors).open(
            path, manifest=manifest, scales=self._scales
        )
        known = [published[member].sent for member in colluding]
        party = f"{len(known)} colluding domains" if len(known) > 1 else "a domain"
        return sum_view(opened.sum, layout=self.layout, known=known, party=party)

    def _outside(self, published: Published, party: str, unlocked: Unlocked | None) -> View:
        return aggregator_view(
            published.signed,
            published.path,
            public=self._key.public,
            protection=self.protection,
            layout=self.layout,
            scales=self._scales,
            unlocked=unlocked,
            party=party,
        )

    def _seal(self, keys: IdentityKeys, update: Float32) -> Published:
        masks = self._masks(keys)
        header = UpdateHeader(
            study=self._study,
            round=1,
            attempt=self._attempt,
            member=keys.email,
            cohort=masks.cohort,
            level=self.protection.level,
            bits=self.protection.bits,
            weight=1 / len(self._keys),
            nonce=secrets.token_hex(16),
            key_id=self._key.key_id,
            layout=layout_digest(self.layout),
            scales=scales_digest(self._scales),
            parameters=update.size,
        )
        path = self._folder / f"update-{header.nonce}"
        rest = path.with_suffix(".residual")
        sealer = sealer_for(self.protection, self._key, self._tensors, masks=masks)
        sealed = sealer.seal(header, update, path, scales=self._scales, residual_out=rest)
        sent = update.astype(np.float64) * header.weight - np.fromfile(rest, "<f4")
        return Published(signed=sign_update(keys, header, sealed.sha256, sealed.size_bytes), path=path, sent=sent)

    def _masks(self, keys: IdentityKeys) -> MaskSource:
        return MaskSource.of_cohort(keys, (other.identity for other in self._keys), study=self._study)
