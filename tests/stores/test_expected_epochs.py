"""U12, as far as indexes go: an index that was read before a restore says nothing about the value that is there now."""

import copy as copying
import json
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from stores.storehouse import copy, open_at, put

from trio_stream.stores import ConflictError, Entry, Name, Store

pytestmark = pytest.mark.anyio

A = Name("jobs", "a")


def restore(source: Path, target: Path) -> None:
    """As `sqlite3 target ".restore source"` does it, and no store is told."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


async def restored(store: Store, path: Path, tmp_path: Path) -> tuple[Entry, int]:
    """What was read of "a", and the index of its commit, before another value came to have the same index."""
    await store.commit([put("other")])
    older = copy(path, tmp_path / "older.db")
    index = await store.commit([put("a", "read")])
    entry = await store.get("jobs", "a")
    assert entry is not None
    restore(older, path)
    async with open_at(path) as elsewhere:
        assert await elsewhere.commit([put("a", "never read")]) == index == entry.index
    return entry, index


@pytest.mark.parametrize("is_noticed", [False, True])
async def test_a_value_that_was_never_read_is_not_overwritten(
    store: Store, path: Path, tmp_path: Path, is_noticed: bool
) -> None:
    entry, index = await restored(store, path, tmp_path)
    if is_noticed:
        await store.head()
    for expected in (entry.index, index):
        with pytest.raises(ConflictError, match="of another epoch") as caught:
            await store.commit([put("a", "mine")], expect={A: expected})
        assert (caught.value.name, caught.value.expected, caught.value.actual) == (A, 2, 2)
    now = await store.get("jobs", "a")
    assert now == Entry("never read", 2)
    assert now is not None
    assert await store.commit([put("a", "mine")], expect={A: now.index}) == 3


async def test_a_plain_index_is_of_the_epoch_that_the_store_knew(
    store: Store, path: Path, tmp_path: Path
) -> None:
    await restored(store, path, tmp_path)
    with pytest.raises(ConflictError, match="of another epoch"):
        await store.commit([put("a", "mine")], expect={A: 2})


async def test_an_index_out_of_a_list_is_guarded_too(store: Store, path: Path, tmp_path: Path) -> None:
    await store.commit([put("other")])
    older = copy(path, tmp_path / "older.db")
    await store.commit([put("a", "read")])
    async with store.list("jobs") as entries:
        listed = {key: entry.index async for key, entry in entries}
    restore(older, path)
    async with open_at(path) as elsewhere:
        await elsewhere.commit([put("a", "never read")])
    await store.head()
    with pytest.raises(ConflictError, match="of another epoch"):
        await store.commit([put("a", "mine")], expect={A: listed["a"]})


async def test_that_a_name_must_not_exist_holds_in_every_epoch(
    store: Store, path: Path, tmp_path: Path
) -> None:
    await restored(store, path, tmp_path)
    assert await store.commit([put("b")], expect={Name("jobs", "b"): 0}) == 3


async def test_an_index_is_a_number_like_any_other(store: Store) -> None:
    index = await store.commit([put("a")])
    assert (index, repr(index), json.dumps(index), hash(index)) == (1, "1", "1", hash(1))
    assert index + 1 == 2
    copies = [copying.copy(index), copying.deepcopy(index), pickle.loads(pickle.dumps(index))]
    for key, again in zip("bcd", copies, strict=True):
        await store.commit([put(key)], expect={A: again})
    assert await store.commit([put("a")], expect={A: index}) == 5
