"""A store that is opened for reading only, by a process that may write or by a user who may not."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest
from stores.connections import CONNECT, tapped
from stores.storehouse import (
    ALL_JOBS,
    PATIENCE,
    Sink,
    commit_each,
    copy,
    open_at,
    put,
    receive,
    sql,
    state,
    take,
)

from trio_stream import SubscribeRequest
from trio_stream.stores import HistoryLostError, Put, StoreError, open_store_publisher, topic

pytestmark = pytest.mark.anyio

NOBODY = 65534


@contextmanager
def nobody() -> Iterator[None]:
    """As a user without rights, if we are the one who has them all."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "jobs.db"


def forbid_writing(path: Path) -> None:
    for each in path.parent.iterdir():
        each.chmod(0o444)
    path.parent.chmod(0o555)


def close_folder(folder: Path) -> None:
    folder.chmod(0o555)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def read(path: Path, expected: dict[str, str]) -> None:
    async with open_at(path, read_only=True) as store:
        assert await state(store) == expected
        assert (await store.head()).index == len(expected)
        sink = Sink()
        assert await store.snapshot(ALL_JOBS, sink) == len(expected)
        async with store.changes(0) as commits:
            assert await take(commits, len(expected)) == list(range(1, len(expected) + 1))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
async def test_a_user_who_may_only_read_reads_a_store_that_nobody_has_open(path: Path, folder: Path) -> None:
    async with open_at(path) as store:
        await commit_each(store, "a", "b")
    forbid_writing(path)
    with nobody():
        await read(path, {"a": "a", "b": "b"})
    assert names(folder) == ["jobs.db"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
async def test_a_user_who_may_only_read_reads_and_follows_a_store_that_is_written_to(
    path: Path, folder: Path
) -> None:
    async with open_at(path) as writer:
        await commit_each(writer, "a", "b")
        forbid_writing(path)
        with nobody():
            await read(path, {"a": "a", "b": "b"})
            async with (
                open_at(path, read_only=True) as store,
                open_store_publisher(store, ["jobs"]) as publisher,
            ):
                request = SubscribeRequest(topic("jobs")).after((await store.head()).cursor)
                async with publisher.subscribe(request) as subscription:
                    await writer.commit([put("c")])
                    assert (await receive(subscription)).index == 3


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
async def test_a_reader_without_rights_follows_writers_that_come_and_go(path: Path, folder: Path) -> None:
    async with open_at(path) as writer:
        await commit_each(writer, "a")
    close_folder(folder)
    async with open_at(path, read_only=True) as store, store.changes(0) as commits:
        assert await take(commits, 1) == [1]
        for index in range(2, 6):
            async with open_at(path) as writer:
                assert await writer.commit([put(f"{index}")]) == index
            assert await take(commits, 1) == [index]
            assert len(await state(store)) == index
    assert names(folder) == ["jobs.db"]


@pytest.mark.parametrize("statement", ["SELECT epoch", "SELECT value"])
async def test_what_is_torn_because_a_writer_comes_meanwhile_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """Where the file is read without locks, pages of before and after do not fit together."""
    async with open_at(path) as writer:
        await writer.commit([put("a", 1)])
    with tapped(monkeypatch) as tap:
        async with open_at(path, read_only=True) as reader:
            await reader.head()
            with closing(CONNECT(path, check_same_thread=False)) as other:

                def tear(sql: str, _: object) -> None:
                    if sql.startswith(statement) and not other.total_changes:
                        with other:
                            other.execute("UPDATE ts_state SET value = 2")
                        raise sqlite3.DatabaseError("database disk image is malformed")

                tap.fail = tear
                entry = await reader.get("jobs", "a")
            assert entry is not None
            assert entry.value == 2


async def test_what_would_change_the_store_is_refused(path: Path) -> None:
    async with open_at(path) as writer:
        await commit_each(writer, "a")
        async with open_at(path, read_only=True) as store:
            for call in (lambda: store.commit([put("b")]), lambda: store.compact(1)):
                with pytest.raises(StoreError, match="opened for reading only"):
                    await call()
            assert await store.head() == await writer.head()


async def test_a_store_that_is_not_there_is_not_made(path: Path, folder: Path) -> None:
    with pytest.raises(StoreError, match="gone"):
        async with open_at(path, read_only=True):
            pass
    assert names(folder) == []


async def test_an_older_copy_in_the_place_of_the_store_is_another_timeline_for_a_reader_too(
    path: Path, folder: Path
) -> None:
    """etcd #20221: it cannot write a new epoch into the file, but it never goes on as if nothing had happened."""
    async with open_at(path) as writer:
        await commit_each(writer, "a")
    older = copy(path, folder / "older.db")
    async with open_at(path) as writer:
        await commit_each(writer, "b", "c")
    async with open_at(path, read_only=True) as store:
        before = await store.head()
        assert before.index == 3
        async with store.changes(3) as commits:
            older.replace(path)
            with pytest.raises(HistoryLostError), anyio.fail_after(PATIENCE):
                await anext(commits)
        after = await store.head()
        assert after.index == 1
        assert after.epoch != before.epoch
        assert await store.head() == after
        assert await state(store) == {"a": "a"}
    assert sql(path, "SELECT epoch FROM ts_head") == [(before.epoch,)]


async def test_many_reads_beside_a_writer_are_each_of_one_index(path: Path) -> None:
    """Without locks what was read while somebody began to write is read again."""
    async with open_at(path) as writer:
        await writer.commit([put(f"{n}", 0) for n in range(50)])
    async with open_at(path, read_only=True) as store:
        for number in range(1, 10):
            async with anyio.create_task_group() as tasks:

                async def write(number: int = number) -> None:
                    async with open_at(path) as writer:
                        await writer.commit([Put("jobs", f"{n}", number) for n in range(50)])

                tasks.start_soon(write)
                for _ in range(5):
                    assert len(set((await state(store)).values())) == 1
