"""What the parties say to each other: tickets and results, as validated data. No I/O, no cryptography."""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from fedpriv.study.names import Email, Fingerprint, Sha256, Slug
from fedpriv.study.plan import MAX_COHORT, MetricName
from fedpriv.study.protection_choice import ProtectionLevel
from fedpriv.study.section import Section

MAX_BLOB_BYTES = 8 * 2**30

MAX_TICKET_BYTES = 6 * 2**20
"""Room for the largest ticket: its aggregate is of 256 members with the longest addresses, nearly half of them dropped,
whose mask keys with each of the others stand in it. With short addresses and nobody dropped it has 0.3 MB."""

_SPAN = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d-(?:[01]\d|2[0-3]):[0-5]\d")
Base64Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}=$")]
Base64Signature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}==$")]
Nonce = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
BlobName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,119}$")]


def _span(text: str) -> str:
    if not _SPAN.fullmatch(text):
        raise ValueError("it is no span of the day, such as 19:00-07:00")
    start, _, end = text.partition("-")
    if start == end:
        raise ValueError("it begins and ends at the same minute: leave it out to allow the whole day")
    return text


IDENTITY_FILE = "identity.json"
"""A party's public keys on the store."""


class Identity(Section):
    """A party's public keys; its fingerprint is what others pin.

    ``transport_key`` is the identity key of the party's syft key bundle (hex), so that pinning one fingerprint
    also pins the end-to-end encryption of the transport.
    """

    email: Email
    name: Slug
    signing_key: Base64Key = Field(description="Ed25519 public key, URL-safe base64")
    agreement_key: Base64Key = Field(description="X25519 public key, URL-safe base64")
    transport_key: Sha256


class BlobRef(Section):
    """Where a blob lies on the store and what it must be: encrypted to its recipient, checked by size and digest."""

    name: BlobName
    size_bytes: int = Field(ge=1, le=MAX_BLOB_BYTES)
    sha256: Sha256


class UpdateHeader(Section):
    """What a sealed update claims about itself; signed together with its container's digest."""

    study: Sha256
    round: int = Field(ge=1, le=1000)
    attempt: int = Field(ge=1, le=1000)
    member: Email
    cohort: Sha256 = Field(description="digest of the members whose pairwise masks are in the update")
    level: ProtectionLevel = Field(description="the plan's level; rules may give some tensors another")
    bits: int = Field(ge=4, le=16, description="of a quantised value in this round; rules may give some tensors others")
    weight: float = Field(gt=0, le=1)
    nonce: Nonce = Field(description="new for each sealing; its self mask, tag and encryption are bound to it")
    key_id: Sha256 = Field(description="digest of the study key's public bytes")
    layout: Sha256 = Field(description="digest of the names and shapes of the adapter's parameters")
    scales: Sha256 = Field(description="digest of the scale of each tensor, which all members must share")
    parameters: int = Field(ge=1)


class SignedUpdate(Section):
    """A header, the container it belongs to, and the member's signature over both."""

    header: UpdateHeader
    container_sha256: Sha256
    container_bytes: int = Field(ge=1, le=MAX_BLOB_BYTES)
    signature: Base64Signature


class Unlock(Section):
    """What one member gives once it has seen which updates will be added, so that their sum can be opened.

    ``share``    its own self-mask seed, locked with one secret for each other member of the sum
    ``shares``   for each other member of the sum, this member's part of that member's lock
    ``dropped``  for each member that sealed with us but is not in the sum, the mask key shared with it in this round
    """

    share: Base64Key
    shares: dict[Email, Base64Key] = Field(max_length=MAX_COHORT)
    dropped: dict[Email, Base64Key] = Field(default_factory=dict, max_length=MAX_COHORT)


class Unlocked(Section):
    """All members' unlocks, combined: what is subtracted from a sum after it was decrypted.

    ``self_masks``  the seed of each member's self mask
    ``dropped``     for each dropped member, the mask key of its pair with each member of the sum
    """

    self_masks: dict[Email, Base64Key] = Field(default_factory=dict, max_length=MAX_COHORT)
    dropped: dict[Email, dict[Email, Base64Key]] = Field(default_factory=dict, max_length=MAX_COHORT)


class AggregateManifest(Section):
    """What went into an aggregate: exactly these updates. It travels in a ticket, signed by the researcher."""

    study: Sha256
    round: int = Field(ge=1, le=1000)
    attempt: int = Field(ge=1, le=1000)
    updates: tuple[SignedUpdate, ...] = Field(min_length=1, max_length=MAX_COHORT)
    aggregate_sha256: Sha256
    unlocked: Unlocked = Unlocked()


class Signed(Section):
    """A message with its sender's signature over its kind and canonical JSON."""

    kind: Literal["ticket", "result", "decision", "identity", "consent", "shard", "versions"]
    payload: dict[str, object]
    signer: Fingerprint
    signature: Base64Signature

    def to_bytes(self) -> bytes:
        """Return the text that is sent: JSON that people can read too."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True).encode()


class Consent(Section):
    """A domain's word that this adapter of this study may go to the researcher, with what people should know of it."""

    study: Sha256
    round: int = Field(ge=1, le=1000)
    member: Email
    adapter_sha256: Sha256
    rounds_joined: int = Field(ge=0, le=1000, description="rounds whose sum holds an update of this domain")
    epsilon: float | None = Field(default=None, ge=0, description="that the study came to here; none: no privacy")
    delta: float | None = Field(default=None, gt=0, lt=1)
    ledger_sha256: Sha256 = Field(description="digest of the newest entry of the domain's ledger at that moment")


TICKET_FILE = "ticket.json"
"""The one file of the job in which a ticket travels."""

TicketKind = Literal[
    "prepare", "rekey", "replay", "skip", "train", "seal", "confirm", "finish", "consent", "release", "ping"
]


class Ticket(Section):
    """One piece of work for one domain. The same work always has the same ticket, so it can be sent twice.

    ``prepare``  load the base model, build the first adapter, report the held-out loss; the key maker also makes
                 the homomorphic key and seals it to each member.
    ``rekey``    make a new study key in place of one that was retired (the key maker only).
    ``replay``   open the aggregate of that round: a domain that was away is brought up to date, round by round.
    ``skip``     leave that round without a sum: the adapter after it is the one before it.
    ``train``    open the aggregate of the round before (if any) and train; if it names members, seal and publish.
    ``seal``     seal and publish what was trained for ``trained``, as this round's update among these members.
    ``confirm``  see exactly which updates will be added, and give the unlock that opens their sum and no other.
    ``finish``   open the last aggregate and report the held-out loss.
    ``consent``  ask the data owner for the release of the adapter; answered when they have decided.
    ``release``  hand over the plain adapter, if enough domains consented.
    ``ping``     answer, and nothing else.
    """

    study: Sha256
    kind: TicketKind
    round: int = Field(ge=0, le=1000)
    attempt: int = Field(default=1, ge=1, le=1000)
    retry: int = Field(default=0, ge=0, le=1000, description="asked again after a refusal or a failure")
    member: Email
    identities: tuple[Identity, ...] = Field(
        default=(), max_length=MAX_COHORT + 1, description="the cohort's public keys (prepare)"
    )
    members: tuple[Email, ...] = Field(
        default=(), max_length=MAX_COHORT, description="who seals in this round (train, seal)"
    )
    weight: float | None = Field(default=None, gt=0, le=1, description="factor of this member's update (train, seal)")
    steps: int | None = Field(
        default=None, ge=1, le=100_000, description="optimiser steps, if fewer than the plan's (train)"
    )
    bits: int | None = Field(
        default=None, ge=4, le=16, description="bits of this round, one of the plan's choices (train, seal)"
    )
    trained: int | None = Field(default=None, ge=1, le=1000, description="round whose training is sealed (seal)")
    updates: tuple[SignedUpdate, ...] = Field(
        default=(), max_length=MAX_COHORT, description="the updates that will be added (confirm)"
    )
    key: BlobRef | None = Field(
        default=None, description="the sealed study key, relayed (first train, or after a rekey)"
    )
    aggregate: AggregateManifest | None = None
    aggregate_blob: BlobRef | None = None
    consents: tuple[Signed, ...] = Field(
        default=(), max_length=MAX_COHORT, description="each domain's consent to the release, as it signed it (release)"
    )

    @property
    def name(self) -> str:
        """The syft job's name."""
        return f"ticket-{self.study[:16]}-r{self.round:04d}-{self.kind}-{self.attempt}-{self.retry}"

    @property
    def work(self) -> dict[str, object]:
        """What is asked, however often: the ticket without its retry number."""
        return self.model_dump(mode="json", exclude={"retry"})


class LinkSample(Section):
    """What a domain measured of its link to the store while it carried out one ticket; zeros where nothing was moved.

    ``small_put_s``  wall clock of putting a few bytes: what a message costs beside its size
    """

    up_bytes: int = Field(default=0, ge=0)
    up_s: float = Field(default=0.0, ge=0)
    down_bytes: int = Field(default=0, ge=0)
    down_s: float = Field(default=0.0, ge=0)
    small_put_s: float = Field(default=0.0, ge=0)


class Result(Section):
    """A domain's signed answer to a ticket."""

    study: Sha256
    ticket_sha256: Sha256
    kind: TicketKind
    round: int = Field(ge=0, le=1000)
    member: Email
    status: Literal["done", "refused", "failed"]
    reason: str = Field(default="", max_length=2000)
    metrics: dict[MetricName, float] = Field(default_factory=dict)
    adapter_sha256: Sha256 | None = None
    update: SignedUpdate | None = None
    update_blob: BlobRef | None = None
    unlock: Unlock | None = Field(default=None, description="answer to confirm, where the level has masks")
    retired_key: Sha256 | Literal[""] = Field(default="", description="the key this member will not open with any more")
    key_blobs: dict[Email, BlobRef] = Field(default_factory=dict)
    public_context_blob: BlobRef | None = None
    adapter_blob: BlobRef | None = None
    consent: Signed | None = Field(default=None, description="answer to consent")
    shard: Signed | None = Field(default=None, description="answer to prepare: the domain's ShardStatement")
    seconds: dict[Slug, float] = Field(default_factory=dict, description="train, seal, open, transfer: wall clock")
    link: LinkSample | None = None


Hours = Annotated[str, StringConstraints(max_length=11), AfterValidator(_span)]
"""A daily span of the domain's local time, such as ``19:00-07:00``; it may pass midnight."""


class Limits(Section):
    """What an approval allows and no more; the domain holds every ticket against it, before and during the work."""

    rounds: int = Field(ge=1, le=1000, description="no ticket of a later round is carried out")
    metrics: tuple[MetricName, ...] = Field(
        max_length=len(get_args(MetricName)), description="the only numbers that leave; never more than the plan lists"
    )
    minimum_cohort: int = Field(ge=2, le=MAX_COHORT, description="fewest domains that seal in a round and enter a sum")
    epsilon: float | None = Field(
        default=None, gt=0, le=1000, description="most that the study may spend of the privacy budget; none: no limit"
    )
    expires_s: float | None = Field(
        default=None, gt=0, description="seconds since the epoch after which nothing is carried out any more"
    )
    seconds: int | None = Field(
        default=None,
        ge=5,
        le=86_400,
        description="a local round stops after so many, with the work so far",
    )
    hours: Hours | None = Field(default=None, description="when the model may be run; outside of it, tickets wait")
    release: bool = Field(default=False, description="whether the adapter may be handed to the researcher at the end")


Verdict = Literal["pending", "approved", "rejected", "revoked"]
"""``rejected`` was never approved; ``revoked`` was, and is no more, from the next look at it on."""


class RequestDecision(Section):
    """A domain's signed answer to a code request."""

    study: Sha256
    member: Email
    decision: Verdict
    reason: str = Field(default="", max_length=2000)
    checked: tuple[str, ...] = Field(default=(), max_length=64, description="what the policy looked at, in words")
    limits: Limits | None = Field(default=None, description="of an approval, and only of one")

    @model_validator(mode="after")
    def _limits_with_an_approval_only(self) -> RequestDecision:
        if (self.limits is not None) != (self.decision == "approved"):
            raise ValueError("an approval has limits, and nothing else has")
        return self


class Progress(Section):
    """Where a domain is in a ticket: shown to the researcher, never part of the protocol.

    ``sending`` and ``fetching`` the researcher says of itself: what it moves to or from that domain. Of transfers, a
    domain's too, ``step`` is per cent.
    """

    study: Sha256
    round: int = Field(ge=0, le=1000)
    state: Literal[
        "waiting",
        "loading",
        "training",
        "sealing",
        "publishing",
        "opening",
        "evaluating",
        "sending",
        "fetching",
        "done",
    ]
    step: int = Field(default=0, ge=0)
    steps: int = Field(default=0, ge=0)
