"""A backup made while processes write, and a restore while processes read: whole or not at all."""

import os
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from stores.storehouse import (
    ALL_JOBS,
    PATIENCE,
    commit_each,
    kinds,
    open_at,
    put,
    python,
    receive,
    sql,
    state,
    until_live,
)

from trio_stream import CloseReason, SubscriptionForceClosed
from trio_stream.stores import HistoryLostError, Store, StoreError, open_store_publisher
from trio_stream.stores.sqlite import backup_sqlite_store, restore_sqlite_store

pytestmark = pytest.mark.anyio

WRITER = """
import sys, trio
from trio_stream.stores import Put, open_store

async def main():
    async with open_store(f"sqlite:{sys.argv[1]}", synchronous="OFF") as store:
        print("ready", flush=True)
        n = 0
        while True:
            n += 1
            await store.commit([Put("jobs", "a", n), Put("jobs", f"{n % 50}", "x" * 1000), Put("jobs", "z", n)])

trio.run(main)
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


@pytest.fixture
def others(tmp_path: Path) -> Callable[[], set[str]]:
    """The names in the folder, without what belongs to the open store."""
    return lambda: {path.name for path in tmp_path.iterdir()} - {"jobs.db", "jobs.db-wal", "jobs.db-shm"}


async def backup(path: Path, target: Path, **options: Any) -> int:
    return (await backup_sqlite_store(str(path), str(target), **options)).index


async def restore(source: Path, path: Path, **options: Any) -> str:
    return (await restore_sqlite_store(str(source), str(path), **options)).epoch


def contents(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, text: str) -> None:
    path.write_text(text)


def is_file(path: Path) -> bool:
    return path.is_file()


def size(path: Path) -> int:
    return path.stat().st_size


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_backup_is_the_store_as_it_was_at_the_commit_that_is_returned(
    store: Store, path: Path, target: Path, others: Callable[[], set[str]]
) -> None:
    await commit_each(store, "a", "b")
    head = await store.head()
    assert await backup_sqlite_store(str(path), str(target)) == head
    await commit_each(store, "c")
    assert others() == {"copy.db"}
    async with open_at(target) as copy:
        assert set(await state(copy)) == {"a", "b"}
        assert await copy.head() == head


async def test_a_backup_under_writers_is_consistent(
    store: Store, path: Path, target: Path, others: Callable[[], set[str]]
) -> None:
    with python(WRITER, str(path), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        await anyio.to_thread.run_sync(process.stdout.readline)
        try:
            for n in range(5):
                while (await store.head()).index < 20 * (n + 1):
                    await anyio.lowlevel.checkpoint()
                index = await backup(path, target, overwrite=True)
                assert index >= 20 * (n + 1)
                assert sql(target, "PRAGMA integrity_check") == [("ok",)]
                async with open_at(target) as copy:
                    values = await state(copy)
                    assert values["a"] == values["z"] == (await copy.head()).index == index
        finally:
            process.kill()
    assert others() == {"copy.db"}


async def test_a_backup_replaces_nothing_unless_it_may(store: Store, path: Path, target: Path) -> None:
    await commit_each(store, "a")
    write(target, "mine")
    with pytest.raises(StoreError, match="exists already"):
        await backup(path, target)
    assert contents(target) == b"mine"
    assert await backup(path, target, overwrite=True) == 1
    async with open_at(target) as copy:
        assert set(await state(copy)) == {"a"}


@pytest.mark.parametrize(
    "kind", ["directory", "link", "broken link", "pipe", "store", "log", "link to store"]
)
async def test_a_backup_never_replaces_what_is_no_file_of_its_own(
    store: Store, path: Path, tmp_path: Path, kind: str
) -> None:
    await commit_each(store, "a")
    target = tmp_path / "there"
    match kind:
        case "directory":
            target.mkdir()
        case "link":
            (tmp_path / "else").write_text("mine")
            target.symlink_to("else")
        case "broken link":
            target.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(target)
        case "store":
            target = path
        case "log":
            target = path.with_name("jobs.db-wal")
        case "link to store":
            os.link(path, target)
    before = target.lstat()
    for overwrite in (False, True):
        with pytest.raises(StoreError):
            await backup(path, target, overwrite=overwrite)
    after = target.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert set(await state(store)) == {"a"}


async def test_a_backup_is_as_secret_as_the_store(store: Store, path: Path, target: Path) -> None:
    os.chmod(path, 0o600)  # noqa: PTH101 - no other task waits
    await backup(path, target)
    assert permissions(target) == 0o600
    await restore(target, path.with_name("new.db"))
    assert permissions(path.with_name("new.db")) == 0o600


async def test_a_store_that_is_damaged_is_not_backed_up(
    path: Path, target: Path, others: Callable[[], set[str]]
) -> None:
    async with open_at(path) as store:
        for n in range(50):
            await store.commit([put(f"{n}", "x" * 3000)])
    with path.open("r+b") as file:
        file.seek(12 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(StoreError, match="damaged"):
        await backup(path, target)
    assert others() == set()


async def test_a_restore_brings_the_content_and_a_new_epoch(store: Store, path: Path, target: Path) -> None:
    await commit_each(store, "a")
    before = (await store.head()).epoch
    await backup(path, target)
    await commit_each(store, "b")
    async with open_at(path) as other:
        epoch = await restore(target, path)
        for each in (store, other):
            assert set(await state(each)) == {"a"}
            head = await each.head()
            assert (head.index, head.epoch) == (1, epoch)
    assert epoch != before
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    assert await store.commit([put("c")]) == 2


async def test_a_restore_twice_from_one_backup_gives_two_epochs(
    store: Store, path: Path, target: Path
) -> None:
    """A client of the first life must not take itself for one of the second."""
    await commit_each(store, "a")
    await backup(path, target)
    epochs = {(await store.head()).epoch}
    for _ in range(3):
        epochs.add(await restore(target, path))
        await commit_each(store, "x")
    assert len(epochs) == 4


async def test_subscribers_are_closed_to_refresh_and_older_cursors_are_stale(
    store: Store, path: Path, target: Path
) -> None:
    await commit_each(store, "a")
    await backup(path, target)
    await commit_each(store, "b")
    async with open_at(path) as served, open_store_publisher(served, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            older = subscription.resume_request()
            epoch = await restore(target, path)
            with pytest.raises(SubscriptionForceClosed) as closed:
                await receive(subscription)
            assert closed.value.reason is CloseReason.REFRESH
        while publisher.epoch != epoch:
            await anyio.lowlevel.checkpoint()
        async with publisher.subscribe(older) as stale:
            assert kinds(await until_live(stale)) == ["marker", "1:a=a", "eos@1"]


async def test_a_reader_of_changes_is_told(store: Store, path: Path, target: Path) -> None:
    await commit_each(store, "a", "b")
    await backup(path, target)
    async with store.changes(2) as commits:
        await restore(target, path)
        await commit_each(store, "other")
        with anyio.fail_after(PATIENCE), pytest.raises(HistoryLostError, match="new timeline"):
            await anext(commits)


@pytest.mark.parametrize("there", ["nothing", "an empty file", "a store with other pages", "a damaged store"])
async def test_a_store_is_restored_whatever_is_there(path: Path, target: Path, there: str) -> None:
    source = path.with_name("source.db")
    async with open_at(source) as store:
        await commit_each(store, "a")
    await backup(source, target)
    match there:
        case "an empty file":
            write(path, "")
        case "a store with other pages":
            async with open_at(path) as store:
                await commit_each(store, "old")
            sql(path, "PRAGMA journal_mode = DELETE", "PRAGMA page_size = 8192", "VACUUM")
            async with open_at(path):
                pass
        case "a damaged store":
            async with open_at(path) as store:
                await commit_each(store, "old")
            sql(path, "DELETE FROM ts_head", "DROP TABLE ts_state")
    epoch = await restore(target, path)
    async with open_at(path) as store:
        assert set(await state(store)) == {"a"}
        assert (await store.head()).epoch == epoch
        assert await store.commit([put("b")]) == 2


async def other_application(path: Path) -> None:
    sql(path, "CREATE TABLE mine (x)", "PRAGMA application_id = 7")


async def garbage(path: Path) -> None:
    write(path, "hello, I am a text file and no database" * 100)


async def torn(path: Path) -> None:
    async with open_at(path) as store:
        for n in range(50):
            await store.commit([put(f"{n}", "x" * 3000)])
    os.truncate(path, size(path) // 2)


async def lost_commits(path: Path) -> None:
    async with open_at(path) as store:
        await commit_each(store, "a", "b", "c")
    sql(path, "DELETE FROM ts_log WHERE idx = 2")


async def newer(path: Path) -> None:
    async with open_at(path):
        pass
    sql(path, "UPDATE ts_head SET version = 99")


async def no_head(path: Path) -> None:
    async with open_at(path):
        pass
    sql(path, "DELETE FROM ts_head")


async def odd_head(path: Path) -> None:
    async with open_at(path):
        pass
    sql(path, "UPDATE ts_head SET idx = 'x'")


async def empty(path: Path) -> None:
    write(path, "")


async def directory(path: Path) -> None:
    os.mkdir(path)  # noqa: PTH102 - no other task waits


async def nothing(path: Path) -> None:
    pass


BAD = [other_application, garbage, torn, lost_commits, newer, no_head, odd_head, empty, directory, nothing]


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
@pytest.mark.parametrize("is_there", [True, False], ids=["onto a store", "where there is none"])
async def test_a_restore_of_what_is_no_whole_store_changes_nothing(
    path: Path, target: Path, make: Any, is_there: bool
) -> None:
    await make(target)
    if not is_there:
        with pytest.raises(StoreError, match=r"copy\.db: "):
            await restore(target, path)
        assert not is_file(path)
        return
    async with open_at(path) as store:
        await commit_each(store, "a")
        head = await store.head()
        with pytest.raises(StoreError, match=r"copy\.db: "):
            await restore(target, path)
        assert await store.head() == head
        assert set(await state(store)) == {"a"}
    assert not list(path.parent.glob(".trio-stream*"))


@pytest.mark.parametrize("make", [other_application, garbage, directory], ids=lambda make: make.__name__)
async def test_a_restore_does_not_go_into_a_file_of_others(path: Path, target: Path, make: Any) -> None:
    source = path.with_name("source.db")
    async with open_at(source) as store:
        await commit_each(store, "a")
    await backup(source, target)
    await make(path)
    before = contents(path) if is_file(path) else None
    with pytest.raises(StoreError, match=r"jobs\.db: "):
        await restore(target, path)
    assert (contents(path) if is_file(path) else None) == before


async def test_a_store_is_not_restored_from_itself(store: Store, path: Path, tmp_path: Path) -> None:
    await commit_each(store, "a")
    (tmp_path / "link").symlink_to(path)
    for source in (path, tmp_path / "link"):
        with pytest.raises(StoreError, match="the store itself"):
            await restore(source, path)


async def test_a_lock_is_waited_for_and_then_named(store: Store, path: Path, target: Path) -> None:
    await commit_each(store, "a")
    await backup(path, target)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"jobs\.db: locked by another process"):
            await restore(target, path, busy_timeout=0.1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(restore, target, path)
            await anyio.wait_all_tasks_blocked()
            holder.execute("ROLLBACK")
    assert set(await state(store)) == {"a"}


async def test_a_restore_that_is_cancelled_while_it_waits_changes_nothing(
    store: Store, path: Path, target: Path, others: Callable[[], set[str]]
) -> None:
    await commit_each(store, "a")
    await backup(path, target)
    await commit_each(store, "b")
    head = await store.head()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with anyio.move_on_after(0.2) as scope:
            await restore(target, path, busy_timeout=PATIENCE)
        assert scope.cancelled_caught
    assert await store.head() == head
    assert others() == {"copy.db"}


@pytest.mark.parametrize("what", ["backup", "restore"])
async def test_a_call_that_is_cancelled_at_the_start_does_nothing(
    store: Store, path: Path, target: Path, others: Callable[[], set[str]], what: str
) -> None:
    await commit_each(store, "a")
    head = await store.head()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await (backup(path, target) if what == "backup" else restore(target, path))
    assert scope.cancelled_caught
    assert others() == set()
    assert await store.head() == head


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such folder there")
@pytest.mark.parametrize("name", ["with space?#%41.db", "é\udcff.db", "-x.db", "x" * 240, "new\nline"])
async def test_odd_names_are_taken_as_they_are(path: Path, tmp_path: Path, name: str) -> None:
    odd, there = tmp_path / name, tmp_path / "odd" / name
    there.parent.mkdir()
    async with open_at(odd) as store:
        await commit_each(store, "a")
        await backup(odd, there)
        await commit_each(store, "b")
        await restore(there, odd)
        assert set(await state(store)) == {"a"}


async def test_what_the_file_system_refuses_is_named(store: Store, path: Path, tmp_path: Path) -> None:
    await commit_each(store, "a")
    await backup(path, tmp_path / "copy.db")
    nowhere = tmp_path / "nowhere" / "x.db"
    for call in (backup(path, nowhere), restore(tmp_path / "copy.db", nowhere)):
        with pytest.raises(StoreError, match=r"the directory .*nowhere does not exist"):
            await call
    with pytest.raises(StoreError, match="No such file"):
        await backup(tmp_path / "missing.db", tmp_path / "x.db")
    with pytest.raises(StoreError, match="name too long"):
        await backup(path, tmp_path / ("x" * 300))


async def test_what_an_interrupted_compaction_has_left_is_no_damage(
    store: Store, path: Path, target: Path
) -> None:
    await commit_each(store, "a", "b", "c")
    sql(path, """UPDATE ts_head SET floor = 2, floor_mark = (SELECT mark FROM ts_log WHERE idx = 2)""")
    head = await backup_sqlite_store(str(path), str(target))
    assert (head.index, head.floor) == (3, 2)
    assert (await restore_sqlite_store(str(target), str(path))).floor == 2
    assert await state(store) == {"a": "a", "b": "b", "c": "c"}
