"""What a subscriber gets first: the state as of one index, and every change after it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, State, apply, event, kinds, ready, until_live
from scenes import ALL, WEB, Held, opened, quiet, settled

from trio_stream import (
    Event,
    EventPublisher,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFunc,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    WouldBlock,
)

pytestmark = pytest.mark.anyio


def fixed(index: int, *groups: Iterable[Event[Health]]) -> SnapshotFunc[Health]:
    """A snapshot function that always says the same."""

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        for group in groups:
            await snapshot.append(group)
        return index

    return handler


async def test_a_fresh_subscriber_gets_the_snapshot_its_end_and_then_the_changes_of_its_key() -> None:
    """C1, D5."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        assert kinds(await until_live(subscription)) == ["1:web=1", "eos@1"]
        assert await settled(subscription) == []
        with pytest.raises(WouldBlock):
            subscription.receive_nowait()
        store.commit(("web", "2"))
        assert kinds([await subscription.receive()]) == ["2:web=2"]
        store.commit(("db", "3"))
        store.commit(("web", "4"), topic=JOBS)
        store.commit(("web", "5"), namespace="team")
        assert await settled(subscription) == []


async def test_the_end_of_snapshot_comes_also_when_there_is_nothing() -> None:
    """D5: an empty snapshot must not look like one that is still coming."""
    async with opened() as (store, publisher):
        store.commit(("db", "1"))
        subscription = publisher.subscribe(WEB)
        assert kinds([await subscription.receive()]) == ["eos@1"]
        assert subscription.index == 1


async def test_a_store_without_a_commit_is_at_index_0_and_its_first_commit_is_not_missed() -> None:
    """D1, departure 10."""
    async with opened() as (store, publisher):
        subscription = publisher.subscribe(WEB)
        assert kinds(await until_live(subscription)) == ["eos@0"]
        assert subscription.statistics().state is SubscriptionState.LIVE
        assert store.commit(("web", "first")) == 1
        assert kinds([await subscription.receive()]) == ["1:web=first"]


async def test_the_index_is_0_until_the_end_of_the_snapshot() -> None:
    async with opened(fixed(7, [event(5, "web")])) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        await subscription.receive()
        assert subscription.index == 0
        await subscription.receive()
        assert subscription.index == 7


@pytest.mark.parametrize("size", [0, 10])
@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize("after", [5, 10])
@pytest.mark.parametrize(
    "published", ["before the snapshot starts", "while it is made", "after it has ended"]
)
async def test_commits_around_the_splice_are_in_the_snapshot_or_after_it(
    size: int, before: int, after: int, published: str
) -> None:
    """C13, D2, D3: none of those up to the snapshot's index, all of the later ones."""
    go = anyio.Event()

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await go.wait()
        for i in range(size):
            await snapshot.append([event(100 + i, "web")])
        return 1000

    def publish() -> None:
        for i in range(1000 - before, 1000 + after):
            publisher.publish([event(i + 1, "web"), event(i + 1, "db")])

    async with opened(handler) as (_, publisher):
        if published == "before the snapshot starts":
            publish()
        subscription = publisher.subscribe(WEB)
        await quiet()
        if published == "while it is made":
            publish()
        go.set()
        received = await until_live(subscription)
        if published == "after it has ended":
            publish()
        received += ready(subscription)
    assert [got.index for got in received] == [*range(100, 100 + size), 1000, *range(1001, 1001 + after)]


every_style = pytest.mark.parametrize("style", ["receive", "async for", "receive_batch"])


async def receive(subscription: Subscription[Health], style: str) -> Sequence[Event[Health]]:
    match style:
        case "receive":
            return [await subscription.receive()]
        case "receive_batch":
            return await subscription.receive_batch()
        case _:
            return [await anext(aiter(subscription))]


@every_style
async def test_events_that_the_snapshot_had_already_seen_are_dropped_however_late_they_come(
    style: str,
) -> None:
    """D2, Consul #17067: never `ev12 EOS@12 ev10 ev11 ev12`."""
    async with opened(fixed(12, [event(12, "web", "12")])) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        assert kinds(await until_live(subscription)) == ["12:web=12", "eos@12"]
        for index in (8, 9):
            publisher.publish([event(index, "web")])
        assert await settled(subscription) == []
        for index in (10, 11, 12, 13):
            publisher.publish([event(index, "web")])
        assert kinds(await receive(subscription, style)) == ["13:web=ok"]
        assert await settled(subscription) == []


async def test_late_events_that_the_snapshot_had_already_seen_do_not_make_its_reader_lag() -> None:
    """D2, D6: what leaves the history was not missed, so nothing has to be said."""
    async with opened(fixed(100), history=4) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        await until_live(subscription)
        for index in range(1, 20):
            publisher.publish([event(index, "web")])
        assert ready(subscription) == []
        publisher.publish([event(101, "web")])
        assert kinds(ready(subscription)) == ["101:web=ok"]


@every_style
async def test_a_cached_snapshot_ahead_of_the_publisher_is_a_floor_for_every_later_reader(style: str) -> None:
    """D2, D14."""
    async with opened(fixed(12, [event(12, "web")])) as (_, publisher):
        await until_live(publisher.subscribe(WEB))
        for index in (10, 11, 12, 13):
            publisher.publish([event(index, "web")])
        subscription = publisher.subscribe(WEB)
        received: list[Event[Health]] = []
        while len(received) < 3:
            received += await receive(subscription, style)
        assert kinds(received) == ["12:web=ok", "eos@12", "13:web=ok"]


async def test_a_blank_key_gets_whole_commits_of_the_whole_namespace_in_order() -> None:
    """C10, D4, departure 12."""
    async with opened(fixed(1, [event(1, "a"), event(1, "b")])) as (_, publisher):
        subscription = publisher.subscribe(ALL)
        publisher.publish([event(2, "a", "2"), event(2, "b", "2")])
        publisher.publish([event(3, "a", namespace="team")])
        received = await until_live(subscription) + ready(subscription)
    assert kinds(received) == ["1:a=ok+b=ok", "eos@1", "2:a=2+b=2"]
    assert isinstance(received[0].payload, PayloadEvents)


async def test_one_event_comes_bare_and_several_of_a_commit_as_one_batch() -> None:
    """C15, D4."""
    one, three = [event(2, "web", "a")], [event(3, "web", value) for value in "bcd"]
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        publisher.publish(one)
        publisher.publish(three)
        bare, batch = ready(subscription)
    assert bare is one[0]
    assert (batch.topic, batch.index) == (HEALTH, 3)
    assert list(batch.events) == three


async def test_a_commit_over_topics_and_subjects_is_one_event_for_each_subscription_that_it_touches() -> None:
    """D3, D4."""
    requests = [
        WEB,
        ALL,
        SubscribeRequest(HEALTH, "db"),
        SubscribeRequest(JOBS),
        SubscribeRequest(JOBS, "web"),
    ]
    async with opened() as (_, publisher):
        subscriptions = [publisher.subscribe(request) for request in requests]
        for subscription in subscriptions:
            await until_live(subscription)
        publisher.publish(
            [event(1, "web", "a"), event(1, "x", topic=JOBS), event(1, "db"), event(1, "web", "b")]
        )
        received = [kinds(ready(subscription)) for subscription in subscriptions]
    assert received == [["1:web=a+web=b"], ["1:web=a+db=ok+web=b"], ["1:db=ok"], ["1:x=ok"], []]


@pytest.mark.parametrize(
    ("readers", "seen"),
    [
        ({"a", "c"}, ["1:a=1+c=1", "eos@1", "2:a=2+c=2", "4:c=4"]),
        ({"a"}, ["1:a=1", "eos@1", "2:a=2"]),
        (set(), ["eos@1"]),
    ],
    ids=["half", "one", "none"],
)
async def test_what_may_not_be_read_is_left_out_and_the_index_still_advances(
    readers: set[str], seen: list[str]
) -> None:
    """C16, departure 14: half readable, one, none."""
    async with opened(fixed(1, [event(1, key, "1") for key in "abcd"])) as (_, publisher):
        subscription = publisher.subscribe(ALL, authorizer=frozenset(readers))
        publisher.publish([event(2, key, "2") for key in "abcd"])
        publisher.publish([event(3, "b", "3")])
        publisher.publish([event(4, "c", "4")])
        received = await until_live(subscription) + ready(subscription)
        assert kinds(received) == seen
        assert all(isinstance(got.payload, PayloadEvents) for got in received if got.index < 3 and got.events)
        assert subscription.index == 4


async def test_a_snapshot_includes_every_commit_that_was_published_before_it_was_asked_for() -> None:
    """D8, Consul #16871: with no snapshot, one in the making, and one in the cache."""
    held = Held()
    async with opened(held) as (_, publisher):
        store, held.store.publisher = held.store, publisher
        store.commit(("web", "1"))
        subscriptions = [publisher.subscribe(WEB)]
        await quiet()
        store.commit(("web", "2"))
        subscriptions.append(publisher.subscribe(WEB))
        held.go.set()
        await until_live(publisher.subscribe(WEB))
        store.commit(("web", "3"))
        subscriptions.append(publisher.subscribe(WEB))
        for subscription in subscriptions:
            state: State = {}
            for received in await until_live(subscription) + ready(subscription):
                apply(state, received)
            assert list(state.values()) == ["3"]
        assert len(held.requests) == 1


async def test_a_cached_snapshot_is_followed_at_once_by_the_events_since() -> None:
    """C3, D8."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        await until_live(publisher.subscribe(WEB))
        store.commit(("web", "2"))
        store.commit(("db", "3"))
        assert kinds(ready(publisher.subscribe(WEB))) == ["1:web=1", "eos@1", "2:web=2"]
        assert store.runs == 1


async def test_who_comes_back_too_late_gets_the_marker_and_a_whole_new_snapshot() -> None:
    """C5, D5, D6."""
    async with opened(history=1) as (store, publisher):
        store.commit(("web", "1"))
        async with publisher.subscribe(WEB) as subscription:
            await until_live(subscription)
        for value in "23":
            store.commit(("web", value))
        again = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        received = await until_live(again)
        assert kinds(received) == ["marker", "3:web=3", "eos@3"]
        assert [got.index for got in received] == [0, 3, 3]


async def test_who_comes_back_too_late_is_served_from_the_cache_with_what_came_since() -> None:
    """C6: marker, snapshot, end-of-snapshot, the missed event; the handler is not asked again."""
    async with opened(history=2) as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        await until_live(publisher.subscribe(WEB))
        store.commit(("db", "3"))
        store.commit(("web", "4"))
        stale = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        assert kinds(ready(stale)) == ["marker", "2:web=2", "eos@2", "4:web=4"]
        assert store.runs == 1


async def test_who_asks_for_a_snapshot_never_sees_the_marker_of_another() -> None:
    """C7, Consul #9772, D14: framing is never shared, in neither order, in the making or in the cache."""
    stale = SubscribeRequest(HEALTH, "web", index=5, epoch="another")
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        subscriptions = [publisher.subscribe(request) for request in (stale, WEB, stale)]
        received = [kinds(await until_live(subscription)) for subscription in subscriptions]
        received += [kinds(ready(publisher.subscribe(request))) for request in (WEB, stale)]
        assert store.runs == 1
    snapshot = ["1:web=1", "eos@1"]
    assert received == [
        ["marker", *snapshot],
        snapshot,
        ["marker", *snapshot],
        snapshot,
        ["marker", *snapshot],
    ]


async def test_a_snapshot_that_is_asked_for_before_the_publisher_runs_waits_for_it() -> None:
    store = Catalogue()
    publisher = store.publisher = EventPublisher({HEALTH: store.snapshot})
    store.commit(("web", "1"))
    subscription, other = publisher.subscribe(WEB), publisher.subscribe(WEB)
    assert await settled(subscription) == []
    other.unsubscribe()
    store.commit(("web", "2"))
    async with anyio.create_task_group() as tasks:
        await tasks.start(publisher.run)
        assert kinds(await until_live(subscription)) == ["2:web=2", "eos@2"]
        tasks.cancel_scope.cancel()
    with pytest.raises(SubscriptionForceClosed):
        await subscription.receive()


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_subscriptions_may_come_and_go_before_there_is_an_event_loop(backend: str) -> None:
    """Before `run` has started, `publish` and `subscribe` work, whatever loop it will be."""
    store = Catalogue()
    publisher = store.publisher = EventPublisher({HEALTH: store.snapshot})
    store.commit(("web", "1"))
    publisher.subscribe(WEB).unsubscribe()
    publisher.subscribe(SubscribeRequest(HEALTH, token="t"))
    assert publisher.close_subscriptions(["t"]) == 1
    publisher.subscribe(ALL)
    publisher.refresh(HEALTH)
    subscription = publisher.subscribe(WEB)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(publisher.run)
            assert kinds(await until_live(subscription)) == ["1:web=1", "eos@1"]
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    "request_",
    [
        SubscribeRequest(HEALTH),
        SubscribeRequest(HEALTH, "web", namespace="team"),
        SubscribeRequest(HEALTH, "web", partition="west"),
        SubscribeRequest(HEALTH, namespace="team", partition="west"),
    ],
)
async def test_the_snapshot_function_is_asked_for_all_that_names_the_subject(
    request_: SubscribeRequest[Health],
) -> None:
    """D1, D14: and for nothing that is the subscriber's own."""
    held = Held()
    held.go.set()
    async with opened(held) as (_, publisher):
        await until_live(publisher.subscribe(replace(request_, token="t", index=7, epoch="old")))
        assert held.requests == [request_]


async def test_a_snapshot_of_a_store_without_a_commit_comes_as_a_batch_too() -> None:
    """D3: whatever index its events have."""
    rows = [event(0, key) for key in ("web", "db", "api")]
    async with opened(fixed(0, *([row] for row in rows))) as (_, publisher):
        async with publisher.subscribe(ALL) as subscription:
            await quiet()
            received = await subscription.receive_batch()
    assert kinds(received) == ["0:web=ok", "0:db=ok", "0:api=ok", "eos@0"]
