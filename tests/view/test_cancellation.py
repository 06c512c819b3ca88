"""Cancelled anywhere, a wait leaves nothing behind, and the view goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, Catalogue, Health
from interruptions import Interrupt, on_asyncio, soon, ways
from scenes import WEB, opened, quiet
from view.wires import Exchange, HealthView, is_gone, values, viewed, viewing

from trio_stream import EventPublisher, SubscribeRequest
from trio_stream.view import KeyedReducer, View, ViewEnded, ViewPool, consistent

pytestmark = pytest.mark.anyio

Wait = Callable[[HealthView, int], Awaitable[Any]]
WAITS: list[Wait] = [
    lambda view, index: view.wait_index(index),
    lambda view, index: view.wait_for(lambda state: state.index >= index),
    lambda view, index: consistent(view, at=index),
    lambda view, index: first_change(view),
]


async def first_change(view: HealthView) -> object:
    async with view.changes() as changes:
        return await anext(changes)


@pytest.mark.parametrize("wait", WAITS, ids=["wait_index", "wait_for", "consistent", "changes"])
@pytest.mark.parametrize("wake", ["never", "after", "before"])
async def test_a_wait_that_is_cancelled_at_any_suspension_leaves_no_waiter(wait: Wait, wake: str) -> None:
    """D12, D13: also when it is woken in the same tick, in both orders."""
    async with viewed(WEB) as (store, _, view):
        for interrupt in ways():
            at = 0
            while at < 12:
                if not await interrupted(interrupt, wait, view, store, at, wake):
                    break
                await quiet()
                figures = view.statistics()
                assert (figures.waiting, figures.changes) == (0, 0)
                at += 1
            assert at >= 1
            index = store.commit(("web", f"{at}"))
            assert values(await view.wait_index(index)) == {"web": f"{at}"}


async def interrupted(
    interrupt: Interrupt, wait: Wait, view: HealthView, store: Catalogue, at: int, wake: str
) -> bool:
    """Cancels the wait at one suspension, with a commit right before or after that; whether it was cancelled."""
    index = store.index + 1

    def commit() -> None:
        store.commit(("web", f"{store.index + 1}"))

    def step(number: int) -> None:
        if number == at - 1 and wake == "before":
            commit()

    async def later() -> None:
        for _ in range(3):
            await quiet()
            commit()

    async with anyio.create_task_group() as tasks:
        if wake == "after":
            soon(commit)
        tasks.start_soon(later)  # so that a call ends which is not cancelled
        was_cancelled = await interrupt(lambda: wait(view, index), at, step)
        tasks.cancel_scope.cancel()
    return was_cancelled


@pytest.mark.parametrize("at", range(6))
async def test_opening_a_view_that_is_cancelled_leaves_nothing_at_the_publisher(at: int) -> None:
    """D13: at whatever suspension of opening, using or leaving it."""
    async with opened(snapshot_cache_ttl=0) as (store, publisher):
        store.commit(("web", "a"))
        await publisher_is_empty(publisher)

        async def use() -> None:
            async with viewing(publisher.subscribe, SubscribeRequest(HEALTH, token="t")) as view:
                await view.wait_current()
                await view.wait_index(1)

        for interrupt in ways():
            assert await interrupt(use, at, lambda _: None) or at > 2
            await publisher_is_empty(publisher)


@pytest.mark.parametrize("at", range(2))
async def test_a_user_of_a_pool_that_is_cancelled_leaves_the_view_to_the_others(at: int) -> None:
    """D12, D13."""
    async with opened(snapshot_cache_ttl=0) as (store, publisher):
        async with ViewPool(publisher.subscribe, is_delete=is_gone, idle_ttl=0) as pool:

            async def use() -> None:
                await pool.get(WEB, min_index=1000)

            for interrupt in ways():
                async with pool.view(WEB) as view:
                    assert await interrupt(use, at, lambda _: None)
                    index = store.commit(("web", f"{at}"))
                    assert values(await view.wait_index(index)) == {"web": f"{at}"}
                await quiet()
                assert len(pool) == 0
                await publisher_is_empty(publisher)


async def publisher_is_empty(publisher: EventPublisher) -> None:
    await quiet()
    left = publisher.statistics()
    assert (left.subscriptions, left.waiting, left.tokens) == (0, 0, 0)
    assert left.topics["health"].snapshots == 0


@on_asyncio
async def test_a_view_whose_task_is_cancelled_while_it_wakes_wakes_everybody_all_the_same(
    anyio_backend: object,
) -> None:
    """D12: also by asyncio itself, which no shield keeps off."""
    exchange = Exchange()
    view: HealthView = View(exchange, WEB, KeyedReducer[Health, str]())
    woken = 0

    async def wait() -> None:
        nonlocal woken
        with pytest.raises(ViewEnded):
            await view.wait_current()
        woken += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(2000):
            tasks.start_soon(wait)
        await quiet()
        running = asyncio.create_task(view.run())
        await quiet()
        exchange.wire.end(PermissionError("no"))
        while not woken:
            await anyio.lowlevel.checkpoint()
        assert woken < 1000
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await quiet()
        assert woken == 2000
