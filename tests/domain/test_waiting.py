import os

from fedpriv.domain.domain import since
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.study import Signed
from tests.domain.conftest import ADA


def said(domain):
    return [(wait["who"], wait["what"]) for wait in domain.status()["waiting"]]


def answered(domain, study, kind, number, when):
    folder = StudyFolder(domain.folder.study(study))
    payload = {"kind": kind, "round": number, "status": "done"}
    signed = Signed(kind="result", payload=payload, signer="a" * 64, signature="A" * 86 + "==")
    folder.keep_result(f"{number:064x}", signed)
    os.utime(folder.root / "results" / f"{number:064x}.json", (when, when))


def test_every_wait_is_named_until_the_study_is_over(domain, code_request):
    study = code_request.study
    assert said(domain) == []
    domain.requests.receive(code_request, ADA)
    assert said(domain) == [("you", f"decide on request {study[:12]} (LoRA fine-tuning)")]
    domain.approve(study)
    assert said(domain) == [("the researcher", f"send the first ticket of study {study[:12]}")]
    answered(domain, study, "prepare", 0, 100)
    answered(domain, study, "train", 1, 200)
    assert said(domain) == [
        ("the researcher", f"send the next ticket of study {study[:12]}, after train of round 1 (done)")
    ]
    assert domain.status()["waiting"][0]["since_s"] == 200
    domain.revoke(study, "enough")
    assert said(domain) == []


def test_a_damaged_request_is_something_to_look_at(domain, code_request):
    domain.requests.receive(code_request, ADA)
    recipe = domain.requests.recipe_path(code_request.study)
    recipe.chmod(0o600)
    recipe.write_text("evil = 1\n")
    ((who, what),) = said(domain)
    assert who == "you"
    assert "was changed on disk" in what


def test_ages_in_words(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    ages = [since(1_000_000.0 - seconds) for seconds in (0, 119, 120, 7199, 7200, 172_799, 172_800)]
    assert ages == ["0 s", "119 s", "2 min", "119 min", "2 hours", "47 hours", "2 days"]
