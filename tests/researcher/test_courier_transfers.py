"""What people see of a transfer that takes long, on both sides: how far it is, and nothing of a quick one."""

import asyncio
from types import SimpleNamespace

import pytest

from fedpriv.domain import context
from fedpriv.domain.context import StudyContext
from fedpriv.researcher import courier
from fedpriv.researcher.courier import Courier

STUDY, DOMAIN = "0" * 64, "micu@x.org"


def moves(*_, on_moved, **__):
    for done in (25, 50, 100):
        on_moved(done, 100)


def transfers(told):
    """A courier whose blobs go in three steps."""
    session = SimpleNamespace(blobs=SimpleNamespace(send=moves, receive=moves))
    made = Courier(None, SimpleNamespace(plan=None, study=STUDY), None, session, told.append)
    made._asked[DOMAIN] = SimpleNamespace(round=3)

    async def both():
        await made.send(DOMAIN, "aggregate", b"")
        await made.fetch(DOMAIN, None, None)
        await asyncio.sleep(0)

    asyncio.run(both())
    made.close()


def test_a_long_transfer_of_the_researchers_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr(courier, "_LONG_TRANSFER_SECONDS", 0.0)
    told = []
    transfers(told)
    assert [(e.domain, e.progress.state, e.progress.round, e.progress.step, e.progress.steps) for e in told] == [
        (DOMAIN, state, 3, step, 100) for state in ("sending", "fetching") for step in (25, 50, 100)
    ]


def test_what_a_domain_left_and_was_refused_is_said(monkeypatch):
    told, refused = [], [(DOMAIN, "A message is malformed")]
    session = SimpleNamespace(
        news=lambda: (),
        poll=lambda: None,
        wait=lambda mark, seconds: None,
        refused=lambda: [refused.pop()] if refused else [],
    )
    folder = SimpleNamespace(active=lambda emails: ())
    made = Courier(folder, SimpleNamespace(plan=SimpleNamespace(emails=()), study=STUDY), None, session, told.append)
    asyncio.run(made.with_polling(asyncio.sleep(0.05)))
    made.close()
    assert [(e.domain, e.what) for e in told] == [
        (DOMAIN, "what it left on the store was refused: A message is malformed")
    ]


def test_a_quick_transfer_of_the_researchers_says_nothing():
    told = []
    transfers(told)
    assert told == []


@pytest.mark.parametrize(("after_s", "shown"), [(0.0, [("publishing", 3, 25, 100)]), (60.0, [])])
def test_a_long_transfer_of_a_domain_says_how_far_it_is(monkeypatch, after_s, shown):
    monkeypatch.setattr(context, "_LONG_TRANSFER_SECONDS", after_s)
    told = []
    domain = SimpleNamespace(show=lambda state, number, step, steps: told.append((state, number, step, steps)))
    StudyContext.moved(domain, "publishing", 3)(1_000_001, 4_000_000)
    assert told == shown
