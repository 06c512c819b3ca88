"""Rows: a view, against a dict that a reader fills by hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import process_time

import trio

from trio_stream import Event, EventPublisher, SnapshotAppender, SubscribeRequest, open_publisher
from trio_stream.view import open_view

from .ours import START, VALUES, Value
from .row import Figure, Load, Row, Sample
from .timing import seconds_each, settle

UPDATES = 1_000
GROUP = 100  # events of the snapshot that the handler hands over at once


@asynccontextmanager
async def _publisher(keys: int) -> AsyncIterator[EventPublisher]:
    values = [Event(VALUES, START, Value(f"key-{number}", number)) for number in range(keys)]

    async def handler(_: SubscribeRequest[Value], snapshot: SnapshotAppender[Value]) -> int:
        for begin in range(0, keys, GROUP):
            await snapshot.append(values[begin : begin + GROUP])
        return START

    async with open_publisher({VALUES: handler}, index=START) as publisher:
        settle()
        yield publisher


def _update(publisher: EventPublisher, keys: int) -> None:
    index = publisher.index + 1
    publisher.publish([Event(VALUES, index, Value(f"key-{index * 7919 % keys}", index))])


async def _view(keys: int, seconds: float) -> Sample:
    async with _publisher(keys) as publisher:
        begin = process_time()
        async with open_view(publisher.subscribe, SubscribeRequest(VALUES)) as view:
            await view.wait_current()
            load = process_time() - begin

            async def rounds(count: int) -> float:
                begin = process_time()
                for _ in range(count):
                    for _ in range(UPDATES):
                        _update(publisher, keys)
                    await view.wait_index(publisher.index)
                return process_time() - begin

            each = await seconds_each(rounds, seconds)
            assert len(view) == keys
    return {"load": load * 1e3, "rate": UPDATES / each}


async def _dict(keys: int, seconds: float) -> Sample:
    async with _publisher(keys) as publisher:
        state: dict[str, Value] = {}
        begin = process_time()
        async with publisher.subscribe(SubscribeRequest(VALUES)) as subscription:
            async for event in subscription:
                for one in event.payloads:
                    state[one.key] = one
                if event.is_end_of_snapshot:
                    break
            load = process_time() - begin

            async def rounds(count: int) -> float:
                begin = process_time()
                for _ in range(count):
                    for _ in range(UPDATES):
                        _update(publisher, keys)
                    async for event in subscription:
                        for one in event.payloads:
                            state[one.key] = one
                        if event.index == publisher.index:
                            break
                return process_time() - begin

            each = await seconds_each(rounds, seconds)
            assert len(state) == keys
    return {"load": load * 1e3, "rate": UPDATES / each}


def view(load: Load) -> Sample:
    return trio.run(partial(_view, load.n, load.seconds))


def by_hand(load: Load) -> Sample:
    return trio.run(partial(_dict, load.n, load.seconds))


ROWS = (
    Row(
        "view",
        "A view and its dict of so many keys, on trio; an update is published and shown",
        (Figure("rate", "updates/s", more_is_better=True), Figure("load", "ms to load")),
        {"trio_stream.view": view, "a dict and async for": by_hand},
        (1_000, 10_000, 100_000),
        (1_000, 100_000),
        counts="keys",
        baseline="a dict and async for",
    ),
)
