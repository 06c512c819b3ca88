"""Replays from a log that can only be followed: pages are bounded, in events and in bytes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from stores.engines import Stepping
from stores.readers import cursors, until_index
from stores.storehouse import ALL_JOBS, put
from typing_extensions import override

from trio_stream.stores import Commit, Delete, Operation, Put, Store, open_store_publisher

pytestmark = pytest.mark.anyio

LONG = 400_000  # characters, or items
LARGE: dict[str, Any] = {
    "text": "x" * LONG,
    "list": [1] * (LONG // 8),
    "nested": [[[{"a": ["x" * (LONG // 4)] * 4}]]],
    "keys": {"x" * LONG: None},
    "many keys": {f"{number:08}": None for number in range(LONG // 8)},
}


class Counting(Stepping):
    """How many commits were taken each time the changes were entered."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.taken: list[int] = []

    @override
    def enter(self, after: int) -> None:
        self.taken.append(0)

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        commit = await anext(commits)
        self.taken[-1] += 1
        return commit


async def pages(store: Store) -> list[int]:
    """How many commits there are in each page of a replay of all but the first commit."""
    engine = Counting(store)
    async with open_store_publisher(engine, ["jobs"], history=1) as publisher:
        first, *_, last = await cursors(store)
        await store.commit([put("last")])
        await until_index(publisher, last.index + 1)
        engine.taken.clear()
        async with publisher.subscribe(ALL_JOBS.after(first)) as subscription:
            events = await subscription.receive_until_current()
        assert [event.index for event in events] == [*range(first.index + 1, last.index + 2)]
    return engine.taken


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE.keys())
async def test_a_page_ends_when_it_has_a_mebibyte(store: Store, value: Any) -> None:
    """With the commit that makes it so many."""
    for number in range(10):
        await store.commit([put(f"{number}", value)])
    taken = await pages(store)
    assert max(taken) <= 3
    assert sum(taken) >= 9


async def test_what_a_commit_replaces_counts_as_well(store: Store) -> None:
    operations: list[Operation] = [put("a", LARGE["text"]), Delete("jobs", "a")]
    for number in range(10):
        await store.commit([operations[number % 2]])
    taken = await pages(store)
    assert max(taken) <= 3
    assert sum(taken) >= 9


async def test_what_is_about_other_topics_costs_nothing(store: Store) -> None:
    for number in range(10):
        await store.commit([Put("users", f"{number}", LARGE["text"]), put(f"{number}")])
    assert max(await pages(store)) >= 9


async def test_a_commit_that_is_more_than_a_page_makes_one(store: Store) -> None:
    for number in range(3):
        await store.commit([put(f"{number}-{part}", LARGE["text"]) for part in range(4)])
    assert max(await pages(store)) == 1
