"""Text that may stand in a plan or a message: addresses, names, digests and titles."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_EMAIL, _SLUG, _SHA256 = (
    r"^[a-z0-9][a-z0-9._+-]{0,63}@[a-z0-9][a-z0-9.-]{0,127}$",
    r"^[a-z0-9][a-z0-9-]{0,47}$",
    r"^[0-9a-f]{64}$",
)
FORMS = {
    _EMAIL: "an address in lower case, such as heart@north.example",
    _SLUG: "a name of at most 48 lower-case letters, digits and dashes",
    _SHA256: "64 digits of 0-9 and a-f",
}
"""What each pattern asks for, for people."""

Email = Annotated[str, StringConstraints(pattern=_EMAIL)]
"""Lower-case and without any character that means something in a path, a shell or HTML: emails become folder names."""

Slug = Annotated[str, StringConstraints(pattern=_SLUG)]
Sha256 = Annotated[str, StringConstraints(pattern=_SHA256)]
Fingerprint = Annotated[str, StringConstraints(pattern=_SHA256)]

_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""What Unicode calls printable although nothing is seen: fillers, blanks and variation selectors."""


def is_invisible(character: str) -> bool:
    """Return whether a reader cannot see ``character``; line ends and tabs are seen."""
    return not (character.isprintable() or character in "\n\r\t") or _BLANK.match(character) is not None


def _visible_line(text: str) -> str:
    if any(is_invisible(character) or character in "\n\r\t" for character in text):
        raise ValueError("it holds a line break or an invisible character")
    return text


Title = Annotated[str, StringConstraints(min_length=1, max_length=120), AfterValidator(_visible_line)]
"""One line that can be shown to a data owner as it is."""
