"""Another file takes the place of the store's, or its content changes: no index is ever misread.

The origin of the forks is etcd #20221 and #15271: readers at a future revision got old events after a restore.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from stores.storehouse import PATIENCE, commit_each, copy, open_at, put, sql, state, take

from trio_stream.stores import HistoryLostError, Store, StoreError

pytestmark = pytest.mark.anyio


async def another_store(path: Path, *keys: str) -> Path:
    async with open_at(path) as store:
        await commit_each(store, *keys)
    return path


def restore(source: Path, target: Path) -> None:
    """As `sqlite3 target ".restore source"` does it: through SQLite, into the same file."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


async def test_a_commit_never_goes_into_a_file_that_was_replaced(
    store: Store, path: Path, tmp_path: Path
) -> None:
    await commit_each(store, "old")
    (await another_store(tmp_path / "new.db", "a", "b")).replace(path)
    assert await store.commit([put("c")]) == 3
    assert set(await state(store)) == {"a", "b", "c"}
    async with open_at(path) as fresh:
        assert set(await state(fresh)) == {"a", "b", "c"}


async def test_a_commit_that_was_under_way_when_the_file_was_replaced_is_not_acknowledged_unless_it_is_there(
    store: Store, path: Path, tmp_path: Path
) -> None:
    """Whenever the file is replaced: what was acknowledged after that is in the new one."""
    for n in range(20):
        new = await another_store(tmp_path / "new.db", "a")
        acknowledged: list[str] = []

        async def write(n: int, acknowledged: list[str]) -> None:
            with suppress(StoreError):
                for m in range(10):
                    await store.commit([put(f"{n}-{m}")])
                    acknowledged.append(f"{n}-{m}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, n, acknowledged)
            for _ in range(n):
                await anyio.lowlevel.checkpoint()
            before = len(acknowledged)
            new.replace(path)
        assert set(acknowledged[before + 1 :]) <= set(await state(store))


async def test_a_commit_that_waited_for_the_lock_of_a_file_that_was_replaced_is_not_acknowledged(
    store: Store, path: Path, tmp_path: Path
) -> None:
    new = await another_store(tmp_path / "new.db", "a")
    acknowledged: list[str] = []

    async def write() -> None:
        with suppress(StoreError):
            await store.commit([put("b")])
            acknowledged.append("b")

    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            new.replace(path)
            holder.execute("ROLLBACK")
    assert set(acknowledged) <= set(await state(store))


async def test_a_file_that_is_replaced_while_it_is_being_opened_is_not_read_with_the_log_of_the_old_one(
    store: Store, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit([put(f"{n}", "old" * 1000) for n in range(100)])
    new = await another_store(tmp_path / "new.db", "a")
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def replace_and_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        with suppress(FileNotFoundError):
            new.replace(path)
        return connect(*arguments, **options)

    monkeypatch.setattr(sqlite3, "connect", replace_and_connect)
    assert await state(store) == {"a": "a"}
    assert await store.commit([put("b", "b")]) == 2
    monkeypatch.undo()
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


async def test_readers_of_another_timeline_are_told_and_nothing_of_the_new_one_reaches_them(
    store: Store, path: Path, tmp_path: Path
) -> None:
    await commit_each(store, "a")
    epoch = (await store.head()).epoch
    async with store.changes(0) as commits:
        assert await take(commits, 1) == [1]
        (await another_store(tmp_path / "new.db", "a", "b", "c")).replace(path)
        with pytest.raises(HistoryLostError, match="the store has a new timeline") as caught:
            await take(commits, 1)
    assert caught.value.epoch == (await store.head()).epoch != epoch


async def test_a_reader_that_waits_is_told_when_the_file_is_replaced(
    store: Store, path: Path, tmp_path: Path
) -> None:
    new = await another_store(tmp_path / "new.db")

    async with store.changes(0) as commits, anyio.create_task_group() as tasks:

        async def follow() -> None:
            with pytest.raises(HistoryLostError):
                await take(commits, 1)

        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        new.replace(path)


@pytest.mark.parametrize("ahead", [0, 1, 3], ids=["copy behind", "copy as far", "copy further"])
async def test_an_older_copy_that_has_gone_another_way_gets_a_new_epoch(
    store: Store, path: Path, tmp_path: Path, ahead: int
) -> None:
    """An index that was seen on the old way must not be taken for the same index of the new way."""
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    epoch = (await store.head()).epoch
    async with store.changes(0) as commits:
        await commit_each(store, "b", "c")
        assert await take(commits, 3) == [1, 2, 3]
        async with open_at(older) as elsewhere:
            await commit_each(elsewhere, *(f"fork{n}" for n in range(1 + ahead)))
            assert (await elsewhere.head()).epoch == epoch
        older.replace(path)
        with pytest.raises(HistoryLostError) as caught:
            await take(commits, 1)
    head = await store.head()
    assert head.epoch == caught.value.epoch != epoch
    assert head.index == 2 + ahead
    async with store.changes(1) as commits:
        assert await take(commits, 1 + ahead) == list(range(2, 3 + ahead))


@pytest.mark.parametrize("first", ["head", "commit", "compact", "get", "list"])
async def test_whatever_is_called_first_notices_that_the_timeline_has_forked(
    store: Store, path: Path, tmp_path: Path, first: str
) -> None:
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    await commit_each(store, "b", "c")
    epoch = (await store.head()).epoch
    older.replace(path)
    match first:
        case "commit":
            assert await store.commit([put("d")]) == 2
        case "compact":
            await store.compact(1)
        case "get":
            assert await store.get("jobs", "b") is None
        case "list":
            assert set(await state(store)) == {"a"}
        case _:
            assert (await store.head()).index == 1
    async with open_at(path) as fresh:
        assert (await fresh.head()).epoch != epoch


async def test_a_fork_is_noticed_at_the_floor_too(store: Store, path: Path, tmp_path: Path) -> None:
    """The log no longer has the commit by which the two ways differ; its mark was kept."""
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    epoch = (await store.head()).epoch
    await commit_each(store, "b")
    async with open_at(older) as elsewhere:
        await commit_each(elsewhere, "fork")
        await elsewhere.compact(2)
    older.replace(path)
    assert (await store.head()).epoch != epoch


async def test_of_several_who_notice_a_fork_only_the_first_changes_the_epoch(
    store: Store, other: Store, path: Path, tmp_path: Path
) -> None:
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    await commit_each(store, "b")
    assert (await other.head()).index == 2
    older.replace(path)
    epochs: list[str] = []

    async def ask(through: Store) -> None:
        epochs.append((await through.head()).epoch)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask, store)
            tasks.start_soon(ask, other)
    assert len(set(epochs)) == 1


async def test_a_copy_of_the_present_state_is_the_same_timeline(
    store: Store, path: Path, tmp_path: Path
) -> None:
    await commit_each(store, "a")
    head = await store.head()
    async with store.changes(0) as commits:
        copy(path, tmp_path / "copy.db").replace(path)
        await commit_each(store, "b")
        assert await take(commits, 2) == [1, 2]
    assert (await store.head()).epoch == head.epoch


async def test_a_restore_through_sqlite_into_the_open_file_is_noticed(
    store: Store, path: Path, tmp_path: Path
) -> None:
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    async with store.changes(0) as commits:
        await commit_each(store, "b")
        assert await take(commits, 2) == [1, 2]
        restore(older, path)
        with pytest.raises(HistoryLostError):
            await take(commits, 1)
    assert set(await state(store)) == {"a"}


async def test_what_the_log_of_the_old_file_holds_does_not_show_in_the_new_one(
    store: Store, other: Store, path: Path, tmp_path: Path
) -> None:
    """`jobs.db-wal` outlives `jobs.db`, and SQLite would read it as part of whatever file has that name."""
    await store.commit([put(f"{n}", "old" * 1000) for n in range(100)])
    assert path.with_name("jobs.db-wal").stat().st_size > 0
    (await another_store(tmp_path / "new.db", "a")).replace(path)
    assert await state(store) == await state(other) == {"a": "a"}
    assert await store.commit([put("b", "b")]) == await other.commit([put("c", "c")]) - 1 == 2
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    assert await state(other) == {"a": "a", "b": "b", "c": "c"}


async def test_the_log_that_another_process_has_begun_for_the_new_file_is_left_alone(
    store: Store, other: Store, path: Path, tmp_path: Path
) -> None:
    """The second to notice must not take the first one's log away."""
    await commit_each(store, "old")
    assert (await other.head()).index == 1
    (await another_store(tmp_path / "new.db", "a")).replace(path)
    await store.commit([put("b", "b")])
    await other.commit([put("c", "c")])
    with anyio.fail_after(PATIENCE):
        assert await state(store) == await state(other) == {"a": "a", "b": "b", "c": "c"}


async def test_a_link_that_is_pointed_elsewhere_is_a_replacement(tmp_path: Path) -> None:
    old, new = await another_store(tmp_path / "old.db", "a"), await another_store(tmp_path / "new.db", "b")
    link = tmp_path / "jobs.db"
    link.symlink_to(old)
    async with open_at(link) as store:
        assert set(await state(store)) == {"a"}
        (tmp_path / "next").symlink_to(new)
        (tmp_path / "next").replace(link)
        await store.commit([put("c")])
        assert set(await state(store)) == {"b", "c"}
