"""Files that are no good: each is a `StoreError` that names the file and the cause, and spoils nothing."""

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from stores.storehouse import ALL_JOBS, Sink, commit_each, open_at, put, sql, state

from trio_stream.stores import Store, StoreError

pytestmark = pytest.mark.anyio


async def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        async with open_at(path, busy_timeout=0.01):
            pass
    assert str(path) in str(caught.value)
    return str(caught.value)


def spoil(path: Path, spoiled: Callable[[bytes], bytes]) -> bytes:
    """Gives the file another content, and returns that."""
    path.touch()
    content = spoiled(path.read_bytes())
    path.write_bytes(content)
    return content


def remove(path: Path) -> None:
    path.unlink()


def exists(path: Path) -> bool:
    return path.exists()


def forbid(path: Path, mode: int) -> None:
    path.chmod(mode)


async def make(path: Path, *keys: str) -> None:
    async with open_at(path) as store:
        await commit_each(store, *keys)


async def test_the_directory_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "jobs.db"
    assert "missing does not exist" in await refusal(path)
    assert not path.parent.exists()


@pytest.mark.parametrize("read_only", [False, True])
async def test_what_the_system_refuses_is_an_error_of_the_store(tmp_path: Path, *, read_only: bool) -> None:
    loop = tmp_path / "loop.db"
    loop.symlink_to(loop)
    for path in (loop, tmp_path / ("x" * 300)):
        with pytest.raises(StoreError, match="cannot be opened") as caught:
            async with open_at(path, read_only=read_only):
                pass
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_directory_that_may_not_be_entered_is_an_error_of_the_store(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, read_only: bool
) -> None:
    await make(path, "a")
    stat = Path.stat

    def refuse(self: Path, **options: bool) -> os.stat_result:
        if path.parent in {self, self.parent}:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(StoreError, match=f"{path}: cannot be opened .Permission denied.") as caught:
        async with open_at(path, read_only=read_only):
            pass
    assert "gone" not in str(caught.value)


async def test_the_path_is_a_directory(tmp_path: Path) -> None:
    assert "cannot be opened" in await refusal(tmp_path)


async def test_the_file_is_garbage(path: Path) -> None:
    garbage = spoil(path, lambda _: b"garbage " * 1000)
    assert "not a SQLite database" in await refusal(path)
    assert spoil(path, bytes) == garbage


async def test_the_file_is_cut_short(path: Path) -> None:
    await make(path, *"abcdefghij")
    spoil(path, lambda content: content[: len(content) // 2])
    assert "damaged" in await refusal(path)


async def test_the_inside_of_the_file_is_garbage(path: Path) -> None:
    async with open_at(path) as store:
        await store.commit([put(f"{n}", "x" * 1000) for n in range(100)])
    spoil(path, lambda content: content[:8192] + b"\xff" * (len(content) - 8192))
    with pytest.raises(StoreError, match=f"{path}: damaged"):
        async with open_at(path) as store:
            await store.snapshot(ALL_JOBS, Sink())


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    spoil(path, bytes)
    await make(path, "a")


async def test_the_file_is_a_database_of_something_else(path: Path) -> None:
    sql(path, "CREATE TABLE users (name TEXT)")
    assert "not a store of trio_stream" in await refusal(path)
    assert sql(path, "SELECT name FROM sqlite_master") == [("users",)]


async def test_the_file_is_of_a_newer_version(path: Path) -> None:
    await make(path)
    sql(path, "UPDATE ts_head SET version = 3", "ALTER TABLE ts_log RENAME TO journal")
    assert "written by a newer trio_stream (schema 3; this one knows 2)" in await refusal(path)


@pytest.mark.parametrize("damage", ["version = 'x'", "epoch = x'00'", "floor = 'x'", "floor_mark = 'x'"])
async def test_the_head_of_the_file_is_not_what_it_should_be(path: Path, damage: str) -> None:
    await make(path)
    sql(path, f"UPDATE ts_head SET {damage}")
    assert "damaged: its head" in await refusal(path)


async def test_the_file_has_no_head(path: Path) -> None:
    await make(path)
    sql(path, "DELETE FROM ts_head")
    assert "it has no head" in await refusal(path)


async def test_the_file_loses_its_head_while_it_is_open(store: Store, path: Path) -> None:
    sql(path, "DELETE FROM ts_head")
    with pytest.raises(StoreError, match=f"{path}: damaged: it has no head"):
        await store.head()


async def test_a_table_is_missing(store: Store, path: Path) -> None:
    sql(path, "DROP TABLE ts_state")
    with pytest.raises(StoreError, match=f"{path}: no such table: ts_state"):
        await store.commit([put("a")])
    assert (await store.head()).index == 0


async def test_an_error_does_not_tell_what_is_in_the_file(store: Store, path: Path) -> None:
    """U14: the feed of a publisher logs it, and what is in the file is nobody's business there."""
    await commit_each(store, "a", "b")
    sql(path, "UPDATE ts_state SET value = CAST(x'ff733363726574' AS TEXT) WHERE key = 'a'")
    sql(path, """UPDATE ts_log SET operations = '[["s3cret"]]' WHERE idx = 2""")
    with pytest.raises(StoreError) as of_value:
        await store.get("jobs", "a")
    with pytest.raises(StoreError) as of_log:
        async with store.changes(0) as commits:
            for _ in range(2):
                await anext(commits)
    for caught in (of_value, of_log):
        assert str(path) in str(caught.value)
        assert "s3cret" not in str(caught.value)


async def test_the_file_cannot_be_put_into_wal_mode_while_someone_reads_it(path: Path) -> None:
    await make(path)
    sql(path, "PRAGMA journal_mode = DELETE")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM ts_head").fetchall()
        assert "locked" in await refusal(path)


async def test_the_file_is_locked_for_writing(store: Store, path: Path) -> None:
    async with open_at(path, busy_timeout=0.05) as impatient:
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreError, match=f"{path}: locked by another process"):
                await impatient.commit([put("a")])
            assert (await impatient.head()).index == 0
        assert await impatient.commit([put("a")]) == 1


async def test_a_lock_that_is_given_back_in_time_is_waited_for(store: Store, path: Path) -> None:
    indexes: list[int] = []

    async def commit() -> None:
        indexes.append(await store.commit([put("a")]))

    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit)
            await anyio.wait_all_tasks_blocked()
            assert indexes == []
            holder.execute("ROLLBACK")
    assert indexes == [1]


async def test_the_file_is_locked_as_a_whole(path: Path) -> None:
    await make(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        assert "locked by another process" in await refusal(path)


async def test_the_file_is_gone_and_comes_back(store: Store, path: Path, tmp_path: Path) -> None:
    await commit_each(store, "a")
    away = tmp_path / "away.db"
    shutil.move(path, away)
    for call in (store.head(), store.commit([put("b")])):
        with pytest.raises(StoreError, match=f"{path}: the file is gone"):
            await call
    shutil.move(away, path)
    assert await store.commit([put("b")]) == 2


async def test_a_file_that_is_gone_is_not_made_anew(store: Store, path: Path) -> None:
    remove(path)
    with pytest.raises(StoreError):
        await store.commit([put("a")])
    assert not exists(path)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of a user that may not write everywhere, and this process as that user."""
    directory = Path(tempfile.mkdtemp())
    if os.geteuid():
        yield directory
    else:
        os.chown(directory, 65534, 65534)
        os.seteuid(65534)
        try:
            yield directory
        finally:
            os.seteuid(0)
    directory.chmod(0o700)
    shutil.rmtree(directory)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
async def test_the_file_is_read_only(unprivileged: Path) -> None:
    path = unprivileged / "jobs.db"
    await make(path, "a")
    forbid(path, 0o400)
    async with open_at(path) as store:
        assert await state(store) == {"a": "a"}
        with pytest.raises(StoreError, match=f"{path}: read-only"):
            await store.commit([put("b")])
        assert (await store.head()).index == 1


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
async def test_the_directory_is_read_only(unprivileged: Path) -> None:
    path = unprivileged / "jobs.db"
    await make(path, "a")
    forbid(path, 0o400)
    forbid(unprivileged, 0o500)
    assert "read-only" in await refusal(path)
