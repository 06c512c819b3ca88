"""Rows: readers of prefixes and of several interests together."""

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from time import process_time

import trio
import trio.testing

from trio_stream import Event, EventPublisher, SubscribeRequest, Subscription, Topic, open_publisher

from .loops import TRIO
from .ours import KEY, START, VALUES, Value, commit, no_state
from .row import Aim, Figure, Load, Row, Sample
from .timing import seconds_each, settle

BURST = 16  # commits between two checkpoints of the publisher
HISTORY = 4096
PREFIXES = 1_000
UNIONS = 100
PARTS = 10
TOPICS = tuple(Topic[Value](f"values-{number}") for number in range(PARTS))
MATCHED = f"prefix-{0:04d}"  # what the key begins with that is published


def prefixes() -> Iterator[SubscribeRequest[Value]]:
    """A thousand of one length, the first of which is matched."""
    return (SubscribeRequest(VALUES, f"prefix-{number:04d}", prefix=True) for number in range(PREFIXES))


def unions() -> Iterator[SubscribeRequest[Value]]:
    """A hundred of ten keys each, and all of them have one key in common."""
    for number in range(UNIONS):
        request = SubscribeRequest(VALUES, f"{MATCHED}-hot")
        for part in range(1, PARTS):
            request = request | SubscribeRequest(VALUES, f"union-{number}-{part}")
        yield request


def _requests(kind: str, n: int) -> list[SubscribeRequest[Value]]:
    """`n` requests of a kind, in turn."""
    made = {"prefixes": prefixes, "unions": unions}
    every = [request for name, make in made.items() if name in kind for request in make()]
    if not every:
        every = [SubscribeRequest(VALUES, f"quiet-{number}") for number in range(PREFIXES)]
    return [every[number % len(every)] for number in range(n)]


def _opened(publisher: EventPublisher, kind: str, n: int) -> list[Subscription[Value]]:
    """Live at once: each has had everything so far."""
    return [publisher.subscribe(request.after(publisher.cursor)) for request in _requests(kind, n)]


async def _publish(kind: str, key: str, n: int, seconds: float) -> Sample:
    async def read(subscription: Subscription[Value]) -> None:
        async for _ in subscription:
            pass

    async with (
        open_publisher({VALUES: no_state}, index=START, history=HISTORY) as publisher,
        TRIO.tasks() as spawn,
    ):
        for _ in range(HISTORY):
            publisher.publish(commit(publisher.index + 1, key))
        for subscription in _opened(publisher, kind, n):
            spawn(read, subscription)
        await trio.testing.wait_all_tasks_blocked()
        settle()

        async def rounds(count: int) -> float:
            spent = 0.0
            for _ in range(count):
                commits = [commit(publisher.index + 1 + number, key) for number in range(BURST)]
                begin = process_time()
                for events in commits:
                    publisher.publish(events)
                spent += process_time() - begin
                await trio.testing.wait_all_tasks_blocked()  # the readers take what there is
            return spent

        return {"each": await seconds_each(rounds, seconds) / BURST * 1e6}


def publish(kind: str, key: str, load: Load) -> Sample:
    return trio.run(partial(_publish, kind, key, load.n, load.seconds))


async def _memory(kind: str, n: int) -> Sample:
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(open_publisher({VALUES: no_state}, index=START))
        requests = [request.after(publisher.cursor) for request in _requests(kind, n)]
        tracemalloc.start()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        subscriptions = [publisher.subscribe(request) for request in requests]
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert len(subscriptions) == n
        return {"bytes": used / n}


def memory(kind: str, load: Load) -> Sample:
    return trio.run(partial(_memory, kind, load.n))


async def _backlog(parts: int, n: int) -> Sample:
    """`n` commits, each of one of ten topics, all read by one subscription in batches, again and again."""
    topics = TOPICS[:parts]
    async with open_publisher(dict.fromkeys(topics, no_state), index=START, history=n + 1) as publisher:
        request = SubscribeRequest(topics[0])
        for topic in topics[1:]:
            request = request | SubscribeRequest(topic)
        start = publisher.cursor
        readers = [publisher.subscribe(request.after(start)) for _ in range(100)]
        for number in range(n):
            index = publisher.index + 1
            publisher.publish([Event(topics[number % parts], index, Value(KEY, index))])
        settle()
        begin = process_time()
        for reader in readers:
            read = 0
            while read < n:
                read += len(await reader.receive_batch())
        return {"rate": n * len(readers) / (process_time() - begin)}


def backlog(parts: int, load: Load) -> Sample:
    return trio.run(partial(_backlog, parts, load.n))


_EACH = Figure("each", "µs for each publish")
_HOT = f"{MATCHED}-hot"

ROWS = (
    Row(
        "publish-interests",
        f"One event, one topic: what `publish` costs beside readers of {PREFIXES:,} prefixes and {UNIONS} unions of"
        f" {PARTS} keys; one prefix and all unions match the key, or none do",
        (_EACH,),
        {
            "keys, none matches": partial(publish, "keys", KEY),
            "prefixes, none matches": partial(publish, "prefixes", KEY),
            "prefixes, one matches": partial(publish, "prefixes", _HOT),
            "prefixes and unions, none matches": partial(publish, "prefixes and unions", KEY),
            "prefixes and unions, one and all match": partial(publish, "prefixes and unions", _HOT),
        },
        sizes=(10_000,),
        quick=(1_100,),
        baseline="keys, none matches",
        aims=(),
    ),
    Row(
        "memory-interests",
        "Bytes of an idle subscription, what it shares with others of the same interests included",
        (Figure("bytes", "B for each subscription"),),
        {
            "keys": partial(memory, "keys"),
            "prefixes": partial(memory, "prefixes"),
            "unions": partial(memory, "unions"),
        },
        sizes=(10_000,),
        quick=(1_100,),
        baseline="keys",
        aims=(Aim("bytes", "prefixes", 10_000, at_most=700), Aim("bytes", "unions", 10_000, at_most=700)),
    ),
    Row(
        "backlog-union",
        f"A backlog of commits, each of one topic of {PARTS}, read in batches by a subscription of all of them",
        (Figure("rate", "events/s", more_is_better=True),),
        {"one topic": partial(backlog, 1), f"a union of {PARTS} topics": partial(backlog, PARTS)},
        sizes=(10_000,),
        quick=(1_000,),
        counts="commits",
        baseline="one topic",
        aims=(Aim("rate", f"a union of {PARTS} topics", 10_000, at_least=0.8, versus="one topic"),),
    ),
)
