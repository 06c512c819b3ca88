"""Cancelling a call: what was done is whole or absent, and the store goes on."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from interruptions import after, in_scope, in_task, on_asyncio
from stores.storehouse import ALL_JOBS, JOBS, Sink, commit_each, open_at, put, state, take

from trio_stream import ALL, SubscribeRequest
from trio_stream.stores import Store

pytestmark = pytest.mark.anyio

STEPS = range(12)  # turns of the loop before the cancellation; a call takes two or three


async def test_a_commit_that_was_cancelled_was_not_made_and_one_that_was_made_returns(store: Store) -> None:
    made = 0
    for steps in STEPS:
        commit = partial(store.commit, [put(f"{steps}"), put("all", steps)])
        made += not await in_scope(commit, after(steps))
        assert (await store.head()).index == made
    kept = await state(store)
    assert len(kept) == made + bool(made)


async def test_a_commit_that_waits_for_a_lock_can_be_cancelled_and_was_not_made(
    store: Store, path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert await in_scope(lambda: store.commit([put("a")]), after(3))
    assert await state(store) == {}
    assert await store.commit([put("b")]) == 1


async def test_a_commit_that_waits_for_another_commit_can_be_cancelled(store: Store, path: Path) -> None:
    indexes: list[int] = []

    async def commit() -> None:
        indexes.append(await store.commit([put("a")]))

    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit)
            await anyio.wait_all_tasks_blocked()
            assert await in_scope(lambda: store.commit([put("b")]), after(3))
            holder.execute("ROLLBACK")
    assert indexes == [1]
    assert await state(store) == {"a": "x"}


@pytest.mark.parametrize("namespace", ["default", ALL], ids=str)
async def test_a_cancelled_snapshot_leaves_the_store_as_it_was(store: Store, namespace: Any) -> None:
    await store.commit([put(f"{n}") for n in range(3000)])
    for steps in STEPS:
        await in_scope(
            lambda: store.snapshot(SubscribeRequest(JOBS, namespace=namespace), Sink()), after(steps)
        )
    assert await store.commit([put("a")]) == 2
    assert len(await state(store)) == 3001


async def test_a_cancelled_step_of_the_changes_loses_nothing(store: Store, other: Store) -> None:
    seen: list[int] = []
    async with store.changes(0) as commits:

        async def step() -> None:
            seen.append((await anext(commits)).index)

        for steps in (*STEPS, *STEPS):
            await in_scope(step, after(steps))
            await commit_each(other, "a")
            await in_scope(step, after(steps))
        seen += await take(commits, 2 * len(STEPS) - len(seen))
    assert seen == list(range(1, 2 * len(STEPS) + 1))


@on_asyncio
class TestNativeCancel:
    """`Task.cancel()` does not wait for the thread: the store must bear that a call of it is still at work."""

    async def test_a_commit_is_whole_or_absent(self, store: Store) -> None:
        for steps in STEPS:
            commit = partial(store.commit, [put(f"a{steps}", steps), put(f"b{steps}", steps)])
            await in_task(commit, after(steps))
        index = await store.commit([put("end")])
        kept = await state(store)
        assert {key[1:] for key in kept if key[0] == "a"} == {key[1:] for key in kept if key[0] == "b"}
        async with store.changes(0) as commits:
            assert await take(commits, index) == list(range(1, index + 1))

    async def test_a_commit_whose_thread_waits_for_a_lock_leaves_the_connection_usable(
        self, store: Store, path: Path
    ) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            task = asyncio.ensure_future(store.commit([put("a")]))
            await anyio.wait_all_tasks_blocked()
            task.cancel()
            await asyncio.wait([task])
        index = await store.commit([put("b")])
        assert len(await state(store)) == index

    async def test_a_scan_loses_no_rows_and_leaves_no_connection(self, store: Store) -> None:
        expected = [f"{n:04}" for n in range(3000)]
        await store.commit([put(key) for key in expected])
        for steps in STEPS:
            keys: list[str] = []
            async with store.list("jobs") as entries:

                async def step(
                    keys: list[str] = keys, entries: AsyncIterator[tuple[str, object]] = entries
                ) -> None:
                    keys.append((await anext(entries))[0])

                while len(keys) < len(expected):
                    if await in_task(step, after(steps)):
                        await step()
            assert keys == expected
            await in_task(lambda: store.snapshot(ALL_JOBS, Sink()), after(steps))

    async def test_a_store_that_is_cancelled_while_it_closes_is_closed_all_the_same(self, path: Path) -> None:
        """D13: SQLite takes its log away with the last connection."""
        log = path.with_name(f"{path.name}-wal")
        for steps in STEPS:
            leaving = anyio.Event()

            async def use(leaving: anyio.Event = leaving) -> None:
                async with open_at(path) as store:
                    await store.commit([put("a")])
                    leaving.set()

            task = asyncio.ensure_future(use())
            await leaving.wait()
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert not log.exists()

    async def test_changes_lose_nothing(self, store: Store, other: Store) -> None:
        seen: list[int] = []
        async with store.changes(0) as commits:

            async def step() -> None:
                seen.append((await anext(commits)).index)

            for steps in STEPS:
                await in_task(step, after(steps))
                await commit_each(other, "a")
            seen += await take(commits, len(STEPS) - len(seen))
        assert seen == list(range(1, len(STEPS) + 1))
