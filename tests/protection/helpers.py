"""A small cohort that seals, adds and opens, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpriv.protection import (
    IdentityKeys,
    MaskSource,
    StudyKey,
    make_study_key,
    sealer_for,
    sign_update,
)
from fedpriv.protection.roles import SealedFile
from fedpriv.study import AggregateManifest, SignedUpdate, UpdateHeader
from fedpriv.study.plan import ProtectionChoice

STUDY = "5" * 64
LAYOUT = "b" * 64


@dataclass
class Cohort:
    protection: ProtectionChoice
    keys: dict[str, IdentityKeys]
    key: StudyKey
    folder: Path

    @property
    def identities(self):
        return {email: keys.identity for email, keys in self.keys.items()}

    @property
    def weights(self):
        return {email: 1 / len(self.keys) for email in self.keys}

    def header(self, email: str, parameters: int, **changes) -> UpdateHeader:
        values = {
            "study": STUDY,
            "round": 1,
            "attempt": 1,
            "member": email,
            "level": self.protection.level,
            "weight": self.weights[email],
            "key_id": self.key.key_id,
            "layout": LAYOUT,
            "parameters": parameters,
        }
        return UpdateHeader(**(values | changes))

    def sealer(self, email: str):
        masks = MaskSource.of_cohort(self.keys[email], self.identities.values(), study=STUDY)
        return sealer_for(self.protection, self.key, masks=masks)

    def seal(self, email: str, update: np.ndarray, *, sealer=None, residual=None, **changes):
        header = self.header(email, update.size, **changes)
        path = self.folder / f"{email}.safetensors"
        sealed = (sealer or self.sealer(email)).seal(header, update, path, residual=residual)
        return sealed, (self.sign(header, sealed), path)

    def sign(self, header: UpdateHeader, sealed: SealedFile) -> SignedUpdate:
        return sign_update(self.keys[header.member], header, sealed.sha256, sealed.size_bytes)

    def manifest(self, updates, digest: str) -> AggregateManifest:
        return AggregateManifest(
            study=STUDY, round=1, attempt=1, updates=tuple(signed for signed, _ in updates), aggregate_sha256=digest
        )


def identity_keys(email: str) -> IdentityKeys:
    return IdentityKeys.create(email, "house", "0" * 64)


def make_cohort(folder: Path, level: str, *, clients: int = 3, bits: int = 16, clip: float = 0.05) -> Cohort:
    protection = ProtectionChoice(level=level, bits=bits, clip=clip)
    keys = {email: identity_keys(email) for email in (f"domain{number}@example.org" for number in range(clients))}
    return Cohort(protection, keys, make_study_key(protection, clients=clients, study=STUDY), folder)
