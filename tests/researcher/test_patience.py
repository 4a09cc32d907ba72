import asyncio

import pytest

from fedpriv.errors import HostKeyError, TransportError
from fedpriv.researcher import patience
from fedpriv.researcher.patience import patiently


def test_the_store_is_asked_again_with_growing_pauses_until_it_answers(monkeypatch):
    pauses, told, answers = [], [], [TransportError("away")] * 9 + ["here"]

    async def sleep(seconds):
        pauses.append(seconds)

    async def ask():
        answer = answers.pop(0)
        if isinstance(answer, TransportError):
            raise answer
        return answer

    monkeypatch.setattr(patience.asyncio, "sleep", sleep)
    assert asyncio.run(patiently(ask, told.append)) == "here"
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert len(told) == 9


def test_another_host_key_is_no_matter_of_patience():
    async def ask():
        raise HostKeyError("another key")

    with pytest.raises(HostKeyError):
        asyncio.run(patiently(ask, lambda error: None))
