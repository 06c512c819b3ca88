"""Snapshots and publishers of prefixes and of all namespaces; and stores that know neither."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from stores.engines import Plain
from stores.storehouse import JOBS, Sink, kinds, put, receive, until_live

from trio_stream import ALL, Cursor, Subject, SubscribeRequest
from trio_stream.stores import Delete, Put, Record, Store, open_store_publisher, topic
from trio_stream.view import View, open_view

pytestmark = pytest.mark.anyio

KEYS = ("a", "a/", "a/1", "a/2", "a0", "b", "é", "\U0010ffff", "\U0010ffff\U0010ffff")
NAMESPACES = ("blue", "default", "red", "\U0010ffff")
ASKED = ("", "a", "a/", "a/1", "b", "é", "\U0010ffff", "z")
MANY = 3000  # rows; several times what one step reads

WIDE = SubscribeRequest(JOBS, "a", prefix=True, namespace=ALL)


async def fill(store: Store) -> None:
    """Each key in each namespace but b in red; and the same of another topic."""
    names = [(key, name) for key, name in product(KEYS, NAMESPACES) if (key, name) != ("b", "red")]
    await store.commit([Put("jobs", key, [key, name], name) for key, name in names])
    await store.commit([Put("jobs2", key, 0, name) for key, name in names])
    await store.commit([Put("jobs", "a", ["a", "red"], "red")])


def filled(request: SubscribeRequest[Record]) -> Iterator[tuple[int, Record]]:
    """What of that a snapshot must have, by namespace and key."""
    for name, key in product(NAMESPACES, KEYS):
        if (key, name) != ("b", "red") and request.covers(JOBS, Subject(key, name)):
            yield (3 if (key, name) == ("a", "red") else 1), Record(key, [key, name], "put", name)


@pytest.mark.parametrize("partition", ["default", ALL], ids=str)
@pytest.mark.parametrize("namespace", [*NAMESPACES, ALL, "nobody"], ids=ascii)
async def test_a_snapshot_has_what_the_request_covers(store: Store, namespace: Any, partition: Any) -> None:
    await fill(store)
    for key, prefix in product(ASKED, (False, True)):
        request = SubscribeRequest(JOBS, key, prefix=prefix, namespace=namespace, partition=partition)
        sink = Sink()
        assert await store.snapshot(request, sink) == 3
        assert sink.records == [*filled(request)]


async def test_no_other_partition_has_anything(store: Store) -> None:
    await fill(store)
    sink = Sink()
    request = SubscribeRequest(JOBS, "a", prefix=True, namespace=ALL, partition="another")
    assert await store.snapshot(request, sink) == 3
    assert sink.records == []


async def test_all_namespaces_of_an_empty_store_are_empty(store: Store) -> None:
    sink = Sink()
    assert await store.snapshot(SubscribeRequest(JOBS, namespace=ALL), sink) == 0
    assert sink.records == []


async def test_all_namespaces_are_streamed_some_rows_at_a_time(store: Store) -> None:
    await store.commit([Put("jobs", f"{n:04}", 0, f"n{n % 3}") for n in range(MANY)])
    sink = Sink()
    await store.snapshot(SubscribeRequest(JOBS, namespace=ALL), sink)
    assert len(sink.events) == MANY
    assert max(sink.groups) <= 256
    assert [(record.namespace, record.key) for _, record in sink.records] == sorted(
        (f"n{n % 3}", f"{n:04}") for n in range(MANY)
    )


async def test_a_union_is_no_request_for_a_store(store: Store) -> None:
    with pytest.raises(ValueError, match="2 interests"):
        await store.snapshot(SubscribeRequest(JOBS, "a") | SubscribeRequest(JOBS, "b"), Sink())


async def test_a_subscriber_of_a_prefix_of_all_namespaces_gets_just_that(store: Store) -> None:
    await store.commit([put("a1", 1), put("b", 1), Put("jobs", "a2", 1, "blue")])
    async with open_store_publisher(store, ["jobs"]) as publisher, publisher.subscribe(WIDE) as subscription:
        assert kinds(await until_live(subscription)) == ["1:a2=1+a1=1", "eos@1"]
        await store.commit([Put("jobs", "a3", 2, "red"), put("b", 2), Delete("jobs", "a1")])
        await store.commit([put("b", 3)])
        await store.commit([put("a", 4)])
        assert kinds([await receive(subscription), await receive(subscription)]) == ["2:a3=2+a1-", "4:a=4"]


async def test_a_union_of_topics_is_right_at_one_index(store: Store) -> None:
    users = SubscribeRequest(topic("users"), namespace=ALL)
    await store.commit([put("a", 1), Put("users", "u", 1, "blue")])
    await store.commit([put("b", 2)])
    async with open_store_publisher(store, ["jobs", "users"]) as publisher:
        async with publisher.subscribe(WIDE | users) as subscription:
            assert sorted(kinds(await until_live(subscription))) == ["1:a=1", "1:u=1", "eos@2"]
            await store.commit([put("a", 3), Put("users", "v", 3), put("b", 3)])
            assert kinds([await receive(subscription)]) == ["3:a=3+v=3"]


class Asked(Plain):
    """Knows neither prefixes nor ALL, and notes what it is asked for."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.requests: list[SubscribeRequest[Record]] = []

    async def snapshot(self, request: SubscribeRequest[Record], snapshot: Any) -> int | Cursor:
        self.requests.append(request)
        return await super().snapshot(request, snapshot)


async def test_a_store_that_knows_no_prefixes_is_asked_for_all_keys(store: Store) -> None:
    await store.commit([put("a1", 1), put("b", 1)])
    asked = Asked(store)
    async with open_store_publisher(asked, ["jobs"]) as publisher:
        async with publisher.subscribe(SubscribeRequest(JOBS, "a", prefix=True)) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a1=1", "eos@1"]
    assert asked.requests == [SubscribeRequest(JOBS)]


@pytest.mark.parametrize("where", [{"namespace": ALL}, {"partition": ALL}], ids=str)
async def test_all_is_refused_where_the_store_does_not_know_it(store: Store, where: dict[str, Any]) -> None:
    async with open_store_publisher(Plain(store), ["jobs"]) as publisher:
        with pytest.raises(ValueError, match="'jobs' is not wide: it does not know ALL"):
            publisher.subscribe(SubscribeRequest(JOBS, **where))


async def test_a_view_of_several_topics_and_all_namespaces_follows_the_store(store: Store) -> None:
    users = topic("users")
    request = SubscribeRequest(JOBS, "a", prefix=True, namespace=ALL) | SubscribeRequest(users)
    await store.commit([put("a", 1), put("b", 1), Put("jobs", "a", 1, "blue")])
    view: View[Any, Record]
    async with open_store_publisher(store, ["jobs", "users"]) as publisher:
        async with open_view(publisher.subscribe, request) as view:
            await view.wait_current()
            index = await store.commit([Put("users", "a", 2), Delete("jobs", "a", "blue"), put("b", 2)])
            assert {key: record.value for key, record in (await view.wait_index(index)).items()} == {
                (JOBS, "default", "a"): 1,
                (users, "default", "a"): 2,
            }
