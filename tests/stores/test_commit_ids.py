"""A commit with an id may be asked for again: it is made once."""

from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest
from stores.storehouse import commit_each, open_at, put, sql, state

from trio_stream.stores import ConflictError, Delete, EpochIndex, Name, Store

pytestmark = pytest.mark.anyio

ID = UUID("6ecd8c99-4036-403d-bf84-cf8400f67836")


async def test_the_second_one_does_nothing_and_returns_the_index_of_the_first(store: Store) -> None:
    first = await store.commit([put("a")], id=ID)
    await commit_each(store, "b")
    again = await store.commit([Delete("jobs", "b")], id=ID)
    assert (again, (await store.head()).index) == (first, 2)
    assert set(await state(store)) == {"a", "b"}


async def test_it_has_the_mark_of_the_first(store: Store) -> None:
    first = await store.commit([put("a")], id=ID)
    await commit_each(store, "b")
    again = await store.commit([put("a")], id=ID)
    assert isinstance(first, EpochIndex)
    assert isinstance(again, EpochIndex)
    assert again.cursor == first.cursor


async def test_expectations_of_the_second_one_are_not_looked_at(store: Store) -> None:
    options = {"expect": {Name("jobs", "a"): 0}, "id": ID}
    assert await store.commit([put("a")], **options) == 1  # type: ignore[arg-type]
    assert await store.commit([put("a")], **options) == 1  # type: ignore[arg-type]


async def test_an_id_of_a_commit_that_was_refused_is_free(store: Store) -> None:
    with pytest.raises(ConflictError):
        await store.commit([put("a")], expect={Name("jobs", "a"): 7}, id=ID)
    assert await store.commit([put("a")], id=ID) == 1


async def test_tasks_that_share_a_transaction_make_it_once(store: Store) -> None:
    indexes: list[EpochIndex] = []

    async def commit(id_: UUID) -> None:
        index = await store.commit([put(str(id_))], id=id_)
        assert isinstance(index, EpochIndex)
        indexes.append(index)

    ids = [uuid4() for _ in range(10)]
    async with anyio.create_task_group() as tasks:
        for id_ in ids * 3:
            tasks.start_soon(commit, id_)
    assert sorted(indexes) == sorted([*range(1, 11)] * 3)
    assert len({index.cursor for index in indexes}) == 10
    assert (await store.head()).index == 10


async def test_another_process_knows_the_id(store: Store, path: Path) -> None:
    await store.commit([put("a")], id=ID)
    async with open_at(path) as other:
        assert await other.commit([put("b")], id=ID) == 1


async def test_an_id_is_remembered_for_ten_minutes_even_if_the_log_is_not(store: Store, path: Path) -> None:
    await store.commit([put("a")], id=ID)
    await commit_each(store, "b")
    await store.compact(2)
    assert await store.commit([put("a")], id=ID) == 1
    sql(path, f"UPDATE ts_ids SET at = at - {timedelta(minutes=11).total_seconds()}")
    await store.compact(2)
    assert await store.commit([put("a")], id=ID) == 3


async def test_an_id_is_remembered_as_long_as_the_log(store: Store, path: Path) -> None:
    await commit_each(store, "b")
    await store.commit([put("a")], id=ID)
    sql(path, "UPDATE ts_ids SET at = 0")
    await store.compact(1)
    assert await store.commit([put("a")], id=ID) == 2


async def test_an_id_is_a_uuid(store: Store) -> None:
    with pytest.raises(TypeError, match="UUID"):
        await store.commit([put("a")], id="6ecd8c99")  # type: ignore[arg-type]
