"""A publisher that a store feeds: everybody gets every commit, and resumes at any process of the store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from stores.readers import cursors
from stores.storehouse import (
    ALL_JOBS,
    JOBS,
    PATIENCE,
    commit_each,
    kinds,
    on_another_system,
    open_at,
    put,
    receive,
    until_live,
)

from trio_stream import ALL, EventPublisher, SubscribeRequest, UnknownTopicError, WouldBlock
from trio_stream.stores import Delete, Put, Record, Store, StoreError, open_store_publisher, topic
from trio_stream.view import open_view

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def process(path: Path, **options: Any) -> AsyncIterator[tuple[Store, EventPublisher]]:
    """What a process of the store has; the options are the store's."""
    async with open_at(path, **options) as store, open_store_publisher(store, ["jobs"]) as publisher:
        yield store, publisher


async def test_a_subscriber_gets_the_state_and_then_every_commit_of_anyone(path: Path) -> None:
    async with process(path) as (store, publisher), process(path) as (other, _):
        await store.commit([put("a", 1), put("b", 1)])
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a=1+b=1", "eos@1"]
            await other.commit([put("a", 2), Delete("jobs", "b")])
            await store.commit([put("c", 3)])
            assert kinds([await receive(subscription), await receive(subscription)]) == ["2:a=2+b-", "3:c=3"]


async def test_a_commit_over_several_topics_is_one_commit_for_each_of_them(store: Store) -> None:
    users = topic("users")
    async with open_store_publisher(store, ["jobs", "users"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as one, publisher.subscribe(SubscribeRequest(users)) as two:
            await until_live(one)
            await until_live(two)
            await store.commit([put("a", 1), Put("users", "u", 1), put("b", 1)])
            assert kinds([await receive(one), await receive(two)]) == ["1:a=1+b=1", "1:u=1"]


async def test_commits_about_other_topics_are_passed_over(store: Store) -> None:
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await store.commit([Put("users", "u", 1)])
            await store.commit([put("a", 1), Put("users", "u", 2)])
            assert kinds([await receive(subscription)]) == ["2:a=1"]
        with pytest.raises(UnknownTopicError):
            publisher.subscribe(SubscribeRequest(topic("users")))


async def test_a_subscriber_of_a_key_and_of_a_namespace_gets_just_that(store: Store) -> None:
    async with open_store_publisher(store, ["jobs"]) as publisher:
        blue = SubscribeRequest(JOBS, namespace="blue")
        async with publisher.subscribe(SubscribeRequest(JOBS, "a")) as one, publisher.subscribe(blue) as two:
            await until_live(one)
            await until_live(two)
            await store.commit([put("a", 1), put("b", 1), Put("jobs", "c", 1, "blue")])
            assert kinds([await receive(one), await receive(two)]) == ["1:a=1", "1:c=1"]


async def test_what_is_not_readable_is_not_delivered(store: Store) -> None:
    def reads_a(record: Record) -> bool:
        return record.key == "a"

    await store.commit([put("a", 1), put("b", 1)])
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS, authorizer=reads_a) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a=1", "eos@1"]


async def test_it_has_the_epoch_of_the_store_and_its_newest_index(store: Store) -> None:
    await commit_each(store, "a", "b")
    async with open_store_publisher(store, ["jobs"]) as publisher:
        assert (publisher.epoch, publisher.index) == ((await store.head()).epoch, 2)


async def test_a_subscriber_resumes_after_a_restart_of_the_process(path: Path) -> None:
    async with process(path) as (store, publisher):
        await commit_each(store, "a")
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            request = subscription.resume_request()
        await commit_each(store, "b")
    async with open_at(path) as store:
        await commit_each(store, "c")
    async with process(path) as (store, publisher), publisher.subscribe(request) as subscription:
        assert kinds([await receive(subscription), await receive(subscription)]) == ["2:b=b", "3:c=c"]


async def test_a_subscriber_resumes_at_another_process(path: Path) -> None:
    async with process(path) as (store, here), process(path) as (_, there):
        await commit_each(store, "a", "b")
        async with here.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            request = subscription.resume_request()
        async with there.subscribe(request) as subscription:
            await commit_each(store, "c")
            assert kinds([await receive(subscription)]) == ["3:c=c"]


async def test_a_process_that_is_behind_what_a_subscriber_has_seen_sends_nothing_older(store: Store) -> None:
    """D7; etcd #20221: it waits until it has come as far."""
    async with open_store_publisher(store, ["jobs"]) as publisher:
        await commit_each(store, "a", "b")
        request = ALL_JOBS.after((await store.head()).cursor)
        async with publisher.subscribe(request) as subscription:
            await commit_each(store, "c")
            assert kinds([await receive(subscription)]) == ["3:c=c"]


async def test_a_subscriber_that_saw_only_a_snapshot_ahead_of_the_publisher_resumes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_another_system(monkeypatch)
    async with process(path, poll_interval=3600) as (store, publisher), open_at(path) as other:
        request, index = ALL_JOBS, 0
        # It looks twice before it waits, and each look may be after another commit.
        while request.index <= publisher.index:
            await commit_each(other, "a")
            index += 1
            async with publisher.subscribe(ALL_JOBS) as subscription:
                assert kinds(await until_live(subscription)) == [f"{index}:a=a", f"eos@{index}"]
                request = subscription.resume_request()
        assert index <= 3
        async with publisher.subscribe(request) as subscription:
            await commit_each(store, "b")
            assert kinds([await receive(subscription)]) == [f"{index + 1}:b=b"]


async def test_a_subscriber_gets_no_older_state_than_it_may_have_had_elsewhere(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_another_system(monkeypatch)
    async with process(path, poll_interval=3600) as (_, publisher), open_at(path) as other:
        for index in (1, 2):
            await commit_each(other, "a")  # which this process does not look for
            async with publisher.subscribe(ALL_JOBS) as subscription:
                assert kinds(await until_live(subscription)) == [f"{index}:a=a", f"eos@{index}"]


async def test_who_waits_for_the_index_of_a_commit_about_another_topic_is_woken(store: Store) -> None:
    async with (
        open_store_publisher(store, ["jobs"]) as publisher,
        open_view(publisher.subscribe, ALL_JOBS) as view,
    ):
        for operation in (put("a"), Put("users", "u", 1)):
            index = await store.commit([operation])
            with anyio.fail_after(PATIENCE):
                await view.wait_index(index)


async def test_a_new_publisher_has_the_index_of_commits_about_other_topics(store: Store) -> None:
    await store.commit([put("a"), Put("users", "u", 1)])
    await store.commit([Put("users", "u", 2)])
    async with open_store_publisher(store, ["jobs"]) as publisher:
        assert publisher.index == 2


async def test_after_a_compaction_and_a_restart_an_older_index_is_a_new_snapshot(path: Path) -> None:
    async with process(path) as (store, publisher):
        await commit_each(store, "a", "b", "c")
        places = await cursors(store)
        await store.compact(2)
    async with process(path) as (store, publisher):
        async with publisher.subscribe(ALL_JOBS.after(places[0])) as subscription:
            assert kinds(await until_live(subscription)) == ["marker", "1:a=a", "2:b=b", "3:c=c", "eos@3"]
        async with publisher.subscribe(ALL_JOBS.after(places[1])) as subscription:
            assert kinds([await receive(subscription)]) == ["3:c=c"]


async def test_compaction_does_not_disturb_those_who_follow(store: Store) -> None:
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await commit_each(store, "a", "b")
            assert kinds([await receive(subscription), await receive(subscription)]) == ["1:a=a", "2:b=b"]
            await store.compact(2)
            await commit_each(store, "c")
            assert kinds([await receive(subscription)]) == ["3:c=c"]


async def test_an_exception_of_the_block_leaves_it_as_it_is(store: Store) -> None:
    with pytest.raises(KeyError):
        async with open_store_publisher(store, ["jobs"]):
            raise KeyError("mine")


async def test_a_cancelled_block_ends(store: Store) -> None:
    with anyio.CancelScope() as scope:
        async with open_store_publisher(store, ["jobs"]):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_store_that_fails_at_the_beginning_is_an_error_of_the_block(store: Store, path: Path) -> None:
    path.unlink()  # noqa: ASYNC240 - no other task waits
    with pytest.raises(StoreError):
        async with open_store_publisher(store, ["jobs"]):
            pytest.fail("there is nothing to publish")


async def test_one_string_is_no_list_of_topics(store: Store) -> None:
    with pytest.raises(TypeError, match="'jobs'"):
        async with open_store_publisher(store, "jobs"):
            pass


async def test_a_topic_named_twice_is_one_topic(store: Store) -> None:
    async with open_store_publisher(store, ["jobs", "jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await commit_each(store, "a")
            assert kinds([await receive(subscription)]) == ["1:a=a"]
            with pytest.raises(WouldBlock):
                subscription.receive_nowait()


async def test_a_reader_that_is_behind_can_have_the_newest_of_each_key(store: Store) -> None:
    """D21: a row of a store is a key of a namespace."""
    async with open_store_publisher(store, ["jobs"]) as publisher:
        subscription = publisher.subscribe(SubscribeRequest(JOBS, namespace=ALL), on_lag="conflate")
        await subscription.receive_until_current()
        for value in range(3):
            await store.commit([put("a", value), Put("jobs", "a", value, "n"), put("b", value)])
        await store.commit([Delete("jobs", "b")])
        await subscription.wait_published(4)
        event = await subscription.receive()
        assert (event.is_conflated, event.index) == (True, 4)
        assert [
            (each.index, p.namespace, p.key, p.value)
            for each, p in zip(event.events, event.payloads, strict=True)
        ] == [
            (3, "default", "a", 2),
            (3, "n", "a", 2),
            (4, "default", "b", None),
        ]
