"""U20: after a fork, and without its `-wal` or `-shm`, SQLite goes on and loses what it has acknowledged. Not here."""

import os
import sys
from pathlib import Path

import anyio
import pytest
from stores.connections import tapped
from stores.storehouse import ALL_JOBS, PATIENCE, Sink, commit_each, open_at, put, python, sql, state

from trio_stream.stores import Store, StoreError

pytestmark = pytest.mark.anyio

ALONE = {"anyio_backend": ["asyncio"]}

# A process that has a store open in a thread forks; its child does what its parent could have done.
FORKS = """
import os, sys, threading, warnings
import anyio
from trio_stream.stores import Put, StoreError, open_store

warnings.simplefilter("ignore")  # a fork beside threads
path, when = sys.argv[1:]
opened, done = threading.Event(), threading.Event()
stores = []

async def parent():
    async with open_store("sqlite:" + path) as store:
        await store.commit([Put("jobs", "parent", 1)])
        stores.append(store)
        opened.set()
        await anyio.to_thread.run_sync(done.wait)
        await store.commit([Put("jobs", "parent", 2)])

async def opens():
    async with open_store("sqlite:" + path) as store:
        await store.commit([Put("jobs", "child", 1)])
        print("committed", flush=True)

async def goes_on():
    await stores[0].commit([Put("jobs", "child", 1)])
    print("committed", flush=True)

async def reads():
    await stores[0].head()
    print("read", flush=True)

def child(main):
    try:
        anyio.run(main)
    except StoreError as error:
        print("StoreError:", error, flush=True)

thread = threading.Thread(target=anyio.run, args=[parent])
thread.start()
opened.wait()
if when == "closed":
    done.set()
    thread.join()
pid = os.fork()
if pid == 0:
    for main in [opens] if when == "closed" else [opens, goes_on, reads]:
        child(main)
    os._exit(0)
os.waitpid(pid, 0)
done.set()
thread.join()
"""


def output(path: Path, when: str) -> list[str]:
    with python(FORKS, str(path), when, stdout=-1) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.splitlines()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the operating system has no fork")


@needs_fork
@pytest.mark.parametrize(*ALONE.popitem())
async def test_a_forked_process_is_refused_whatever_it_does_with_the_store_of_its_parent(path: Path) -> None:
    lines = output(path, "open")
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(f"StoreError: {path}: ")
        assert "fork" in line
    assert sql(path, "SELECT key, value FROM ts_state") == [("parent", "2")]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


@needs_fork
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_process_that_was_forked_after_the_store_was_closed_may_open_it(path: Path) -> None:
    assert output(path, "closed") == ["committed"]
    assert dict(sql(path, "SELECT key, value FROM ts_state")) == {"parent": "2", "child": "1"}


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def take_away(path: Path, how: str) -> None:
    if how == "deleted":
        path.unlink()
    else:
        path.rename(path.with_name("elsewhere"))
        path.touch()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_without_its_log_a_store_does_nothing_any_more_and_what_was_acknowledged_is_kept(
    path: Path, suffix: str, how: str
) -> None:
    async with open_at(path) as store:
        await commit_each(store, "a", "b")
        take_away(beside(path, suffix), how)
        for _ in range(2):
            for call in (
                lambda: store.commit([put("c")]),
                store.head,
                lambda: store.get("jobs", "a"),
                lambda: store.compact(1),
                lambda: state(store),
                lambda: store.snapshot(ALL_JOBS, Sink()),
            ):
                with pytest.raises(StoreError, match=f"{path.name}{suffix} was deleted or replaced"):
                    await call()
        if how == "replaced":
            beside(path, suffix).unlink()
    async with open_at(path) as store:
        assert await state(store) == {"a": "a", "b": "b"}
        assert (await store.head()).index == 2
        assert await store.commit([put("c")]) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
async def test_followers_are_told_that_the_log_is_gone(store: Store, path: Path) -> None:
    await commit_each(store, "a")
    async with store.changes(1) as commits:
        beside(path, "-wal").unlink()
        with pytest.raises(StoreError, match="-wal was deleted or replaced"):
            await anext(commits)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
async def test_followers_who_wait_already_are_told_too(store: Store, path: Path) -> None:
    await commit_each(store, "a")
    async with store.changes(1) as commits:

        async def follow() -> None:
            with pytest.raises(StoreError, match="-wal was deleted or replaced"):
                await anext(commits)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                beside(path, "-wal").unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
async def test_who_opens_the_file_just_then_is_told_more_than_that_there_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that finds no log says only that the file cannot be read."""
    with tapped(monkeypatch) as tap:
        async with open_at(path) as store:
            await commit_each(store, "a")

            def delete(sql: str, _: object) -> None:
                if "sqlite_master" in sql:  # the first thing that a new connection asks
                    beside(path, "-wal").unlink(missing_ok=True)

            async with store.changes(1) as commits:
                tap.fail = delete
                with (
                    pytest.raises(StoreError, match="-wal was deleted or replaced"),
                    anyio.fail_after(PATIENCE),
                ):
                    await anext(commits)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
async def test_a_commit_whose_log_is_deleted_before_it_ends_is_not_acknowledged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tapped(monkeypatch) as tap:
        async with open_at(path) as store:
            await commit_each(store, "a")

            def delete(sql: str, _: object) -> None:
                if sql == "COMMIT":
                    beside(path, "-wal").unlink()

            tap.fail = delete
            with pytest.raises(StoreError, match="-wal was deleted or replaced"):
                await store.commit([put("b")])
