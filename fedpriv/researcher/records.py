"""What a researcher keeps of a study beside tickets and answers, so that a restart goes on where it was."""

from __future__ import annotations

from pydantic import Field

from fedpriv.study import BlobRef
from fedpriv.study.names import Email, Sha256
from fedpriv.study.section import Section


class KeyState(Section):
    """Where the study key stands, as far as the researcher can know it.

    ``generation``   of the key in use; it is also the attempt of every ticket that uses it
    ``from_round``   the first round that is protected with it
    ``key_blobs``    the key sealed to each member but its maker; noise to us
    ``redo_round``   the round whose sum a domain refused, which retired this key; 0 while it is good
    ``retired_by``   the domains that refused it
    ``earlier``      the sealed copies of the generations before, for domains that open their sums late
    """

    generation: int = 1
    from_round: int = 1
    key_id: Sha256
    key_blobs: dict[Email, BlobRef]
    public: BlobRef
    redo_round: int = 0
    retired_by: tuple[Email, ...] = ()
    earlier: dict[int, dict[Email, BlobRef]] = Field(default_factory=dict)

    def blob_for(self, email: str, generation: int) -> BlobRef | None:
        """Return the copy of a generation that is sealed to a domain; None for its maker, who needs none."""
        return (self.key_blobs if generation == self.generation else self.earlier.get(generation, {})).get(email)


class Standing(Section):
    """How far a domain is, as its answers say.

    ``generation``  of the newest study key that it holds
    ``opened``      the last round whose sum it has opened, with all before
    """

    generation: int = 0
    opened: int = 0


class AskedMembers(Section):
    """Who is asked to train in one attempt of a round.

    ``steps``  of each one, where they are not the plan's
    ``bits``   that all seal with, where they are not the plan's
    """

    attempt: int
    members: tuple[Email, ...]
    steps: dict[Email, int] = Field(default_factory=dict)
    bits: int | None = None


class RoundMembers(Section):
    """Who seals in one attempt of a round, and the factor of each one's update.

    ``trained``  the round that each one's update was trained for, where that is not this one
    ``bits``     that all seal with, where they are not the plan's
    """

    attempt: int
    members: tuple[Email, ...]
    factors: dict[Email, float]
    trained: dict[Email, int] = Field(default_factory=dict)
    bits: int | None = None


class SumMembers(Section):
    """Whose updates are added in one attempt of a round: decided before the first of them is asked to confirm."""

    attempt: int
    members: tuple[Email, ...]


class Exclusion(Section):
    """A domain that is not waited for any more."""

    email: Email
    reason: str = Field(default="", max_length=500)
