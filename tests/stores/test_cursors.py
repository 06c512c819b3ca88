"""U19: nothing depends on when Python collects a cursor, so that PyPy and free-threaded builds work."""

import sqlite3
from pathlib import Path

import anyio
import pytest
from stores.connections import keeping_cursors
from stores.storehouse import ALL_JOBS, JOBS, Sink, copy, open_at, put, sql, state, take

from trio_stream import SubscribeRequest
from trio_stream.stores import Name, Store, open_store_publisher
from trio_stream.stores.sqlite import SQLiteStore, open_sqlite_store

pytestmark = pytest.mark.anyio


async def use(store: SQLiteStore) -> None:
    """Everything that a store can do."""
    for number in range(3):
        await store.commit([put(f"{n}", number) for n in range(600)], expect={Name("jobs", "0"): number})
    assert len(await state(store)) == 600
    assert await store.snapshot(ALL_JOBS, Sink()) == 3
    assert await store.snapshot(SubscribeRequest(JOBS, "7"), Sink()) == 3
    async with store.changes(0) as commits:
        assert await take(commits, 3) == [1, 2, 3]
        with anyio.move_on_after(0.02):
            await anext(commits)
    async with store.list("jobs", prefix="1") as entries:
        await anext(entries)
    async with open_store_publisher(store, ["jobs"]) as publisher:
        assert publisher.index == 3
    assert await store.topics() == ["jobs"]
    assert (await store.sizes()).commits == 3
    await store.compact(2)


async def test_a_store_is_closed_although_its_cursors_live_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D13: SQLite takes its write-ahead log away with the last connection."""
    cursors: list[sqlite3.Cursor] = []
    monkeypatch.setattr(sqlite3, "connect", keeping_cursors(cursors))
    async with open_sqlite_store(str(path)) as store:
        await use(store)
    monkeypatch.undo()
    assert cursors
    for cursor in cursors:
        with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):  # and not only its connection
            cursor.fetchone()
    assert [each.name for each in sorted(path.parent.iterdir())] == [path.name]


async def test_a_file_can_be_replaced_although_cursors_of_the_old_one_live_on(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_at(path) as store:
        await store.commit([put("old")])
    backup = copy(path, tmp_path / "backup.db")
    cursors: list[sqlite3.Cursor] = []
    monkeypatch.setattr(sqlite3, "connect", keeping_cursors(cursors))
    async with open_at(path) as store:
        await store.commit([put("lost")])
        backup.replace(path)
        assert await state(store) == {"old": "x"}
        await store.commit([put("new")])
        assert await state(store) == {"old": "x", "new": "x"}
    monkeypatch.undo()
    assert sql(path, "SELECT key FROM ts_state ORDER BY key") == [("new",), ("old",)]


async def test_a_lock_is_given_back_although_the_cursor_that_took_it_lives_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursors: list[sqlite3.Cursor] = []
    monkeypatch.setattr(sqlite3, "connect", keeping_cursors(cursors))

    async def commit(store: Store, key: str) -> None:
        for _ in range(5):
            await store.commit([put(key)])
            await store.head()

    async with open_at(path) as one, open_at(path) as other, anyio.create_task_group() as tasks:
        tasks.start_soon(commit, one, "a")
        tasks.start_soon(commit, other, "b")
    assert sql(path, "SELECT idx FROM ts_head") == [(10,)]
