"""The last value of a key ends the subscriptions of just that key, wherever they are; a delete opens it again."""

import anyio
import pytest
from stores.houses import House
from stores.readers import after, until_index
from stores.storehouse import ALL_JOBS, JOBS, PATIENCE, commit_each, kinds, put, receive, until_live

from trio_stream import EndOfSubject, Event, SubscribeRequest, Subscription, SubscriptionState
from trio_stream.stores import Delete, Put, Record, open_store_publisher

pytestmark = pytest.mark.anyio

RUN = SubscribeRequest(JOBS, "run")


def final(key: str, value: object = "end") -> Put:
    return Put("jobs", key, value, final=True)  # type: ignore[arg-type]


async def rest(subscription: Subscription[Record]) -> list[str]:
    """What comes until `async for` stops, without indexes."""
    with anyio.fail_after(PATIENCE):
        events: list[Event[Record]] = [event async for event in subscription]
    return [text.partition(":")[2] or text.partition("@")[0] for text in kinds(events)]


async def test_a_reader_of_the_key_is_told_and_others_go_on(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(RUN) as subscription, publisher.subscribe(ALL_JOBS) as everything:
            await until_live(everything)
            await store.commit([put("run", 1)])
            await store.commit([final("run"), put("other", 1)])
            assert (await rest(subscription))[-2:] == ["run=1", "run=end"]
            assert subscription.state is SubscriptionState.FINISHED
            with pytest.raises(EndOfSubject):
                await subscription.receive()
            await commit_each(store, "a")
            got = [await receive(everything) for _ in range(3)]
            assert [text.partition(":")[2] for text in kinds(got)] == ["run=1", "run=end+other=1", "a=a"]


async def test_who_comes_later_is_told_by_the_snapshot(house: House) -> None:
    """Also at a publisher that knows nothing else of it."""
    async with house.open() as store:
        await store.commit([final("run")])
        await commit_each(store, "a")
        async with open_store_publisher(store, ["jobs"]) as publisher:
            async with publisher.subscribe(RUN) as subscription:
                assert await rest(subscription) == ["run=end", "eos"]


@pytest.mark.parametrize("history", [1, 100])
@pytest.mark.parametrize("behind", [0, 1, 2, 5])
async def test_who_resumes_gets_the_rest_and_is_told(house: House, behind: int, history: int) -> None:
    """From before the end, from the end, and from behind it; at a publisher that was there, and at one that was not."""
    async with house.open() as store, open_store_publisher(store, ["jobs"], history=history) as here:
        await store.commit([put("run", 1)])
        places = [(await store.head()).cursor]
        for operations in ([put("run", 2)], [final("run")], [put("a")], [put("b")], [put("c")]):
            await store.commit(operations)
            places.append((await store.head()).cursor)
        await until_index(here, places[-1].index)
        async with open_store_publisher(store, ["jobs"]) as there:
            for publisher in (here, there):
                async with publisher.subscribe(after(RUN, places[behind])) as subscription:
                    assert await rest(subscription) == ["run=2", "run=end"][behind:]


async def test_who_has_all_of_it_and_comes_back_ends_at_once(house: House) -> None:
    """Although nothing is in memory that says so: what it has had since was about other keys."""
    async with house.open() as store:
        await store.commit([final("run")])
        async with open_store_publisher(store, ["jobs"]) as publisher:
            for _ in range(3):
                await commit_each(store, "a")
                await until_index(publisher, (await store.head()).index)
                async with publisher.subscribe(RUN.after(publisher.cursor)) as subscription:
                    assert await rest(subscription) == []


async def test_a_slow_reader_is_told_by_the_replay(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"], history=2) as publisher:
        async with publisher.subscribe(RUN) as subscription:
            await until_live(subscription)
            for number in range(9):
                await store.commit([put("run", number)])
            await store.commit([final("run")])
            await commit_each(store, *"abcdef")
            await until_index(publisher, (await store.head()).index)
            assert await rest(subscription) == [*[f"run={number}" for number in range(9)], "run=end"]


async def test_a_key_that_was_deleted_has_events_again(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        await store.commit([final("run", 1)])
        places = [(await store.head()).cursor]
        for operation in (Delete("jobs", "run"), put("run", 2), final("run", 3), Delete("jobs", "run")):
            await store.commit([operation])
            places.append((await store.head()).cursor)
        async with publisher.subscribe(ALL_JOBS) as everything:
            await everything.receive_until_current()
            await store.commit([put("run", 4)])
            assert kinds([await receive(everything)])[0].endswith(":run=4")
        async with publisher.subscribe(RUN) as subscription:
            assert kinds(await until_live(subscription))[0].endswith(":run=4")
            await store.commit([final("run", 5)])
            assert await rest(subscription) == ["run=5"]


async def test_who_resumes_over_an_end_that_is_over_goes_on(house: House) -> None:
    """The state is right at every index: the end was none in the end."""
    async with house.open() as store:
        await commit_each(store, "first")
        start = (await store.head()).cursor
        for operation in (put("run", 1), final("run", 2), Delete("jobs", "run"), put("run", 3)):
            await store.commit([operation])
        async with open_store_publisher(store, ["jobs"]) as publisher:
            async with publisher.subscribe(after(RUN, start)) as subscription:
                got = [await receive(subscription) for _ in range(4)]
                assert [text.partition(":")[2] for text in kinds(got)] == ["run=1", "run=2", "run-", "run=3"]
                await store.commit([final("run", 4)])
                assert await rest(subscription) == ["run=4"]


async def test_all_keys_of_a_union_have_to_be_finished(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(RUN | SubscribeRequest(JOBS, "other")) as subscription:
            await until_live(subscription)
            await store.commit([final("run")])
            await store.commit([put("other", 1)])
            await store.commit([final("other")])
            assert await rest(subscription) == ["run=end", "other=1", "other=end"]


async def test_a_key_of_another_namespace_is_another_key(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(RUN) as subscription:
            await until_live(subscription)
            await store.commit([Put("jobs", "run", 1, "blue", final=True)])
            await store.commit([put("run", 2)])
            assert kinds([await receive(subscription)])[0].endswith(":run=2")
