"""D19: readers of a store whose rights or filter look at the value are told what they may no longer see."""

from collections.abc import Callable
from typing import Any

import pytest
from stores.houses import House
from stores.readers import after, until_index
from stores.storehouse import ALL_JOBS, JOBS, commit_each, kinds, put, receive, until_live

from trio_stream import Event, SubscribeRequest, Subscription, WouldBlock
from trio_stream.stores import Delete, Record, open_store_publisher

pytestmark = pytest.mark.anyio


def is_open(record: Record) -> bool:
    return record.value == "open"


Way = Callable[[], dict[str, Any]]
WAYS: dict[str, dict[str, Any]] = {"authorizer": {"authorizer": is_open}, "filter": {"where": is_open}}
both = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def texts(events: list[Event[Record]]) -> list[str]:
    """Without the indexes."""
    return [text.partition(":")[2] or text.partition("@")[0] for text in kinds(events)]


@both
async def test_a_reader_gets_the_withdrawal_of_what_it_may_no_longer_see(
    house: House, way: dict[str, Any]
) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS, **way) as subscription:
            await until_live(subscription)
            await store.commit([put("a", "open"), put("b", "done")])
            await store.commit([put("a", "done"), put("b", "open")])
            await store.commit([Delete("jobs", "a"), put("c", "done")])
            await store.commit([Delete("jobs", "b"), put("c", "open")])
            got = [await receive(subscription) for _ in range(3)]
            assert texts(got) == ["a=open", "a-+b=open", "b-+c=open"]
            assert [each.previous for event in got for each in event.events] == [None] * 5


@both
async def test_so_does_one_that_resumes_from_the_log(house: House, way: dict[str, Any]) -> None:
    async with house.open() as store:
        await store.commit([put("a", "open"), put("b", "done"), put("d", "open")])
        start = (await store.head()).cursor
        await store.commit([put("a", "done"), put("b", "open"), put("e", None)])
        await store.commit([Delete("jobs", "b"), Delete("jobs", "a"), Delete("jobs", "e")])
        async with open_store_publisher(store, ["jobs"], history=1) as publisher:
            async with publisher.subscribe(after(ALL_JOBS, start), **way) as subscription:
                got = [await receive(subscription), await receive(subscription)]
                assert texts(got) == ["a-+b=open", "b-"]
                with pytest.raises(WouldBlock):
                    subscription.receive_nowait()


@both
async def test_a_reader_that_was_never_shown_a_key_is_told_nothing_of_it(
    house: House, way: dict[str, Any]
) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(SubscribeRequest(JOBS, "a"), **way) as subscription:
            await until_live(subscription)
            for operation in (put("a", "done"), put("a", None), Delete("jobs", "a"), put("a", "done")):
                await store.commit([operation])
            await until_index(publisher, (await store.head()).index)
            with pytest.raises(WouldBlock):
                subscription.receive_nowait()
            assert subscription.cursor == publisher.cursor


@both
async def test_a_reader_that_conflates_has_the_right_state_as_well(house: House, way: dict[str, Any]) -> None:
    """What it was shown before and may not see now is withdrawn, however much came between."""
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        await store.commit([put("a", "open"), put("b", "open"), put("c", "done")])
        async with publisher.subscribe(ALL_JOBS, on_lag="conflate", **way) as subscription:
            state = fold(await until_live(subscription), {})
            await commit_each(store, "x")
            for number in range(5):
                await store.commit([put("a", number), put("b", number), put("c", "open")])
            await store.commit([put("b", "open"), put("x", "open")])
            await store.commit([Delete("jobs", "c")])
            await until_index(publisher, (await store.head()).index)
            event = await receive(subscription)
            assert event.is_conflated
            assert fold([event], state) == {"b": "open", "x": "open"}
            assert event.index == publisher.index


def fold(events: list[Event[Record]], state: dict[str, Any]) -> dict[str, Any]:
    for event in events:
        for record in event.payloads:
            if record.is_delete:
                state.pop(record.key, None)
            else:
                state[record.key] = record.value
    return state


async def taken(subscription: Subscription[Record]) -> list[str]:
    return texts([*await subscription.receive_until_current()])


@both
async def test_who_has_read_all_along_and_who_resumes_and_who_begins_agree(
    house: House, way: dict[str, Any]
) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"], history=2) as publisher:
        async with publisher.subscribe(ALL_JOBS, **way) as always:
            states: dict[str, dict[str, Any]] = {
                "always": fold(await until_live(always), {}),
                "returning": {},
            }
            cursor = always.cursor
            for number, value in enumerate(["open", "done", "open", None, "open", 1, "done"]):
                await store.commit([put("abc"[number % 3], value), put("abc"[number % 2], "open")])
                if number % 2:
                    await store.commit([Delete("jobs", "abc"[number % 3])])
                await until_index(publisher, (await store.head()).index)
                fold(list(await always.receive_until_current()), states["always"])
                if number % 3 == 2:
                    async with publisher.subscribe(ALL_JOBS.after(cursor), **way) as returning:
                        fold(list(await returning.receive_until_current()), states["returning"])
                        cursor = returning.cursor
                    async with publisher.subscribe(ALL_JOBS, **way) as fresh:
                        begun = fold(list(await fresh.receive_until_current()), {})
                    assert states == {"always": begun, "returning": begun}
