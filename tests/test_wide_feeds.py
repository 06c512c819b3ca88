"""What several readers of the same interests share is there when the next one needs it, and no longer."""

import gc
import weakref
from typing import Any

import pytest
from catalogue import HEALTH, JOBS, event, kinds, ready, until_live
from scenes import Heavy, Held, opened, quiet
from unions import both, fold, rows_at, shown

from trio_stream import (
    CloseReason,
    Cursor,
    Event,
    SnapshotAppender,
    SubscribeRequest,
    SubscriptionForceClosed,
    SubscriptionLagged,
    Topic,
    open_publisher,
)

pytestmark = pytest.mark.anyio

WEBS = SubscribeRequest(HEALTH, "web", prefix=True)
BOTH = SubscribeRequest(HEALTH) | SubscribeRequest(JOBS)


async def test_who_shares_a_cached_snapshot_has_at_once_what_came_since() -> None:
    """D8, D14: although nobody has read that in the meantime."""
    async with opened() as (store, publisher):
        store.commit(("web", "0"), ("db", "0"))
        first = publisher.subscribe(WEBS)
        assert kinds(await until_live(first)) == ["1:web=0", "eos@1"]
        first.unsubscribe()
        for value in range(1_000):
            store.commit(("web", str(value)), ("db", str(value)))
        events = ready(publisher.subscribe(WEBS))
        assert kinds(events[:3]) == ["1:web=0", "eos@1", "2:web=0"]
        assert len(events) == 1_002
        assert store.runs == 1


async def test_what_is_filled_in_comes_once() -> None:
    """D3, D4: a commit of two topics is in the history of each."""
    async with opened(index=1) as (store, publisher):
        for value in "234":
            both(store, (HEALTH, "web", value), (JOBS, "a", value))
        subscription = publisher.subscribe(BOTH.after(Cursor(2, publisher.epoch)))
        assert shown(await subscription.receive_batch()) == [
            "3:health/web=3+jobs/a=3",
            "4:health/web=4+jobs/a=4",
        ]


async def test_what_is_filled_in_of_several_topics_is_in_the_order_it_was_published() -> None:
    """D3, D4, D22: each history keeps its own events of the commit."""
    async with opened(index=1) as (store, publisher):
        both(store, (JOBS, "a", "2"), (HEALTH, "web", "2"), (JOBS, "b", "2"), (HEALTH, "db", "2"))
        both(store, (JOBS, "a", "3"))
        both(store, (HEALTH, "web", "4"), (HEALTH, "db", "4"), (JOBS, "a", "4"))
        received = publisher.subscribe(BOTH.after(Cursor(1, publisher.epoch))).receive_batch()
        assert shown(await received) == [
            "2:jobs/a=2+health/web=2+jobs/b=2+health/db=2",
            "3:jobs/a=3",
            "4:health/web=4+health/db=4+jobs/a=4",
        ]


async def test_who_comes_back_to_every_key_finds_what_others_were_here_for() -> None:
    """D7, D13: the feed of a blank key stays as long as one of its keys is read."""
    async with opened(index=1) as (store, publisher):
        start = Cursor(1, publisher.epoch)
        one = publisher.subscribe(SubscribeRequest(HEALTH, "web").after(start))
        publisher.subscribe(SubscribeRequest(HEALTH).after(start)).unsubscribe()
        store.commit(("web", "2"))
        assert kinds(ready(publisher.subscribe(SubscribeRequest(HEALTH).after(start)))) == ["2:web=2"]
        assert kinds(ready(one)) == ["2:web=2"]


async def test_a_union_is_not_composed_of_what_is_about_to_be_passed() -> None:
    """D6, D22: a cached part with half of the history behind it would hardly outlast a slow reader."""
    async with opened(history=8) as (store, publisher):
        both(store, *((HEALTH, str(number), "0") for number in range(3_000)))
        await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))
        for value in "12345":
            store.commit(("0", value))
        subscription = publisher.subscribe(BOTH)
        received = [await subscription.receive() for _ in range(10)]
        await quiet()  # it waits for its reader now
        for value in "6789":
            store.commit(("0", value))
        received += await until_live(subscription)
        assert fold({}, received) == rows_at(store, received[-1].index, BOTH)
        assert store.runs == 3


async def test_a_union_is_put_together_at_the_pace_of_its_reader() -> None:
    """D11, D22: what its parts have is not copied ahead of who reads it."""
    async with opened() as (store, publisher):
        both(store, *((topic, str(number), "0") for topic in (HEALTH, JOBS) for number in range(2_000)))
        subscription = publisher.subscribe(BOTH)
        await quiet()
        assert subscription.statistics().lag < 1024 + 2 * 64 + 1
        assert fold({}, await until_live(subscription)) == rows_at(store, 1, BOTH)


@pytest.mark.parametrize("topic", [HEALTH, JOBS], ids=str)
async def test_a_union_that_any_topic_has_passed_is_freed(topic: Topic[Any]) -> None:
    """D11, D22: without waiting for the reader to call."""
    kept: list[weakref.ref[Heavy]] = []

    async def handler(request: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        payload = Heavy()
        kept.append(weakref.ref(payload))
        await snapshot.append([Event(request.topic, 1, payload)])
        return 1

    async with open_publisher(
        {HEALTH: handler, JOBS: handler}, history=1, index=1, snapshot_cache_ttl=0
    ) as publisher:
        subscription = publisher.subscribe(BOTH)
        await quiet()
        gc.collect()
        assert [each() is None for each in kept] == [False, False]
        for index in (2, 3):
            publisher.publish([event(index, "web", topic=topic)])
        await quiet()
        gc.collect()
        assert [each() is None for each in kept] == [True, True]
        with pytest.raises(SubscriptionLagged):
            subscription.receive_nowait()


async def test_what_was_gone_before_somebody_asked_for_a_prefix_is_a_gap() -> None:
    """D6, D21: behind the snapshot of a store that lags, which its reader keeps."""
    behind = Held()
    behind.store.commit(("web", "1"))
    async with opened(behind, history=2) as (store, publisher):
        for value in "123":
            store.commit(("web", value))
        stale = WEBS.after(Cursor(1, "another"))
        subscription = publisher.subscribe(stale, on_lag="reset")
        await quiet()
        store.commit(("web", "4"))
        behind.store = store
        behind.go.set()
        assert kinds(await until_live(subscription)) == ["marker", "1:web=1", "eos@1"]
        assert kinds([await subscription.receive()]) == ["marker"]
        assert kinds(await until_live(subscription)) == ["4:web=4", "eos@4"]


async def test_what_a_publisher_that_has_stopped_keeps_no_more_is_a_gap() -> None:
    """D5, D6: it has nothing to fill a feed with, and does not go on behind the gap."""
    behind = Held()
    behind.store.commit(("web", "1"))
    async with opened(behind, history=2) as (store, publisher):
        for value in "123":
            store.commit(("web", value))
        subscription = publisher.subscribe(WEBS.after(Cursor(1, "another")), on_lag="reset")
        await quiet()
        store.commit(("web", "4"))
        behind.go.set()
        await quiet()
    assert kinds(await until_live(subscription)) == ["marker", "1:web=1", "eos@1"]
    with pytest.raises(SubscriptionForceClosed) as caught:
        await subscription.receive()
    assert caught.value.reason is CloseReason.STOPPED


async def test_what_a_topic_drops_is_gone_for_those_whom_it_concerned() -> None:
    """D6, D22: a key of another topic does not make it theirs."""
    async with opened(history=2) as (store, publisher):
        other = publisher.subscribe(WEBS)
        subscription = publisher.subscribe(
            SubscribeRequest(HEALTH, "b", prefix=True) | SubscribeRequest(JOBS)
        )
        await until_live(other)
        await until_live(subscription)
        both(store, (JOBS, "a", "1"))
        both(store, (HEALTH, "web", "2"), (JOBS, "b", "2"))
        for value in "34":
            store.commit(("web", value))
        assert publisher.statistics().topics["health"].floor == 2
        assert kinds(ready(subscription)) == ["1:a=1", "2:b=2"]
        with pytest.raises(SubscriptionLagged):
            other.receive_nowait()
