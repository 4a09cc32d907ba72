"""A domain confirms one set of updates a round; everything else is refused in words and unlocks nothing."""

from dataclasses import dataclass

import pytest

from fedpriv.domain.confirming import Confirming
from fedpriv.domain.context import StudyContext
from fedpriv.domain.folder import DataChoice, DomainConfig, PolicyChoice
from fedpriv.domain.ledger import Ledger
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.study_folder import SealedRound, StudyFolder
from fedpriv.errors import RefusedError, SignatureError, UntrustedError
from fedpriv.protection import (
    IdentityKeys,
    MaskSource,
    combine_unlocks,
    make_study_key,
    sign_update,
    updates_digest,
    verify_bytes,
)
from fedpriv.study import AggregateManifest, CodeRequest, Plan, Ticket, UpdateHeader
from fedpriv.study.plan import BaseModelChoice, MemberChoice
from tests.domain.conftest import approved

EMAILS = ("ccu@x.org", "csru@x.org", "micu@x.org", "sicu@x.org")
ME = "micu@x.org"
TENSORS = {"a": 4}


@dataclass
class House:
    """One domain of a cohort of four, and what the others can sign."""

    keys: dict
    context: StudyContext

    @property
    def confirming(self):
        return Confirming(self.context)

    def update(self, email, *, members=EMAILS, number=1, attempt=1, container=None, **changes):
        masks = MaskSource.of_cohort(
            self.keys[email], [self.keys[e].identity for e in members], study=self.context.study
        )
        values = {
            "study": self.context.study,
            "round": number,
            "attempt": attempt,
            "member": email,
            "cohort": masks.cohort,
            "level": "sealed",
            "bits": 10,
            "weight": 1.0,
            "nonce": "9" * 32,
            "key_id": self.context.key_room.load().key_id,
            "layout": "b" * 64,
            "scales": "c" * 64,
            "parameters": 4,
        } | changes
        digest = container or f"{EMAILS.index(email) + 16 * attempt + 256 * number:064x}"
        return sign_update(self.keys[email], UpdateHeader(**values), digest, 10)

    def updates(self, emails=EMAILS, **changes):
        return tuple(self.update(email, **changes) for email in emails)

    def seal(self, *, members=EMAILS, number=1, attempt=1):
        """Keep our own update as a train ticket would."""
        update = self.update(ME, members=members, number=number, attempt=attempt)
        self.context.folder.keep_sealed(SealedRound(update=update, members=members, clipped=0.0))

    def ticket(self, updates, *, number=1, attempt=1):
        return Ticket(
            study=self.context.study, kind="confirm", round=number, attempt=attempt, member=ME, updates=updates
        )

    def confirm(self, updates, **changes):
        return self.confirming.confirm(self.ticket(updates, **changes))

    def ledger_kinds(self):
        return [entry.kind for entry in self.context.ledger.entries()]


@pytest.fixture
def house(tmp_path, ada):
    keys = {email: IdentityKeys.create(email, email.partition("@")[0], "11" * 32) for email in EMAILS}
    plan = Plan(
        researcher=MemberChoice(email=ada.email, fingerprint=ada.fingerprint),
        cohort=tuple(MemberChoice(email=email, fingerprint=keys[email].fingerprint) for email in EMAILS),
        base_model=BaseModelChoice(name="tiny"),
    )
    request = CodeRequest.new(plan, "def train(context):\n    return None\n")
    config = DomainConfig(
        name="micu",
        email=ME,
        store=str(tmp_path / "store"),
        data=DataChoice(source=str(tmp_path)),
        policy=PolicyChoice(minimum_cohort=3),
    )
    decision = approved(request, ME)
    identity = keys[ME].identity

    def check(data, signature):
        verify_bytes(identity, signature, data, what="an entry")
        return True

    folder = StudyFolder(tmp_path / "study")
    folder.keep_identities({email: keys[email].identity for email in EMAILS})
    folder.key_path.parent.mkdir(parents=True)
    key = make_study_key(plan.protection, tensors=TENSORS, clients=4, study=request.study)
    folder.key_path.write_bytes(key.to_bytes())
    context = StudyContext(
        config=config,
        keys=keys[ME],
        folder=folder,
        stored=StoredRequest(request=request, researcher=ada.email, received_s=0.0, decision=decision),
        decision=lambda: decision,
        ledger=Ledger(tmp_path / "ledger.jsonl", keys[ME].sign_bytes, check),
        blobs=None,  # nothing is sent or fetched to confirm
        on_progress=lambda progress: None,
        notify=lambda sentence: None,
    )
    return House(keys=keys, context=context)


def test_a_sum_that_is_nearly_one_update_is_not_unlocked(house):
    house.seal()
    mine, others = house.update(ME), [house.update(e, weight=0.01) for e in EMAILS if e != ME]
    with pytest.raises(RefusedError, match="One domain's weight is 97% of the sum; this domain's policy allows 80%"):
        house.confirm((*others, mine))
    assert "update.confirmed" not in house.ledger_kinds()
    assert house.confirm(house.updates()) is not None, "a refusal claims nothing"


def test_a_sum_of_half_of_those_who_sealed_is_not_unlocked(house):
    """Two disjoint sums of one round would show what small groups sent."""
    policy = house.context.config.policy.model_copy(update={"minimum_cohort": 2})
    house.context.config = house.context.config.model_copy(update={"policy": policy})
    house.seal()
    with pytest.raises(RefusedError, match="Only 2 of 4 that sealed"):
        house.confirm(house.updates((ME, EMAILS[0])))
    assert house.confirm(house.updates((*EMAILS[:2], ME))) is not None


def test_the_unlock_is_the_one_of_these_masks_and_repeatable(house):
    house.seal()
    updates = house.updates()
    unlock = house.confirm(updates)
    assert unlock == house.confirm(updates)
    others = {
        email: MaskSource.of_cohort(
            house.keys[email], [k.identity for k in house.keys.values()], study=house.context.study
        ).unlock(updates)
        for email in EMAILS
        if email != ME
    }
    assert set(combine_unlocks(updates, others | {ME: unlock}).self_masks) == set(EMAILS)
    (entry,) = house.context.ledger.entries()
    assert entry.kind == "update.confirmed"
    assert entry.facts["members"] == list(EMAILS)
    assert entry.facts["updates_sha256"] == updates_digest(updates)


def test_the_survivors_alone_are_confirmed_with_the_mask_keys_of_the_dropped(house):
    house.seal()
    unlock = house.confirm(house.updates(EMAILS[1:]))
    assert set(unlock.dropped) == {"ccu@x.org"}


def test_another_set_in_the_same_attempt_is_refused(house):
    house.seal()
    house.confirm(house.updates())
    changed = (*house.updates(EMAILS[1:]), house.update("ccu@x.org", container="f" * 64))
    with pytest.raises(RefusedError, match="Other updates were confirmed in attempt 1 of round 1"):
        house.confirm(changed)
    with pytest.raises(RefusedError, match="Other members were confirmed in round 1"):
        house.confirm(house.updates(EMAILS[1:]))
    assert house.ledger_kinds() == ["update.confirmed"]


def test_other_members_in_another_attempt_are_refused(house):
    house.seal()
    house.confirm(house.updates())
    house.seal(attempt=2)
    with pytest.raises(RefusedError, match="Other members were confirmed in round 1"):
        house.confirm(house.updates(EMAILS[1:], attempt=2), attempt=2)
    house.confirm(house.updates(attempt=2), attempt=2)
    assert house.ledger_kinds() == ["update.confirmed"] * 2


def test_a_refused_set_does_not_stand_in_the_way_of_the_right_one(house):
    house.seal()
    with pytest.raises(UntrustedError):
        house.confirm(house.updates(("ccu@x.org", "csru@x.org", "sicu@x.org")))
    assert house.confirm(house.updates()) is not None


def test_too_few_updates_are_refused(house):
    house.seal()
    with pytest.raises(RefusedError, match=r"Only 2 updates would be added.*wants 3"):
        house.confirm(house.updates((ME, "ccu@x.org")))


def test_a_sum_without_our_own_update_is_refused(house):
    house.seal()
    for updates in (
        house.updates(("ccu@x.org", "csru@x.org", "sicu@x.org")),
        (*house.updates(("ccu@x.org", "csru@x.org", "sicu@x.org")), house.update(ME, container="f" * 64)),
        (),
    ):
        with pytest.raises(UntrustedError, match="own update is not among"):
            house.confirm(updates)


def test_an_old_round_is_not_confirmed_again_as_a_new_one(house):
    house.seal()
    old = house.updates()
    house.confirm(old)
    house.seal(number=2)
    with pytest.raises(UntrustedError, match="own update is not among"):
        house.confirm(old, number=2)
    mixed = (*house.updates(EMAILS[1:], number=2), old[0])
    with pytest.raises(UntrustedError, match="differ in round"):
        house.confirm(mixed, number=2)
    with pytest.raises(RefusedError, match="sealed nothing in attempt 1 of round 3"):
        house.confirm(house.updates(number=3), number=3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scales": "d" * 64}, "scales"),
        ({"cohort": "d" * 64}, "cohort"),
        ({"key_id": "d" * 64}, "key id"),
        ({"layout": "d" * 64}, "layout"),
        ({"study": "d" * 64}, "study"),
        ({"attempt": 2}, "attempt"),
        ({"parameters": 5}, "parameters"),
    ],
)
def test_updates_that_are_not_alike_are_refused(house, changes, named):
    house.seal()
    with pytest.raises(UntrustedError, match=f"differ in {named}"):
        house.confirm((*house.updates(EMAILS[1:]), house.update("ccu@x.org", **changes)))
    assert house.ledger_kinds() == []


def test_strangers_forgeries_and_repetitions_are_refused(house):
    house.seal(members=EMAILS[1:])
    with pytest.raises(UntrustedError, match=r"ccu@x\.org did not seal with this domain"):
        house.confirm((*house.updates(EMAILS[1:], members=EMAILS[1:]), house.update("ccu@x.org")))
    first, *rest = house.updates(EMAILS[1:], members=EMAILS[1:])
    with pytest.raises(SignatureError):
        house.confirm((first.model_copy(update={"signature": rest[0].signature}), *rest))
    with pytest.raises(UntrustedError, match="twice"):
        house.confirm((first, first, *rest))
    same = house.update("csru@x.org", members=EMAILS[1:], container=rest[0].container_sha256)
    with pytest.raises(UntrustedError, match="One container stands among the updates twice"):
        house.confirm((same, *rest))


def test_nothing_is_unlocked_for_a_retired_key(house):
    house.seal()
    updates = house.updates()
    house.context.key_room.retire()
    with pytest.raises(RefusedError, match="retired the study's key"):
        house.confirm(updates)
    assert house.ledger_kinds() == ["key.retired"]
    (path,) = house.context.folder.key_path.parent.iterdir()
    assert path.name == "retired-0001.key"


# -- which sums may be opened ----------------------------------------------------------------------------------


def manifest(house, updates, *, number=1, attempt=1):
    return AggregateManifest(
        study=house.context.study, round=number, attempt=attempt, updates=updates, aggregate_sha256="e" * 64
    )


def test_only_the_confirmed_sum_may_be_opened(house):
    house.seal()
    updates = house.updates()
    with pytest.raises(UntrustedError, match="not confirmed by this domain"):
        house.confirming.require_confirmed(manifest(house, updates))
    house.confirm(updates)
    house.confirming.require_confirmed(manifest(house, updates))
    changed = (house.update("ccu@x.org", container="f" * 64), *updates[1:])
    with pytest.raises(UntrustedError, match="other updates than this domain confirmed"):
        house.confirming.require_confirmed(manifest(house, changed))
    with pytest.raises(UntrustedError, match="not confirmed by this domain"):
        others = tuple(update for update in house.updates(attempt=2) if update.header.member != ME)
        house.confirming.require_confirmed(manifest(house, others, attempt=2))


def test_a_sum_without_us_needs_the_policys_minimum(house):
    others = [email for email in EMAILS if email != ME]
    house.confirming.require_confirmed(manifest(house, house.updates(others, members=others)))
    with pytest.raises(RefusedError, match=r"holds 2 updates.*wants 3"):
        house.confirming.require_confirmed(manifest(house, house.updates(others[:2], members=others[:2])))


# -- who may take part -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (("ccu@x.org", "csru@x.org", "sicu@x.org"), "not among the members"),
        ((ME, "sicu@x.org"), "Only 2 domains take part"),
        (("ccu@x.org", ME, "mallory@x.org"), "not in the plan's cohort"),
        ((ME, "ccu@x.org", "sicu@x.org"), "not in order"),
        (("ccu@x.org", ME, ME), "not in order"),
        ((), "not among the members"),
    ],
)
def test_members_of_a_round_are_checked(house, members, reason):
    house.context.require_members(EMAILS)
    house.context.require_members(EMAILS[1:])
    with pytest.raises(RefusedError, match=reason):
        house.context.require_members(members)
