"""What a store in a file says of itself: its topics, some of its keys, how large it is."""

import sys
from pathlib import Path

import pytest
from stores.storehouse import put, sql

from trio_stream.stores import Delete, Put
from trio_stream.stores.sqlite import SQLiteStore, open_sqlite_store

pytestmark = pytest.mark.anyio

KEYS = [
    "a",
    "ab",
    "abc",
    "ac",
    "b",
    "é",
    "\ud7ff",
    "\ud7ffx",
    "\ue000",
    *(chr(sys.maxunicode) * n for n in (1, 2)),
]


def size(path: Path | str) -> int:
    return Path(path).stat().st_size


async def keys(store: SQLiteStore, prefix: str, namespace: str = "default") -> list[str]:
    async with store.list("jobs", prefix=prefix, namespace=namespace) as entries:
        return [key async for key, _ in entries]


async def test_topics_are_those_that_have_a_key_in_order(path: Path) -> None:
    async with open_sqlite_store(str(path)) as store:
        assert list(await store.topics()) == []
        await store.commit(
            [Put("jobs", "a", 1), Put("jobs", "b", 1), Put("Jobs", "a", 1, "other"), Put("é", "a", 1)]
        )
        assert list(await store.topics()) == ["Jobs", "jobs", "é"]
        await store.commit([Delete("jobs", "a"), Delete("jobs", "b")])
        assert list(await store.topics()) == ["Jobs", "é"]


@pytest.mark.parametrize("prefix", ["", *KEYS, "z", "\ud7ff\ud7ff", "a" * 300])
async def test_a_prefix_chooses_the_keys_that_begin_with_it(path: Path, prefix: str) -> None:
    async with open_sqlite_store(str(path)) as store:
        await store.commit([put(key) for key in KEYS])
        await store.commit([Put("jobs", "another", 1, "other"), Put("other", "another", 1)])
        assert await keys(store, prefix) == [key for key in sorted(KEYS) if key.startswith(prefix)]
        assert await keys(store, "an", "other") == ["another"]


async def test_sizes_are_those_of_the_files_and_the_log(path: Path) -> None:
    async with open_sqlite_store(str(path)) as store:
        for number in range(3):
            await store.commit([put(f"{number}", "x" * 10_000)])
        sizes = await store.sizes()
        assert sizes.commits == 3
        assert sizes.write_ahead_log == size(f"{path}-wal") > 30_000
        sql(path, "PRAGMA wal_checkpoint(PASSIVE)")
        await store.compact(2)
        sizes = await store.sizes()
        assert sizes.commits == 1
        assert sizes.file == size(path) > 30_000


async def test_a_write_ahead_log_that_has_become_large_becomes_small_again(path: Path) -> None:
    async with open_sqlite_store(str(path)) as store:
        await store.commit([put("a", "x" * 20_000_000)])
        assert (await store.sizes()).write_ahead_log > 20_000_000
        for _ in range(3):
            await store.commit([put("a")])
        assert (await store.sizes()).write_ahead_log <= 16 << 20
