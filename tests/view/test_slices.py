"""However many wait or have to go, the view gives the others their turn in between (D15).

Counted by a task that does nothing but pass its turn on: how much has happened between two of its turns.
A slice may end right before its turn, and the next one begin right after the next task's, so there may be two of them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, Health
from scenes import ALL, WEB, opened, quiet
from typing_extensions import override
from view.wires import Exchange, HealthView, Wire, is_gone, put, viewed, viewing, whole

from trio_stream import SubscribeRequest
from trio_stream.view import EpochChanged, KeyedReducer, View, ViewEnded, ViewPool, open_view

pytestmark = pytest.mark.anyio

MANY = 2000
SLICE = 256  # tasks woken between two checkpoints


@asynccontextmanager
async def steps(count: Callable[[], int]) -> AsyncIterator[list[int]]:
    """Notes by how much this count grows from one turn of a task to the next."""
    noted: list[int] = []

    async def note() -> None:
        last = count()
        while True:
            await anyio.lowlevel.checkpoint()
            noted.append(abs(count() - last))
            last = count()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(note)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        yield noted
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


async def turns(until: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not until():
            await anyio.lowlevel.checkpoint()


class Waiting:
    """Many tasks, each of which waits once for a view; whatever they get lets them go."""

    def __init__(self) -> None:
        self.done = 0

    async def wait(self, how: Callable[[], Awaitable[object]]) -> None:
        with suppress(ViewEnded, EpochChanged):
            await how()
        self.done += 1

    def start(self, tasks: Any, hows: list[Callable[[], Awaitable[object]]]) -> None:
        for how in hows:
            tasks.start_soon(self.wait, how)


def by_index(view: HealthView) -> list[Callable[[], Awaitable[object]]]:
    return [lambda index=index: view.wait_index(index) for index in range(1, MANY + 1)]  # type: ignore[misc]


def of_one_index(view: HealthView) -> list[Callable[[], Awaitable[object]]]:
    return [lambda: view.wait_index(1)] * MANY


def by_predicate(view: HealthView) -> list[Callable[[], Awaitable[object]]]:
    return [lambda: view.wait_for(lambda state: state.index)] * MANY


def by_change(view: View[Any, Any]) -> list[Callable[[], Awaitable[object]]]:
    async def wait() -> None:
        async with view.changes() as changes:
            await anext(changes)

    return [wait] * MANY


kinds = pytest.mark.parametrize("kind", [by_index, of_one_index, by_predicate, by_change])


@kinds
@pytest.mark.parametrize("how", ["event", "commits", "error", "epoch"])
async def test_many_who_wait_are_woken_in_slices(kind: Any, how: str) -> None:
    """U11: 10,000 of them held the loop for 8 to 28 ms."""
    waiting = Waiting()
    exchange = Exchange()
    async with viewing(exchange, raise_on_end=False) as view, anyio.create_task_group() as tasks:
        exchange.wire.give(whole(0))
        await view.wait_current()
        waiting.start(tasks, kind(view))
        await quiet()
        async with steps(lambda: waiting.done) as noted:
            match how:
                case "event":
                    exchange.wire.give(put(MANY, "web"))
                case "commits":
                    exchange.wire.give(*(put(index, "web") for index in range(1, MANY + 1)))
                case "error":
                    exchange.wire.end(PermissionError("no"))
                case "epoch":
                    exchange.epoch = "two"
                    exchange.wire.end(OSError("gone"))
                    await turns(lambda: len(exchange.wires) == 2)
                    exchange.wire.give(put(MANY, "web"), whole(MANY))
            await turns(lambda: waiting.done == MANY)
        assert max(noted) <= 2 * SLICE


@kinds
async def test_many_who_wait_are_woken_in_slices_when_the_view_is_left(kind: Any) -> None:
    """U11."""
    waiting = Waiting()
    go, left = anyio.Event(), anyio.Event()

    async def keep() -> None:
        async with viewed() as (_, _, view):
            waiting.start(tasks, kind(view))
            await go.wait()
        left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
        await quiet()
        async with steps(lambda: waiting.done) as noted:
            go.set()
            await turns(lambda: waiting.done == MANY)
        assert max(noted) <= 2 * SLICE
        await left.wait()


async def test_an_index_that_touched_nothing_wakes_many_in_slices() -> None:
    """U11: the watcher of indexes wakes them, and not the reader."""
    waiting = Waiting()
    async with viewed(WEB) as (_, publisher, view), anyio.create_task_group() as tasks:
        waiting.start(tasks, by_index(view))
        await quiet()
        async with steps(lambda: waiting.done) as noted:
            publisher.publish((), index=MANY)
            await turns(lambda: waiting.done == MANY)
        assert max(noted) <= 2 * SLICE


async def test_many_states_on_the_way_are_made_a_few_at_a_time() -> None:
    """U11: each of the commits of one batch is waited for, so each is a state of its own."""
    waiting = Waiting()
    folded = 0

    class Counting(KeyedReducer[Health, str]):
        def apply(self, events: Any, /) -> Any:
            nonlocal folded
            folded += 1
            return super().apply(events)

    exchange = Exchange()
    async with (
        open_view(exchange, ALL, reducer=Counting(is_delete=is_gone)) as view,
        anyio.create_task_group() as tasks,
    ):
        exchange.wire.give(whole(0))
        await view.wait_current()
        waiting.start(tasks, by_index(view))
        await quiet()
        async with steps(lambda: folded) as noted:
            exchange.wire.give(*(put(index, "web") for index in range(1, MANY + 1)))
            await turns(lambda: waiting.done == MANY)
        assert folded >= MANY
        assert max(noted) <= 2 * 66


async def test_a_change_costs_its_readers_and_not_the_view() -> None:
    """U11: each of many readers was told each key in one go."""
    hashed = 0

    class Key(str):
        __slots__ = ()

        def __hash__(self) -> int:
            nonlocal hashed
            hashed += 1
            return super().__hash__()

    waiting = Waiting()
    exchange = Exchange()
    keys = 40
    async with (
        open_view(exchange, ALL, key=lambda payload: Key(payload.key), is_delete=is_gone) as view,
        anyio.create_task_group() as tasks,
    ):
        exchange.wire.give(whole(0))
        await view.wait_current()
        waiting.start(tasks, by_change(view))
        await quiet()
        async with steps(lambda: hashed) as noted:
            exchange.wire.give(*(put(index, f"{index}") for index in range(1, keys + 1)))
            await turns(lambda: waiting.done == MANY)
        assert max(noted) <= 2 * SLICE * 8 < MANY * keys / 4


async def test_many_views_that_expire_together_are_closed_in_portions() -> None:
    """U11: 1,024 of them held the loop for 20 ms."""
    async with opened() as (_, publisher):
        async with ViewPool(publisher.subscribe, is_delete=is_gone, idle_ttl=0) as pool:
            users = AsyncExitStack()
            for number in range(500):
                request = SubscribeRequest(HEALTH, f"{number}")
                await users.enter_async_context(pool.view(request, raise_on_end=False))
            await quiet()
            async with steps(lambda: len(pool)) as noted:
                await users.aclose()
                await turns(lambda: len(pool) == 0)
            assert max(noted) <= 2 * 16


async def test_a_pool_that_is_left_closes_its_views_in_portions() -> None:
    """U11: the same where they do not expire."""
    go, left = anyio.Event(), anyio.Event()

    async def keep() -> None:
        async with ViewPool(publisher.subscribe, is_delete=is_gone) as pool:
            for number in range(500):
                async with pool.view(SubscribeRequest(HEALTH, f"{number}")) as view:
                    await view.wait_current()
            await go.wait()
        left.set()

    async with opened() as (_, publisher), anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
        await quiet()
        async with steps(lambda: publisher.statistics().subscriptions) as noted:
            go.set()
            await turns(left.is_set)
        assert publisher.statistics().subscriptions == 0
        assert max(noted) <= 4 * 16


async def test_many_blocks_that_end_with_their_view_are_cancelled_in_slices() -> None:
    exchange = Exchange()
    waiting = Waiting()

    async def use() -> None:
        async with pool.view(ALL):
            await anyio.sleep_forever()

    pool: ViewPool[str, Any] = ViewPool(exchange, is_delete=is_gone)
    async with pool, anyio.create_task_group() as tasks:
        waiting.start(tasks, [use] * MANY)
        await quiet()
        async with steps(lambda: waiting.done) as noted:
            exchange.wire.end(PermissionError("no"))
            await turns(lambda: waiting.done == MANY)
        assert max(noted) <= 2 * SLICE


async def test_the_view_waits_for_the_lowest_index_that_somebody_awaits() -> None:
    """U30: it waited for the next one, and so was woken by every commit."""
    exchange = Exchange()
    got: list[int] = []

    async def wait(index: int) -> None:
        await view.wait_index(index)
        got.append(index)

    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        exchange.wire.give(whole(1))
        await view.wait_current()
        wire = exchange.wire
        assert wire.awaited == []
        tasks.start_soon(wait, 1000)
        await quiet()
        for index in range(2, 50):
            wire.publish(index)
            await quiet()
        wire.give(put(60, "web"))
        await quiet()
        assert wire.awaited == [1000]
        tasks.start_soon(wait, 2000)
        await quiet()
        assert wire.awaited == [1000]
        tasks.start_soon(wait, 500)
        await quiet()
        assert wire.awaited == [1000, 500]
        wire.publish(700)
        await quiet()
        assert (got, wire.awaited) == ([500], [1000, 500, 1000])
        wire.publish(2000)
        await quiet()
        assert sorted(got) == [500, 1000, 2000]
        assert wire.awaited in ([1000, 500, 1000], [1000, 500, 1000, 2000])


async def test_the_view_waits_for_what_its_snapshot_lacks() -> None:
    """U30: one that came from a cache and is older than what is shown."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(90, "web"), whole(90))
        await view.wait_current()
        exchange.wire.end(OSError("gone"))
        await quiet()
        exchange.wire.give(put(20, "web"), whole(20))
        await quiet()
        wire = exchange.wire
        for index in (30, 50, 89):
            wire.publish(index)
            await quiet()
        assert wire.awaited == [90]
        wire.publish(90)
        assert (await view.wait_current()).index == 90


@pytest.mark.parametrize("step", [1, 100])
async def test_hidden_events_are_passed_over_a_part_at_a_time(step: int) -> None:
    """Each look at the horizon of a connection passes over some, and others have their turn in between."""
    looks = 0

    class Slow(Wire):
        _horizon: int

        @property
        def horizon(self) -> int:
            nonlocal looks
            looks += self._published > 1
            self._horizon = min(self._horizon + step, self._published)
            return self._horizon

        @horizon.setter
        def horizon(self, index: int) -> None:
            self._horizon = index

        @override
        def publish(self, index: int) -> None:
            self._published = index
            self._stir()

    wires: list[Slow] = []

    def connect(request: SubscribeRequest[Any]) -> Wire:
        wires.append(Slow(request, "one"))
        return wires[-1]

    async with viewing(connect) as view:
        wires[0].give(whole(1))
        await view.wait_current()
        async with steps(lambda: looks) as noted, anyio.create_task_group() as tasks:
            tasks.start_soon(view.wait_index, 20 * step)
            await anyio.lowlevel.checkpoint()
            wires[0].publish(20 * step)
        assert looks >= 19
        assert max(noted) <= 2


async def test_an_index_that_nobody_awaits_any_more_is_not_waited_for() -> None:
    """D13."""
    exchange = Exchange()
    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        exchange.wire.give(whole(1))
        await view.wait_current()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as given_up:
                given_up.start_soon(view.wait_index, 500)
                await quiet()
                scope.cancel()
        tasks.start_soon(view.wait_index, 2000)
        await quiet()
        assert exchange.wire.awaited == [500, 2000]
        tasks.cancel_scope.cancel()
