"""Update to bytes to sum to update: keys, containers and levels of protection."""

from fedpriv.protection.envelope import open_sealed, seal_to
from fedpriv.protection.identities import parse_identity, signed_identity
from fedpriv.protection.keys import (
    IdentityKeys,
    fingerprint,
    fingerprint_words,
    open_signed,
    pairwise_secret,
    sign,
    sign_update,
    verify_bytes,
    verify_update,
)
from fedpriv.protection.levels import adder_for, make_study_key, opener_for, sealer_for
from fedpriv.protection.manifest import verify_manifest, verify_updates
from fedpriv.protection.masks import MaskSource
from fedpriv.protection.roles import Adder, Opener, SealedFile, Sealer, StudyKey

__all__ = [
    "Adder",
    "IdentityKeys",
    "MaskSource",
    "Opener",
    "SealedFile",
    "Sealer",
    "StudyKey",
    "adder_for",
    "fingerprint",
    "fingerprint_words",
    "make_study_key",
    "open_sealed",
    "open_signed",
    "opener_for",
    "pairwise_secret",
    "parse_identity",
    "seal_to",
    "sealer_for",
    "sign",
    "sign_update",
    "signed_identity",
    "verify_bytes",
    "verify_manifest",
    "verify_update",
    "verify_updates",
]
