"""What a person is told when domains refuse: their reasons, and one next step."""

import asyncio
from types import SimpleNamespace

import pytest

from fedpriv.errors import RefusedError, StudyError
from fedpriv.researcher.courier import Courier
from fedpriv.researcher.orchestrator import Orchestrator
from fedpriv.study import Result

WHY = str(RefusedError("It is withheld", kept="Nothing was handed over", todo="talk to the data owner"))


def refusal(member):
    return Result(
        study="0" * 64, ticket_sha256="1" * 64, kind="ping", round=0, member=member, status="refused", reason=WHY
    )


def test_reasons_of_many_domains_are_followed_by_one_next_step():
    courier = SimpleNamespace(_folder=SimpleNamespace(keys=lambda: None))
    with pytest.raises(StudyError) as caught:
        Courier.stop(courier, [refusal("micu@x.org"), refusal("sicu@x.org")])  # pyright: ignore
    said = str(caught.value)
    assert "micu@x.org: It is withheld. Nothing was handed over; sicu@x.org: It is withheld" in said
    assert said.count("Next:") == 1


def test_a_release_that_nobody_gives_has_one_next_step(study):
    async def ask_all(make, members, **options):
        return {member: refusal(member) for member in members}

    study.folder.freeze(study.folder.draft())
    courier = SimpleNamespace(active=lambda: ("micu@x.org", "sicu@x.org"), ask_all=ask_all)
    orchestrator = SimpleNamespace(
        plan=study.plan,
        study="0" * 64,
        folder=study.folder,
        _courier=courier,
        _keys=SimpleNamespace(state=SimpleNamespace(generation=1)),
    )
    with pytest.raises(StudyError, match="No domain hands the adapter over") as caught:
        asyncio.run(Orchestrator._release(orchestrator))  # pyright: ignore
    assert str(caught.value).count("Next:") == 1
    assert "sicu@x.org: It is withheld. Nothing was handed over" in str(caught.value)
