"""The file is locked for seconds by somebody else: writers wait or say so, and nothing is lost or made twice."""

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from evidence import count
from faults.following import caught_up, log, reading
from proof import IS_PROOF
from stores.storehouse import ALL_JOBS, open_at, put, state

from trio_stream.stores import Store, StoreError, open_store_publisher
from trio_stream.testing import collect

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SECONDS = 2.0 if IS_PROOF else 0.4  # that the file stays locked


async def test_while_writers_wait_for_a_lock_everybody_else_goes_on(store: Store, path: Path) -> None:
    """Reads, snapshots, subscribers and cancellation; then each commit is made once, and the cancelled one is not."""
    made: dict[str, int] = {}

    async def write(key: str) -> None:
        made[key] = await store.commit([put(key, key)])

    await store.commit([put("first", "first")])
    async with (
        open_at(path) as other,
        open_store_publisher(store, ["jobs"], snapshot_cache_ttl=0) as publisher,
        reading(publisher) as reader,
    ):
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                for key in "abc":
                    tasks.start_soon(write, key)
                with anyio.move_on_after(SECONDS) as impatient:
                    await other.commit([put("never")])
                assert impatient.cancelled_caught
                assert made == {}
                assert (await store.head()).index == 1
                assert await state(other) == {"first": "first"}
                async with publisher.subscribe(ALL_JOBS) as subscription:
                    assert [event.index for event in await collect(subscription)] == [1, 1]
                holder.execute("ROLLBACK")
        assert sorted(made.values()) == [2, 3, 4]
        assert await caught_up(publisher, store) == 4
        await anyio.wait_all_tasks_blocked()
    assert await state(store) == {"first": "first", **{key: key for key in "abc"}}
    reader.check({(await store.head()).epoch: await log(store)})
    count("fault", "the file locked while writers wait: everybody else goes on, each commit is made once")


async def test_a_lock_that_outlasts_the_patience_is_an_error_of_writers_only(
    store: Store, path: Path
) -> None:
    refused = 0
    async with (
        open_at(path, busy_timeout=0.2) as impatient,
        open_store_publisher(impatient, ["jobs"]) as publisher,
        reading(publisher) as reader,
    ):
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            for n in range(3):
                with pytest.raises(StoreError, match="locked by another process"):
                    await impatient.commit([put(f"{n}")])
                refused += 1
                assert (await impatient.head()).index == 0
        assert await impatient.commit([put("a")]) == 1
        assert await caught_up(publisher, store) == 1
        assert refused == 3
    assert reader.ends == []
    count(
        "fault",
        "the file locked for longer than a writer waits: a `StoreError` for it, nothing for readers",
        refused,
    )


async def test_whoever_holds_the_lock_may_commit_and_is_then_followed(store: Store, path: Path) -> None:
    """Another process in the middle of a long transaction: what it does comes first, and is seen whole."""
    async with open_store_publisher(store, ["jobs"]) as publisher, reading(publisher) as reader:
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            indexes: list[int] = []

            async def write() -> None:
                indexes.append(await store.commit([put("b", "b")]))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                operations = '[["put","jobs","default","a","a"]]'
                holder.execute("INSERT INTO ts_log VALUES (1, randomblob(8), ?, 0, '')", (operations,))
                holder.execute("INSERT INTO ts_state VALUES ('jobs', 'default', 'a', '\"a\"', 1, 0)")
                await anyio.wait_all_tasks_blocked()
                assert (await store.head()).index == 0
                holder.execute("UPDATE ts_head SET idx = 1")
                holder.execute("COMMIT")
        assert indexes == [2]
        assert await caught_up(publisher, store) == 2
    reader.check({(await store.head()).epoch: await log(store)})
    count("fault", "the file locked by a long transaction of another process: that comes first, and whole")
