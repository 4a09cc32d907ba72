"""Update to bytes to sum to update: keys, containers and levels of protection."""

from fedpriv.protection.adding import UpdateAdder, adder_for
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
from fedpriv.protection.levels import make_study_key, needs_unlock
from fedpriv.protection.manifest import verify_manifest, verify_updates
from fedpriv.protection.masks import MaskSource, cohort_digest, combine_unlocks, updates_digest
from fedpriv.protection.opening import Opened, UpdateOpener, opener_for
from fedpriv.protection.parallel import useful_workers
from fedpriv.protection.scales import Scales, first_scales, scales_digest
from fedpriv.protection.sealing import SealedFile, UpdateSealer, sealer_for
from fedpriv.protection.study_key import StudyKey

__all__ = [
    "IdentityKeys",
    "MaskSource",
    "Opened",
    "Scales",
    "SealedFile",
    "StudyKey",
    "UpdateAdder",
    "UpdateOpener",
    "UpdateSealer",
    "adder_for",
    "cohort_digest",
    "combine_unlocks",
    "fingerprint",
    "fingerprint_words",
    "first_scales",
    "make_study_key",
    "needs_unlock",
    "open_sealed",
    "open_signed",
    "opener_for",
    "pairwise_secret",
    "parse_identity",
    "scales_digest",
    "seal_to",
    "sealer_for",
    "sign",
    "sign_update",
    "signed_identity",
    "updates_digest",
    "useful_workers",
    "verify_bytes",
    "verify_manifest",
    "verify_update",
    "verify_updates",
]
