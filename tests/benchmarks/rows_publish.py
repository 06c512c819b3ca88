"""Rows: what `publish` costs its caller."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import process_time

import anyio.to_thread
import trio
import trio.testing

from trio_stream import Event, EventPublisher, Subscription, open_publisher

from .loops import ASYNCIO, TRIO, Loop
from .ours import KEY, START, VALUES, Value, commit, live, no_state
from .row import Aim, Figure, Load, Row, Sample
from .timing import seconds_each, settle

BURST = 16  # commits between two checkpoints of the publisher
HISTORY = 4096
SHORT_HISTORY = 16  # where commits have many events
THREADS = 4


@asynccontextmanager
async def _beside(n: int, key: Callable[[int], str]) -> AsyncIterator[EventPublisher]:
    """A publisher whose history is full, with `n` tasks that wait on the subjects that `key` names."""

    async def read(subscription: Subscription[Value]) -> None:
        async for _ in subscription:
            pass

    async with (
        open_publisher({VALUES: no_state}, index=START, history=HISTORY) as publisher,
        TRIO.tasks() as spawn,
    ):
        for _ in range(HISTORY):
            publisher.publish(commit(publisher.index + 1))
        for number in range(n):
            spawn(read, live(publisher, key(number)))
        await trio.testing.wait_all_tasks_blocked()
        yield publisher


async def _publish(n: int, key: Callable[[int], str], seconds: float) -> Sample:
    async with _beside(n, key) as publisher:
        settle()

        async def rounds(count: int) -> float:
            spent = 0.0
            for _ in range(count):
                commits = [commit(publisher.index + 1 + number) for number in range(BURST)]
                begin = process_time()
                for events in commits:
                    publisher.publish(events)
                spent += process_time() - begin
                await trio.testing.wait_all_tasks_blocked()  # the readers take what there is
            return spent

        return {"each": await seconds_each(rounds, seconds) / BURST * 1e6}


def matching(load: Load) -> Sample:
    return trio.run(partial(_publish, load.n, lambda _: KEY, load.seconds))


def others(load: Load) -> Sample:
    return trio.run(partial(_publish, load.n, lambda number: f"quiet-{number}", load.seconds))


async def _many(n: int, seconds: float) -> Sample:
    async with open_publisher({VALUES: no_state}, index=START, history=SHORT_HISTORY) as publisher:

        async def rounds(count: int) -> float:
            spent = 0.0
            for _ in range(count):
                index = publisher.index + 1
                events = [Event(VALUES, index, Value(f"key-{number}", index)) for number in range(n)]
                begin = process_time()
                publisher.publish(events)
                spent += process_time() - begin
                await trio.lowlevel.checkpoint()
            return spent

        await rounds(SHORT_HISTORY)
        settle()
        return {"each": await seconds_each(rounds, seconds) * 1e6}


def many(load: Load) -> Sample:
    return trio.run(partial(_many, load.n, load.seconds))


async def _channels(n: int, seconds: float) -> Sample:
    async def read(channel: trio.MemoryReceiveChannel[object]) -> None:
        async for _ in channel:
            pass

    pairs = [trio.open_memory_channel[object](BURST) for _ in range(n)]
    async with TRIO.tasks() as spawn:
        for _, channel in pairs:
            spawn(read, channel)
        await trio.testing.wait_all_tasks_blocked()
        settle()

        async def rounds(count: int) -> float:
            spent = 0.0
            for _ in range(count):
                commits = [commit(number) for number in range(BURST)]
                begin = process_time()
                for events in commits:
                    for channel, _ in pairs:
                        channel.send_nowait(events)
                spent += process_time() - begin
                await trio.testing.wait_all_tasks_blocked()
            return spent

        return {"each": await seconds_each(rounds, seconds) / BURST * 1e6}


def channels(load: Load) -> Sample:
    return trio.run(partial(_channels, load.n, load.seconds))


async def _hot(n: int, seconds: float) -> Sample:
    """Publish to one reader, who waits, among `n` who wait for something else; until that one has it."""
    gate = TRIO.gate()

    async def read(subscription: Subscription[Value]) -> None:
        async for _ in subscription:
            gate.open()

    async with _beside(n, "quiet-{}".format) as publisher, TRIO.tasks() as spawn:
        spawn(read, live(publisher))
        await trio.testing.wait_all_tasks_blocked()
        settle()

        async def rounds(count: int) -> float:
            begin = process_time()
            for _ in range(count):
                publisher.publish(commit(publisher.index + 1))
                await gate.wait()
            return process_time() - begin

        return {"each": await seconds_each(rounds, seconds) * 1e6}


def hot(load: Load) -> Sample:
    return trio.run(partial(_hot, load.n, load.seconds))


async def _threads(loop: Loop, commits: int) -> Sample:
    """Threads that publish as fast as they can; the indexes are given out under a lock, as a store would."""
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(open_publisher({VALUES: no_state}, index=START))
        lock = threading.Lock()

        def work() -> None:
            for _ in range(commits // THREADS):
                with lock:
                    publisher.publish_from_thread(commit(publisher.index + 1))

        settle()
        begin = process_time()
        async with anyio.create_task_group() as tasks:
            for _ in range(THREADS):
                tasks.start_soon(anyio.to_thread.run_sync, work)
        return {"each": (process_time() - begin) / (commits // THREADS * THREADS) * 1e6}


def threads(loop: Loop, load: Load) -> Sample:
    return loop.run(lambda: _threads(loop, load.n))


async def _run_sync(loop: Loop, commits: int) -> Sample:
    """The floor: threads that have the event loop call something and wait for it."""
    seen = 0

    def take() -> None:
        nonlocal seen
        seen += 1

    def work() -> None:
        for _ in range(commits // THREADS):
            anyio.from_thread.run_sync(take)

    settle()
    begin = process_time()
    async with anyio.create_task_group() as tasks:
        for _ in range(THREADS):
            tasks.start_soon(anyio.to_thread.run_sync, work)
    return {"each": (process_time() - begin) / seen * 1e6}


def run_sync(loop: Loop, load: Load) -> Sample:
    return loop.run(lambda: _run_sync(loop, load.n))


EACH = (Figure("each", "us per publish"),)
SIZES = (1, 100, 1_000, 10_000)
QUICK = (1, 10_000)

ROWS = (
    Row(
        "publish-matching",
        "Time in `publish` itself, with readers of this subject",
        EACH,
        {"trio_stream": matching, "trio channels": channels},
        SIZES,
        QUICK,
        baseline="trio channels",
        aims=(Aim("each", "trio_stream", 10_000, at_most=2.0, versus="trio_stream", versus_n=1),),
        limits={"trio channels": 1_000},
    ),
    Row(
        "publish-others",
        "Time in `publish` itself, beside readers of other subjects",
        EACH,
        {"trio_stream": others},
        SIZES,
        QUICK,
        aims=(Aim("each", "trio_stream", 10_000, at_most=1.2, versus="trio_stream", versus_n=1),),
    ),
    Row(
        "publish-many",
        "Time in `publish` itself, for one commit whose events have a subject each, with no readers",
        EACH,
        {"trio_stream": many},
        (1, 1_000),
        (1_000,),
        counts="events",
    ),
    Row(
        "hot-subject",
        "One reader of a hot subject among readers of quiet ones: publish, and it has the event",
        EACH,
        {"trio_stream": hot},
        SIZES,
        QUICK,
    ),
    Row(
        "threads",
        "`publish_from_thread` from 4 threads at once, processor time of all of them",
        EACH,
        {
            "trio_stream on trio": partial(threads, TRIO),
            "trio_stream on asyncio": partial(threads, ASYNCIO),
            "anyio.from_thread on trio": partial(run_sync, TRIO),
            "anyio.from_thread on asyncio": partial(run_sync, ASYNCIO),
        },
        (20_000,),
        (4_000,),
        counts="commits",
        baseline="anyio.from_thread on trio",
    ),
)
