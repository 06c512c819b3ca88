"""A commit that revokes very many tokens: they are closed in portions, and nobody sees anything in between.

D15: the loop has its turn after each portion. D9, D20: it is as if all of it were done at once.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest
from stores.clocks import until
from stores.readers import end_of, until_index
from stores.storehouse import JOBS, commit_each, kinds, put, receive, until_live
from testing.memory_store import Disk, MemoryStore
from typing_extensions import override

from trio_stream import CloseReason, Cursor, EventPublisher, SubscribeRequest, Subscription
from trio_stream.stores import Head, Operation, Record, Revoke, Store, open_store_publisher

pytestmark = pytest.mark.anyio

MANY = 4_000
TOKENS = [f"{number}" for number in range(MANY)]


def of(token: str) -> SubscribeRequest[Record]:
    return SubscribeRequest(JOBS, token=token)


@pytest.fixture
def store() -> Store:
    return MemoryStore(Disk())


async def revoke_all(store: Store) -> None:
    operations: list[Operation] = [put("secret"), *map(Revoke, TOKENS)]
    await store.commit(operations)


@asynccontextmanager
async def between(store: Store, publisher: EventPublisher, look: Callable[[], object]) -> AsyncIterator[None]:
    """All are revoked, and whenever the loop has its turn before that is published, there is a look."""
    index, looks = publisher.index, 0
    await revoke_all(store)

    def is_over() -> bool:
        nonlocal looks
        if publisher.index > index:
            return True
        looks += 1
        look()
        return False

    await until(is_over)
    assert looks > 2
    yield


async def test_the_loop_has_its_turn_in_between(store: Store) -> None:
    open_: list[int] = []
    async with open_store_publisher(store, ["jobs"]) as publisher:
        await commit_each(store, "a")
        await until_index(publisher, 1)
        for token in TOKENS:
            publisher.subscribe(of(token).after(publisher.cursor))
        async with between(store, publisher, lambda: open_.append(publisher.statistics().subscriptions)):
            open_.append(publisher.statistics().subscriptions)
    assert open_[-1] == 0
    # In each round of the loop every task has its turn once, in any order.
    assert max(before - after for before, after in pairwise(open_)) <= 2 * 1024


async def test_it_is_published_when_all_are_closed_and_nobody_of_them_gets_it(store: Store) -> None:
    def look() -> None:
        seen.extend(each for each in readers if each.statistics().lag)

    seen: list[Subscription[Record]] = []
    async with open_store_publisher(store, ["jobs"]) as publisher:
        readers = [publisher.subscribe(of(token)) for token in (*TOKENS[::500], TOKENS[-1])]
        spared = publisher.subscribe(of("another"))
        for each in (*readers, spared):
            await until_live(each)
        async with between(store, publisher, look):
            for each in readers:
                end = await end_of(each)
                assert (end.reason, end.index) == (CloseReason.TOKEN, 0)
        assert seen == []
        assert kinds([await receive(spared)]) == ["1:secret=x"]
        spared.close()


async def test_who_comes_in_between_with_one_of_the_tokens_is_closed_as_well(store: Store) -> None:
    """Who looks up rights after that, in what this publisher has published, finds those of before."""
    async with open_store_publisher(store, ["jobs"]) as publisher:
        late: list[Subscription[Record]] = []

        def look() -> None:
            late.extend(publisher.subscribe(of(token)) for token in ("0", TOKENS[-1]))

        async with between(store, publisher, look):
            for each in late:
                assert (await end_of(each)).reason is CloseReason.TOKEN
        async with publisher.subscribe(of("0")) as subscription:  # who comes later is served
            assert kinds(await until_live(subscription)) == ["1:secret=x", "eos@1"]
            await commit_each(store, "a")
            assert kinds([await receive(subscription)]) == ["2:a=a"]


async def test_a_cursor_of_before_or_of_the_commit_is_stale_in_between_and_later(store: Store) -> None:
    await commit_each(store, "a")
    async with open_store_publisher(store, ["jobs"]) as publisher:
        before = publisher.cursor
        early: list[Subscription[Record]] = []

        def look() -> None:
            early.append(publisher.subscribe(of("0").after(before)))

        async with between(store, publisher, look):
            for each in early[2:]:  # the first may have come before
                assert each.statistics().delivered == 0
                assert (await end_of(each)).reason is CloseReason.TOKEN
        places = [before, publisher.cursor]
        assert [place.index for place in places] == [1, 2]
        for place in places:
            for token in ("0", TOKENS[-1]):
                assert await is_stale(publisher, token, place)
            assert not await is_stale(publisher, "another", place)


async def is_stale(publisher: EventPublisher, token: str, place: Cursor) -> bool:
    async with publisher.subscribe(of(token).after(place)) as subscription:
        return "marker" in kinds(await subscription.receive_until_current())


async def test_revocations_that_are_known_before_they_are_published_are_no_obstacle(store: Store) -> None:
    """Who begins reads what was revoked a little later than where it begins."""
    newest = 0

    class Later(MemoryStore):
        @override
        async def head(self) -> Head:
            head = await super().head()
            if not newest:
                await self.later()
            return head

        async def later(self) -> None:
            nonlocal newest
            newest = 1
            await revoke_all(self)
            newest = await self.commit([Revoke("late")])

    async with open_store_publisher(Later(Disk()), ["jobs"]) as publisher:
        await until_index(publisher, 2)
        assert newest == publisher.index == 2
        assert await is_stale(publisher, "0", publisher.cursor)


async def test_a_publisher_that_ends_in_between_just_ends(store: Store) -> None:
    async with open_store_publisher(store, ["jobs"]) as publisher:
        subscription = publisher.subscribe(of(TOKENS[-1]))
        await until_live(subscription)
        await revoke_all(store)
        while not publisher.statistics().ends["token"] and publisher.index == 0:
            publisher.subscribe(of("0"))
            await anyio.lowlevel.checkpoint()
    assert (await end_of(subscription)).reason in {CloseReason.TOKEN, CloseReason.STOPPED}
