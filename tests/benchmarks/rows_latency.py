"""Row: whether a reader that has stalled costs a healthy one anything, from publish to receive, by the wall clock."""

from functools import partial
from statistics import quantiles
from time import perf_counter

import anyio

from trio_stream import Subscription, open_publisher

from .loops import ASYNCIO, TRIO, Loop
from .ours import START, VALUES, Value, commit, live, no_state
from .row import Figure, Load, Row, Sample
from .timing import settle

RATE = 8_000  # events for each second of the load
PACE = 0.0002  # seconds between two publishes


async def _latency(loop: Loop, stalled: int, events: int) -> Sample:
    sent: dict[int, float] = {}
    took: list[float] = []
    gate = loop.gate()

    async def healthy(subscription: Subscription[Value]) -> None:
        async for event in subscription:
            took.append(perf_counter() - sent[event.index])
            if len(took) == events:
                gate.open()

    async with (
        open_publisher({VALUES: no_state}, index=START, history=events // 4) as publisher,
        loop.tasks() as spawn,
    ):
        behind = [live(publisher) for _ in range(stalled)]
        spawn(healthy, live(publisher))
        await loop.checkpoint()
        settle()
        for _ in range(events):
            sent[publisher.index + 1] = perf_counter()
            publisher.publish(commit(publisher.index + 1))
            await anyio.sleep(PACE)
        await gate.wait()
        for subscription in behind:
            subscription.unsubscribe()
    cuts = quantiles(took, n=100)
    return {"p50": cuts[49] * 1e6, "p99": cuts[98] * 1e6}


def latency(loop: Loop, load: Load) -> Sample:
    return loop.run(lambda: _latency(loop, load.n, max(int(load.seconds * RATE), 100)))


ROWS = (
    Row(
        "stalled-tax",
        "Publish to receive of a healthy reader beside readers that never read and fall off the history",
        (Figure("p50", "us, half of the events"), Figure("p99", "us, 99 of 100 events")),
        {"trio_stream on trio": partial(latency, TRIO), "trio_stream on asyncio": partial(latency, ASYNCIO)},
        (0, 1_000),
        (0, 1_000),
        counts="stalled readers",
    ),
)
