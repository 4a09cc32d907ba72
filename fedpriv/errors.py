"""Every error that fedpriv raises on purpose.

Each says what happened, what was kept, and what to do next; ``docs/errors.md`` has a section for each class.

    FedprivError
    ├── InputError            the person's input cannot be used              (exit code 2)
    │   ├── PlanError         plan.yaml has an unknown key, a wrong value or a wrong unit
    │   ├── DataError         a clinical table, column, row or shard is missing or unusable
    │   ├── ModelError        the base model is unknown or cannot be had
    │   ├── ConfigError       domain.yaml or a study folder cannot be used
    │   ├── ExistsError       the thing to create is there already
    │   └── LockError         another process holds the folder, or died holding it
    ├── RefusedError          a domain refused what it was asked to do       (exit code 3)
    │   └── RevokedError      an approval was withdrawn, or is over
    ├── UntrustedError        bytes from another party do not hold what they claim
    │   ├── SignatureError    a signature or a pinned fingerprint does not match
    │   ├── MissingBlobError  a blob that was announced is not on the store, or was changed there
    │   ├── ContainerError    a container is malformed, truncated, or of another study
    │   └── TamperedError     a sum does not hold what its members sealed
    ├── GatekeeperError       a raw update or its metrics may not leave
    ├── ProtectionError       sealing, adding or opening cannot be done safely
    ├── TransportError        the store cannot be read or written
    │   ├── UnreachableError  it does not answer, or the connection was lost: it may answer later
    │   └── HostKeyError      it shows another host key than the pinned one
    ├── TrainingError         the local round failed in its child process
    └── StudyError            a study cannot go on                           (exit code 4)
        ├── VersionError      parties run versions that do not understand each other
        │   └── UnknownVersionError   a party does not say its version on the store, or it was changed there
        └── StoppedError      it was asked to stop
"""

from __future__ import annotations

import unicodedata


class FedprivError(Exception):
    """Base of all errors of fedpriv.

    Parameters
    ----------
    what : str
        What happened, as one sentence without a closing full stop.
    kept : str, optional
        What was kept or left unchanged.
    todo : str, optional
        The next step for the person who reads it.
    """

    exit_code = 1

    def __init__(self, what: str, *, kept: str = "", todo: str = "") -> None:
        self.what = _shown(what).rstrip(".")
        self.kept = _shown(kept).rstrip(".")
        self.todo = _shown(todo).rstrip(".")
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [f"{self.what}."]
        if self.kept:
            parts.append(f"{self.kept}.")
        if self.todo:
            parts.append(f"Next: {self.todo}.")
        return " ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.kept, self.todo))


def _shown(text: str) -> str:
    """Return one line that a terminal shows and does not obey: parts of it may be another party's words."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or unicodedata.category(character) == "Zs"
        else " "
        if character in "\n\r\t"
        else f"<U+{ord(character):04X}>"
        for character in text
    )


def quoted(reason: str) -> str:
    """Return another error's words as an error quotes them: without a next step, of which a message has one."""
    head, _, step = reason.rpartition(" Next: ")
    return (head or step).rstrip(".")


def _rebuild(cls: type[FedprivError], what: str, kept: str, todo: str) -> FedprivError:
    return cls(what, kept=kept, todo=todo)


class InputError(FedprivError):
    """The person's input cannot be used; nothing was changed."""

    exit_code = 2


class PlanError(InputError):
    """plan.yaml has an unknown key, a value out of range or a wrong unit."""


class DataError(InputError):
    """A clinical table, column, row or shard is missing or unusable."""


class ModelError(InputError):
    """The base model is unknown, or neither a hub nor a package has it."""


class ConfigError(InputError):
    """domain.yaml or a study folder cannot be used as it is."""


class ExistsError(InputError):
    """The thing to create is there already; it was left as it is."""


class LockError(InputError):
    """Another process holds the folder, or died while it held it."""


class RefusedError(FedprivError):
    """A domain refused what it was asked to do, with its reason."""

    exit_code = 3


class RevokedError(RefusedError):
    """An approval was withdrawn, or its last day is over; work that was under way was stopped."""


class UntrustedError(FedprivError):
    """Bytes from another party do not hold what they claim; they were not used."""


class SignatureError(UntrustedError):
    """A signature or a pinned fingerprint does not match."""


class MissingBlobError(UntrustedError):
    """A blob that a party announced is not on the store as it was left: it was taken back, or lost or changed there."""


class ContainerError(UntrustedError):
    """A container is malformed, truncated, or belongs to another study or round."""


class TamperedError(UntrustedError):
    """A sum does not hold what its members sealed; the study key is not used again.

    Whoever may have changed sums opened learns the key from the answers.
    """


class GatekeeperError(FedprivError):
    """A raw update or its metrics may not leave the domain."""


class ProtectionError(FedprivError):
    """Sealing, adding or opening cannot be done safely."""


class TransportError(FedprivError):
    """The store cannot be read or written."""


class UnreachableError(TransportError):
    """The store does not answer, or the connection was lost on the way; asking again changes nothing and may help."""


class HostKeyError(TransportError):
    """The store shows another host key than the pinned one: it is another server, or somebody is in between."""


class TrainingError(FedprivError):
    """The local round failed in its child process."""


class StudyError(FedprivError):
    """A study cannot go on."""

    exit_code = 4


class VersionError(StudyError):
    """Parties of a study run versions of fedpriv that do not understand each other; nothing was trained."""


class UnknownVersionError(VersionError):
    """A party does not say on the store which version it runs, or it was changed there: it may say it any minute."""


class StoppedError(StudyError):
    """A study was asked to stop, and did."""
