"""What a person is told when a domain does not take part."""

import asyncio
from types import SimpleNamespace

import pytest

from fedpriv.errors import StudyError
from fedpriv.researcher.admission import Admission


def test_a_domain_that_could_not_prepare_is_asked_again_by_resuming(study, members, monkeypatch):
    async def approved(admission, email):
        return True

    async def ask(ticket):
        return SimpleNamespace(status="failed", reason="The worker ended. Nothing was sent. Next: look at its log.")

    study.folder.freeze(study.folder.draft())
    monkeypatch.setattr(Admission, "_approval", approved)
    email = min(members)
    courier = SimpleNamespace(
        study=study.folder.submitted_id(),
        plan=study.plan,
        cohort={member: keys.identity for member, keys in members.items()},
        active=lambda: (email,),
        ask=ask,
    )
    admission = Admission(study.folder, courier, SimpleNamespace(), lambda event: None)  # pyright: ignore
    with pytest.raises(StudyError, match=r"was not prepared.*Next: settle it.*`fedpriv study resume`\.") as caught:
        asyncio.run(admission._admit(email))
    assert "submit a new study" not in str(caught.value)
    assert "The worker ended. Nothing was sent" in str(caught.value)
    assert str(caught.value).count("Next:") == 1
