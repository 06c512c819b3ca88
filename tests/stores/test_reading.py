"""Reading the whole state: as of one index, streamed, and without holding anybody up."""

import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest
from stores.storehouse import ALL_JOBS, Sink, put, sql, state
from typing_extensions import override

from trio_stream import ClosedResourceError
from trio_stream.stores import Delete, Record, Store, StoreError

pytestmark = pytest.mark.anyio

MANY = 3000  # rows; several times what one step reads


async def fill(store: Store) -> None:
    await store.commit([put(f"{n:04}", 0) for n in range(MANY)])


class Interrupted(Sink):
    """Has something done to the store when the first events arrive."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    @override
    async def append(self, events: Any, /) -> bool:
        if not self.events:
            await self.store.commit([Delete("jobs", "2999"), put("2998", 1), put("zzz", 1)])
        return await super().append(events)


async def test_a_snapshot_is_as_of_one_index_whatever_is_committed_meanwhile(store: Store) -> None:
    await fill(store)
    sink = Interrupted(store)
    assert await store.snapshot(ALL_JOBS, sink) == 1
    assert sink.records == [(1, Record(f"{n:04}", 0)) for n in range(MANY)]
    assert (await store.head()).index == 2


async def test_a_snapshot_is_streamed_some_rows_at_a_time(store: Store) -> None:
    await fill(store)
    sink = Sink()
    await store.snapshot(ALL_JOBS, sink)
    assert len(sink.groups) > 3
    assert max(sink.groups) <= 256


async def test_large_values_are_read_few_at_a_time_and_come_all(store: Store) -> None:
    await store.commit([put(f"{n}", "x" * 600_000) for n in range(7)])
    sink = Sink()
    await store.snapshot(ALL_JOBS, sink)
    assert sink.groups == [2, 2, 2, 1]
    assert list(await state(store)) == [f"{n}" for n in range(7)]


async def test_what_is_appended_at_once_is_of_one_commit(store: Store) -> None:
    await store.commit([put("a"), put("b"), put("d")])
    await store.commit([put("c")])
    sink = Sink()
    await store.snapshot(ALL_JOBS, sink)
    assert sink.groups == [2, 1, 1]


async def test_a_snapshot_that_is_never_read_on_holds_up_neither_writers_nor_compaction(store: Store) -> None:
    await fill(store)

    class Stalled(Sink):
        @override
        async def append(self, events: Any, /) -> bool:
            stalled.set()
            await anyio.sleep_forever()
            return False

    stalled = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.snapshot, ALL_JOBS, Stalled())
        await stalled.wait()
        await store.commit([put("a")])
        await store.compact(2)
        tasks.cancel_scope.cancel()
    assert (await store.head()).floor == 2


async def test_a_list_is_as_of_one_index_and_in_the_order_of_the_keys(store: Store) -> None:
    await fill(store)
    async with store.list("jobs") as entries:
        keys = [(await anext(entries))[0]]
        await store.commit([Delete("jobs", "2999"), put("zzz")])
        keys += [key async for key, _ in entries]
    assert keys == [f"{n:04}" for n in range(MANY)]
    assert list(await state(store)) == [*keys[:-1], "zzz"]


async def test_a_list_has_the_index_that_each_value_is_from(store: Store) -> None:
    await store.commit([put("a", 1), put("b", 1)])
    await store.commit([put("b", 2)])
    async with store.list("jobs") as entries:
        assert [(key, entry.value, entry.index) async for key, entry in entries] == [("a", 1, 1), ("b", 2, 2)]


async def test_a_list_ends_again_and_again(store: Store) -> None:
    async with store.list("jobs") as entries:
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(entries)


async def test_a_list_whose_context_was_left_is_closed(store: Store) -> None:
    await fill(store)
    async with store.list("jobs") as entries:
        await anext(entries)
    with pytest.raises(ClosedResourceError):
        await anext(entries)


async def test_an_iterator_lets_other_tasks_run_while_much_is_ready(store: Store) -> None:
    await fill(store)
    turns: list[int] = []

    async def other_task() -> None:
        while True:
            turns.append(len(seen))
            await anyio.lowlevel.checkpoint()

    seen: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other_task)
        async with store.list("jobs") as entries:
            async for key, _ in entries:
                seen.append(key)
        tasks.cancel_scope.cancel()
    assert max(after - before for before, after in pairwise(turns)) <= 128  # trio lets either task run first


@pytest.mark.parametrize("broken", ["not json", '{"a":'])
async def test_a_damaged_value_is_a_store_error_that_names_the_file_and_the_commit(
    store: Store, path: Path, broken: str
) -> None:
    await store.commit([put("a")])
    sql(path, f"UPDATE ts_state SET value = '{broken}'")
    message = rf"{path}: damaged: a value of commit 1 is not JSON"
    with pytest.raises(StoreError, match=message):
        await store.get("jobs", "a")
    with pytest.raises(StoreError, match=message):
        await store.snapshot(ALL_JOBS, Sink())


async def test_a_list_that_has_failed_does_not_go_on_behind_a_gap(store: Store, path: Path) -> None:
    await fill(store)
    sql(path, "UPDATE ts_state SET value = 'not json' WHERE key = '0300'")
    async with store.list("jobs") as entries:
        with pytest.raises(StoreError):
            async for _ in entries:
                pass
        with pytest.raises(ClosedResourceError):
            await anext(entries)


async def test_text_that_is_damaged_is_quoted_escaped_and_in_part(store: Store, path: Path) -> None:
    await store.commit([put("a")])
    sql(path, f"UPDATE ts_state SET value = CAST(x'1b5b324a{'41' * 5000}ff' AS TEXT)")
    with pytest.raises(StoreError, match=f"{path}: .*UTF-8") as caught:
        await store.get("jobs", "a")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


async def test_text_that_is_damaged_is_in_no_traceback(store: Store, path: Path) -> None:
    await store.commit([put("a")])
    sql(path, f"UPDATE ts_state SET value = CAST(x'{b's3cret'.hex()}ff' AS TEXT)")
    with pytest.raises(StoreError, match="UTF-8") as of_get:
        await store.get("jobs", "a")
    with pytest.raises(StoreError, match="UTF-8") as of_snapshot:
        await store.snapshot(ALL_JOBS, Sink())
    for caught in (of_get, of_snapshot):
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


async def test_an_error_of_who_takes_the_snapshot_passes_through_and_the_store_goes_on(store: Store) -> None:
    class Refusing(Sink):
        @override
        async def append(self, events: Any, /) -> NoReturn:
            raise KeyError("no")

    await fill(store)
    with pytest.raises(KeyError):
        await store.snapshot(ALL_JOBS, Refusing())
    assert await store.commit([put("a")]) == 2
