"""What things cost in bytes, as tracemalloc counts them; the figures go where the report asks for them."""

import gc
import tracemalloc
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from backends import LEAN
from catalogue import HEALTH, JOBS, Health, event, until_live
from evidence import note
from proof import amount
from scenes import opened, quiet
from traced import traced
from view.wires import viewed

from trio_stream import (
    Cursor,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionLagged,
)
from trio_stream.testing import collect

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.parametrize("anyio_backend", LEAN)]

SUBSCRIPTIONS = amount(1_000, 10_000)
SNAPSHOTS = amount(1_000, 3_000)
READERS = 1_000
WAITS = amount(300, 1_000)
EVENTS = amount(200, 1_000)


@dataclass
class Measured:
    size: int = 0  # bytes that are held at the end of the block and were not at its beginning


@contextmanager
def measured() -> Iterator[Measured]:
    result = Measured()
    gc.collect()
    tracemalloc.start()
    try:
        before = traced()
        yield result
        result.size = traced() - before
    finally:
        tracemalloc.stop()


def subscribe(publisher: EventPublisher, count: int, **options: Any) -> list[Subscription[Health]]:
    request = SubscribeRequest(HEALTH, "web", index=1, **options)
    return [publisher.subscribe(request) for _ in range(count)]


async def give_up(calls: Iterable[Callable[[], Coroutine[Any, Any, object]]]) -> None:
    """Makes each of these calls, one after the other, and cancels it while it waits."""
    for call in calls:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()


async def test_an_idle_subscription_costs_at_most_600_bytes() -> None:
    """D11."""
    async with opened(index=1) as (_, publisher):
        subscribe(publisher, 1, token="x")
        with measured() as held:
            idle = subscribe(publisher, SUBSCRIPTIONS)
        note("bytes", "idle subscription", round(held.size / SUBSCRIPTIONS, 2))
        assert held.size / SUBSCRIPTIONS <= 600
        assert publisher.statistics().subscriptions == len(idle) + 1


async def test_a_subscription_behind_its_snapshot_costs_as_much() -> None:
    """D11: what it has read is not held by it."""
    async with opened() as (store, publisher):
        store.commit(*((f"{n}", "x" * 100) for n in range(100)))
        whole = SubscribeRequest(HEALTH)
        first = publisher.subscribe(whole)
        await collect(first)
        with measured() as held:
            live = [publisher.subscribe(whole) for _ in range(SUBSCRIPTIONS)]
            for subscription in live:
                while not subscription.receive_nowait().is_end_of_snapshot:
                    pass
            del subscription
        note("bytes", "subscription that has read its snapshot", round(held.size / SUBSCRIPTIONS, 2))
        assert held.size / SUBSCRIPTIONS <= 600
        assert len(live) == SUBSCRIPTIONS


async def test_a_stalled_reader_costs_at_most_half_a_byte_for_each_event() -> None:
    """D10, D11: the events are in the history, once for all."""
    async with opened(index=1, history=EVENTS) as (_, publisher):
        commits = [[event(index, "web")] for index in range(2, EVENTS + 2)]
        stalled = subscribe(publisher, READERS)
        with measured() as held:
            for commit in commits:
                publisher.publish(commit)
        per_event = held.size / READERS / EVENTS
        note("bytes", "stalled (reader, event)", round(per_event, 2))
        assert stalled[-1].statistics().lag == EVENTS
        assert per_event <= 0.5


async def test_a_cached_snapshot_costs_its_events_and_a_kilobyte() -> None:
    """D11, D13: the bytes of the payloads are the store's, and not counted."""
    async with opened(snapshot_cache_ttl=1e9) as (store, publisher):
        store.commit(*((f"{n}", "x") for n in range(SNAPSHOTS + 1)))

        async def cache(keys: range) -> None:
            for key in keys:
                async with publisher.subscribe(SubscribeRequest(HEALTH, f"{key}")) as subscription:
                    await until_live(subscription)

        await cache(range(1))
        with measured() as held:
            await cache(range(1, SNAPSHOTS + 1))
            await quiet()
        note("bytes", "cached snapshot of one event", round(held.size / SNAPSHOTS, 2))
        assert publisher.statistics().topics["health"].snapshots == SNAPSHOTS + 1
        assert held.size / SNAPSHOTS <= 2048


async def test_a_wait_for_an_index_that_was_given_up_costs_nothing() -> None:
    """D13, tokio #5923: on a view, each for an index of its own."""
    async with viewed() as (_, _, view):

        async def give_up_waiting(indexes: range) -> None:
            for index in indexes:
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(view.wait_index, index)
                        for _ in range(5):
                            await anyio.lowlevel.checkpoint()
                        assert view.statistics().waiting == 1
                        scope.cancel()

        await give_up_waiting(range(1_000, 1_010))
        with measured() as held:
            await give_up_waiting(range(2_000, 2_000 + WAITS))
        note("bytes", "wait of a view that was given up", round(held.size / WAITS, 2))
        assert held.size / WAITS <= 100
        assert view.statistics().waiting == 0


async def test_a_wait_for_a_commit_that_was_given_up_costs_nothing() -> None:
    """D13, tokio #5923: on a subscription, each for an index of its own and then all for the same."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        indexes = [*range(1_000, 1_000 + WAITS), *[2_000] * WAITS]
        with measured():  # the first time, the interpreter itself keeps something
            await give_up(partial(subscription.wait_published, index) for index in indexes)
        with measured() as held:
            await give_up(partial(subscription.wait_published, index) for index in indexes)
        note("bytes", "wait of a subscription that was given up", round(held.size / WAITS / 2, 2))
        assert held.size / WAITS / 2 <= 60


async def test_an_append_that_was_given_up_costs_nothing() -> None:
    """D13, tokio #5923: of a snapshot function whose readers are far behind, and that tries it again and again."""
    ahead = 1024
    appenders: list[SnapshotAppender[Health]] = []

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        for number in range(ahead):
            await snapshot.append([event(1, f"key-{number}")])
        appenders.append(snapshot)
        await anyio.sleep_forever()
        raise AssertionError

    async with opened(handler, index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH))
        await quiet()
        more = partial(appenders[0].append, [event(1, "more")])
        with measured():  # the first time, the interpreter itself keeps something
            await give_up([more] * WAITS)
        with measured() as held:
            await give_up([more] * WAITS)
        note("bytes", "append that was given up", round(held.size / WAITS, 2))
        assert held.size / WAITS <= 60
        assert subscription.statistics().lag == ahead


async def test_what_was_closed_costs_nothing() -> None:
    """D13."""
    async with opened(index=1) as (_, publisher):
        with measured():  # the first time, the interpreter itself keeps something
            for subscription in subscribe(publisher, SUBSCRIPTIONS):
                subscription.unsubscribe()
        with measured() as held:
            for subscription in subscribe(publisher, SUBSCRIPTIONS, token="another"):
                subscription.unsubscribe()
            del subscription
        note("bytes", "closed subscription", round(held.size / SUBSCRIPTIONS, 2))
        assert held.size / SUBSCRIPTIONS <= 1


async def test_interests_that_nobody_has_any_more_cost_nothing() -> None:
    """D13: a union of two topics, each of other keys."""
    async with opened(index=1) as (_, publisher):
        start = Cursor(1, publisher.epoch)

        def ask_once(key: str) -> None:
            both = SubscribeRequest(HEALTH, key, prefix=True) | SubscribeRequest(JOBS, key)
            publisher.subscribe(both.after(start)).unsubscribe()

        keys = [f"{number:04}" for number in range(SUBSCRIPTIONS)]
        with measured():  # the first time, the interpreter itself keeps something
            for key in keys:
                ask_once(key)
        with measured() as held:
            for key in keys:
                ask_once(key)
        note("bytes", "union that nobody reads any more", round(held.size / SUBSCRIPTIONS, 2))
        assert held.size / SUBSCRIPTIONS <= 1


async def test_a_snapshot_that_one_topic_has_passed_costs_nothing() -> None:
    """D11, D13: although the history of the other topic has not passed it, and never may."""
    both = SubscribeRequest(HEALTH) | SubscribeRequest(JOBS)
    async with opened(history=1) as (store, publisher):

        async def be_passed() -> None:
            subscription = publisher.subscribe(both)
            while not subscription.statistics().lag:  # until it is whole
                await anyio.lowlevel.checkpoint()
            store.commit(("web", "1"))
            store.commit(("web", None))
            store.states = {store.index: store.states[store.index]}
            with pytest.raises(SubscriptionLagged):
                subscription.receive_nowait()

        for _ in range(WAITS):  # the first time, the interpreter itself keeps something
            await be_passed()
        with measured() as held:
            for _ in range(WAITS):
                await be_passed()
        note("bytes", "snapshot of a union that was passed", round(held.size / WAITS, 2))
        assert held.size / WAITS <= 150
