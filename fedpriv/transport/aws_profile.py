"""Keys of S3 from ``~/.aws``: the files that AWS's own tools write, which the store's library does not read.

Environment variables, roles of a machine and web identities are the library's own work and go first.
"""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict

from fedpriv.errors import ConfigError

_GIVEN_OTHERWISE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_FRESH = timedelta(minutes=10)
"""How long keys are used before the file is read again: other tools renew those that expire in it."""


class S3Keys(TypedDict):
    """What the store's library takes from a provider of keys."""

    access_key_id: str
    secret_access_key: str
    token: str | None
    expires_at: datetime | None


@dataclass(frozen=True)
class ProfileKeys:
    """Reads a profile's keys whenever the library asks for them."""

    path: Path
    profile: str

    def __call__(self) -> S3Keys:
        """Return the keys.

        Raises
        ------
        ConfigError
            If the file does not hold them any more.
        """
        section = _section(self.path, self.profile)
        try:
            return {
                "access_key_id": section["aws_access_key_id"],
                "secret_access_key": section["aws_secret_access_key"],
                "token": section.get("aws_session_token"),
                "expires_at": datetime.now(UTC) + _FRESH,
            }
        except KeyError as error:
            raise ConfigError(
                f"The profile {self.profile} in {self.path} has no {error.args[0]}",
                todo="run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ) from None


def profile_keys() -> ProfileKeys | None:
    """Return the keys of ``AWS_PROFILE``, or of the profile ``default``; None where the library finds others itself."""
    if any(os.environ.get(name) for name in _GIVEN_OTHERWISE):
        return None
    keys = ProfileKeys(_file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), _profile())
    if "aws_access_key_id" not in _section(keys.path, keys.profile):
        return None
    keys()  # what is wrong with them is said now
    return keys


def profile_region() -> str:
    """Return the region of the profile in ``~/.aws/config``; empty where it names none, or the environment does."""
    if os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        return ""
    profile, path = _profile(), _file("AWS_CONFIG_FILE", "config")
    return _section(path, "default" if profile == "default" else f"profile {profile}").get("region", "")


def _profile() -> str:
    return os.environ.get("AWS_PROFILE") or "default"


def _file(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or f"~/.aws/{name}").expanduser()


def _section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
        return dict(parser[name]) if parser.has_section(name) else {}
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        reason = type(error).__name__  # its words may show a line of the file
        raise ConfigError(f"The file {path} cannot be read ({reason})", todo="correct it") from None
