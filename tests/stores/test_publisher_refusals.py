"""U13: what only the feed may do to its publisher is refused to everybody else, at the call, and changes nothing."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from stores.storehouse import ALL_JOBS, JOBS, PATIENCE, commit_each, kinds, receive, until_live

from trio_stream import (
    CloseReason,
    Event,
    EventPublisher,
    SubscriptionForceClosed,
    Topic,
    close_subscription_event,
)
from trio_stream.stores import Record, Store, open_store_publisher

pytestmark = pytest.mark.anyio


async def no_handler(request: object, snapshot: object) -> int:
    raise AssertionError


EVENT = Event(JOBS, 7, Record("nowhere", 1))
CALLS: dict[str, Callable[[EventPublisher], object]] = {
    "publish": lambda publisher: publisher.publish([EVENT]),
    "publish an index": lambda publisher: publisher.publish([], index=7),
    "publish a close event": lambda publisher: publisher.publish([close_subscription_event([""])]),
    "publish_from_thread": lambda publisher: publisher.publish_from_thread([EVENT]),
    "register_handler": lambda publisher: publisher.register_handler(Topic[Any]("users"), no_handler),
    "refresh": lambda publisher: publisher.refresh(),
    "refresh a topic": lambda publisher: publisher.refresh(JOBS),
    "refresh on": lambda publisher: publisher.refresh(index=7, epoch=publisher.epoch),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_what_the_feed_does_is_refused_and_changes_nothing(
    store: Store, call: Callable[[EventPublisher], object]
) -> None:
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await commit_each(store, "a")
            assert kinds([await receive(subscription)]) == ["1:a=a"]
            before = publisher.statistics()
            with pytest.raises(RuntimeError, match=r"[Cc]ommit to the store"):
                call(publisher)
            assert publisher.statistics() == before
            await commit_each(store, "b")
            assert kinds([await receive(subscription)]) == ["2:b=b"]


async def test_publishing_from_another_thread_is_refused_there(store: Store) -> None:
    async with open_store_publisher(store, ["jobs"]) as publisher:
        with pytest.raises(RuntimeError, match="ommit to the store"):
            await anyio.to_thread.run_sync(publisher.publish_from_thread, [EVENT])
        assert publisher.index == 0


async def test_it_runs_already(store: Store) -> None:
    async with open_store_publisher(store, ["jobs"]) as publisher:
        with pytest.raises(RuntimeError, match="runs already"):
            await publisher.run()
        await commit_each(store, "a")
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a=a", "eos@1"]


async def test_it_is_a_publisher_and_what_readers_use_works(store: Store) -> None:
    async with open_store_publisher(store, ["jobs"]) as publisher:
        assert isinstance(publisher, EventPublisher)
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await commit_each(store, "a")
            with anyio.fail_after(PATIENCE):
                await subscription.wait_published(1)
            assert (publisher.index, publisher.next_index) == (1, 2)
            assert publisher.statistics().topics["jobs"].commits == 1
            assert publisher.close_subscriptions([""]) == 1
            with pytest.raises(SubscriptionForceClosed) as closed:
                await receive(subscription)
            assert closed.value.reason is CloseReason.TOKEN
