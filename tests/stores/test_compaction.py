"""Compaction in small steps: writers get in between, the file shrinks, and an interruption does no harm."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.from_thread
import pytest
from stores.connections import Tap, tapped
from stores.storehouse import PATIENCE, commit_each, put, sql, state, take

from trio_stream.stores import HistoryLostError, Store
from trio_stream.stores.sqlite import open_sqlite_store

pytestmark = pytest.mark.anyio

COMMITS = 400
SIZE = 5_000  # bytes of a value
STEPS = ("DELETE FROM ts_log", "PRAGMA incremental_vacuum")


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tap]:
    with tapped(monkeypatch) as tap:
        yield tap


async def fill(store: Store) -> int:
    """Commits that overwrite one another; the index of the last one."""
    async with anyio.create_task_group() as tasks:
        for number in range(COMMITS):
            tasks.start_soon(store.commit, [put(f"{number % 10}", "x" * SIZE)])
    return (await store.head()).index


async def test_the_rows_go_some_at_a_time(path: Path, tap: Tap) -> None:
    async with open_sqlite_store(str(path)) as store:
        index = await fill(store)
        tap.statements.clear()
        await store.compact(index - 1)
        assert tap.count("DELETE FROM ts_log") > 2
        assert await state(store) == {f"{number}": "x" * SIZE for number in range(10)}
        async with store.changes(index - 1) as commits:
            assert await take(commits, 1) == [index]
    assert sql(path, "SELECT count(*) FROM ts_log") == [(1,)]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


async def test_writers_of_this_process_and_of_others_get_in_between(path: Path, tap: Tap) -> None:
    async with open_sqlite_store(str(path)) as store, open_sqlite_store(str(path)) as other:
        index = await fill(store)
        tap.statements.clear()
        made: list[int] = []
        compacted = anyio.Event()

        async def write(through: Store) -> None:
            while not compacted.is_set():
                made.append(await through.commit([put("a")]))

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write, store)
                tasks.start_soon(write, other)
                await store.compact(index)
                compacted.set()
        assert sorted(made) == list(range(index + 1, index + 1 + len(made)))
    steps = [number for number, sql in enumerate(tap.statements) if sql.startswith(STEPS)]
    between = tap.statements[steps[0] : steps[-1]]
    assert sum(sql.startswith("INSERT INTO ts_log") for sql in between) >= 3


async def test_the_file_gives_its_space_back(path: Path) -> None:
    async with open_sqlite_store(str(path)) as store:
        index = await fill(store)
        sql(path, "PRAGMA wal_checkpoint(PASSIVE)")
        before = (await store.sizes()).file
        assert before > COMMITS * SIZE
        await store.compact(index)
        after = (await store.sizes()).file
    assert after < before / 5


async def test_readers_are_told_at_once_that_the_commits_are_gone(store: Store, other: Store) -> None:
    index = await fill(store)
    async with other.changes(0) as commits:
        assert await take(commits, 1) == [1]
        await store.compact(index)
        with pytest.raises(HistoryLostError), anyio.fail_after(PATIENCE):
            while True:
                await anext(commits)
    assert (await other.head()).floor == index


async def test_what_an_interrupted_compaction_has_left_is_removed_by_the_next_one(
    path: Path, tap: Tap
) -> None:
    async with open_sqlite_store(str(path)) as store:
        index = await fill(store)
        with anyio.CancelScope() as scope:

            def cancel(sql: str, _: object) -> None:
                if sql.startswith("DELETE FROM ts_log"):
                    anyio.from_thread.run_sync(scope.cancel)

            tap.fail = cancel
            await store.compact(index)
        assert scope.cancelled_caught
        tap.fail = lambda _sql, _parameters: None
        assert (await store.head()).floor == index
        with pytest.raises(HistoryLostError):
            async with store.changes(0):
                pass
        assert await store.commit([put("a")]) == index + 1
        assert sql(path, "SELECT count(*) FROM ts_log WHERE idx <= ?".replace("?", str(index))) != [(0,)]
        await store.compact(index)
        assert sql(path, f"SELECT count(*) FROM ts_log WHERE idx <= {index}") == [(0,)]
        assert (await store.head()).index == index + 1


async def test_a_file_of_the_first_edition_is_compacted_too(path: Path) -> None:
    """Its free pages stay in it, and are used again."""
    async with open_sqlite_store(str(path)) as store:
        await commit_each(store, "a")
    sql(
        path,
        "PRAGMA auto_vacuum = NONE",
        "PRAGMA journal_mode = DELETE",
        "VACUUM",
        "PRAGMA journal_mode = WAL",
    )
    assert sql(path, "PRAGMA auto_vacuum") == [(0,)]
    async with open_sqlite_store(str(path)) as store:
        index = await fill(store)
        await store.compact(index)
        size = (await store.sizes()).file
        index = await fill(store)
        await store.compact(index)
        assert (await store.sizes()).file < size * 1.2
