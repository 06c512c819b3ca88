"""A commit with `if_changed` leaves out what would change nothing, and is none if nothing is left."""

import anyio
import pytest
from stores.storehouse import put

from trio_stream.stores import JSON, ConflictError, Delete, EpochIndex, Name, Put, Revoke, Store

pytestmark = pytest.mark.anyio


async def test_nothing_left_is_no_commit_and_returns_the_newest_index(store: Store) -> None:
    await store.commit([put("a", {"x": [1, None]})])
    newest = await store.commit([put("b")])
    index = await store.commit([put("a", {"x": [1, None]}), Delete("jobs", "missing")], if_changed=True)
    assert isinstance(index, EpochIndex)
    assert isinstance(newest, EpochIndex)
    assert index.cursor == newest.cursor == (await store.head()).cursor


async def test_a_store_without_commits_returns_0(store: Store) -> None:
    assert await store.commit([Delete("jobs", "a")], if_changed=True) == 0


async def test_what_changes_something_is_committed_without_the_rest(store: Store) -> None:
    await store.commit([put("a", 1), put("b", 1)])
    assert await store.commit([put("a", 1), put("b", 2), Delete("jobs", "c")], if_changed=True) == 2
    async with store.changes(1) as commits:
        assert (await anext(commits)).operations == (put("b", 2),)
    entry = await store.get("jobs", "a")
    assert entry is not None
    assert entry.index == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, True),
        (1, 1.0),
        (0, False),
        (0.0, -0.0),
        (None, 0),
        ("1", 1),
        ([1, 2], [2, 1]),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"a": 1}, {"a": 1.0}),
        ([{"a": 12}], [{"b": 12}]),
    ],
)
async def test_values_that_are_written_differently_differ(store: Store, before: JSON, after: JSON) -> None:
    await store.commit([put("a", before)])
    assert await store.commit([put("a", after)], if_changed=True) == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 1, "b": {"c": 2, "d": "é"}}, {"b": {"d": "é", "c": 2}, "a": 1}),
        ((1, 2), [1, 2]),
        (1e2, 100.0),
    ],
)
async def test_values_that_are_equal_as_json_are_equal(store: Store, before: JSON, after: JSON) -> None:
    await store.commit([put("a", before)])
    assert await store.commit([put("a", after)], if_changed=True) == 1


async def test_to_finish_a_key_changes_something(store: Store) -> None:
    await store.commit([put("a", 1)])
    assert await store.commit([Put("jobs", "a", 1, final=True)], if_changed=True) == 2


async def test_a_revocation_always_changes_something(store: Store) -> None:
    await store.commit([Revoke("x")])
    assert await store.commit([Revoke("x")], if_changed=True) == 2


async def test_expectations_hold_even_where_nothing_would_change(store: Store) -> None:
    await store.commit([put("a", 1)])
    with pytest.raises(ConflictError):
        await store.commit([put("a", 1)], expect={Name("jobs", "a"): 0}, if_changed=True)


async def test_tasks_that_share_a_transaction_see_what_the_others_have_put(store: Store) -> None:
    indexes: list[int] = []

    async def commit() -> None:
        indexes.append(await store.commit([put("a", 1)], if_changed=True))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(commit)
    assert indexes == [1] * 20
