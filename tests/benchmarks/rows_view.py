"""Rows: a view, against a dict that a reader fills by hand."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import process_time

import trio

from trio_stream import Event, EventPublisher, SnapshotAppender, SubscribeRequest, open_publisher
from trio_stream.view import open_view

from .ours import START, VALUES, Value
from .row import Aim, Figure, Load, Row, Sample
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
    for _ in range(UPDATES):
        index = publisher.index + 1
        publisher.publish([Event(VALUES, index, Value(f"key-{index * 7919 % keys}", index))])


async def _measured(
    publisher: EventPublisher,
    keys: int,
    seconds: float,
    load: float,
    follow: Callable[[int], Awaitable[object]],
) -> Sample:
    """`follow` reads up to an index; what it takes to publish is not counted."""

    async def rounds(count: int) -> float:
        took = 0.0
        for _ in range(count):
            _update(publisher, keys)
            begin = process_time()
            await follow(publisher.index)
            took += process_time() - begin
        return took

    return {"load": load * 1e3, "rate": UPDATES / await seconds_each(rounds, seconds)}


async def _view(keys: int, seconds: float) -> Sample:
    async with _publisher(keys) as publisher:
        begin = process_time()
        async with open_view(publisher.subscribe, SubscribeRequest(VALUES)) as view:
            await view.wait_current()
            load = process_time() - begin
            sample = await _measured(publisher, keys, seconds, load, view.wait_index)
            assert len(view) == keys
    return sample


async def _dict(keys: int, seconds: float) -> Sample:
    async with _publisher(keys) as publisher:
        state: dict[str, Value] = {}
        begin = process_time()
        async with publisher.subscribe(SubscribeRequest(VALUES)) as subscription:

            async def follow(index: int) -> None:
                while subscription.index < index:
                    for event in await subscription.receive_batch():
                        for one in event.payloads:
                            if one.is_delete:
                                state.pop(one.key, None)
                            else:
                                state[one.key] = one

            await follow(START)
            load = process_time() - begin
            sample = await _measured(publisher, keys, seconds, load, follow)
            assert len(state) == keys
    return sample


def view(load: Load) -> Sample:
    return trio.run(partial(_view, load.n, load.seconds))


def by_hand(load: Load) -> Sample:
    return trio.run(partial(_dict, load.n, load.seconds))


ROWS = (
    Row(
        "view",
        "The state of so many keys, on trio: loaded by a snapshot, and kept up to date, 1,000 updates at a time",
        (Figure("rate", "updates/s", more_is_better=True), Figure("load", "ms to load")),
        {"trio_stream.view": view, "a dict and receive_batch": by_hand},
        (1_000, 10_000, 100_000),
        (1_000, 100_000),
        counts="keys",
        baseline="a dict and receive_batch",
        aims=(
            Aim("load", "trio_stream.view", 100_000, at_most=1.5, versus="a dict and receive_batch"),
            Aim("rate", "trio_stream.view", 100_000, at_least=1 / 1.5, versus="a dict and receive_batch"),
        ),
    ),
)
