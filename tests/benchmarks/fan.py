"""The contenders of the fan-out: how each brings every event to `n` readers, each of them a task.

All readers do the same with what they get: count it, and report when they have had what was published.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, Self, TypeAlias

import anyio
import trio

from trio_stream import Subscription, open_publisher

from .loops import Gate, Loop
from .ours import START, VALUES, Value, commit, live, no_state


class Tally:
    """Counts the readers that have had `each` deliveries; the last one opens the gate."""

    __slots__ = ("_gate", "_left", "_readers", "each")

    def __init__(self, readers: int, each: int, gate: Gate) -> None:
        self.each = each
        self._readers = self._left = readers
        self._gate = gate

    def report(self) -> None:
        self._left -= 1
        if not self._left:
            self._left = self._readers
            self._gate.open()


Reader: TypeAlias = Callable[[Tally], Coroutine[Any, Any, None]]
Read: TypeAlias = Callable[[Any, Tally], Coroutine[Any, Any, None]]
"""How a reader reads: its source first."""


class Fan(NamedTuple):
    """What is measured: one call publishes one event."""

    publish: Callable[[int], Awaitable[None]]
    readers: list[Reader]


OpenFan: TypeAlias = Callable[[int, int], AbstractAsyncContextManager[Fan]]
"""For a number of readers, and of events that each may be behind."""


async def iterate(source: Any, tally: Tally) -> None:
    left = tally.each
    async for _ in source:
        left -= 1
        if not left:
            left = tally.each
            tally.report()


async def receive(source: Any, tally: Tally) -> None:
    left = tally.each
    while True:
        await source.receive()
        left -= 1
        if not left:
            left = tally.each
            tally.report()


async def receive_batch(source: Subscription[Value], tally: Tally) -> None:
    left = tally.each
    while True:
        left -= len(await source.receive_batch())
        if not left:
            left = tally.each
            tally.report()


@asynccontextmanager
async def ours(read: Read, n: int, behind: int, authorizer: int | None = None) -> AsyncIterator[Fan]:
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(
            open_publisher({VALUES: no_state}, index=START, history=max(behind, 4096))
        )

        async def publish(index: int) -> None:
            publisher.publish(commit(START + index))

        yield Fan(publish, [partial(read, live(publisher, authorizer=authorizer)) for _ in range(n)])


@asynccontextmanager
async def filtered(read: Read, n: int, behind: int) -> AsyncIterator[Fan]:
    """Readers who may read every other commit; between two that they may read is one that they may not."""
    async with ours(read, n, 2 * behind, authorizer=2) as (publish, readers):

        async def publish_two(index: int) -> None:
            await publish(2 * index - 1)
            await publish(2 * index)

        yield Fan(publish_two, readers)


@asynccontextmanager
async def trio_channels(n: int, behind: int) -> AsyncIterator[Fan]:
    pairs = [trio.open_memory_channel[Any](behind) for _ in range(n)]
    sending = [send for send, _ in pairs]

    async def publish(index: int) -> None:
        events = commit(index)
        for channel in sending:
            channel.send_nowait(events)

    yield Fan(publish, [partial(iterate, channel) for _, channel in pairs])


@asynccontextmanager
async def anyio_streams(n: int, behind: int) -> AsyncIterator[Fan]:
    pairs = [anyio.create_memory_object_stream[Any](behind) for _ in range(n)]
    sending = [send for send, _ in pairs]

    async def publish(index: int) -> None:
        events = commit(index)
        for stream in sending:
            stream.send_nowait(events)

    yield Fan(publish, [partial(iterate, stream) for _, stream in pairs])
    for send, stream in pairs:
        send.close()
        stream.close()


async def _get(queue: asyncio.Queue[Any], tally: Tally) -> None:
    left = tally.each
    while True:
        await queue.get()
        left -= 1
        if not left:
            left = tally.each
            tally.report()


@asynccontextmanager
async def asyncio_queues(n: int, behind: int) -> AsyncIterator[Fan]:
    queues = [asyncio.Queue[Any](behind) for _ in range(n)]

    async def publish(index: int) -> None:
        events = commit(index)
        for queue in queues:
            queue.put_nowait(events)

    yield Fan(publish, [partial(_get, queue) for queue in queues])


@asynccontextmanager
async def broadcaster(n: int, behind: int) -> AsyncIterator[Fan]:
    from broadcaster import Broadcast

    async with AsyncExitStack() as stack:
        broadcast = await stack.enter_async_context(Broadcast("memory://"))
        readers = [await stack.enter_async_context(broadcast.subscribe("hot")) for _ in range(n)]

        async def publish(index: int) -> None:
            await broadcast.publish("hot", commit(index))

        yield Fan(publish, [partial(iterate, reader) for reader in readers])


@asynccontextmanager
async def aio_broadcast(n: int, behind: int) -> AsyncIterator[Fan]:
    from aio_broadcast import MultiQueue  # type: ignore[import-untyped]

    queue: Any = MultiQueue()

    async def publish(index: int) -> None:
        queue.put(commit(index))

    yield Fan(publish, [partial(iterate, aiter(queue)) for _ in range(n)])


@asynccontextmanager
async def reactivex(n: int, behind: int) -> AsyncIterator[Fan]:
    """Calls back in `publish` itself; the readers are no tasks."""
    from reactivex.subject import Subject

    subject: Subject[Any] = Subject()

    async def publish(index: int) -> None:
        subject.on_next(commit(index))

    async def read(tally: Tally) -> None:
        left = tally.each

        def take(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                left = tally.each
                tally.report()

        subject.subscribe(take)

    yield Fan(publish, [read for _ in range(n)])


@asynccontextmanager
async def bare_trio(n: int, behind: int) -> AsyncIterator[Fan]:
    """The floor: each reader is woken for each event, and nothing is handed over."""
    parked: list[trio.lowlevel.Task] = []

    async def publish(_: int) -> None:
        woken = parked.copy()
        parked.clear()
        for task in woken:
            trio.lowlevel.reschedule(task)

    def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        return trio.lowlevel.Abort.SUCCEEDED

    async def read(tally: Tally) -> None:
        while True:
            parked.append(trio.lowlevel.current_task())
            await trio.lowlevel.wait_task_rescheduled(abort)
            tally.report()

    yield Fan(publish, [read for _ in range(n)])


@asynccontextmanager
async def bare_asyncio(n: int, behind: int) -> AsyncIterator[Fan]:
    """The floor: each reader is woken for each event, and nothing is handed over."""
    parked: list[asyncio.Future[None]] = []

    async def publish(_: int) -> None:
        woken = parked.copy()
        parked.clear()
        for future in woken:
            future.set_result(None)

    async def read(tally: Tally) -> None:
        create_future = asyncio.get_running_loop().create_future
        while True:
            future = create_future()
            parked.append(future)
            await future
            tally.report()

    yield Fan(publish, [read for _ in range(n)])


class _Bare:
    """The least that `async for` can be: the next item of a list, and a checkpoint every 64."""

    def __init__(self, events: list[Any], loop: Loop) -> None:
        self.gate = loop.gate()
        self._checkpoint = loop.checkpoint
        self._events = events
        self._position = 0
        self._left = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        events = self._events
        position = self._position
        if not self._left or position == len(events):
            self._left = 64
            await (self._checkpoint() if position < len(events) else self.gate.wait())
        self._left -= 1
        self._position = position + 1
        return events[position]


@asynccontextmanager
async def bare_iterators(loop: Loop, n: int, behind: int) -> AsyncIterator[Fan]:
    """The floor of a backlog that is read by `async for`."""
    events: list[Any] = []
    readers = [_Bare(events, loop) for _ in range(n)]

    async def publish(index: int) -> None:
        events.append(commit(index))
        if (index - 1) % behind == 0:
            for reader in readers:
                reader.gate.open()

    yield Fan(publish, [partial(iterate, reader) for reader in readers])
