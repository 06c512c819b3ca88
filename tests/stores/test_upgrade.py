"""A file of the first edition is upgraded in place when it is first opened for writing."""

import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest
from stores.connections import tapped
from stores.first_edition import EPOCH, MARKS, cursor, write_first_edition
from stores.readers import until_index
from stores.storehouse import commit_each, open_at, put, python, receive, sql, state, take

from trio_stream import Cursor, SubscribeRequest
from trio_stream.stores import (
    Delete,
    Entry,
    Head,
    HistoryLostError,
    Name,
    Put,
    Revoke,
    StoreError,
    open_store_publisher,
    topic,
)
from trio_stream.stores.sqlite import backup_sqlite_store, restore_sqlite_store

pytestmark = pytest.mark.anyio

OLD_TABLES = [("head",), ("log",), ("state",)]


@pytest.fixture
def path(path: Path) -> Path:
    """Where a store of the first edition is."""
    return write_first_edition(path)


def tables(path: Path) -> list[Any]:
    return sql(path, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")


def content(path: Path) -> bytes:
    return path.read_bytes()


def move(source: Path, target: Path) -> None:
    source.replace(target)


async def test_everything_is_as_it_was(path: Path) -> None:
    async with open_at(path) as store:
        head = await store.head()
        assert head == Head(5, 1, EPOCH, MARKS[5])
        assert head.unmarked == 5
        assert await state(store) == {"a": {"n": 2}, "b": 2}
        assert await store.get("users", "\u00fc", namespace="team") == Entry(["x", None], 1)
        assert await store.topics() == ["jobs", "users"]
        assert dict((await store.revocations()).newest) == {}


async def test_cursors_go_on(path: Path) -> None:
    async with open_at(path) as store:
        for index in range(1, 6):
            async with store.changes(cursor(index)) as commits:
                await commit_each(store, "more")
                assert (await take(commits, 1)) == [index + 1]
        for index in range(1, 6):
            with pytest.raises(HistoryLostError):
                async with store.changes(Cursor(index, EPOCH, MARKS[index % 5 + 1])):
                    pass


async def test_commits_of_the_first_edition_are_read_as_they_were_written(path: Path) -> None:
    async with open_at(path) as store, store.changes(1) as commits:
        found = [await anext(commits) for _ in range(4)]
    assert [commit.mark for commit in found] == [MARKS[index] for index in range(2, 6)]
    assert [commit.operations for commit in found] == [
        (put("a", {"n": 2}), put("b", 1.5), put("b", 2)),
        (Delete("jobs", "missing"), put("c", "text")),
        (Delete("jobs", "c"),),
        (Put("users", "v", True),),
    ]
    assert not any(change.replaces for commit in found for change in commit.operations)
    assert not any(commit.revoked for commit in found)


async def test_it_does_all_that_a_new_one_does(path: Path) -> None:
    async with open_at(path) as store:
        expected = {Name("jobs", "b"): 2}
        assert await store.commit([Put("jobs", "b", 3, final=True), Revoke("x")], expect=expected) == 6
        async with store.changes(5) as commits:
            (commit,) = [await anext(commits)]
        assert [change.previous for change in commit.operations] == [2]
        assert tuple((await store.revocations()).newest) == commit.revoked
        await store.compact(6)
    async with open_at(path) as store:
        entry = await store.get("jobs", "b")
        assert entry is not None
        assert (entry.value, entry.index, entry.final) == (3, 6, True)


async def test_an_upgraded_file_has_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    def columns(file: Path) -> list[Any]:
        return [
            (table, [row[1:4] for row in sql(file, f"PRAGMA table_info({table})")])
            for (table,) in tables(file)
        ]

    for file in (path, tmp_path / "new.db"):
        async with open_at(file):
            pass
    assert columns(path) == columns(tmp_path / "new.db")
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


async def test_clients_of_the_first_edition_go_on_without_marks(path: Path) -> None:
    """Their cursors are an index and the epoch. Later ones need a mark, and so does everybody in a new store (D24)."""
    async with open_at(path) as store:
        assert (await store.head()).unmarked == 5
        await commit_each(store, "new")
        async with open_store_publisher(store, ["jobs", "users"]) as publisher:
            for index in range(1, 6):
                request = SubscribeRequest(topic("jobs"), index=index, epoch=EPOCH)
                async with publisher.subscribe(request) as subscription:
                    got = [event.index for event in await subscription.receive_until_current()]
                    assert got[-1] == 6
                    assert got[0] > index
            await commit_each(store, "newer")
            await until_index(publisher, 7)
            request = SubscribeRequest(topic("jobs"), index=6, epoch=EPOCH)
            async with publisher.subscribe(request) as subscription:
                assert (await receive(subscription)).is_new_snapshot_to_follow


async def test_whoever_may_only_read_is_told_what_to_do(path: Path) -> None:
    before = content(path)
    with pytest.raises(StoreError, match=r"older trio_stream.*open it for writing once"):
        async with open_at(path, read_only=True):
            pass
    assert content(path) == before


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE state", "CREATE TABLE IF NOT EXISTS ts_ids", "UPDATE ts_head"]
)
async def test_an_upgrade_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    def fail(sql: str, _: Any) -> None:
        if sql.strip().startswith(statement):
            raise sqlite3.OperationalError("on fire")

    with tapped(monkeypatch) as tap:
        tap.fail = fail
        with pytest.raises(StoreError, match="on fire"):
            async with open_at(path):
                pass
    assert tables(path) == OLD_TABLES
    async with open_at(path) as store:
        assert (await store.head()).cursor == cursor(5)


async def test_of_several_who_open_it_at_once_one_upgrades_it(path: Path) -> None:
    cursors: list[Cursor] = []

    async def open_and_look() -> None:
        async with open_at(path) as store:
            cursors.append((await store.head()).cursor)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(open_and_look)
    assert cursors == [cursor(5)] * 8


async def test_processes_may_open_it_at_once(path: Path) -> None:
    code = """
import sys, anyio
from trio_stream.stores import Put, open_store
async def main():
    async with open_store(f"sqlite:{sys.argv[1]}") as store:
        await store.commit([Put("jobs", sys.argv[2], 1)])
anyio.run(main)
"""
    processes = [python(code, str(path), f"p{n}") for n in range(4)]
    assert [await anyio.to_thread.run_sync(process.wait) for process in processes] == [0] * 4
    async with open_at(path) as store:
        assert (await store.head()).index == 9
        assert {f"p{n}" for n in range(4)} <= set(await state(store))


async def test_one_that_is_moved_to_the_place_of_an_open_store_is_upgraded_too(
    tmp_path: Path, path: Path
) -> None:
    other = tmp_path / "other.db"
    async with open_at(other) as store:
        await commit_each(store, "x")
        move(path, other)
        assert (await store.head()).cursor == cursor(5)
        assert await store.commit([put("y")]) == 6


async def test_the_first_edition_sees_that_the_file_is_newer(path: Path, tmp_path: Path) -> None:
    """By what it asks when it opens a file."""
    for file in (path, tmp_path / "new.db"):
        async with open_at(file):
            pass
        assert sql(file, "PRAGMA application_id") == [(0x74726973,)]
        ((version,),) = sql(file, "SELECT version FROM head")
        assert version > 1


async def test_a_backup_of_one_is_a_store_of_this_edition(path: Path, tmp_path: Path) -> None:
    before = content(path)
    target = tmp_path / "copy.db"
    assert (await backup_sqlite_store(str(path), str(target))).cursor == cursor(5)
    assert content(path) == before
    assert tables(target) != OLD_TABLES
    async with open_at(target, read_only=True) as store:
        assert (await store.head()).cursor == cursor(5)


async def test_a_copy_of_one_is_restored_while_the_store_is_in_use(path: Path, tmp_path: Path) -> None:
    used = tmp_path / "used.db"
    async with open_at(used) as store:
        await commit_each(store, *"abcdefgh")
        head = await restore_sqlite_store(str(path), str(used))
        assert head == await store.head() == Head(5, 1, head.epoch, MARKS[5])
        assert head.epoch != EPOCH
        assert await state(store) == {"a": {"n": 2}, "b": 2}
        assert await store.commit([put("z")]) == 6
    assert tables(path) == OLD_TABLES


async def test_a_newer_copy_is_restored_over_one(path: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    async with open_at(newer) as store:
        await commit_each(store, "x")
    head = await restore_sqlite_store(str(newer), str(path))
    async with open_at(path) as store:
        assert await store.head() == head
        assert await state(store) == {"x": "x"}
