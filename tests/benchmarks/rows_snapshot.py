"""Row: a snapshot of very many events, streamed while it is made."""

import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from time import process_time

import trio

from trio_stream import Event, SnapshotAppender, SubscribeRequest, open_publisher

from .loops import ASYNCIO, TRIO, Loop
from .ours import START, VALUES, Value
from .row import Figure, Load, Row, Sample
from .timing import settle


async def _read(n: int) -> tuple[float, float]:
    """Processor seconds until the first event and until the last one."""

    async def handler(_: SubscribeRequest[Value], snapshot: SnapshotAppender[Value]) -> int:
        for number in range(n):
            await snapshot.append([Event(VALUES, START, Value("key", number))])
        return START

    async with open_publisher({VALUES: handler}, index=START) as publisher:
        settle()
        begin = process_time()
        async with publisher.subscribe(SubscribeRequest(VALUES)) as subscription:
            seen = len(await subscription.receive_batch())
            first = process_time() - begin
            while seen <= n:  # one more: end-of-snapshot
                seen += len(await subscription.receive_batch())
        return first, process_time() - begin


async def _channel(n: int) -> tuple[float, float]:
    """The same through a memory channel of the size of the window, with nobody to share it."""

    async def send(channel: trio.MemorySendChannel[Event[Value]]) -> None:
        async with channel:
            for number in range(n):
                await channel.send(Event(VALUES, START, Value("key", number)))

    sending, receiving = trio.open_memory_channel[Event[Value]](1_024)
    kept: list[Event[Value]] = []
    settle()
    begin = process_time()
    async with TRIO.tasks() as spawn:
        spawn(send, sending)
        kept.append(await receiving.receive())
        first = process_time() - begin
        async for event in receiving:
            kept.append(event)  # noqa: PERF401 - one by one, as the others
    assert len(kept) == n
    return first, process_time() - begin


async def _stream(read: Callable[[int], Awaitable[tuple[float, float]]], n: int) -> Sample:
    first, whole = await read(n)
    gc.collect()
    tracemalloc.start()
    traced = max(n // 10, 1)  # under tracing it takes several times as long
    await read(traced)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"first": first * 1e3, "rate": n / whole, "peak": peak / traced}


def stream(loop: Loop, load: Load) -> Sample:
    return loop.run(lambda: _stream(_read, load.n))


def channel(load: Load) -> Sample:
    return trio.run(_stream, _channel, load.n)


ROWS = (
    Row(
        "snapshot",
        "A snapshot of one event for each `append`, read while it is made",
        (
            Figure("rate", "events/s", more_is_better=True),
            Figure("first", "ms to the first event"),
            Figure("peak", "bytes per event at the peak, the events themselves included"),
        ),
        {
            "trio_stream on trio": partial(stream, TRIO),
            "trio_stream on asyncio": partial(stream, ASYNCIO),
            "a trio channel": channel,
        },
        (10_000, 100_000, 1_000_000),
        (10_000, 100_000),
        counts="events",
        baseline="a trio channel",
        rounds=1,
    ),
)
