"""Rows: bytes, as tracemalloc counts them; the tasks of the readers are not counted."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
import trio
import trio.testing

from trio_stream import open_publisher

from .ours import START, VALUES, commit, live, no_state
from .row import Aim, Figure, Load, Row, Sample

BEHIND = 1_000  # events that every reader has not taken


def _bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _ours(n: int, behind: int) -> float:
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(open_publisher({VALUES: no_state}, index=START))
        tracemalloc.start()
        before = _bytes()
        subscriptions = [live(publisher) for _ in range(n)]
        with trio.CancelScope() as scope:  # each waits once, and its task is gone again
            async with trio.open_nursery() as nursery:
                for subscription in subscriptions:
                    nursery.start_soon(subscription.receive)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        events = [commit(START + 1 + number) for number in range(behind)]
        if behind:
            before = _bytes()  # the subscriptions are the other row, and the events are the application's
        for each in events:
            publisher.publish(each)
        used = _bytes() - before
        tracemalloc.stop()
        assert len(subscriptions) == n
        return used


async def _queues(
    make: Callable[[int], Any], put: Callable[[Any, object], object], n: int, behind: int
) -> float:
    tracemalloc.start()
    before = _bytes()
    queues = [make(max(behind, 1)) for _ in range(n)]
    events = [commit(START + 1 + number) for number in range(behind)]
    if behind:
        before = _bytes()
    for each in events:
        for queue in queues:
            put(queue, each)
    used = _bytes() - before
    tracemalloc.stop()
    for queue in queues if make is _stream else ():
        for end in queue:
            end.close()
    return used


def _channel(size: int) -> Any:
    return trio.open_memory_channel[object](size)


def _stream(size: int) -> Any:
    return anyio.create_memory_object_stream[object](size)


def _send(pair: Any, event: object) -> None:
    pair[0].send_nowait(event)


def _queue(size: int) -> Any:
    return asyncio.Queue[object](size)


def _put(queue: Any, event: object) -> None:
    queue.put_nowait(event)


CHANNELS = partial(_queues, _channel, _send)
STREAMS = partial(_queues, _stream, _send)
QUEUES = partial(_queues, _queue, _put)


def idle(run: Callable[[int, int], Any], load: Load) -> Sample:
    return {"bytes": anyio.run(run, load.n, 0, backend="trio") / load.n}


def stalled(run: Callable[[int, int], Any], load: Load) -> Sample:
    return {"bytes": anyio.run(run, load.n, BEHIND, backend="trio") / (load.n * BEHIND)}


RUNS: Mapping[str, Callable[[int, int], Any]] = {
    "trio_stream": _ours,
    "trio channels": CHANNELS,
    "anyio streams": STREAMS,
    "asyncio queues": QUEUES,
}

ROWS = (
    Row(
        "memory-idle",
        "An idle subscription",
        (Figure("bytes", "bytes per subscription"),),
        {name: partial(idle, run) for name, run in RUNS.items()},
        (100, 1_000, 10_000),
        (1_000,),
        baseline="trio channels",
        aims=(Aim("bytes", "trio_stream", 1_000, at_most=600),),
        rounds=1,
    ),
    Row(
        "memory-stalled",
        "Stalled readers, 1,000 events behind",
        (Figure("bytes", "bytes per reader and event"),),
        {name: partial(stalled, run) for name, run in RUNS.items()},
        (10, 100, 1_000),
        (1_000,),
        baseline="trio channels",
        aims=(Aim("bytes", "trio_stream", 1_000, at_most=0.5),),
        rounds=1,
    ),
)
