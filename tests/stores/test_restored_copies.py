"""D24: whatever copy of a store takes its place, who has read what was lost is told, and who has not goes on."""

import anyio
import pytest
from stores.houses import House
from stores.readers import after, cursors, end_of, until_index
from stores.storehouse import ALL_JOBS, PATIENCE, commit_each, kinds, receive, until_live

from trio_stream import CloseReason, Cursor, EventPublisher, Subscription, SubscriptionForceClosed
from trio_stream.stores import Put, Record, Store, open_store_publisher

pytestmark = pytest.mark.anyio


async def taken(subscription: Subscription[Record]) -> list[object]:
    """Of what is ready, or comes at once; "marker" and "eos" for framing."""
    with anyio.fail_after(PATIENCE):
        return [
            text.partition(":")[2] or text.partition("@")[0]
            for text in kinds(await subscription.receive_until_current())
        ]


async def test_restored_while_nobody_runs_who_has_read_what_was_lost_is_stale(house: House) -> None:
    """Wherever it has been on the lost commits, and as far as the other ones have come since."""
    async with house.open() as store:
        await commit_each(store, "a", "b")
        older = house.copy()
        await commit_each(store, "lost1", "lost2", "lost3")
        first = await cursors(store)
    house.put_back(older)
    async with house.open() as store:
        await commit_each(store, "c", "d")
        async with open_store_publisher(store, ["jobs"]) as publisher:
            for place in first[:2]:
                async with publisher.subscribe(after(ALL_JOBS, place)) as subscription:
                    assert (await taken(subscription))[-2:] == ["c=c", "d=d"]
            for place in first[2:4]:
                async with publisher.subscribe(after(ALL_JOBS, place)) as subscription:
                    assert await taken(subscription) == ["marker", "a=a", "b=b", "c=c", "d=d", "eos"]
            async with publisher.subscribe(after(ALL_JOBS, first[4])) as subscription:
                await commit_each(store, "e", "f")  # one of which has its index
                assert (await receive(subscription)).is_new_snapshot_to_follow


async def test_who_waits_for_a_lost_commit_is_told_when_another_has_its_index(house: House) -> None:
    async with house.open() as store:
        await commit_each(store, "a")
        older = house.copy()
        await commit_each(store, "lost1", "lost2")
        newest = (await store.head()).cursor
    house.put_back(older)
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(after(ALL_JOBS, newest)) as subscription:
            await commit_each(store, "b", "c", "d")
            assert kinds([await receive(subscription)]) == ["marker"]


async def test_who_looks_only_when_the_mark_of_that_is_forgotten_is_told_as_well(house: House) -> None:
    """It was ahead when the log was asked; since then commits of another topic have come."""
    async with house.open() as store:
        await commit_each(store, "a")
        older = house.copy()
        await commit_each(store, "lost1", "lost2")
        newest = (await store.head()).cursor
    house.put_back(older)
    async with house.open() as store:
        async with open_store_publisher(store, ["jobs", "users"], history=1) as publisher:
            async with publisher.subscribe(after(ALL_JOBS, newest)) as subscription:
                await anyio.wait_all_tasks_blocked()
                for number in range(5):
                    await store.commit([Put("users", "u", number)])
                await until_index(publisher, (await store.head()).index)
                assert kinds([await receive(subscription)]) == ["marker"]


async def restored(house: House, store: Store, publishers: list[EventPublisher]) -> None:
    """Puts a copy of commit a in the place of a, lost1, lost2, and has it go on; all publishers have seen all of it."""
    await commit_each(store, "a")
    older = house.copy()
    await commit_each(store, "lost1", "lost2")
    for publisher in publishers:
        await until_index(publisher, (await store.head()).index)
    house.put_back(older)
    await commit_each(store, "b", "c", "d")


async def test_restored_while_it_runs_all_subscribers_start_again(house: House) -> None:
    async with house.open() as store, house.open() as other:
        async with open_store_publisher(store, ["jobs"]) as one, open_store_publisher(other, ["jobs"]) as two:
            async with one.subscribe(ALL_JOBS) as first, two.subscribe(ALL_JOBS) as second:
                await until_live(first)
                await until_live(second)
                await restored(house, store, [one, two])
                for subscription in (first, second):
                    assert (await end_of(subscription)).reason is CloseReason.REFRESH
            for publisher in (one, two):
                assert await state_of(publisher, store) == ["a=a", "b=b", "c=c", "d=d"]


async def state_of(publisher: EventPublisher, store: Store) -> list[object]:
    """Of a new snapshot, when the publisher has come as far as the store."""
    while True:
        await until_index(publisher, (await store.head()).index)
        async with publisher.subscribe(ALL_JOBS) as subscription:
            try:
                got = await taken(subscription)
            except SubscriptionForceClosed:  # it has just begun again
                continue
            return got[: got.index("eos")]


async def test_after_a_restore_while_it_runs_no_cursor_of_what_was_lost_is_good(house: House) -> None:
    """Not even one that this publisher has given itself."""
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        places: list[Cursor] = []
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await commit_each(store, "a")
            older = house.copy()
            await commit_each(store, "lost1", "lost2")
            for _ in range(3):
                await receive(subscription)
                places.append(subscription.cursor)
            house.put_back(older)
            await commit_each(store, "b", "c", "d")
            await end_of(subscription)
        await state_of(publisher, store)
        for place in places[1:]:
            async with publisher.subscribe(after(ALL_JOBS, place)) as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]
        new = await cursors(store)
        for place, count in zip(new, (3, 2, 1), strict=False):
            async with publisher.subscribe(after(ALL_JOBS, place)) as subscription:
                assert await taken(subscription) == ["b=b", "c=c", "d=d"][3 - count :]


async def test_restored_twice_from_the_same_copy(house: House) -> None:
    """The timeline of its first life has the same name as its second, and is told from it (U12)."""
    async with house.open() as store:
        await commit_each(store, "a")
        older, again = house.copy(), house.copy()
        await commit_each(store, "first1", "first2")
        first = await cursors(store)
    house.put_back(older)
    async with house.open() as store:
        await commit_each(store, "second1", "second2")
        second = await cursors(store)
    house.put_back(again)
    async with house.open() as store:
        await commit_each(store, "third1", "third2")
        async with open_store_publisher(store, ["jobs"]) as publisher:
            for place in [*first[1:], *second[1:]]:
                async with publisher.subscribe(after(ALL_JOBS, place)) as subscription:
                    assert kinds([await receive(subscription)]) == ["marker"]


async def test_a_publisher_says_its_cursor_with_the_mark_and_so_does_a_snapshot(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        await commit_each(store, "a", "b")
        head = await store.head()
        await until_index(publisher, head.index)
        assert publisher.cursor == head.cursor
        assert head.mark
        async with publisher.subscribe(ALL_JOBS) as subscription:
            events = await until_live(subscription)
            assert events[-1].mark == head.mark
            assert subscription.cursor == head.cursor
