"""What syft's messages say, read strictly: a peer may have written anything.

syft's own classes look into what they read before they check what it is, so that a number in the place of a text takes
as much memory as it says, and a text in the place of an object ends the process.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedpriv.errors import UntrustedError

MAX_FILES = 64
"""In one message."""

M = TypeVar("M", bound=BaseModel)


class SaidFile(BaseModel):
    """A file that a peer proposes, or that changed at a peer.

    Attributes
    ----------
    path_in_datasite, datasite_email : str
        Where it lies, and whose.
    content : str or None
        Base64 if ``content_type`` is ``binary``; None if the file is gone.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    path_in_datasite: str
    datasite_email: str
    content: str | None = None
    content_type: Literal["text", "binary"] | None = None
    is_deleted: bool = False

    def data(self) -> bytes | None:
        """Return its bytes; None if the file is gone.

        Raises
        ------
        UntrustedError
            If they are not base64 where they say so.
        """
        if self.content is None or self.is_deleted:
            return None
        if self.content_type != "binary":
            return self.content.encode()
        try:
            return base64.b64decode(self.content, validate=True)
        except ValueError as error:
            raise UntrustedError("A file in a message is not base64", kept="Nothing was written") from error


_Files = Annotated[list[SaidFile], Field(max_length=MAX_FILES)]


class Proposed(BaseModel):
    """Files that a researcher proposes to a data owner."""

    model_config = ConfigDict(strict=True, frozen=True)

    sender_email: str
    proposed_file_changes: _Files


class Changed(BaseModel):
    """Files that changed at a data owner."""

    model_config = ConfigDict(strict=True, frozen=True)

    events: _Files


def said(content: bytes, kind: type[M]) -> M:
    """Read a message of one of these kinds.

    Raises
    ------
    UntrustedError
        If it is none, or holds more than ``MAX_FILES`` files.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise UntrustedError(
            "A message is not one of syft's, or holds too many files", kept="It was not used"
        ) from error
