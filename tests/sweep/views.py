"""The public async calls of the view, each in a setting in which it has to wait."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

import anyio
from scenes import ALL, WEB
from sweep.core import ENOUGH, Writer, written
from sweep.driver import Scene, Setting
from view.wires import HealthView, is_gone, truth, values, viewing

from trio_stream.view import Frozen, KeyedReducer, View, ViewPool, consistent

REACHED = 3


async def wait_current(view: HealthView) -> Frozen[str, Any]:
    return await view.wait_current()


async def wait_index(view: HealthView) -> Frozen[str, Any]:
    return await view.wait_index(REACHED)


async def wait_for(view: HealthView) -> Frozen[str, Any]:
    return await view.wait_for(lambda state: state.index >= REACHED)


def right(writer: Writer, state: Frozen[str, Any]) -> bool:
    return values(state) == truth(writer.store, state.index, ALL)


def waiting(wait: Callable[[HealthView], Awaitable[Frozen[str, Any]]], least: int) -> Scene:
    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with written() as writer, viewing(writer.publisher.subscribe) as view:
            states: list[Frozen[str, Any]] = []

            async def call() -> None:
                states.append(await wait(view))

            async def left() -> None:
                assert view.statistics().waiting == 0

            async def check() -> None:
                assert all(right(writer, state) and state.index >= least for state in states)
                assert states
                writer.commit()
                assert right(writer, await view.wait_index(writer.store.index))

            yield Setting(call, writer.commit, left, check)

    return scene


@asynccontextmanager
async def following_changes() -> AsyncIterator[Setting]:
    """What was told and what is told then leads from the state at the beginning to the newest."""
    async with written() as writer, viewing(writer.publisher.subscribe) as view:
        await view.wait_current()
        async with view.changes() as changes:
            told = dict(view.frozen())
            count = 0

            async def follow() -> None:
                change = await anext(changes)
                assert told[change.key] == change.old
                assert change.new is not None
                told[change.key] = change.new

            async def call() -> None:
                nonlocal count
                while count < 2:
                    await follow()
                    count += 1

            async def check() -> None:
                writer.commit()
                await view.wait_index(writer.store.index)
                while told != view:
                    await follow()

            yield Setting(call, writer.commit, check=check)


@asynccontextmanager
async def entering_changes() -> AsyncIterator[Setting]:
    async with written() as writer, viewing(writer.publisher.subscribe) as view:
        await view.wait_current()

        async def call() -> None:
            async with view.changes() as changes:
                before = view["web"]
                assert (await anext(changes)).old == before

        async def left() -> None:
            assert view.statistics().changes == 0

        yield Setting(call, writer.commit, left)


@asynccontextmanager
async def opening() -> AsyncIterator[Setting]:
    """At whatever suspension of opening, using or leaving it."""
    async with written() as writer:

        async def call() -> None:
            async with viewing(writer.publisher.subscribe) as view:
                await view.wait_current()
                assert right(writer, await view.wait_index(2))

        yield Setting(call, writer.commit, writer.nobody_is_there)


@asynccontextmanager
async def running() -> AsyncIterator[Setting]:
    async with written() as writer:
        scope = anyio.CancelScope()

        async def call() -> None:
            nonlocal scope
            view: HealthView = View(writer.publisher.subscribe, ALL, KeyedReducer(attrgetter("key"), is_gone))
            with anyio.CancelScope() as scope:
                await view.run()
            assert right(writer, view.frozen())

        def wake() -> None:
            writer.commit()
            if writer.store.index >= ENOUGH:
                scope.cancel()

        yield Setting(call, wake, writer.nobody_is_there)


@asynccontextmanager
async def opening_a_pool() -> AsyncIterator[Setting]:
    async with written() as writer:

        async def call() -> None:
            async with pool_of(writer) as pool, pool.view(ALL) as view:
                assert right(writer, await view.wait_index(2))

        yield Setting(call, writer.commit, writer.nobody_is_there)


def pool_of(writer: Writer) -> ViewPool[str, Any]:
    return ViewPool(writer.publisher.subscribe, is_delete=is_gone, idle_ttl=0)


def sharing(use: Callable[[ViewPool[str, Any]], Awaitable[Frozen[str, Any]]]) -> Scene:
    """Nobody else uses the view: it goes with its user."""

    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with written() as writer, pool_of(writer) as pool:

            async def call() -> None:
                state = await use(pool)
                assert right(writer, state)
                assert state.index >= 2

            async def left() -> None:
                assert len(pool) == 0
                await writer.nobody_is_there()

            yield Setting(call, writer.commit, left)

    return scene


async def use_view(pool: ViewPool[str, Any]) -> Frozen[str, Any]:
    async with pool.view(ALL) as view:
        return await view.wait_index(2)


async def get(pool: ViewPool[str, Any]) -> Frozen[str, Any]:
    return await pool.get(ALL, min_index=1)


@asynccontextmanager
async def agreeing() -> AsyncIterator[Setting]:
    async with (
        written() as writer,
        viewing(writer.publisher.subscribe, WEB) as one,
        viewing(writer.publisher.subscribe) as other,
    ):

        async def call() -> None:
            for state in await consistent(one, other, at=REACHED):
                assert values(state) == {"web": f"{REACHED}"}

        async def left() -> None:
            assert (one.statistics().waiting, other.statistics().waiting) == (0, 0)

        yield Setting(call, writer.commit, left)


VIEW: dict[str, Any] = {
    "open_view": opening,
    "View.run": running,
    "View.wait_current": waiting(wait_current, 1),
    "View.wait_for": waiting(wait_for, REACHED),
    "View.wait_index": waiting(wait_index, REACHED),
    "View.changes": entering_changes,
    "Changes.__anext__": following_changes,
    "ViewPool.__aenter__": opening_a_pool,
    "ViewPool.__aexit__": opening_a_pool,
    "ViewPool.view": sharing(use_view),
    "ViewPool.get": sharing(get),
    "consistent": agreeing,
}
