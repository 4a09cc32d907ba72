"""Consents, quorums and forged consents: who may have the adapter, and when."""

import pytest

from fedpriv.domain.releasing import Releasing
from fedpriv.domain.requests import ReleaseDecision, RequestBook
from fedpriv.errors import FedprivError, RefusedError, UntrustedError
from fedpriv.protection import sign
from fedpriv.study import Consent
from tests.domain.cohort import MEMBERS, Cohort
from tests.domain.conftest import approved

FIRST, SECOND, THIRD = MEMBERS
LAST = 3


@pytest.fixture
def cohort(tmp_path, ada):
    """A cohort after its last round, with the release left to people."""
    cohort = Cohort(tmp_path, ada)
    for number in range(1, LAST + 1):
        manifest, data = cohort.aggregate(number, cohort.seal(number, dict.fromkeys(MEMBERS, 0.001)))
        for email in MEMBERS:
            cohort.open(email, manifest, data)
    cohort.books = {email: RequestBook(tmp_path / f"requests-{email}", email) for email in MEMBERS}
    cohort.releasing = {email: Releasing(cohort.domains[email], cohort.books[email]) for email in MEMBERS}
    return cohort


def ask(cohort, email):
    return cohort.releasing[email].is_undecided(cohort.ticket(email, "consent", LAST, 1))


def decide(cohort, email, verdict, reason=""):
    known = cohort.books[email].release(cohort.request.study)
    values = known.model_dump() | {"decision": verdict, "reason": reason}
    cohort.books[email].decide_release(cohort.request.study, ReleaseDecision(**values))


def consent(cohort, email):
    assert ask(cohort, email) in (True, False)
    decide(cohort, email, "approved")
    return cohort.releasing[email].consent(cohort.ticket(email, "consent", LAST, 1))["consent"]


def hand_over(cohort, email, consents):
    ticket = cohort.ticket(email, "release", LAST, 1, consents=tuple(consents))
    return cohort.releasing[email].hand_over(ticket)


def test_the_question_waits_for_a_person_and_is_recorded_once(cohort):
    assert ask(cohort, FIRST)
    assert ask(cohort, FIRST)
    assert len(cohort.facts(FIRST, "release.asked")) == 1
    with pytest.raises(RefusedError, match="did not approve the release"):
        cohort.releasing[FIRST].consent(cohort.ticket(FIRST, "consent", LAST, 1))
    decide(cohort, FIRST, "withheld", "after the holidays")
    assert not ask(cohort, FIRST)
    with pytest.raises(RefusedError, match="withholds the adapter: after the holidays"):
        cohort.releasing[FIRST].consent(cohort.ticket(FIRST, "consent", LAST, 1))


def test_all_consent_and_each_hands_over_the_same(cohort):
    consents = [consent(cohort, email) for email in MEMBERS]
    assert [signed.payload["rounds_joined"] for signed in consents] == [LAST] * 3
    digests = {hand_over(cohort, email, consents)["adapter_sha256"] for email in MEMBERS}
    assert len(digests) == 1
    hand_over(cohort, FIRST, consents)
    assert [facts["consents"] for facts in cohort.facts(FIRST, "adapter.released")] == [sorted(MEMBERS)]


@pytest.mark.parametrize(("quorum", "given", "released"), [(None, 2, False), (2, 2, True), (2, 1, False), (1, 1, True)])
def test_the_quorum_is_the_domains_own(cohort, quorum, given, released):
    context = cohort.domains[FIRST]
    policy = context.config.policy.model_copy(update={"release_quorum": quorum})
    context.config = context.config.model_copy(update={"policy": policy})
    consents = [consent(cohort, email) for email in MEMBERS[:given]]
    if released:
        assert hand_over(cohort, FIRST, consents)["adapter_blob"]
    else:
        with pytest.raises(RefusedError, match="domains consent"):
            hand_over(cohort, FIRST, consents)
        assert not cohort.facts(FIRST, "adapter.released")


def test_others_do_not_decide_for_this_domain(cohort):
    others = [consent(cohort, email) for email in (SECOND, THIRD)]
    with pytest.raises(RefusedError, match="did not approve"):
        hand_over(cohort, FIRST, others)
    ask(cohort, FIRST)
    decide(cohort, FIRST, "approved")
    with pytest.raises(RefusedError, match="itself among them"):
        hand_over(cohort, FIRST, others)


@pytest.mark.parametrize("forgery", ["signature", "other adapter", "other round", "stranger", "twice"])
def test_forged_consents_do_not_count(cohort, forgery):
    consents = [consent(cohort, email) for email in MEMBERS]
    last = Consent.model_validate(consents[2].payload)
    keys = cohort.keys[THIRD]
    forged = {
        "signature": consents[2].model_copy(update={"payload": consents[2].payload | {"rounds_joined": 1}}),
        "other adapter": sign(keys, "consent", last.model_copy(update={"adapter_sha256": "0" * 64})),
        "other round": sign(keys, "consent", last.model_copy(update={"round": LAST - 1})),
        "stranger": sign(keys, "consent", last.model_copy(update={"member": "eve@z.org"})),
        "twice": consents[1],
    }[forgery]
    with pytest.raises(FedprivError) as caught:
        hand_over(cohort, FIRST, [*consents[:2], forged])
    assert isinstance(caught.value, RefusedError if forgery == "twice" else UntrustedError)
    assert not cohort.facts(FIRST, "adapter.released")


def test_only_the_last_adapter_and_only_while_approved(cohort):
    ticket = cohort.ticket(FIRST, "consent", LAST - 1, 1)
    with pytest.raises(RefusedError, match="Only the adapter after the last round"):
        cohort.releasing[FIRST].is_undecided(ticket)
    cohort.decisions[FIRST] = approved(cohort.request, FIRST, rounds=9, release=True)
    assert not ask(cohort, FIRST)
    assert cohort.releasing[FIRST].consent(cohort.ticket(FIRST, "consent", LAST, 1))["consent"]
