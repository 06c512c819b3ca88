"""Every commit has a mark, so that a cursor of another copy of the store is refused, and never silently followed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from stores.storehouse import ALL_JOBS, Sink, commit_each, copy, open_at, put, take

from trio_stream import Cursor
from trio_stream.stores import HistoryLostError, Store
from trio_stream.stores.sqlite import SQLiteStore, open_sqlite_store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    async with open_sqlite_store(str(path)) as store:
        yield store


async def marks(store: Store, after: int = 0) -> list[str]:
    """Of all commits after this one."""
    head = await store.head()
    async with store.changes(after) as commits:
        return [(await anext(commits)).mark for _ in range(head.index - after)]


async def refused(store: Store, cursor: Cursor) -> HistoryLostError:
    with pytest.raises(HistoryLostError) as caught:
        async with store.changes(cursor):
            pass
    return caught.value


async def test_every_commit_has_a_mark_of_its_own(store: SQLiteStore) -> None:
    await commit_each(store, "a", "b", "c")
    found = await marks(store)
    assert len(set(found)) == 3
    assert all(len(mark) == 16 and set(mark) <= set("0123456789abcdef") for mark in found)


async def test_head_commit_and_snapshot_say_the_mark_of_the_newest_commit(store: SQLiteStore) -> None:
    index = await store.commit([put("a")])
    head = await store.head()
    at = await store.snapshot(ALL_JOBS, Sink())
    assert head.mark == (await marks(store))[-1]
    assert index.cursor == head.cursor == Cursor(1, head.epoch, head.mark)
    assert at == 1
    assert getattr(at, "cursor", at) == head.cursor


async def test_tasks_that_share_a_transaction_have_marks_of_their_own(store: SQLiteStore) -> None:
    cursors: list[Cursor] = []

    async def commit(key: str) -> None:
        cursors.append((await store.commit([put(key)])).cursor)

    async with anyio.create_task_group() as tasks:
        for key in "abcdef":
            tasks.start_soon(commit, key)
    cursors.sort(key=lambda cursor: cursor.index)
    assert [cursor.mark for cursor in cursors] == await marks(store)


async def test_a_store_without_commits_has_no_mark(store: Store) -> None:
    head = await store.head()
    assert head.cursor == Cursor(0, head.epoch)


async def test_changes_go_on_from_a_cursor(store: Store) -> None:
    await commit_each(store, "a")
    cursor = (await store.head()).cursor
    await commit_each(store, "b")
    async with store.changes(cursor) as commits:
        assert await take(commits, 1) == [2]


async def test_a_cursor_whose_mark_is_another_is_refused(store: Store) -> None:
    await commit_each(store, "a", "b")
    head = await store.head()
    error = await refused(store, Cursor(1, head.epoch, "0" * 16))
    assert (error.after, error.floor, error.epoch) == (1, 0, head.epoch)


async def test_a_cursor_of_another_epoch_is_refused(store: Store) -> None:
    await commit_each(store, "a", "b")
    assert (await refused(store, Cursor(1, "another"))).after == 1


async def test_a_cursor_without_a_mark_is_trusted(store: Store) -> None:
    await commit_each(store, "a", "b")
    async with store.changes(Cursor(1, (await store.head()).epoch)) as commits:
        assert await take(commits, 1) == [2]


async def test_a_cursor_at_the_floor_is_judged_by_its_mark(store: Store) -> None:
    await commit_each(store, "a", "b", "c")
    epoch = (await store.head()).epoch
    second = (await marks(store))[1]
    await store.compact(2)
    async with store.changes(Cursor(2, epoch, second)) as commits:
        assert await take(commits, 1) == [3]
    await refused(store, Cursor(2, epoch, "0" * 16))


async def test_the_newest_commit_keeps_its_mark_when_the_log_is_empty(store: Store) -> None:
    await commit_each(store, "a", "b")
    head = await store.head()
    await store.compact(2)
    assert (await store.head()).cursor == head.cursor


async def test_a_cursor_beyond_the_newest_commit_proves_that_the_store_went_back(store: Store) -> None:
    """Nobody can have seen this mark in this file."""
    await commit_each(store, "a")
    await refused(store, Cursor(2, (await store.head()).epoch, "0" * 16))


async def test_a_cursor_beyond_the_newest_commit_that_has_no_mark_is_waited_for(store: Store) -> None:
    await commit_each(store, "a")
    async with store.changes(Cursor(2, (await store.head()).epoch)) as commits:
        await commit_each(store, "b", "c")
        assert await take(commits, 1) == [3]


async def test_an_older_copy_that_nobody_saw_come_is_found_by_the_marks(path: Path, tmp_path: Path) -> None:
    """No process ran while the file was replaced, so that the epoch is the same."""
    async with open_at(path) as store:
        await commit_each(store, "a")
        older = copy(path, tmp_path / "older.db")
        await commit_each(store, "b", "c")
        seen = (await store.head()).cursor
        async with store.changes(1) as commits:
            middle = await anext(commits)
    older.replace(path)
    async with open_at(path) as store:
        await commit_each(store, "other b", "other c", "other d")
        assert (await store.head()).epoch == seen.epoch
        await refused(store, seen)
        await refused(store, Cursor(2, seen.epoch, middle.mark))
        async with store.changes(Cursor(2, seen.epoch)) as commits:
            assert await take(commits, 1) == [3]


async def test_a_log_by_topic_has_the_mark_of_every_commit(store: Any) -> None:
    """Clients come from publishers of other topics, too."""
    await commit_each(store, "a", "b")
    async with store.changes_of(frozenset({"others"}), 0) as commits:
        found = [await anext(commits) for _ in range(2)]
    assert [(commit.index, commit.operations) for commit in found] == [(1, ()), (2, ())]
    assert [commit.mark for commit in found] == await marks(store)


async def test_a_log_by_topic_goes_on_from_a_cursor(store: Any) -> None:
    await commit_each(store, "a", "b")
    epoch, found = (await store.head()).epoch, await marks(store)
    async with store.changes_of(frozenset({"jobs"}), Cursor(1, epoch, found[0])) as commits:
        assert (await anext(commits)).mark == found[1]
    with pytest.raises(HistoryLostError):
        async with store.changes_of(frozenset({"jobs"}), Cursor(1, epoch, found[1])):
            pass
