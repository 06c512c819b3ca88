"""An older copy in the place of a store: whoever holds what was lost is told, whoever ran at the time."""

import anyio
import anyio.lowlevel
import pytest
from stores.postgresql.copies import back_up, restore, restore_in
from stores.postgresql.server import Server
from stores.storehouse import PATIENCE, commit_each, put, state, take

from trio_stream import Cursor
from trio_stream.stores import ConflictError, EpochIndex, HistoryLostError, Name, Store, open_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def schema(url: str) -> str:
    return url.partition("schema=")[2]


async def is_lost(store: Store, cursor: Cursor) -> bool:
    """Whether nobody can go on from there."""
    with anyio.move_on_after(PATIENCE):
        try:
            async with store.changes(cursor) as commits:
                await anext(commits)
        except HistoryLostError:
            return True
    return False


async def test_who_runs_notices_and_gives_a_new_epoch(server: Server, url: str, schema: str) -> None:
    async with open_store(url) as store, open_store(url) as other:
        await commit_each(store, "a")
        back_up(server, schema, f"{schema}_copy")
        await commit_each(store, "b", "c")
        before = await other.head()
        async with store.changes(3) as commits:
            restore(server, schema, f"{schema}_copy")
            after = await store.head()
            assert (after.index, after.floor) == (1, 0)
            assert after.epoch != before.epoch
            with pytest.raises(HistoryLostError):
                await anext(commits)
        assert (await other.head()).epoch == after.epoch
        assert await state(other) == {"a": "a"}
        assert await store.commit([put("d")]) == 2
        assert await is_lost(other, before.cursor)


async def test_a_commit_notices_it_too(server: Server, url: str, schema: str) -> None:
    async with open_store(url) as store:
        first = await store.commit([put("a", 1)])
        assert isinstance(first, EpochIndex)
        back_up(server, schema, f"{schema}_copy")
        await store.commit([put("b", 1)])
        restore(server, schema, f"{schema}_copy")
        made = await store.commit([put("c", 1)])
        assert isinstance(made, EpochIndex)
        assert made == 2
        assert made.epoch != first.epoch
        with pytest.raises(ConflictError, match="another epoch"):
            await store.commit([put("a", 2)], expect={Name("jobs", "a"): first})


async def test_a_copy_that_nobody_saw_coming_is_told_by_marks(server: Server, url: str, schema: str) -> None:
    async with open_store(url) as store:
        await commit_each(store, "a")
        back_up(server, schema, f"{schema}_copy")
        await commit_each(store, "b")
        lost = (await store.head()).cursor
    restore(server, schema, f"{schema}_copy")
    async with open_store(url) as store:
        assert await is_lost(store, lost)
        await commit_each(store, "c", "d")
        head = await store.head()
        assert head.epoch == lost.epoch
        assert await is_lost(store, lost)
        async with store.changes(Cursor(1, head.epoch)) as commits:
            assert await take(commits, 2) == [2, 3]


async def test_a_copy_that_is_restored_twice(server: Server, url: str, schema: str) -> None:
    async with open_store(url) as store:
        await commit_each(store, "a")
        back_up(server, schema, f"{schema}_copy")
        await commit_each(store, "b")
        first = (await store.head()).epoch
        restore(server, schema, f"{schema}_copy")
        await commit_each(store, "c", "d")
        second = (await store.head()).epoch
        restore(server, schema, f"{schema}_copy")
        third = (await store.head()).epoch
        assert len({first, second, third}) == 3


async def test_the_mark_of_the_floor_is_kept(server: Server, url: str, schema: str) -> None:
    async with open_store(url) as store:
        await commit_each(store, "a", "b", "c")
        await store.compact(2)
        async with store.changes(0 + 2) as commits:
            assert await take(commits, 1) == [3]
        head = await store.head()
        wrong = Cursor(2, head.epoch, "0" * 16)
        assert await is_lost(store, wrong)
        await store.compact(3)
        async with store.changes(head.cursor):
            pass
        assert (await store.head()).mark == head.mark


async def test_who_may_only_read_notices_for_itself(server: Server, url: str, schema: str) -> None:
    async with open_store(url) as store:
        await commit_each(store, "a")
        back_up(server, schema, f"{schema}_copy")
        await commit_each(store, "b")
    async with (
        open_store(url, read_only=True) as reader,
        open_store(f"{url}&options=-cdefault_transaction_read_only%3Don") as unwilling,
    ):
        for store in (reader, unwilling):
            before = await store.head()
            restore(server, schema, f"{schema}_copy")
            after = await store.head()
            assert after.epoch != before.epoch
            assert (await store.head()).epoch == after.epoch
            assert await state(store) == {"a": "a"}
            server.sql(f"UPDATE {schema}.ts_head SET idx = idx")
            async with open_store(url) as writer:
                await commit_each(writer, "b")


async def test_a_snapshot_that_finds_it_is_of_the_new_epoch(server: Server, url: str, schema: str) -> None:
    async with open_store(url) as store:
        await commit_each(store, "a")
        back_up(server, schema, f"{schema}_copy")
        await commit_each(store, "b")
        before = await store.head()
        restore(server, schema, f"{schema}_copy")
        assert await state(store) == {"a": "a"}
        assert (await store.head()).epoch != before.epoch


async def test_a_commit_that_waits_for_a_restore_comes_behind_it(
    server: Server, url: str, schema: str
) -> None:
    """The row that it wants to lock is gone then, and there is another one."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with open_store(url) as store:
        await commit_each(store, "a")
        back_up(server, schema, f"{schema}_copy")
        before = await store.commit([put("b")])
        assert isinstance(before, EpochIndex)
        made: list[EpochIndex] = []

        async def commit() -> None:
            index = await store.commit([put("c")])
            assert isinstance(index, EpochIndex)
            made.append(index)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                with server.connect() as connection:
                    restore_in(connection, schema, f"{schema}_copy")
                    tasks.start_soon(commit)
                    while server.sql(waiting) != [(1,)]:
                        await anyio.lowlevel.checkpoint()
        assert made == [2]
        assert made[0].epoch != before.epoch
        assert await state(store) == {"a": "a", "c": "x"}
