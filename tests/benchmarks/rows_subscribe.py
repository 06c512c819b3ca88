"""Rows: many who come, come back, and are sent away at once."""

from functools import partial
from time import perf_counter, process_time

import trio
import trio.testing

from trio_stream import (
    Event,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    open_publisher,
)

from .loops import ASYNCIO, TRIO, Loop
from .ours import KEY, START, VALUES, Value, commit, live, no_state
from .row import Aim, Figure, Load, Row, Sample
from .timing import settle

HISTORY = 4096
SNAPSHOT = 100  # events


async def _herd(loop: Loop, n: int, *, cached: bool) -> Sample:
    """`n` fresh subscribers of one key at once; all of them read to the end of the snapshot."""
    runs = 0

    async def handler(_: SubscribeRequest[Value], snapshot: SnapshotAppender[Value]) -> int:
        nonlocal runs
        runs += 1
        for __ in range(SNAPSHOT):
            await snapshot.append([Event(VALUES, START, Value(KEY))])
        return START

    gate = loop.gate()
    left = n

    async def read(subscription: Subscription[Value]) -> None:
        nonlocal left
        async for event in subscription:
            if event.is_end_of_snapshot:
                left -= 1
                if not left:
                    gate.open()

    async with open_publisher({VALUES: handler}, index=START) as publisher, loop.tasks() as spawn:
        request = SubscribeRequest(VALUES, KEY)
        if cached:
            left += 1
            spawn(read, publisher.subscribe(request))
            while left > n:
                await loop.checkpoint()
            runs = 0
        settle()
        begin = process_time()
        subscriptions = [publisher.subscribe(request) for _ in range(n)]
        subscribed = process_time() - begin
        for subscription in subscriptions:
            spawn(read, subscription)
        await gate.wait()
        whole = process_time() - begin
    return {"each": subscribed / n * 1e6, "ready": whole / n * 1e6, "runs": runs}


def herd(loop: Loop, cached: bool, load: Load) -> Sample:
    return loop.run(lambda: _herd(loop, load.n, cached=cached))


async def _resume(n: int) -> Sample:
    """Resumes at places all over a history of 4,096 commits: the time to subscribe."""
    async with open_publisher({VALUES: no_state}, index=START, history=HISTORY) as publisher:
        for _ in range(HISTORY):
            publisher.publish(commit(publisher.index + 1))
        requests = [
            SubscribeRequest(VALUES, KEY, index=START + 1 + number % (HISTORY - 1)) for number in range(n)
        ]
        settle()
        begin = process_time()
        subscriptions = [publisher.subscribe(request) for request in requests]
        resumed = process_time() - begin
        first = subscriptions[0].receive_nowait()
        assert first.index == requests[0].index + 1
    return {"each": resumed / n * 1e6}


def resume(load: Load) -> Sample:
    return trio.run(_resume, load.n)


async def _close(loop: Loop, n: int, closing: int) -> Sample:
    """Closes `closing` of `n` readers who wait, each with a token of its own; until they know."""
    gate = loop.gate()
    left = closing

    async def read(subscription: Subscription[Value]) -> None:
        nonlocal left
        try:
            await subscription.receive()
        except SubscriptionForceClosed:
            left -= 1
            if not left:
                gate.open()

    async with open_publisher({VALUES: no_state}, index=START) as publisher, loop.tasks() as spawn:
        for number in range(n):
            spawn(read, live(publisher, token=f"token-{number}"))
        for _ in range(3):
            await loop.checkpoint()
        settle()
        spent = inside = 0.0
        rounds = min(20, n // closing)
        for turn in range(rounds):
            left = closing
            tokens = [f"token-{turn * closing + number}" for number in range(closing)]
            begin = perf_counter(), process_time()
            publisher.close_subscriptions(tokens)
            inside += process_time() - begin[1]
            await gate.wait()
            spent += process_time() - begin[1]
    return {"inside": inside / rounds * 1e3, "known": spent / rounds * 1e3}


def close_one(loop: Loop, load: Load) -> Sample:
    return loop.run(lambda: _close(loop, load.n, 1))


def close_all(loop: Loop, load: Load) -> Sample:
    return loop.run(lambda: _close(loop, load.n, load.n))


async def _shared_event(n: int) -> Sample:
    """A close that all are told of, and each looks whether it is meant: what a shared event costs."""
    condition = trio.Event()
    gate = TRIO.gate()
    left = n

    async def read() -> None:
        nonlocal left
        while True:
            await condition.wait()
            left -= 1
            if not left:
                gate.open()
            await trio.sleep_forever()

    async with TRIO.tasks() as spawn:
        for _ in range(n):
            spawn(read)
        await trio.testing.wait_all_tasks_blocked()
        settle()
        begin = process_time()
        condition.set()
        inside = process_time() - begin
        await gate.wait()
        return {"inside": inside * 1e3, "known": (process_time() - begin) * 1e3}


def shared_event(load: Load) -> Sample:
    return trio.run(_shared_event, load.n)


SIZES = (100, 1_000, 10_000)
QUICK = (1_000, 10_000)
HERD = (
    Figure("each", "us per subscribe"),
    Figure("ready", "us per subscriber to end-of-snapshot"),
    Figure("runs", "snapshot runs"),
)
CLOSE = (Figure("known", "ms until they know"), Figure("inside", "ms in close_subscriptions"))
ON_TRIO, ON_ASYNCIO = "trio_stream on trio", "trio_stream on asyncio"
HERD_AIMS = (Aim("each", ON_TRIO, 10_000, at_most=20), Aim("runs", ON_TRIO, 10_000, at_most=1))

ROWS = (
    Row(
        "herd-cold",
        "Fresh subscribers of one key at once, no snapshot there yet (100 events)",
        HERD,
        {ON_TRIO: partial(herd, TRIO, False), ON_ASYNCIO: partial(herd, ASYNCIO, False)},
        SIZES,
        QUICK,
        aims=HERD_AIMS,
    ),
    Row(
        "herd-cached",
        "Fresh subscribers of one key at once, the snapshot is cached (100 events)",
        HERD,
        {ON_TRIO: partial(herd, TRIO, True), ON_ASYNCIO: partial(herd, ASYNCIO, True)},
        SIZES,
        QUICK,
        aims=(Aim("each", ON_TRIO, 10_000, at_most=20), Aim("runs", ON_TRIO, 10_000, at_most=0)),
    ),
    Row(
        "resume",
        "Resume from anywhere in a history of 4,096",
        (Figure("each", "us per subscribe"),),
        {"trio_stream": resume},
        SIZES,
        QUICK,
        aims=(Aim("each", "trio_stream", 10_000, at_most=20),),
    ),
    Row(
        "close-one",
        "Force-close of one among readers who all wait",
        CLOSE,
        {
            ON_TRIO: partial(close_one, TRIO),
            ON_ASYNCIO: partial(close_one, ASYNCIO),
            "a shared trio.Event": shared_event,
        },
        SIZES,
        QUICK,
        baseline="a shared trio.Event",
        aims=(Aim("known", ON_TRIO, 10_000, at_most=0.5),),
    ),
    Row(
        "close-all",
        "Force-close of all of them",
        CLOSE,
        {ON_TRIO: partial(close_all, TRIO), ON_ASYNCIO: partial(close_all, ASYNCIO)},
        SIZES,
        QUICK,
    ),
)
