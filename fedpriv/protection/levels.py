"""The levels of protection behind one interface: a key, a sealer, an adder and an opener for each.

The aggregator uses :func:`adder_for` only, with public bytes.
"""

from __future__ import annotations

from fedpriv.errors import ProtectionError, UntrustedError
from fedpriv.files import sha256_hex
from fedpriv.protection.ckks import CkksAdder, CkksOpener, CkksSealer, make_ckks_key
from fedpriv.protection.masks import MaskSource
from fedpriv.protection.plain import PlainAdder, PlainOpener, PlainSealer
from fedpriv.protection.roles import Adder, Opener, Sealer, StudyKey, read_parameters
from fedpriv.protection.sealed import SealedAdder, SealedOpener, SealedSealer, make_sealed_key
from fedpriv.study.plan import ProtectionChoice, ProtectionLevel


def make_study_key(protection: ProtectionChoice, *, clients: int, study: str) -> StudyKey:
    """Make the cohort's homomorphic key of one study; the key maker calls this once.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's section.
    clients : int
        How many domains the cohort has, 2 to 64.
    study : str
        The study's id.

    Returns
    -------
    StudyKey
        Empty, with ``key_id`` ``""``, for level plain.

    Raises
    ------
    ProtectionError
        If so many clients with so many bits cannot be summed exactly.
    """
    match protection.level:
        case "plain":
            return StudyKey(level="plain", public=b"", secret=b"")
        case "ckks":
            return make_ckks_key(protection, clients=clients, study=study)
        case "sealed":
            return make_sealed_key(protection, clients=clients, study=study)


def sealer_for(protection: ProtectionChoice, key: StudyKey, *, masks: MaskSource | None = None) -> Sealer:
    """Return a domain's sealer.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's section.
    key : StudyKey
        The study's key.
    masks : MaskSource, optional
        The member's pairwise masks; level sealed needs them.

    Raises
    ------
    ProtectionError
        If the key is for another protection, or masks are missing.
    UntrustedError
        If the key is damaged.
    """
    _require_level(protection, key)
    match protection.level:
        case "plain":
            return PlainSealer()
        case "ckks":
            return CkksSealer(protection, key)
        case "sealed":
            if masks is None:
                raise ProtectionError("level sealed needs the pairwise masks of the member")
            return SealedSealer(protection, key, masks)


def adder_for(level: ProtectionLevel, public: bytes) -> Adder:
    """Return the aggregator's adder, made of public bytes.

    *Guarantee*: what it returns holds no secret, because nothing secret went in.

    Parameters
    ----------
    level : str
        The plan's level.
    public : bytes
        The study key's public bytes; empty for level plain.

    Raises
    ------
    UntrustedError
        If the bytes are malformed, or of another level.
    """
    if level == "plain":
        if public:
            raise UntrustedError("level plain has no key", kept="It was not used")
        return PlainAdder()
    if read_parameters(public).level != level:
        raise UntrustedError(f"the public key is not for level {level}", kept="It was not used")
    key_id = sha256_hex(public)
    return CkksAdder(key_id, public) if level == "ckks" else SealedAdder(key_id, public)


def opener_for(protection: ProtectionChoice, key: StudyKey, clients: int) -> Opener:
    """Return a domain's opener of sums.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's section.
    key : StudyKey
        The study's key.
    clients : int
        How many domains the cohort has.

    Raises
    ------
    ProtectionError
        If the key is for another protection or cohort.
    UntrustedError
        If the key is damaged.
    """
    _require_level(protection, key)
    match protection.level:
        case "plain":
            return PlainOpener()
        case "ckks":
            return CkksOpener(protection, key, clients)
        case "sealed":
            return SealedOpener(protection, key, clients)


def _require_level(protection: ProtectionChoice, key: StudyKey) -> None:
    if key.level != protection.level:
        raise ProtectionError(f"the study key is for level {key.level}, not {protection.level}")
