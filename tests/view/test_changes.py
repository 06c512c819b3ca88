"""What changes in a view, for readers that may fall behind."""

import gc
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import pytest
from catalogue import HEALTH
from interruptions import Stepwise
from scenes import ALL, quiet
from typing_extensions import override
from view.wires import MARKER, Exchange, HealthView, is_gone, put, values, viewed, viewing, whole

from trio_stream import ClosedResourceError, Event
from trio_stream.view import Change, Changes, KeyedReducer, Table, ViewEnded, open_view

pytestmark = pytest.mark.anyio

Told = list[tuple[str, str | None, str | None]]


def told(changes: Sequence[Change]) -> Told:
    return sorted((c.key, c.old and c.old.value, c.new and c.new.value) for c in changes)


async def waiting(changes: Changes, into: list[Change]) -> None:
    async for change in changes:
        into.append(change)  # noqa: PERF401 - this task is cancelled


async def everything(changes: Changes) -> list[Change]:
    """What is there to tell when all others wait."""
    found: list[Change] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiting, changes, found)
        await quiet()
        tasks.cancel_scope.cancel()
    return found


async def test_each_change_comes_with_what_was_and_what_is() -> None:
    async with viewed() as (store, _, view):
        store.commit(("web", "a"))
        await quiet()
        async with view.changes() as changes:
            assert values(view.frozen()) == {"web": "a"}
            assert await everything(changes) == []
            store.commit(("web", "b"), ("db", "c"))
            assert told(await everything(changes)) == [("db", None, "c"), ("web", "a", "b")]
            store.commit(("web", None))
            assert told(await everything(changes)) == [("web", "b", None)]


async def test_the_first_snapshot_comes_as_changes_to_a_reader_that_was_there_before() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view, view.changes() as changes:
        exchange.wire.give(put(1, "web", "a"), whole(1))
        assert told(await everything(changes)) == [("web", None, "a")]


async def test_a_reader_that_falls_behind_gets_each_key_once_and_what_changed_back_not_at_all() -> None:
    async with viewed() as (store, _, view):
        store.commit(("web", "a"), ("db", "a"), ("api", "a"))
        await quiet()
        async with view.changes() as changes:
            for value in "bcd":
                store.commit(("web", value))
                await quiet()
            store.commit(("db", "b"), ("api", None), ("new", "a"))
            await quiet()
            store.commit(("db", "a"), ("new", None))
            assert told(await everything(changes)) == [("api", "a", None), ("web", "a", "d")]


async def test_a_new_snapshot_comes_as_its_difference() -> None:
    async with viewed() as (store, publisher, view):
        store.commit(*((f"{n}", "a") for n in range(300)))
        await quiet()
        async with view.changes() as changes, view.changes() as both:
            store.commit(("1", "b"))
            await quiet()
            publisher.refresh(HEALTH)
            store.commit(("2", None), ("x", "y"))
            await quiet()
            store.commit(("3", "c"))
            await quiet()
            expected = [("1", "a", "b"), ("2", "a", None), ("3", "a", "c"), ("x", None, "y")]
            assert told(await everything(changes)) == told(await everything(both)) == expected


async def test_a_change_of_a_hundred_thousand_keys_is_told_in_little_steps() -> None:
    """Neither recursion nor quadratic time; others run in between."""
    exchange = Exchange()
    async with viewing(exchange) as view, view.changes() as changes:
        exchange.wire.give(*(put(1, f"{n}") for n in range(100_000)), whole(1))
        await view.wait_current()
        steps = 0

        async def count() -> None:
            nonlocal steps
            while True:
                await anyio.lowlevel.checkpoint()
                steps += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            for _ in range(100_000):
                await anext(changes)
            tasks.cancel_scope.cancel()
        assert steps > 1000


async def test_a_new_snapshot_that_differs_in_little_is_compared_in_little_steps() -> None:
    """D15: what is the same is passed over with checkpoints in between."""
    exchange = Exchange()
    async with viewing(exchange) as view, view.changes() as changes:
        same = [put(1, f"{n}") for n in range(20_000)]
        exchange.wire.give(*same, whole(1))
        for _ in same:
            await anext(changes)
        exchange.wire.give(MARKER, *same, whole(2))
        await view.wait_for(lambda state: state.index == 2)
        reading = Stepwise(lambda: anext(changes))

        async def read() -> None:
            assert (await reading).key == "new"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await quiet()
            assert reading.suspensions > 600
            exchange.wire.give(put(3, "new"))


async def test_a_reader_that_is_cancelled_goes_on_where_it_was() -> None:
    """D12: at whatever suspension."""
    async with viewed() as (store, _, view), view.changes() as changes:
        store.commit(*((f"{n}", "a") for n in range(500)))
        await quiet()
        got: list[Change] = []
        while len(got) < 500:
            with anyio.CancelScope() as scope:
                for _ in range(40):
                    got.append(await anext(changes))  # noqa: PERF401 - what was got is kept
                scope.cancel()
                while len(got) < 500:
                    got.append(await anext(changes))
        assert len({change.key for change in got}) == 500
        assert await everything(changes) == []


async def test_the_end_comes_when_all_was_told() -> None:
    exchange = Exchange()
    async with viewing(exchange, raise_on_end=False) as view, view.changes() as changes:
        exchange.wire.give(put(1, "web", "a"), whole(1))
        await view.wait_current()
        exchange.wire.end(PermissionError("no"))
        await quiet()
        assert (await anext(changes)).key == "web"
        for _ in range(2):
            with pytest.raises(ViewEnded) as caught:
                await anext(changes)
            assert isinstance(caught.value.__cause__, PermissionError)


async def test_a_reader_ends_with_its_block() -> None:
    async with viewed() as (store, _, view), anyio.create_task_group() as tasks:

        async def read(changes: Changes) -> None:
            with pytest.raises(ClosedResourceError):
                await anext(changes)

        async with view.changes() as changes:
            tasks.start_soon(read, changes)
            await quiet()
        store.commit(("web", "a"))
        with pytest.raises(ClosedResourceError):
            await anext(changes)
        assert view.statistics().changes == 0


async def test_a_reader_that_waits_when_its_block_is_left_is_woken_although_nothing_changes() -> None:
    released: list[Changes] = []

    async def read(changes: Changes) -> None:
        with pytest.raises(ClosedResourceError):
            await anext(changes)
        released.append(changes)

    async with viewed() as (_, _, view), anyio.create_task_group() as tasks:
        async with view.changes() as changes:
            tasks.start_soon(read, changes)
            await quiet()
        await quiet()
        assert released == [changes]
        tasks.cancel_scope.cancel()


async def test_a_reader_is_released_when_the_view_is_left() -> None:
    got: list[Change] = []

    async def read(view: HealthView) -> None:
        with pytest.raises(ViewEnded):
            async with view.changes() as changes:
                await waiting(changes, got)

    async with anyio.create_task_group() as tasks:
        async with viewed() as (store, _, view):
            tasks.start_soon(read, view)
            await quiet()
            store.commit(("web", "a"))
            await quiet()
    assert told(got) == [("web", None, "a")]


async def stall(view: HealthView, exchange: Exchange, updates: int, keys: int) -> int:
    """Bytes that it costs that a reader stalls while so many updates go to so many keys."""
    async with view.changes() as changes:
        gc.collect()
        tracemalloc.start()
        index = view.index
        for _ in range(updates // 100):
            exchange.wire.give(*(put(index + n, f"key-{n % keys}", f"{index}") for n in range(1, 101)))
            index += 100
            await view.wait_index(index)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(await everything(changes)) == keys
    return size


async def test_a_reader_that_stalls_costs_memory_for_the_keys_and_not_for_the_updates() -> None:
    """D11."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(*(put(1, f"key-{n}", "old") for n in range(1000)), whole(1))
        await view.wait_current()
        few = await stall(view, exchange, 2_000, 100)
        many = await stall(view, exchange, 10_000, 100)
        assert many < few * 1.5


async def test_many_readers_are_independent() -> None:
    async with viewed() as (store, _, view):
        async with view.changes() as one, view.changes() as two:
            store.commit(("web", "a"))
            assert told(await everything(one)) == [("web", None, "a")]
            store.commit(("web", "b"))
            assert told(await everything(one)) == [("web", "a", "b")]
            assert told(await everything(two)) == [("web", None, "b")]


class Counted(str):
    """A key that counts how often it is looked up."""

    __slots__ = ()
    lookups = 0

    @override
    def __hash__(self) -> int:
        Counted.lookups += 1
        return super().__hash__()


async def test_what_a_change_costs_a_reader_does_not_grow_with_the_view() -> None:
    """It looks at the keys that were touched, and at no others."""
    exchange = Exchange()
    keys = [Counted(f"{number}") for number in range(1000)]
    async with viewing(exchange) as view, view.changes() as changes:
        exchange.wire.give(*(put(1, key) for key in keys), whole(1))
        assert len(await everything(changes)) == 1000
        exchange.wire.give(put(2, keys[0], "new"))
        await view.wait_index(2)
        before = Counted.lookups
        assert told(await everything(changes)) == [("0", "ok", "new")]
        assert Counted.lookups - before < 20


async def test_a_value_that_stays_is_no_change_although_it_does_not_equal_itself() -> None:
    class Score(KeyedReducer[Any, str]):
        """Every service has the same one, which is not a number."""

        nan = float("nan")

        def apply(self, events: Sequence[Event[Any]], /) -> Mapping[str, Any]:
            return Table.of(dict.fromkeys(super().apply(events), self.nan))

    exchange = Exchange()
    async with open_view(exchange, ALL, reducer=Score(is_delete=is_gone)) as view, view.changes() as changes:
        exchange.wire.give(put(1, "web"), whole(1))
        assert [change.key for change in await everything(changes)] == ["web"]
        exchange.wire.give(put(2, "web", "b"), put(3, "db"))
        assert [change.key for change in await everything(changes)] == ["db"]
