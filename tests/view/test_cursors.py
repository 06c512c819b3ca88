"""Where a view stands, as a cursor; and resuming where it takes time to know whether the cursor is right."""

import copy
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest
from catalogue import HEALTH, JOBS, Health, kinds
from scenes import ALL, WEB, quiet
from view.wires import Exchange, HealthView, Wire, is_gone, put, values, viewing, whole

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    open_publisher,
)
from trio_stream.view import Frozen, Status, ViewPool

pytestmark = pytest.mark.anyio


async def snapshot(request: SubscribeRequest[Health], _: SnapshotAppender[Health]) -> Cursor:
    """Of a store that is at commit 3, and has nothing in it."""
    return Cursor(3, "e", "m3")


def publishing(index: int = 3, handler: Any = snapshot) -> Any:
    return open_publisher({HEALTH: handler, JOBS: handler}, index=index, epoch="e", mark=f"m{index}")


def publish(publisher: EventPublisher, index: int, key: str, mark: str = "") -> None:
    publisher.publish([Event(HEALTH, index, Health(key, f"{index}"))], mark=mark or f"m{index}")


async def test_before_the_first_snapshot_there_is_no_cursor() -> None:
    async with viewing(Exchange()) as view:
        assert view.frozen().cursor is None
        assert WEB.after(view.frozen().cursor) == WEB


async def test_the_cursor_has_the_index_epoch_and_mark_of_the_state() -> None:
    async with publishing() as publisher, viewing(publisher.subscribe) as view:
        assert (await view.wait_current()).cursor == Cursor(3, "e", "m3")
        publish(publisher, 4, "web")
        publish(publisher, 5, "web")
        assert (await view.wait_index(5)).cursor == Cursor(5, "e", "m5")
        publisher.publish([Event(JOBS, 6, Health("web"))], mark="m6")
        assert (await view.wait_index(6)).cursor == Cursor(5, "e", "m5")


async def test_the_cursor_of_an_empty_store_is_a_fresh_start() -> None:
    async def empty(*_: object) -> int:
        return 0

    async with open_publisher({HEALTH: empty}) as publisher, viewing(publisher.subscribe) as view:
        state = await view.wait_current()
        assert state.cursor == Cursor(0, publisher.epoch)
        assert ALL.after(state.cursor) == ALL


async def test_whoever_goes_on_from_the_cursor_misses_nothing() -> None:
    async with publishing() as publisher, viewing(publisher.subscribe) as view:
        publish(publisher, 4, "web")
        state = await view.wait_index(4)
        publish(publisher, 5, "db")
        async with publisher.subscribe(ALL.after(state.cursor)) as subscription:
            assert kinds([await subscription.receive()]) == ["5:db=5"]


@pytest.mark.parametrize("way", [lambda state: pickle.loads(pickle.dumps(state)), copy.copy, copy.deepcopy])
def test_a_state_that_is_handed_on_keeps_its_cursor(way: Callable[[Any], Any]) -> None:
    state: Frozen[str, int] = Frozen({"a": 1}, 7, "e", "m7")
    assert (way(state).cursor, dict(way(state))) == (Cursor(7, "e", "m7"), {"a": 1})
    assert repr(way(state)) == "Frozen({'a': 1}, index=7, epoch='e', mark='m7')"


class Switch:
    """Connects to whichever publisher is there."""

    def __init__(self) -> None:
        self.publisher: EventPublisher | None = None
        self.requests: list[SubscribeRequest[Any]] = []

    def __call__(self, request: SubscribeRequest[Any]) -> Subscription[Any]:
        self.requests.append(request)
        assert self.publisher is not None
        return self.publisher.subscribe(request)


@asynccontextmanager
async def moved() -> AsyncIterator[tuple[HealthView, EventPublisher]]:
    """A view that was at commit 5 of one publisher, at another one of the same store, which is at commit 3 yet."""
    switch = Switch()
    first = EventPublisher({HEALTH: snapshot}, index=3, epoch="e", mark="m3")
    scope = anyio.CancelScope()

    async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with scope:
            await first.run(task_status=task_status)

    async with publishing() as second, anyio.create_task_group() as tasks:
        await tasks.start(run)
        switch.publisher = first
        async with viewing(switch) as view:
            await view.wait_current()
            publish(first, 4, "web")
            publish(first, 5, "web")
            await view.wait_index(5)
            switch.publisher = second
            scope.cancel()
            await quiet()
            assert switch.requests[1:] == [ALL.after(Cursor(5, "e", "m5"))]
            yield view, second


async def test_a_view_whose_cursor_is_ahead_is_current_when_that_is_known_to_be_right() -> None:
    """D7: no event tells of it."""
    async with moved() as (view, publisher):
        assert view.status.status is Status.STALE
        publish(publisher, 4, "web")
        await quiet()
        assert view.status.status is Status.STALE
        publish(publisher, 5, "web")
        state = await view.wait_current()
        assert (state.index, values(state), view.statistics().snapshots) == (5, {"web": "5"}, 1)


async def test_a_view_whose_cursor_is_of_another_copy_gets_the_state_anew() -> None:
    """D24."""
    async with moved() as (view, publisher):
        publish(publisher, 4, "web", "another")
        publish(publisher, 5, "db", "another")
        publish(publisher, 6, "db", "another")
        state = await view.wait_for(lambda state: "db" in state)
        assert (state.cursor, view.statistics().snapshots) == (Cursor(6, "e", "another"), 2)
        assert values(state) == {"web": "4", "db": "6"}


async def test_who_waits_for_an_index_is_not_told_before_the_cursor_is_known_to_be_right() -> None:
    async with moved() as (view, publisher):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(view.wait_index, 7)
                await quiet()
                publish(publisher, 4, "web")
                await quiet()
                assert view.status.status is Status.STALE
                scope.cancel()


async def test_a_connection_that_ends_before_that_is_known_is_replaced() -> None:
    async with moved() as (view, publisher):
        publisher.close_subscriptions([""])
        await quiet()
        publish(publisher, 4, "web", "another")
        publish(publisher, 5, "db", "another")
        state = await view.wait_current()
        assert (view.statistics().connections, values(state)) == (3, {"web": "4", "db": "5"})


async def test_a_connection_without_wait_ready_works_as_before() -> None:
    exchange = Exchange()
    assert not hasattr(Wire, "wait_ready")
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web"), whole(2))
        await view.wait_current()
        exchange.wire.end(OSError(), resume=2)
        await quiet()
        assert view.status.status is Status.STALE
        exchange.wire.horizon = 2
        exchange.wire.give(put(3, "web", "b"))
        assert values(await view.wait_index(3)) == {"web": "b"}


async def test_a_blocking_query_goes_on_from_the_cursor_of_the_last_answer() -> None:
    async with publishing() as publisher, ViewPool(publisher.subscribe, is_delete=is_gone) as pool:
        cursor = (await pool.get(WEB)).cursor
        assert cursor == Cursor(3, "e", "m3")
        publish(publisher, 4, "web")
        cursor = (await pool.get(WEB, cursor)).cursor
        assert cursor == Cursor(4, "e", "m4")
        publish(publisher, 5, "db")
        publish(publisher, 6, "web")
        assert (await pool.get(WEB, cursor)).cursor == Cursor(6, "e", "m6")
        assert (await pool.get(WEB, Cursor(900, "another"))).cursor == Cursor(6, "e", "m6")
        with pytest.raises(ValueError, match="a cursor has an epoch"):
            await pool.get(WEB, Cursor(5, "e"), epoch="e")


async def test_a_query_of_a_new_view_knows_by_the_cursor_what_is_new() -> None:
    """A commit that does not touch the request is nothing new, on a timeline with marks, too."""
    async with publishing() as publisher:
        publish(publisher, 4, "web")
        publish(publisher, 5, "db")
        async with (
            ViewPool(publisher.subscribe, is_delete=is_gone) as pool,
            anyio.create_task_group() as tasks,
        ):
            answers: list[Cursor | None] = []

            async def ask() -> None:
                answers.append((await pool.get(WEB, Cursor(4, "e", "m4"))).cursor)

            tasks.start_soon(ask)
            await quiet()
            assert answers == []
            publish(publisher, 6, "web")
            await quiet()
            assert answers == [Cursor(6, "e", "m6")]
