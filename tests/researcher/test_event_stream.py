import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.researcher.event_stream import EventStream
from fedpriv.researcher.events import DomainProgress, Event, TicketSent
from fedpriv.study import Progress

STUDY = "0" * 64


def ticket(number):
    return TicketSent(study=STUDY, domain="micu@x.org", kind="train", round=number)


def progress(number):
    at = Progress(study=STUDY, round=1, state="training", step=number, steps=1000)
    return DomainProgress(study=STUDY, domain="micu@x.org", progress=at)


async def all_of(stream):
    return [event async for event in stream]


def number_of(event):
    return event.progress.step if isinstance(event, DomainProgress) else event.round


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_only_progress_is_dropped_the_oldest_first_and_order_is_kept(kinds, limit):
    stream = EventStream(limit)
    sent = [progress(n) if is_progress else ticket(n) for n, is_progress in enumerate(kinds)]
    for event in sent:
        stream(event)
    stream.close()
    got = asyncio.run(all_of(stream))
    assert [e for e in got if isinstance(e, TicketSent)] == [e for e in sent if isinstance(e, TicketSent)]
    assert [number_of(e) for e in got] == sorted(number_of(e) for e in got)
    kept = [e for e in got if isinstance(e, DomainProgress)]
    assert kept == [e for e in sent if isinstance(e, DomainProgress)][stream.dropped :]
    assert len(got) == len(sent) - stream.dropped
    assert len(got) <= max(limit, kinds.count(False))
    if len(sent) <= limit:
        assert stream.dropped == 0


@given(st.lists(st.sampled_from(["ticket", "progress", "read"]), max_size=60), st.integers(1, 5))
def test_reading_between_leaves_nothing_out_of_order(steps, limit):
    stream, got, tickets = EventStream(limit), [], 0

    async def play():
        nonlocal tickets
        for number, step in enumerate(steps):
            if step == "read":
                if stream._waiting:
                    got.append(await anext(stream))
            else:
                stream(ticket(number) if step == "ticket" else progress(number))
                tickets += step == "ticket"
        stream.close()
        got.extend(await all_of(stream))

    asyncio.run(play())
    numbers = [number_of(event) for event in got]
    assert numbers == sorted(numbers)
    assert sum(isinstance(event, TicketSent) for event in got) == tickets


def test_a_reader_in_one_loop_gets_the_events_of_another_thread():
    stream = EventStream(4)

    def work():
        for number in range(500):
            stream(ticket(number))
        stream.close()

    async def read():
        thread = threading.Thread(target=work)
        thread.start()
        got = [event.round async for event in stream]
        thread.join()
        return got

    assert asyncio.run(asyncio.wait_for(read(), 30)) == list(range(500))


def test_a_waiting_reader_is_woken_by_the_end():
    stream = EventStream()

    async def read():
        waiting = asyncio.create_task(all_of(stream))
        await asyncio.sleep(0.01)
        await asyncio.to_thread(stream.close)
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(read()) == []
    stream(ticket(1))  # after the end nothing is taken
    assert asyncio.run(all_of(stream)) == []


def test_a_reader_that_gave_up_or_whose_loop_is_gone_stops_nobody():
    stream = EventStream()

    async def give_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.01)
        left = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        stream._readers.add(asyncio.get_running_loop().create_future())  # as a loop leaves it that is just closed
        left.cancel()

    asyncio.run(give_up())
    stream(ticket(1))
    stream.close()
    assert [event.round for event in asyncio.run(all_of(stream))] == [1]


def test_a_stream_without_room_is_no_stream():
    with pytest.raises(ValueError, match="holds nothing"):
        EventStream(0)


def test_the_events_are_typed():
    stream = EventStream()
    stream(ticket(1))

    async def one() -> Event:
        return await anext(stream)

    assert isinstance(asyncio.run(one()), TicketSent)
