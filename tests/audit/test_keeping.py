"""An audit that is asked for on a screen: in a process of its own, kept at the domain, and shown."""

from functools import partial

from fedpriv.audit import AuditChoice, last_audit
from fedpriv.audit.keeping import numbers_path, page_path
from fedpriv.widgets.owner_reading import OwnerReader
from fedpriv.widgets.owner_state import Opened
from fedpriv.widgets.owner_view import owner_view
from fedpriv.widgets.trial_process import main, trying


def test_an_audit_is_kept_for_its_owner_and_shown_with_its_request(asked, monkeypatch):
    monkeypatch.setenv("FEDPRIV_CACHE", str(asked.cache))
    monkeypatch.setattr("fedpriv.audit.AuditChoice", partial(AuditChoice, passages=6, rounds=0))
    study, other = asked.request().study, asked.request(domains=4).study
    folder = asked.domain.folder
    reader = OwnerReader(root=folder.root, cache=asked.cache)
    assert reader.look(Opened(study=study)).audit is None
    main(folder.root, study, "audit")
    assert trying(folder) is None, "it came to its end"
    for path in (numbers_path(folder, study), page_path(folder, study)):
        assert path.stat().st_mode & 0o777 == 0o600
    state = reader.look(Opened(study=study))
    assert state.audit == last_audit(folder, study)
    shown = owner_view(state)["audit"]
    assert shown["tone"] == "calm"
    assert "could not be told from guessing" in shown["headline"]
    (tokens, membership) = shown["tables"]
    assert tokens["rows"][0]["who"] == "If nothing protected your update"
    assert tokens["rows"][0]["leaks"]
    assert {row["verdict"] for row in membership["rows"]} <= {"above guessing", "not told from guessing"}
    assert shown["page"] == str(page_path(folder, study))
    assert owner_view(reader.look(Opened(study=other)))["audit"] is None, "it is about the other request"


def test_what_is_no_audit_of_this_request_is_none(asked):
    folder, study = asked.domain.folder, "ab" * 32
    path = numbers_path(folder, study)
    path.parent.mkdir(exist_ok=True)
    for text in ("", "{}", '{"audit_version": 1}'):
        path.write_text(text)
        assert last_audit(folder, study) is None


def test_why_an_audit_cannot_be_had_is_told(asked):
    main(asked.domain.folder.root, "cd" * 32, "audit")
    seen = trying(asked.domain.folder)
    assert (seen.kind, seen.running) == ("audit", False)
    assert "Next:" in seen.problem
