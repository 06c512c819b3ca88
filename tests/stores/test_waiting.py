"""Waiting for the commits of others: no look without a reason, none missed, whether the kernel tells or not.

Where `poll_interval` is an hour, what comes has come by a notice.
"""

import asyncio
import ctypes
import os
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
import trio.testing
from backends import backend
from interruptions import Call, Drive, Step, after, drives, in_scope, in_task, on_asyncio
from stores.storehouse import PATIENCE, commit_each, copy, on_another_system, open_at, put, sql, take
from trio.testing import MockClock

from trio_stream import ClosedResourceError
from trio_stream.stores import HistoryLostError, Store, StoreError

pytestmark = pytest.mark.anyio

HOUR = 3600.0
# Which nobody sees in the log; SQLite does not write what is there already.
CHANGE = "INSERT OR REPLACE INTO ts_state VALUES ('x', '', 'x', hex(randomblob(8)), 1, 0)"
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

COMMIT_EACH = """
import sys, anyio
from trio_stream.stores import Put, open_store

async def main(path, *keys):
    async with open_store("sqlite:" + path) as store:
        for key in keys:
            await store.commit([Put("jobs", key, key)])

anyio.run(main, *sys.argv[1:])
"""


class Library:
    """The C library, except for one function of inotify, which always returns the same."""

    def __init__(self, name: str, result: int) -> None:
        self._library = ctypes.CDLL(None)
        setattr(self, name, lambda *_: result)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


def without_library(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ctypes, "CDLL", lambda _: object())


def without_instance(patch: pytest.MonkeyPatch) -> None:
    library = Library("inotify_init1", -1)
    patch.setattr(ctypes, "CDLL", lambda _: library)


def without_watch(patch: pytest.MonkeyPatch) -> None:
    library = Library("inotify_add_watch", -1)
    patch.setattr(ctypes, "CDLL", lambda _: library)


def with_a_silent_file_system(patch: pytest.MonkeyPatch) -> None:
    library = Library("inotify_add_watch", 1)
    patch.setattr(ctypes, "CDLL", lambda _: library)


SILENCES = pytest.mark.parametrize(
    "silence",
    [
        on_another_system,
        pytest.param(without_library, marks=on_linux),
        pytest.param(without_instance, marks=on_linux),
        pytest.param(without_watch, marks=on_linux),
        pytest.param(with_a_silent_file_system, marks=on_linux),
    ],
)


by_hand = pytest.mark.parametrize("anyio_backend", [backend("clock by hand", "trio", clock=MockClock())])


def hand() -> MockClock:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    return clock


class Looks(list[float]):
    """When each look of any store was; for a clock that is moved by hand."""

    threads = 0  # that are at work

    async def settle(self) -> None:
        """Until nothing happens any more unless the clock is moved."""
        await trio.testing.wait_all_tasks_blocked()
        while self.threads:
            await trio.lowlevel.checkpoint()
            if not self.threads:
                await trio.testing.wait_all_tasks_blocked()

    async def until_found(self) -> None:
        """Moves the clock to the next look, which finds a change, and lets that be read."""
        before = len(self)
        while len(self) == before:
            hand().jump(0.001)
            await self.settle()

    async def during(self, seconds: float, do: Callable[[], object] = lambda: None) -> int:
        """How many there are while so many seconds pass in a thousand steps, with something done in each."""
        await self.settle()
        before = len(self)
        for _ in range(1000):
            do()
            hand().jump(seconds / 1000)
            await self.settle()
        return len(self) - before


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    seen = Looks()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql == "PRAGMA data_version" and trio.lowlevel.in_trio_task():
                seen.append(trio.current_time())
            return super().execute(sql, *parameters)

    run_sync = anyio.to_thread.run_sync

    async def counted(*arguments: Any, **options: Any) -> Any:
        seen.threads += 1
        try:
            return await run_sync(*arguments, **options)
        finally:
            seen.threads -= 1

    monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=Connection))
    monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
    return seen


@asynccontextmanager
async def following(store: Store) -> AsyncIterator[None]:
    """While a task waits for a commit."""
    async with store.changes((await store.head()).index) as commits, trio.open_nursery() as tasks:
        tasks.start_soon(partial(anext, commits))
        yield
        tasks.cancel_scope.cancel()


async def run(drive: Drive, call: Call, step: Step) -> None:
    await drive(call, step)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def notices() -> list[int]:
    """The descriptors of inotify."""
    found: list[int] = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that this is read from
            if "inotify" in str(path.readlink()):
                found.append(int(path.name))
    return found


async def wait(store: Store) -> None:
    """For a commit that does not come."""
    async with store.changes((await store.head()).index) as commits:
        await anext(commits)


async def until_told(store: Store) -> None:
    """Waits until the kernel would tell."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, store)
        with anyio.fail_after(PATIENCE):
            while not notices():
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


@on_linux
@by_hand
async def test_in_the_quiet_there_is_a_look_every_hundred_intervals(path: Path, looks: Looks) -> None:
    async with open_at(path, poll_interval=0.1) as store, following(store):
        await looks.during(100.0)
        assert 8 <= await looks.during(100.0) <= 12


@SILENCES
@by_hand
async def test_in_the_quiet_without_notices_there_is_a_look_every_ten_intervals(
    path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch, silence: Callable[[pytest.MonkeyPatch], None]
) -> None:
    silence(monkeypatch)
    async with open_at(path, poll_interval=0.1) as store, following(store):
        if silence is with_a_silent_file_system:
            await looks.during(100.0)
            sql(path, CHANGE)
            await looks.until_found()
        await looks.during(100.0)
        assert 90 <= await looks.during(100.0) <= 110


@SILENCES
@by_hand
async def test_after_a_change_without_notices_looks_come_often_again(
    path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch, silence: Callable[[pytest.MonkeyPatch], None]
) -> None:
    silence(monkeypatch)
    async with open_at(path, poll_interval=0.1) as store, following(store):
        await looks.during(20.0)
        sql(path, CHANGE)
        await looks.until_found()
        assert await looks.during(1.0) >= 3


@SILENCES
async def test_commits_of_others_are_found_without_notices(
    path: Path, monkeypatch: pytest.MonkeyPatch, silence: Callable[[pytest.MonkeyPatch], None]
) -> None:
    silence(monkeypatch)
    async with open_at(path) as store, open_at(path) as other, store.changes(0) as commits:
        for index in range(1, 6):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(commit_each, other, "a")
                assert await take(commits, 1) == [index]


@on_linux
async def test_commits_of_another_process_are_told(path: Path) -> None:
    async with open_at(path, poll_interval=HOUR) as store, store.changes(0) as commits:
        for index in range(1, 4, 2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.run_process, [sys.executable, "-c", COMMIT_EACH, str(path), "a", "b"])
                assert await take(commits, 2) == [index, index + 1]


@on_linux
async def test_no_commit_is_missed_between_a_look_and_the_rest(path: Path) -> None:
    """One round: read all, then rest; the other commits at any moment of that."""
    async with open_at(path, poll_interval=HOUR) as store, open_at(path) as other:
        async with store.changes(0) as commits, anyio.create_task_group() as tasks:
            for index in range(1, 101):
                tasks.start_soon(commit_each, other, "a")
                for _ in range(index % 9):
                    await anyio.lowlevel.checkpoint()
                assert await take(commits, 1) == [index]


@on_linux
@by_hand
async def test_a_notice_is_followed_by_looks_until_its_commit_can_be_seen(path: Path, looks: Looks) -> None:
    """A commit writes to the log, waits for the disk, and only then becomes visible, without a notice."""
    async with open_at(path) as store, following(store):
        await looks.during(100.0)
        os.utime(f"{path}-wal")
        assert 6 <= await looks.during(0.05) <= 12


@on_linux
async def test_when_the_one_that_rests_for_all_leaves_another_is_told(path: Path) -> None:
    scopes: list[anyio.CancelScope] = []
    seen: list[int] = []

    async with open_at(path, poll_interval=HOUR) as store, open_at(path) as other:

        async def follow() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                async with store.changes(0) as commits:
                    seen.extend(await take(commits, 1))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(follow)
            while not notices():
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            for scope in scopes[:9]:
                scope.cancel()
                await anyio.lowlevel.checkpoint()
            await other.commit([put("a")])
    assert set(seen) == {1}  # more than one if a cancelled one was at it already


@on_linux
@on_asyncio
async def test_what_came_while_one_that_is_cancelled_opens_the_file_is_told_to_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A native cancel leaves the thread behind; who takes over finds the file opened, and has read before that."""
    library, run_sync = ctypes.CDLL(None), anyio.to_thread.run_sync
    opening, may_open, finished = threading.Event(), threading.Event(), threading.Semaphore(0)

    def opens(_: object) -> ctypes.CDLL:
        opening.set()
        assert may_open.wait(PATIENCE)
        return library

    async def counted(work: Callable[[], Any], **options: Any) -> Any:
        def counting() -> Any:
            try:
                return work()
            finally:
                finished.release()

        return await run_sync(counting, **options)

    def forget() -> None:
        while finished.acquire(blocking=False):
            pass

    async with (
        open_at(path, poll_interval=HOUR) as store,
        open_at(path) as other,
        store.changes(0) as commits,
    ):
        monkeypatch.setattr(ctypes, "CDLL", opens)
        monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
        first = asyncio.create_task(wait(store))
        assert await run_sync(opening.wait, PATIENCE)
        forget()
        second = asyncio.create_task(take(commits, 1))
        while not finished.acquire(blocking=False):
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        await other.commit([put("a")])
        forget()
        first.cancel()
        may_open.set()
        assert finished.acquire(timeout=PATIENCE)  # before `second` runs
        assert await second == [1]


@on_linux
@by_hand
async def test_who_writes_all_the_time_causes_two_looks_in_a_millisecond_at_most(
    path: Path, looks: Looks
) -> None:
    """20 notices in each, and no commit."""
    async with open_at(path) as store, following(store):
        assert 20 <= await looks.during(0.05, lambda: os.utime(f"{path}-wal")) <= 101


@on_linux
@pytest.mark.parametrize("poll_interval", [HOUR])
class TestReplacement:
    """The file is followed to where the path leads, at once."""

    async def test_by_a_copy_that_was_moved_over_it(self, path: Path, poll_interval: float) -> None:
        async with open_at(path, poll_interval=poll_interval) as store:
            await commit_each(store, "a")
            backup = copy(path, path.with_name("backup.db"))
            async with store.changes(1) as commits, anyio.create_task_group() as tasks:
                tasks.start_soon(take, commits, 2)
                await anyio.wait_all_tasks_blocked()
                backup.replace(path)
                await store.head()  # takes the old log away, which must be gone before anybody new comes
                async with open_at(path) as other:
                    await commit_each(other, "b", "c")

    @pytest.mark.parametrize("deleted", ["", "-wal", "-shm"], ids=["kept", "without -wal", "without -shm"])
    async def test_by_a_new_store(self, path: Path, poll_interval: float, deleted: str) -> None:
        async with open_at(path.with_name("new.db")) as new:
            await commit_each(new, "a", "b")
        async with open_at(path, poll_interval=poll_interval) as store, store.changes(0) as commits:
            async with anyio.create_task_group() as tasks:

                async def follow() -> None:
                    try:
                        await take(commits, 1)
                    except HistoryLostError:
                        return
                    except StoreError:  # a thread was still at work when the companion went
                        assert deleted
                        await follow()
                    else:
                        pytest.fail("there is no commit to take")

                tasks.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                if deleted:
                    path.with_name(f"{path.name}{deleted}").unlink()
                path.with_name("new.db").replace(path)

    async def test_by_a_restore_into_the_same_file(self, path: Path, poll_interval: float) -> None:
        async with open_at(path.with_name("new.db")) as new:
            await commit_each(new, "a", "b")
        async with open_at(path, poll_interval=poll_interval) as store, store.changes(0) as commits:
            async with anyio.create_task_group() as tasks:

                async def follow() -> None:
                    with pytest.raises(HistoryLostError):
                        await take(commits, 1)

                tasks.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                with (
                    closing(sqlite3.connect(path.with_name("new.db"))) as source,
                    closing(sqlite3.connect(path)) as target,
                ):
                    source.backup(target)

    async def test_by_one_after_the_other(self, path: Path, poll_interval: float) -> None:
        """The watches go from file to file, and none of them is left."""
        async with open_at(path, poll_interval=poll_interval) as store, store.changes(0) as commits:
            for index in range(1, 6):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(take, commits, 1)
                    await anyio.wait_all_tasks_blocked()
                    copy(path, path.with_name("backup.db")).replace(path)
                    await store.head()  # as above
                    async with open_at(path) as other:
                        await commit_each(other, "a")
                assert len(notices()) == 1
                assert (await store.head()).index == index


@on_linux
class TestDescriptors:
    """None is left, and nothing in the event loop."""

    async def test_a_store_that_is_closed_while_somebody_waits_leaves_none(self, path: Path) -> None:
        async def follow(store: Store) -> None:
            with pytest.raises(ClosedResourceError):
                async with store.changes(0) as commits:
                    await take(commits, 1)

        before = -1
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                async with open_at(path) as store:
                    for _ in range(3):
                        tasks.start_soon(follow, store)
                    await anyio.wait_all_tasks_blocked()
            before = descriptors() if before < 0 else before
            assert descriptors() == before

    async def test_a_wait_that_is_cancelled_anywhere_leaves_nothing(self, path: Path) -> None:
        async with open_at(path, poll_interval=HOUR) as store, open_at(path) as other:
            await until_told(store)
            async with store.changes(0) as commits:

                async def step() -> None:
                    await take(commits, 1)

                for drive in drives():
                    for steps in range(12):
                        assert await drive(step, after(steps))
                        assert len(notices()) == 1
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(step)
                        await anyio.wait_all_tasks_blocked()
                        await commit_each(other, "a")

    async def test_a_wait_that_is_cancelled_when_it_is_told_leaves_nothing(self, path: Path) -> None:
        async with open_at(path, poll_interval=HOUR) as store, open_at(path) as other:
            index = 0
            async with store.changes(0) as commits:
                for drive in drives():
                    for steps in range(12):

                        async def step() -> None:
                            nonlocal index
                            (index,) = await take(commits, 1)

                        async with anyio.create_task_group() as tasks:
                            tasks.start_soon(run, drive, step, after(steps))
                            await commit_each(other, "a")
                        if index < (await store.head()).index:
                            await step()
                        assert index == (await store.head()).index

    @on_asyncio
    async def test_no_callback_stays_in_the_loop(self, path: Path) -> None:
        async with open_at(path, poll_interval=HOUR) as store:
            await until_told(store)
            used = notices()
            assert used
            for drive in (in_scope, in_task):
                await drive(partial(wait, store), after(4))
                loop = asyncio.get_running_loop()
                assert not any(map(loop.remove_reader, used))
