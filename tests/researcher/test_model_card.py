import yaml

from fedpriv.researcher.model_card import model_card
from fedpriv.researcher.orchestrator import Release
from fedpriv.study import CodeRequest, Consent, Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice

PLAN = Plan(
    title="Sepsis <b>notes</b> | [x](y)",
    researcher=MemberChoice(email="ada@y.org", fingerprint="0" * 64),
    cohort=tuple(MemberChoice(email=f"{name}@x.org", fingerprint=name * 64) for name in "abc"),
    base_model=BaseModelChoice(name="tiny"),
)
REQUEST = CodeRequest.new(PLAN, "x = 1\n")


def card(refused=None, finished=None, members=()):
    consents = {
        email: Consent(
            study=REQUEST.study,
            round=3,
            member=email,
            adapter_sha256="d" * 64,
            rounds_joined=2,
            epsilon=7.25 if email == "a@x.org" else None,
            delta=0.02 if email == "a@x.org" else None,
            ledger_sha256="e" * 64,
        )
        for email in ("a@x.org", "b@x.org")
    }
    release = Release(path=None, adapter_sha256="d" * 64, consents=consents, refused=refused or {})
    return model_card(REQUEST, release, finished=finished or {}, base_model="org/tiny", members=members)


def test_it_says_what_how_protected_and_who_agreed():
    text = card(finished={"loss_before": 3.4, "loss_after": 0.7})
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == "org/tiny"
    assert front["library_name"] == "peft"
    for part in (
        *("a@x.org, b@x.org, c@x.org", "3 rounds of 4 steps", "3.4000 | 0.7000", "sealed at 10 bits"),
        *(
            "differential privacy: none",
            f"a@x.org | 2 of 3 | 7.25 (delta 0.02) | `{'e' * 64}`",
            REQUEST.study,
            REQUEST.code,
            "no medical",
        ),
    ):
        assert part in text, part


def test_whoever_is_in_a_sum_and_was_not_asked_is_named():
    assert "was not asked" not in card(members=("a@x.org", "b@x.org"))
    text = card(members=("a@x.org", "b@x.org", "c@x.org"))
    assert "c@x.org was not asked, though its updates are in the adapter: it was excluded from the study." in text
    assert "was not asked" not in card(members=("c@x.org",), refused={"c@x.org": "no"})


def test_words_of_others_are_shown_and_not_obeyed():
    text = card(refused={"c@x.org": "No!\n# <script>alert(1)</script>"})
    assert "<b>" not in text
    assert "[x](y)" not in text
    assert "<script>" not in text
    assert "\n# \\" not in text
    assert "c@x.org did not hand it over" in text
