"""Rows: every event to every reader, one by one while all wait for it, and in a burst."""

from collections.abc import Callable, Mapping
from functools import partial
from time import process_time

from . import fan
from .loops import ASYNCIO, TRIO, Loop
from .row import Aim, Contender, Figure, Load, Row, Sample
from .timing import seconds_each, settle

BURSTS = {1: 10_000, 100: 1_000, 1_000: 100, 10_000: 20}  # {readers: events that each is behind}


async def _run(loop: Loop, open_fan: fan.OpenFan, readers: int, burst: int, seconds: float) -> Sample:
    gate = loop.gate()
    tally = fan.Tally(readers, burst, gate)
    published = 0
    publishing = 0.0
    async with open_fan(readers, burst) as (publish, read), loop.tasks() as spawn:
        for reader in read:
            spawn(reader, tally)
        for _ in range(3):
            await loop.checkpoint()
        settle()

        async def rounds(count: int) -> float:
            nonlocal published, publishing
            publishing = 0.0
            begin = process_time()
            for _ in range(count):
                since = process_time() if burst > 1 else 0.0
                for _ in range(burst):
                    published += 1
                    await publish(published)
                if burst > 1:
                    publishing += process_time() - since
                await gate.wait()
            return process_time() - begin - publishing

        each = await seconds_each(rounds, seconds)
    return {"rate": readers * burst / each}


def live(loop: Loop, open_fan: fan.OpenFan, load: Load) -> Sample:
    """Publishes one event, waits until all have it, and again."""
    return loop.run(lambda: _run(loop, open_fan, load.n, 1, load.seconds))


def backlog(loop: Loop, open_fan: fan.OpenFan, load: Load) -> Sample:
    """Publishes a burst at once; the time is that of reading it."""
    burst = BURSTS.get(load.n, 20)
    return loop.run(lambda: _run(loop, open_fan, load.n, burst, load.seconds))


OURS: Mapping[str, fan.OpenFan] = {
    "trio_stream, async for": partial(fan.ours, fan.iterate),
    "trio_stream, receive": partial(fan.ours, fan.receive),
    "trio_stream, receive_batch": partial(fan.ours, fan.receive_batch),
}
ON_TRIO: Mapping[str, fan.OpenFan] = {
    **OURS,
    "trio channels": fan.trio_channels,
    "anyio streams": fan.anyio_streams,
    "bare wake": fan.bare_trio,
}
ON_ASYNCIO: Mapping[str, fan.OpenFan] = {
    **OURS,
    "asyncio queues": fan.asyncio_queues,
    "anyio streams": fan.anyio_streams,
    "broadcaster": fan.broadcaster,
    "aio-broadcast": fan.aio_broadcast,
    "reactivex (no tasks)": fan.reactivex,
    "bare wake": fan.bare_asyncio,
}
RATE = (Figure("rate", "deliveries/s", more_is_better=True),)
SIZES = (1, 100, 1_000, 10_000)
QUICK = (1, 1_000)
ASYNC_FOR = "trio_stream, async for"


def _contenders(
    work: Callable[[Loop, fan.OpenFan, Load], Sample], loop: Loop, fans: Mapping[str, fan.OpenFan]
) -> Mapping[str, Contender]:
    return {name: partial(work, loop, each) for name, each in fans.items()}


NO_BACKLOG = {"bare wake", "reactivex (no tasks)"}
BACKLOG_ON_TRIO: Mapping[str, fan.OpenFan] = {
    **{name: each for name, each in ON_TRIO.items() if name not in NO_BACKLOG},
    "bare async for": partial(fan.bare_iterators, TRIO),
}
BACKLOG_ON_ASYNCIO: Mapping[str, fan.OpenFan] = {
    **{name: each for name, each in ON_ASYNCIO.items() if name not in NO_BACKLOG},
    "bare async for": partial(fan.bare_iterators, ASYNCIO),
}
FILTERED: Mapping[str, fan.OpenFan] = {
    "trio_stream, async for": partial(fan.filtered, fan.iterate),
    "trio_stream, receive_batch": partial(fan.filtered, fan.receive_batch),
}

ROWS = (
    Row(
        "live-trio",
        "Live fan-out on trio: one event at a time to readers that all wait",
        RATE,
        _contenders(live, TRIO, ON_TRIO),
        SIZES,
        QUICK,
        baseline="trio channels",
        aims=(
            Aim("rate", ASYNC_FOR, 1_000, at_least=1.5, versus="trio channels"),
            Aim("rate", ASYNC_FOR, 1_000, at_least=0.85, versus="bare wake"),
        ),
    ),
    Row(
        "live-asyncio",
        "Live fan-out on asyncio: one event at a time to readers that all wait",
        RATE,
        _contenders(live, ASYNCIO, ON_ASYNCIO),
        SIZES,
        QUICK,
        baseline="asyncio queues",
        aims=(Aim("rate", ASYNC_FOR, 1_000, at_least=1.2, versus="asyncio queues"),),
    ),
    Row(
        "backlog-trio",
        "A backlog on trio: readers take what was published in one go",
        RATE,
        _contenders(backlog, TRIO, BACKLOG_ON_TRIO),
        SIZES,
        QUICK,
        baseline="trio channels",
        aims=(
            Aim("rate", ASYNC_FOR, 1_000, at_least=10, versus="trio channels"),
            Aim("rate", "trio_stream, receive_batch", 1_000, at_least=14e6),
        ),
    ),
    Row(
        "backlog-asyncio",
        "A backlog on asyncio: readers take what was published in one go",
        RATE,
        _contenders(backlog, ASYNCIO, BACKLOG_ON_ASYNCIO),
        SIZES,
        QUICK,
        baseline="asyncio queues",
    ),
    Row(
        "backlog-filtered",
        "A backlog on trio, of which each reader may read every other event",
        RATE,
        _contenders(backlog, TRIO, FILTERED),
        SIZES,
        QUICK,
    ),
)
