"""What a party says of its software, and whether parties understand each other. No I/O, no cryptography."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from fedpriv.errors import UnknownVersionError, VersionError
from fedpriv.study.names import Email
from fedpriv.study.section import Section

VERSIONS_FILE = "fedpriv.json"
"""Beside a party's identity on the store. It is the one message whose form never changes: it says all others'."""

MAX_VERSIONS_BYTES = 16 * 1024
_MOST_PARTS = 32


def _release(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion as error:
        raise ValueError("it is no version number") from error
    return text


Release = Annotated[str, StringConstraints(max_length=40, pattern=r"^[0-9a-z.+!-]+$"), AfterValidator(_release)]
Part = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z ]{0,31}$")]
PartVersion = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,16}$")]


class SpokenVersions(Section):
    """A party's version of fedpriv, and of each part of the protocol that it speaks.

    Keys that a later version adds are ignored, so that an earlier one can still read which version that is.
    """

    model_config = ConfigDict(extra="ignore")

    member: Email
    fedpriv: Release
    protocol: dict[Part, PartVersion] = Field(min_length=1, max_length=_MOST_PARTS)

    def apart(self, other: SpokenVersions) -> tuple[str, ...]:
        """Return the parts of the protocol in which two parties differ, in words; none: they understand each other."""
        parts = sorted({*self.protocol, *other.protocol})
        return tuple(
            f"{part} {self.protocol.get(part, 'none')}, not {other.protocol.get(part, 'none')}"
            for part in parts
            if self.protocol.get(part) != other.protocol.get(part)
        )


def require_understanding(
    ours: SpokenVersions, theirs: Mapping[str, SpokenVersions | None], *, kept: str = "Nothing was sent"
) -> None:
    """Refuse parties that speak another protocol than ours, and say who has to install what.

    Parameters
    ----------
    theirs : Mapping[str, SpokenVersions or None]
        What each party says, by address; None for one that says nothing, which fedpriv before 0.1.0 did.

    Raises
    ------
    VersionError
        Naming every party that is apart, its version and ours. The newest version among all is what the others install.
    UnknownVersionError
        If those that are apart say nothing at all.
    """
    reasons, known = [], [ours]
    for email, spoken in sorted(theirs.items()):
        if spoken is None:
            reasons.append(
                f"{email} does not say which version it runs: it did not start on this store yet, or is older"
            )
            continue
        known.append(spoken)
        if apart := spoken.apart(ours):
            differs = "; ".join(apart)
            reasons.append(f"{email} runs fedpriv {spoken.fedpriv} ({differs}), and {ours.member} {ours.fedpriv}")
    if reasons:
        silent = [email for email, spoken in theirs.items() if spoken is None]
        what = f"Parties do not understand each other: {'; '.join(reasons)}"
        kind = UnknownVersionError if len(silent) == len(reasons) else VersionError
        raise kind(what, kept=kept, todo=_todo(known, silent))


def _todo(known: list[SpokenVersions], silent: Iterable[str]) -> str:
    newest = max(known, key=lambda spoken: Version(spoken.fedpriv))
    silent = sorted(silent)
    behind = sorted({spoken.member for spoken in known if spoken.apart(newest)} | set(silent))
    older = [spoken.member for spoken in known if spoken.member in behind and spoken.fedpriv == newest.fedpriv]
    builds = ", the same build of it," if older else ""
    start = f"start {', '.join(silent)} and try again in a minute; if it says nothing then, " if silent else ""
    install = f"install fedpriv {newest.fedpriv}{builds} at {', '.join(behind)}, or one version at all"
    return f"{start}{install} (docs/upgrading.md)"
