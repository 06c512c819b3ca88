"""A commit that is read says what each of its operations has replaced."""

from pathlib import Path

import anyio
import pytest
from stores.storehouse import open_at, put, sql

from trio_stream.stores import JSON, Change, Commit, Delete, Put, Store

pytestmark = pytest.mark.anyio


async def last(store: Store) -> Commit:
    """The newest commit."""
    async with store.changes((await store.head()).index - 1) as commits:
        return await anext(commits)


def replaced(change: Change) -> tuple[bool, JSON]:
    return change.replaces, change.previous


async def test_a_put_says_what_was_there(store: Store) -> None:
    await store.commit([put("a", {"n": 1})])
    assert [replaced(each) for each in (await last(store)).operations] == [(False, None)]
    await store.commit([put("a", 2)])
    assert [replaced(each) for each in (await last(store)).operations] == [(True, {"n": 1})]


async def test_a_null_that_was_there_is_told_from_nothing(store: Store) -> None:
    await store.commit([put("a", None)])
    await store.commit([put("a", 1), put("b", 1)])
    assert [replaced(each) for each in (await last(store)).operations] == [(True, None), (False, None)]


async def test_a_delete_says_what_is_gone(store: Store) -> None:
    await store.commit([put("a", [1])])
    await store.commit([Delete("jobs", "a")])
    assert [replaced(each) for each in (await last(store)).operations] == [(True, [1])]


async def test_a_delete_of_a_missing_key_is_left_out_and_the_commit_counts(store: Store) -> None:
    assert await store.commit([Delete("jobs", "a")]) == 1
    assert (await last(store)).operations == ()
    assert await store.commit([Delete("jobs", "a"), put("b")]) == 2
    assert (await last(store)).operations == (put("b"),)


async def test_of_several_operations_on_a_name_only_the_last_is_there(store: Store) -> None:
    await store.commit([put("a", 0), put("c", 0)])
    await store.commit([put("a", 1), put("b"), put("a", 2), Delete("jobs", "c"), put("c", 3)])
    operations = (await last(store)).operations
    assert operations == (put("b"), put("a", 2), put("c", 3))
    assert [replaced(each) for each in operations] == [(False, None), (True, 0), (True, 0)]


async def test_a_key_that_a_commit_makes_and_deletes_was_never_there(store: Store) -> None:
    await store.commit([put("a"), Delete("jobs", "a")])
    assert (await last(store)).operations == ()
    assert await store.get("jobs", "a") is None


async def test_commits_that_share_a_transaction_see_each_other(store: Store) -> None:
    async with anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(store.commit, [put("a", n)])
    async with store.changes(0) as commits:
        found = [(await anext(commits)).operations[0] for _ in range(20)]
    assert [change.previous for change in found[1:]] == [
        change.value for change in found[:-1] if isinstance(change, Put)
    ]


async def test_names_are_told_apart_in_a_large_commit(store: Store) -> None:
    """Its old values are read many at a time."""
    names = [
        (topic, f"{n}", space) for n in range(100) for topic in ("jobs", "users") for space in ("x", "y")
    ]
    await store.commit([Put(topic, key, [topic, key, space], space) for topic, key, space in names])
    missing = [Put("jobs", f"new{n}", 0, "x") for n in range(300)]
    await store.commit([*missing, *(Put(topic, key, 0, space) for topic, key, space in reversed(names))])
    operations = (await last(store)).operations
    assert len(operations) == 700
    assert not any(change.replaces for change in operations[:300])
    assert [change.previous for change in operations[300:]] == [list(name) for name in reversed(names)]


async def test_a_value_that_is_damaged_can_be_overwritten(path: Path) -> None:
    async with open_at(path) as store:
        await store.commit([put("a", 1)])
    sql(path, "UPDATE ts_state SET value = CAST(x'ff' AS TEXT)")
    async with open_at(path) as store:
        await store.commit([put("a", 2)])
        assert [replaced(each) for each in (await last(store)).operations] == [(False, None)]
        entry = await store.get("jobs", "a")
    assert entry is not None
    assert entry.value == 2
