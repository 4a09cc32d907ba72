"""Known keys: every fingerprint that a domain relies on, with where it stands, for people to compare by phone."""

from __future__ import annotations

from dataclasses import dataclass

from fedpriv.domain.domain import Domain
from fedpriv.errors import UntrustedError
from fedpriv.protection import fingerprint_words
from fedpriv.protection.keys import start_of_words


@dataclass(frozen=True, kw_only=True)
class KnownKey:
    """One fingerprint of one party.

    Attributes
    ----------
    email : str
        The party's address.
    fingerprint : str
        64 hex digits.
    where : tuple of str
        Where it stands: ``this domain``, ``researcher, pinned``, and the studies whose plan names it.
    contradicted : bool
        Whether another place names another fingerprint for the same address: one of the two is wrong, or old.
    """

    email: str
    fingerprint: str
    where: tuple[str, ...]
    contradicted: bool

    @property
    def words(self) -> str:
        """The fingerprint's first half as twelve words."""
        return fingerprint_words(self.fingerprint)


def known_keys(domain: Domain) -> list[KnownKey]:
    """Return this domain's own key, those of the pinned researchers, and those of every stored request's plan.

    They are fingerprints that somebody wrote into ``domain.yaml`` or a plan. *Assumption*: nothing here says that they
    are right; comparing them with the person on the phone does.
    """
    found: dict[tuple[str, str], list[str]] = {(domain.config.email, domain.keys.fingerprint): ["this domain"]}
    for member in domain.config.researchers:
        found.setdefault((member.email, member.fingerprint), []).append("researcher, pinned in domain.yaml")
    for stored in domain.requests.all():
        plan, study = stored.request.plan, f"study {stored.request.study[:12]} ({stored.decision.decision})"
        for member in (plan.researcher, *plan.cohort):
            found.setdefault((member.email, member.fingerprint), []).append(study)
    prints: dict[str, set[str]] = {}
    for email, value in found:
        prints.setdefault(email, set()).add(value)
    return [
        KnownKey(email=email, fingerprint=value, where=tuple(where), contradicted=len(prints[email]) > 1)
        for (email, value), where in found.items()
    ]


def keys_of_words(keys: list[KnownKey], words: str) -> list[KnownKey]:
    """Return whose key it is whose words were read out; several only if one key stands under several addresses.

    Raises
    ------
    ConfigError
        If they are not the twelve words of any fingerprint.
    UntrustedError
        If they are, but of none in the list.
    """
    start = start_of_words(words)
    matching = [key for key in keys if key.fingerprint.startswith(start)]
    if not matching:
        raise UntrustedError(
            "These are the words of a fingerprint, but of none that this domain knows",
            kept="Nothing was pinned or approved",
            todo="call the other back on a number that you already have, and let `fedpriv domain keys` or the first "
            "lines of their init be read again; if they stay different, do not approve: the plan or domain.yaml "
            "names a key that is not theirs",
        )
    return matching
