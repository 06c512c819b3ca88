"""Rows: readers that want little of what is published, and readers that are far behind."""

import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import process_time

import trio

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    Subscription,
    open_publisher,
)

from .fan import Tally
from .loops import TRIO
from .ours import START, VALUES, Value, commit, no_state
from .row import Aim, Figure, Load, Row, Sample
from .timing import seconds_each, settle

WANTED = 100  # one of so many events is wanted
ROWS_CHANGED = 100  # rows of the state, which are changed in turn
PAGE = 1_024  # commits that are read back in one go


def _is_wanted(value: Value) -> bool:
    return value.value % WANTED == 0


async def _by_where(publisher: EventPublisher, tally: Tally) -> None:
    request = SubscribeRequest(VALUES, index=START)
    async for _ in publisher.subscribe(request, where=_is_wanted):
        tally.report()


async def _by_hand(publisher: EventPublisher, tally: Tally) -> None:
    async for event in publisher.subscribe(SubscribeRequest(VALUES, index=START)):
        for payload in event.payloads:
            if _is_wanted(payload):
                tally.report()


async def _filter(by_hand: bool, n: int, seconds: float) -> Sample:
    gate = TRIO.gate()
    tally = Tally(n, 1, gate)
    async with open_publisher({VALUES: no_state}, index=START) as publisher, TRIO.tasks() as spawn:
        for _ in range(n):
            spawn(_by_hand if by_hand else _by_where, publisher, tally)
        await TRIO.checkpoint()
        await TRIO.checkpoint()
        settle()

        async def rounds(count: int) -> float:
            spent = 0.0
            for _ in range(count):
                for _ in range(WANTED):  # of which one is wanted, at any place
                    publisher.publish(commit(publisher.next_index))
                begin = process_time()
                await gate.wait()
                spent += process_time() - begin
            return spent

        return {"rate": n * WANTED / await seconds_each(rounds, seconds)}


def wanted(by_hand: bool, load: Load) -> Sample:
    return trio.run(partial(_filter, by_hand, load.n, load.seconds))


def _key(value: Value) -> str:
    return value.key


@asynccontextmanager
async def _behind(n: int) -> AsyncIterator[tuple[Subscription[Value], int]]:
    """A reader that is `n` changes behind, and how many bytes these have left."""
    async with open_publisher({VALUES: Source(no_state, row=_key)}, index=START) as publisher:
        request = SubscribeRequest(VALUES, index=START)
        async with publisher.subscribe(request, on_lag="conflate") as reader:
            for number in range(ROWS_CHANGED):
                publisher.publish(commit(publisher.next_index, f"row-{number}"))
            await reader.receive()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for number in range(n):
                publisher.publish(commit(publisher.next_index, f"row-{number % ROWS_CHANGED}"))
            gc.collect()
            used = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            yield reader, used


async def _conflate(n: int) -> Sample:
    async with _behind(n) as (reader, used):
        begin = process_time()
        event = reader.receive_nowait()
        seconds = process_time() - begin
        assert event.is_conflated
        assert len(event.events) == min(n, ROWS_CHANGED)
        return {"each": seconds * 1e3, "bytes": used / n}


def conflate(load: Load) -> Sample:
    return trio.run(_conflate, load.n)


async def _read_back(history: int, n: int) -> Sample:
    """`n` commits, read in batches by one who comes back after the first."""
    log: list[Event[Value]] = []

    async def replay(request: SubscribeRequest[Value], cursor: Cursor, page: SnapshotAppender[Value]) -> int:
        index = cursor.index
        for event in log[cursor.index - START : cursor.index - START + PAGE]:
            index = event.index
            if not await page.append([event]):
                break
        return index

    async with open_publisher({VALUES: Source(no_state, replay)}, index=START, history=history) as publisher:
        for _ in range(n):
            events = commit(publisher.next_index)
            log += events
            publisher.publish(events)
        settle()
        begin = process_time()
        async with publisher.subscribe(SubscribeRequest(VALUES, index=START)) as reader:
            read = 0
            while read < n:
                read += len(await reader.receive_batch())
        return {"rate": n / (process_time() - begin)}


def read_back(history: int, load: Load) -> Sample:
    return trio.run(_read_back, history or load.n, load.n)


RATE = Figure("rate", "events/s", more_is_better=True)

ROWS = (
    Row(
        "where",
        f"A filter that lets one of {WANTED} events through, which were published in one go",
        (RATE,),
        {"where": partial(wanted, False), "in the readers' loops": partial(wanted, True)},
        sizes=(100, 1_000),
        quick=(100,),
        baseline="in the readers' loops",
        aims=(Aim("rate", "where", 1_000, at_least=1.5, versus="in the readers' loops"),),
    ),
    Row(
        "conflate",
        f"What a reader that conflates takes when it was behind: {ROWS_CHANGED} rows, changed in turn",
        (Figure("each", "ms for the one delivery"), Figure("bytes", "B for each change")),
        {"trio_stream": conflate},
        sizes=(1_000, 100_000),
        quick=(1_000,),
        counts="changes",
        aims=(Aim("each", "trio_stream", 100_000, at_most=1.0),),
    ),
    Row(
        "replay",
        "Coming back far behind, and reading in batches: from the history, and from a list by a replay function",
        (RATE,),
        {"from the history": partial(read_back, 0), "replayed": partial(read_back, 64)},
        sizes=(100_000,),
        quick=(10_000,),
        counts="commits",
        baseline="from the history",
    ),
)
