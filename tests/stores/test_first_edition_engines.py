"""A store that keeps to the first edition of the protocol only is fed from as before, and replayed."""

from typing import Any

import pytest
from stores.engines import FirstEdition
from stores.houses import House
from stores.readers import until_index
from stores.storehouse import ALL_JOBS, JOBS, commit_each, kinds, put, receive, until_live

from trio_stream import ALL, CloseReason, Cursor, SubscribeRequest, SubscriptionForceClosed
from trio_stream.stores import Delete, open_store_publisher

pytestmark = pytest.mark.anyio


async def test_a_subscriber_gets_the_state_and_then_every_commit(house: House) -> None:
    async with house.open() as store, open_store_publisher(first(store), ["jobs"]) as publisher:
        await store.commit([put("a", 1), put("b", 1)])
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription))[0].endswith(":a=1+b=1")
            await store.commit([put("a", 2), Delete("jobs", "b")])
            await store.commit([put("c", 3)])
            got = [await receive(subscription), await receive(subscription)]
            assert [text.partition(":")[2] for text in kinds(got)] == ["a=2+b-", "c=3"]
            assert subscription.cursor.mark == publisher.cursor.mark == ""


def first(store: object) -> Any:
    """Which a type checker would refuse."""
    return FirstEdition(store)  # type: ignore[arg-type]


async def test_a_client_resumes_by_index_and_is_replayed(house: House) -> None:
    async with house.open() as store:
        await commit_each(store, *"abcdef")
        async with open_store_publisher(first(store), ["jobs"], history=2) as publisher:
            places: list[Cursor] = []
            async with publisher.subscribe(ALL_JOBS) as subscription:
                await until_live(subscription)
                places.append(subscription.cursor)
                for key in "ghijkl":
                    await commit_each(store, key)
                    await receive(subscription)
                    places.append(subscription.cursor)
            for place, rest in zip(places, ("ghijkl", "hijkl", "ijkl", "jkl", "kl", "l", ""), strict=True):
                async with publisher.subscribe(ALL_JOBS.after(place)) as subscription:
                    got = kinds(await subscription.receive_until_current())
                    assert [text.partition(":")[2] for text in got] == [f"{key}={key}" for key in rest]


async def test_a_cursor_of_another_epoch_or_that_was_compacted_is_stale(house: House) -> None:
    async with house.open() as store:
        await commit_each(store, "a", "b", "c")
        head = await store.head()
        await store.compact(head.index)
        await commit_each(store, "d", "e")
        async with open_store_publisher(first(store), ["jobs"]) as publisher:
            for cursor in (Cursor(1, head.epoch), Cursor(head.index, "another")):
                async with publisher.subscribe(ALL_JOBS.after(cursor)) as subscription:
                    assert kinds([await receive(subscription)]) == ["marker"]
            async with publisher.subscribe(ALL_JOBS.after(Cursor(head.index, head.epoch))) as subscription:
                got = [await receive(subscription), await receive(subscription)]
                assert [text.partition(":")[2] for text in kinds(got)] == ["d=d", "e=e"]


async def test_tokens_are_known_by_themselves(house: House) -> None:
    async with house.open() as store, open_store_publisher(first(store), ["jobs"]) as publisher:
        async with publisher.subscribe(SubscribeRequest(JOBS, token="mine")) as subscription:
            await until_live(subscription)
            assert publisher.close_subscriptions(["mine"]) == 1
            with pytest.raises(SubscriptionForceClosed) as closed:
                await receive(subscription)
            assert closed.value.reason is CloseReason.TOKEN


async def test_prefixes_are_made_from_all_keys_and_all_is_refused(house: House) -> None:
    async with house.open() as store, open_store_publisher(first(store), ["jobs"]) as publisher:
        await commit_each(store, "a", "ab", "b")
        await until_index(publisher, (await store.head()).index)
        async with publisher.subscribe(SubscribeRequest(JOBS, "a", prefix=True)) as subscription:
            events = await until_live(subscription)
            assert [text.partition(":")[2] for text in kinds(events[:-1])] == ["a=a", "ab=ab"]
        with pytest.raises(ValueError, match="ALL"):
            publisher.subscribe(SubscribeRequest(JOBS, namespace=ALL))
