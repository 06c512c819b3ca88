"""Tasks that commit at the same time share a transaction, and nobody notices."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from interruptions import on_asyncio
from stores.connections import Tap, tapped
from stores.storehouse import PATIENCE, open_at, put, state, take
from typing_extensions import override

from trio_stream.stores import CommitUnknownError, ConflictError, Delete, Name, Put, Store, StoreError

pytestmark = pytest.mark.anyio

COMMIT = "COMMIT"


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tap]:
    with tapped(monkeypatch) as tap:
        yield tap


@pytest.fixture
async def store(path: Path, tap: Tap) -> AsyncIterator[Store]:
    async with open_at(path) as store:
        await store.commit([put("first", 0)])
        tap.statements.clear()
        yield store


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While another process writes, so that commits gather."""
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


class Committers:
    """Tasks that each make a commit, in their order, and what became of them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.indexes: dict[str, int] = {}
        self.errors: dict[str, Exception] = {}

    async def commit(self, key: str, *operations: Put | Delete, **options: Any) -> None:
        try:
            self.indexes[key] = await self.store.commit([*operations] or [put(key, key)], **options)
        except (StoreError, ValueError) as error:
            self.errors[key] = error


async def test_commits_that_wait_for_the_same_lock_are_made_in_one_transaction(
    store: Store, path: Path, tap: Tap
) -> None:
    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                for number in range(64):
                    tasks.start_soon(committers.commit, f"{number}")
                await anyio.wait_all_tasks_blocked()
    assert sorted(committers.indexes.values()) == list(range(2, 66))
    assert tap.count(COMMIT) <= 3
    assert len(await state(store)) == 65
    async with store.changes(1) as commits:
        assert await take(commits, 64) == list(range(2, 66))


async def test_more_commits_than_a_transaction_may_hold_are_made_in_several(
    store: Store, path: Path, tap: Tap
) -> None:
    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                for number in range(600):
                    tasks.start_soon(committers.commit, f"{number}")
                await anyio.wait_all_tasks_blocked()
    assert sorted(committers.indexes.values()) == list(range(2, 602))
    assert 3 <= tap.count(COMMIT) <= 5


async def test_the_order_of_arrival_is_the_order_of_the_indexes(store: Store, path: Path) -> None:
    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                for number in range(20):
                    tasks.start_soon(committers.commit, f"{number}")
                    await anyio.wait_all_tasks_blocked()
    assert committers.indexes == {f"{number}": number + 2 for number in range(20)}


async def test_an_expectation_sees_the_earlier_commits_of_its_group_and_a_refused_one_uses_no_index(
    store: Store, path: Path
) -> None:
    committers = Committers(store)
    a = Name("jobs", "a")
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                for key, expected in (("wins", 0), ("loses", 0), ("follows", 2)):
                    operations = (put("a", key), put(key))
                    tasks.start_soon(partial(committers.commit, key, *operations, expect={a: expected}))
                    await anyio.wait_all_tasks_blocked()
                tasks.start_soon(committers.commit, "last")
                await anyio.wait_all_tasks_blocked()
    assert committers.indexes == {"wins": 2, "follows": 3, "last": 4}
    error = committers.errors["loses"]
    assert isinstance(error, ConflictError)
    assert (error.name, error.expected, error.actual) == (a, 0, 2)
    assert await state(store) == {"first": 0, "a": "follows", "wins": "x", "follows": "x", "last": "last"}
    async with store.changes(1) as commits:
        assert await take(commits, 3) == [2, 3, 4]


async def test_a_value_that_is_not_json_concerns_its_own_commit(store: Store, path: Path) -> None:
    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                tasks.start_soon(committers.commit, "a")
                tasks.start_soon(committers.commit, "b", put("b", float("nan")))
                tasks.start_soon(committers.commit, "c")
                await anyio.wait_all_tasks_blocked()
    assert sorted(committers.indexes) == ["a", "c"]
    assert isinstance(committers.errors["b"], ValueError)
    assert set(await state(store)) == {"first", "a", "c"}


class Moody(dict[str, Any]):
    """A value that fails with something of its own when it is looked at."""

    @override
    def items(self) -> Any:
        raise KeyError("moody")


async def test_a_value_that_cannot_be_looked_at_concerns_its_own_commit(store: Store, path: Path) -> None:
    committers = Committers(store)

    async def commit_moody() -> None:
        with pytest.raises(KeyError, match="moody"):
            await store.commit([put("b", Moody(a=1))])

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                tasks.start_soon(committers.commit, "a")
                tasks.start_soon(commit_moody)
                tasks.start_soon(committers.commit, "c")
                await anyio.wait_all_tasks_blocked()
    assert sorted(committers.indexes) == ["a", "c"]
    assert set(await state(store)) == {"first", "a", "c"}


@pytest.mark.parametrize("trouble", [MemoryError("for b"), OverflowError("b is too large")])
async def test_what_is_no_error_of_the_store_does_not_fail_for_the_others_either(
    store: Store, path: Path, tap: Tap, trouble: Exception
) -> None:
    """Those that were written before it in a transaction of their own have been made, and are told so."""

    def fail(sql: str, parameters: tuple[Any, ...]) -> None:
        if sql.startswith("INSERT OR REPLACE INTO ts_state") and parameters[2] == "b":
            raise trouble

    committers = Committers(store)

    async def commit_b() -> None:
        with pytest.raises(type(trouble)):
            await store.commit([put("b")])

    tap.fail = fail
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                tasks.start_soon(committers.commit, "a")
                tasks.start_soon(commit_b)
                tasks.start_soon(committers.commit, "c")
                await anyio.wait_all_tasks_blocked()
    assert sorted(committers.indexes.values()) == [2, 3]
    assert set(await state(store)) == {"first", "a", "c"}


@pytest.mark.parametrize("ending", [StoreError, MemoryError])
async def test_a_store_that_fails_while_a_group_is_written_one_by_one_has_not_forgotten_what_it_has_made(
    store: Store, path: Path, tap: Tap, ending: type[Exception]
) -> None:
    begun: list[str] = []

    def fail(sql: str, parameters: tuple[Any, ...]) -> None:
        if sql.startswith("INSERT OR REPLACE INTO ts_state") and parameters[2] == "b":
            begun.append(sql)
            raise sqlite3.OperationalError("no room for b") if len(begun) == 1 else ending("no more")

    committers = Committers(store)

    async def commit_b() -> None:
        with pytest.raises(ending):
            await store.commit([put("b")])

    tap.fail = fail
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                tasks.start_soon(committers.commit, "a")
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(commit_b)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(committers.commit, "c")
                await anyio.wait_all_tasks_blocked()
    assert committers.indexes == {"a": 2, "c": 3}
    assert set(await state(store)) == {"first", "a", "c"}


async def test_what_fails_for_one_of_a_group_does_not_fail_for_the_others(
    store: Store, path: Path, tap: Tap
) -> None:
    def fail(sql: str, parameters: tuple[Any, ...]) -> None:
        if sql.startswith("INSERT OR REPLACE INTO ts_state") and parameters[2] == "b":
            raise sqlite3.OperationalError("no room for b")

    committers = Committers(store)
    tap.fail = fail
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                for key in "abc":
                    tasks.start_soon(committers.commit, key)
                await anyio.wait_all_tasks_blocked()
    assert sorted(committers.indexes) == ["a", "c"]
    assert sorted(committers.indexes.values()) == [2, 3]
    assert str(path) in str(committers.errors["b"])
    assert "no room for b" in str(committers.errors["b"])
    assert set(await state(store)) == {"first", "a", "c"}


async def test_a_transaction_that_cannot_be_ended_fails_for_all_with_one_error_each(
    store: Store, path: Path, tap: Tap
) -> None:
    def fail(sql: str, _: tuple[Any, ...]) -> None:
        if sql == COMMIT:
            raise sqlite3.OperationalError("disk I/O error")

    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                for key in "abc":
                    tasks.start_soon(committers.commit, key)
                await anyio.wait_all_tasks_blocked()
                tap.fail = fail
    assert sorted(committers.errors) == ["a", "b", "c"]
    assert len(set(map(id, committers.errors.values()))) == 3
    tap.fail = lambda _sql, _parameters: None
    assert await state(store) == {"first": 0}
    assert await store.commit([put("d")]) == 2


@pytest.mark.parametrize("count", [1, 3])
async def test_a_transaction_whose_end_fails_may_have_been_committed_and_the_error_says_so(
    store: Store, path: Path, tap: Tap, count: int
) -> None:
    """SQLite's log can hold all of it when the disk refuses to sync it; a process that is killed then leaves it."""

    def fail(sql: str, _: tuple[Any, ...]) -> None:
        if sql == COMMIT:
            raise sqlite3.OperationalError("disk I/O error")

    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                for key in "abc"[:count]:
                    tasks.start_soon(committers.commit, key)
                await anyio.wait_all_tasks_blocked()
                tap.fail = fail
    for error in committers.errors.values():
        assert str(path) in str(error)
        assert "disk I/O error" in str(error)
        assert isinstance(error, CommitUnknownError)
        assert "whether it was committed is not known" in str(error)
        assert isinstance(error.__cause__, sqlite3.OperationalError)
    assert len(committers.errors) == count


async def test_a_commit_that_is_cancelled_while_it_waits_is_taken_out_of_the_group(
    store: Store, path: Path
) -> None:
    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                tasks.start_soon(committers.commit, "a")
                await anyio.wait_all_tasks_blocked()
                async with anyio.create_task_group() as group:
                    for key in "bc":
                        group.start_soon(committers.commit, key)
                    await anyio.wait_all_tasks_blocked()
                    tasks.start_soon(committers.commit, "d")
                    await anyio.wait_all_tasks_blocked()
                    group.cancel_scope.cancel()
    assert set(await state(store)) == {"first", *committers.indexes}
    assert {"a", "d"} <= set(committers.indexes)
    assert sorted(committers.indexes.values()) == list(range(2, 2 + len(committers.indexes)))


async def test_when_the_task_that_writes_for_the_others_is_cancelled_one_of_them_goes_on(
    store: Store, path: Path
) -> None:
    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                async with anyio.create_task_group() as leader:
                    leader.start_soon(committers.commit, "a")
                    await anyio.wait_all_tasks_blocked()
                    for key in "bcd":
                        tasks.start_soon(committers.commit, key)
                    await anyio.wait_all_tasks_blocked()
                    leader.cancel_scope.cancel()
    assert sorted(committers.indexes) == ["b", "c", "d"]
    assert sorted(committers.indexes.values()) == [2, 3, 4]


async def test_a_commit_that_another_task_writes_is_made_and_returns_although_it_is_cancelled(
    store: Store, path: Path, tap: Tap
) -> None:
    """D12: "cancelled" means that it was not made."""
    committers = Committers(store)
    follower = anyio.CancelScope()

    async def follow() -> None:
        with follower:
            await committers.commit("b")

    both_wait, both_written = anyio.Event(), anyio.Event()
    attempts: list[str] = []  # since both wait; the first one may have begun before

    def watch(sql: str, _: object) -> None:
        if sql == "BEGIN IMMEDIATE" and both_wait.is_set():
            attempts.append(sql)
            if len(attempts) == 2:
                anyio.from_thread.run_sync(both_written.set)
        if sql == COMMIT:
            anyio.from_thread.run_sync(follower.cancel)

    tap.fail = watch
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with locked(path):
                tasks.start_soon(committers.commit, "a")
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                both_wait.set()
                await both_written.wait()
    assert committers.indexes == {"a": 2, "b": 3}
    assert set(await state(store)) == {"first", "a", "b"}


@pytest.mark.parametrize("attempt", [2, 4])  # of those since both wait
async def test_a_commit_that_another_task_cannot_write_is_cancelled_at_once(
    path: Path, tap: Tap, attempt: int
) -> None:
    """A lock is waited for in short attempts, between which each call can be cancelled."""
    both_wait, is_out = anyio.Event(), anyio.Event()
    follower = anyio.CancelScope()
    attempts: list[str] = []

    def watch(sql: str, _: object) -> None:
        if sql == "BEGIN IMMEDIATE" and both_wait.is_set():
            attempts.append(sql)
            if len(attempts) == attempt:
                anyio.from_thread.run_sync(follower.cancel)

    async with open_at(path, busy_timeout=1e6) as store:
        committers = Committers(store)

        async def follow() -> None:
            with follower:
                await committers.commit("b")
            is_out.set()

        with anyio.fail_after(PATIENCE), locked(path):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(committers.commit, "a")
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                tap.fail = watch
                both_wait.set()
                await is_out.wait()
                tasks.cancel_scope.cancel()
        assert follower.cancelled_caught
        assert (committers.indexes, committers.errors) == ({}, {})
        assert await store.commit([put("c")]) == 1


@on_asyncio
async def test_a_commit_that_comes_back_into_the_line_has_not_forgotten_that_it_was_cancelled(
    store: Store, path: Path
) -> None:
    committers = Committers(store)
    with anyio.fail_after(PATIENCE), locked(path):
        leader = asyncio.ensure_future(committers.commit("a"))
        await anyio.wait_all_tasks_blocked()
        follower = asyncio.ensure_future(committers.commit("b"))
        await anyio.wait_all_tasks_blocked()
        follower.cancel()
        await asyncio.wait([follower])  # although nothing can be written
        leader.cancel()
        await asyncio.wait([leader])
    assert follower.cancelled()
    assert await state(store) == {"first": 0}


@on_asyncio
async def test_a_native_cancel_when_there_are_no_threads_left_makes_no_commit_twice(
    store: Store, path: Path, tap: Tap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes goes on; what would wait for it in another thread cannot begin."""
    has_failed = threading.Event()
    run_sync = anyio.to_thread.run_sync
    committers = Committers(store)
    leaders: list[asyncio.Task[None]] = []

    async def refuse(*_: Any, **__: Any) -> Any:
        monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)
        has_failed.set()
        raise RuntimeError("can't start new thread")

    def cancel_leader() -> None:
        monkeypatch.setattr(anyio.to_thread, "run_sync", refuse)
        leaders[0].cancel()

    def watch(sql: str, _: object) -> None:
        if sql == COMMIT and not has_failed.is_set():
            anyio.from_thread.run_sync(cancel_leader)
            assert has_failed.wait(PATIENCE)

    with anyio.fail_after(PATIENCE):
        with locked(path):
            leaders.append(asyncio.ensure_future(committers.commit("a")))
            await anyio.wait_all_tasks_blocked()
            others = [asyncio.ensure_future(committers.commit(key)) for key in "bc"]
            await anyio.wait_all_tasks_blocked()
            tap.fail = watch
        await asyncio.wait([*leaders, *others])
    assert has_failed.is_set()
    assert leaders[0].cancelled()
    assert sorted(committers.indexes) == ["b", "c"]
    assert committers.errors == {}
    assert (await store.head()).index == len(await state(store)) == 4


async def test_each_waits_for_the_lock_for_its_own_time(path: Path, tap: Tap) -> None:
    async with open_at(path, busy_timeout=0.2) as store:
        committers = Committers(store)
        with anyio.fail_after(PATIENCE), locked(path):
            async with anyio.create_task_group() as tasks:
                for key in "abc":
                    tasks.start_soon(committers.commit, key)
        assert {type(error) for error in committers.errors.values()} <= {
            StoreError,
            *StoreError.__subclasses__(),
        }
        assert len(committers.errors) == 3
        assert all("locked by another process" in str(error) for error in committers.errors.values())
        assert await store.commit([put("d")]) == 1


async def test_the_time_that_others_take_to_write_is_no_waiting_for_the_lock(path: Path, tap: Tap) -> None:
    in_line = threading.Event()
    refusals: list[str] = []

    def fail(sql: str, _: object) -> None:
        if sql == COMMIT and not in_line.is_set():
            assert in_line.wait(PATIENCE)
            time.sleep(0.1)  # stands for a slow disk: twice as long as `busy_timeout`
        elif sql == "BEGIN IMMEDIATE" and in_line.is_set() and not refusals:
            refusals.append(sql)
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error

    async with open_at(path, busy_timeout=0.05) as store:
        committers = Committers(store)
        tap.fail = fail
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(committers.commit, "a")
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(committers.commit, "b")
                await anyio.wait_all_tasks_blocked()
                in_line.set()
    assert len(refusals) == 1
    assert (committers.indexes, committers.errors) == ({"a": 1, "b": 2}, {})


@on_asyncio
async def test_a_native_cancel_of_the_task_that_writes_leaves_the_others_their_outcome(
    store: Store, path: Path
) -> None:
    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        with locked(path):
            leader = asyncio.ensure_future(committers.commit("a"))
            await anyio.wait_all_tasks_blocked()
            others = [asyncio.ensure_future(committers.commit(key)) for key in "bc"]
            await anyio.wait_all_tasks_blocked()
            leader.cancel()
            await anyio.wait_all_tasks_blocked()
        await asyncio.wait([leader, *others])
    assert leader.cancelled()
    assert {"b", "c"} <= set(committers.indexes)
    kept = await state(store)
    assert {"b", "c"} <= set(kept)
    assert len(kept) - 1 == (await store.head()).index - 1


@on_asyncio
async def test_a_native_cancel_of_a_task_that_is_written_for_is_not_forgotten(
    store: Store, path: Path
) -> None:
    committers = Committers(store)
    with anyio.fail_after(PATIENCE):
        with locked(path):
            tasks = [asyncio.ensure_future(committers.commit(key)) for key in "abc"]
            await anyio.wait_all_tasks_blocked()
            tasks[2].cancel()
        await asyncio.wait(tasks)
    assert tasks[2].cancelled()
    assert {"a", "b"} <= set(committers.indexes)
    assert len(await state(store)) == (await store.head()).index
