"""Nothing is left: subscribing and cancelling at random points, thousands of times, and then everything is gone."""

import asyncio
import gc
import random
import weakref
from collections.abc import Callable
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
import trio
from catalogue import HEALTH, JOBS, Catalogue, Health
from proof import amount
from scenes import held_by, opened, quiet

from trio_stream import (
    EventPublisher,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    TopicStatistics,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CYCLES = amount(500, 10_000)
AT_ONCE = 50
KEYS = ("", "web", "db", "mail", "nobody")
POLICIES: tuple[Literal["close", "reset"], ...] = ("close", "reset")


def tasks_alive() -> int:
    if trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


class Visitors:
    """Subscribe, receive some, and are cancelled, leave or stay away; the generator decides which."""

    def __init__(self, store: Catalogue, publisher: EventPublisher, generator: random.Random) -> None:
        self.store = store
        self.publisher = publisher
        self.generator = generator
        self.references: list[weakref.ref[Subscription[Health]]] = []
        self.cancelled = 0

    async def visit(self) -> None:
        draw = self.generator
        index = draw.choice(
            (0, 0, max(1, self.publisher.index - draw.randint(0, 30)), self.publisher.index + 2)
        )
        request = SubscribeRequest(
            draw.choice((HEALTH, JOBS)),
            draw.choice(KEYS),
            token=f"t{draw.randint(0, 20)}",
            index=index,
            epoch=draw.choice((None, self.publisher.epoch, "another")),
        )
        with anyio.CancelScope() as scope:
            cancel = self.after(draw.randint(0, 12), scope.cancel)
            subscription = self.publisher.subscribe(request, on_lag=draw.choice(POLICIES))
            self.references.append(weakref.ref(subscription))
            try:
                async with subscription:
                    async for _ in subscription:
                        await cancel()
            except SubscriptionForceClosed:
                pass
        self.cancelled += scope.cancel_called

    def after(self, steps: int, call: Callable[[], object]) -> Callable[[], Any]:
        """Has a task cancel its visitor when the others have made some steps, wherever it is then."""

        async def step() -> None:
            await anyio.lowlevel.checkpoint()

        async def wait() -> None:
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            call()

        self.tasks.start_soon(wait)
        return step

    async def run(self, cycles: int) -> None:
        for _ in range(cycles // AT_ONCE):
            async with anyio.create_task_group() as self.tasks:
                for _ in range(AT_ONCE):
                    self.tasks.start_soon(self.visit)
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
                    key = self.generator.choice(KEYS[1:])
                    self.store.commit((key, "x"), topic=self.generator.choice((HEALTH, JOBS)))
                self.publisher.close_subscriptions([f"t{self.generator.randint(0, 20)}"])


@pytest.mark.parametrize("seed", range(2))
async def test_after_thousands_of_visits_that_were_cancelled_anywhere_nothing_is_left(seed: int) -> None:
    """D13, litestar #4871, tokio #5923: no task, waiter, feed, cache or token entry, and no subscription."""
    async with opened(history=20, snapshot_cache_ttl=0) as (store, publisher):
        store.commit(*((key, "x") for key in KEYS[1:]))
        await quiet()
        before = tasks_alive()
        visitors = Visitors(store, publisher, random.Random(seed))
        await visitors.run(CYCLES)
        assert visitors.cancelled > CYCLES // 4
        await quiet()
        publisher.refresh(HEALTH)
        publisher.refresh(JOBS)
        statistics = publisher.statistics()
        nothing = {
            name: TopicStatistics(0, each.floor, feeds=0, snapshots=0)
            for name, each in statistics.topics.items()
        }
        assert held_by(publisher) == (0, 0, 0, nothing)
        assert tasks_alive() == before
        gc.collect()
        assert [ref() for ref in visitors.references if ref() is not None] == []
        assert len(visitors.references) == CYCLES // AT_ONCE * AT_ONCE


async def test_feeds_of_subjects_that_nobody_reads_go_with_their_history() -> None:
    """D13: a subject is known as long as it has history or a reader, and no longer."""
    async with opened(history=10, snapshot_cache_ttl=0) as (store, publisher):
        for key in range(200):
            store.commit((f"{key}", "x"))
            async with publisher.subscribe(SubscribeRequest(HEALTH, f"{key}")):
                pass
        assert publisher.statistics().topics["health"].feeds == 10 + 1


async def test_a_publisher_that_has_stopped_holds_no_subscription() -> None:
    """D13: also where one of them outlives it."""
    async with opened(snapshot_cache_ttl=1e9) as (store, publisher):
        store.commit(("web", "x"))
        kept = publisher.subscribe(SubscribeRequest(HEALTH))
        await kept.receive()
        left = publisher.subscribe(SubscribeRequest(HEALTH, "db"))
        reference = weakref.ref(left)
        store.publisher = None
    del publisher, left, store
    await quiet()
    gc.collect()
    assert reference() is None
    assert kept.receive_nowait().is_end_of_snapshot
    with pytest.raises(SubscriptionForceClosed):
        kept.receive_nowait()
