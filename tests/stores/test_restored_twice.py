"""A copy that is put back a second time comes with the epoch of its first life, which others have seen more of.

Each process remembers the farthest commit of every epoch that it knows.
"""

import shutil
from pathlib import Path

import pytest
from stores.storehouse import commit_each, copy, open_at, sql, state, take

from trio_stream.stores import HistoryLostError, Store

pytestmark = pytest.mark.anyio


def put_back(older: Path, path: Path) -> None:
    """Moves a copy of the copy to the place of the file."""
    shutil.copy(older, older.with_suffix(".again"))
    older.with_suffix(".again").replace(path)


async def test_a_copy_that_comes_back_a_second_time_gets_a_new_epoch_again(
    store: Store, path: Path, tmp_path: Path
) -> None:
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    epochs = [(await store.head()).epoch]
    for life in range(4):
        await commit_each(store, f"b{life}", f"c{life}")
        put_back(older, path)
        epochs.append((await store.head()).epoch)
        assert set(await state(store)) == {"a"}
    assert len(set(epochs)) == 5


async def test_a_reader_of_the_first_life_is_told_in_the_second(
    store: Store, path: Path, tmp_path: Path
) -> None:
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    first = (await store.head()).epoch
    await commit_each(store, "b", "c")
    put_back(older, path)
    await commit_each(store, "other")
    put_back(older, path)
    await commit_each(store, "b2", "c2", "d2")
    assert (await store.head()).epoch != first
    async with store.changes(1) as commits:
        assert await take(commits, 3) == [2, 3, 4]


async def test_the_newer_file_may_come_back(store: Store, path: Path, tmp_path: Path) -> None:
    """It has all that was seen of its epoch."""
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    first = (await store.head()).epoch
    await commit_each(store, "b")
    newer = copy(path, tmp_path / "newer.db")
    put_back(older, path)
    assert (await store.head()).epoch != first
    put_back(newer, path)
    assert (await store.head()).epoch == first
    assert set(await state(store)) == {"a", "b"}
    put_back(older, path)
    assert (await store.head()).epoch != first


async def test_a_process_that_may_only_read_notices_it_too(path: Path, tmp_path: Path) -> None:
    async with open_at(path) as store:
        await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    async with open_at(path) as store:
        await commit_each(store, "b")
    newer = copy(path, tmp_path / "newer.db")
    another = tmp_path / "another.db"
    async with open_at(another) as store:
        await commit_each(store, "x")
    epochs = []
    async with open_at(path, read_only=True) as reader:
        for file in (newer, another, older, another, older):
            put_back(file, path)
            epochs.append((await reader.head()).epoch)
            assert await state(reader) != {}
    assert epochs[0] != epochs[2]
    assert epochs[1] == epochs[3]
    assert epochs[2] == epochs[4]  # the same older copy, and nothing more was seen of it
    assert sql(path, "SELECT epoch FROM ts_head") == [(epochs[0],)]


async def test_a_cursor_of_the_first_life_is_refused_in_the_second(
    store: Store, path: Path, tmp_path: Path
) -> None:
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    await commit_each(store, "b")
    cursor = (await store.head()).cursor
    for _ in range(2):
        put_back(older, path)
        await commit_each(store, "other", "and more")
        with pytest.raises(HistoryLostError):
            async with store.changes(cursor):
                pass
