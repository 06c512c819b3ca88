"""Coming back: after which index one can go on, and how one is told when one cannot."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from scenes import ALL, WEB, Held, opened, quiet, settled

from trio_stream import (
    CloseReason,
    Cursor,
    EventPublisher,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    open_publisher,
)

pytestmark = pytest.mark.anyio


def web(index: int, epoch: str | None = None) -> SubscribeRequest[Health]:
    return SubscribeRequest(HEALTH, "web", index=index, epoch=epoch)


@pytest.mark.parametrize("another", [True, False], ids=["another keeps the key alive", "nobody does"])
@pytest.mark.parametrize("trusting", [True, False], ids=["without epoch", "with epoch"])
async def test_who_comes_back_gets_no_snapshot_and_exactly_what_it_missed(
    another: bool, trusting: bool
) -> None:
    """C4, D7: read to end-of-snapshot at 1, leave, come back with index 1."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        if another:
            await until_live(publisher.subscribe(WEB))
        async with publisher.subscribe(WEB) as subscription:
            assert (await until_live(subscription))[-1].index == 1
        runs = store.runs
        store.commit(("db", "2"))
        again = publisher.subscribe(web(1, None if trusting else publisher.epoch))
        assert await settled(again) == []
        assert again.index == 1
        store.commit(("web", "3"))
        assert kinds([await again.receive()]) == ["3:web=3"]
        assert await settled(again) == []
        assert store.runs == runs


async def test_what_was_received_and_left_can_be_asked_for_again() -> None:
    """D7: a client that has not kept what it had goes on from where it had been before."""
    async with opened(index=1) as (store, publisher):
        start = Cursor(1, publisher.epoch)
        for _ in range(2):
            async with publisher.subscribe(WEB.after(start)) as subscription:
                if store.index == 1:
                    store.commit(("web", "2"))
                    store.commit(("web", "3"))
                assert kinds(ready(subscription)) == ["2:web=2", "3:web=3"]


@pytest.mark.parametrize("index", range(3, 8))
@pytest.mark.parametrize("key", ["web", ""])
async def test_one_can_resume_from_any_index_that_is_kept(index: int, key: str) -> None:
    """D7, Nomad: what comes is greater than the index given, which is not delivered again."""
    async with opened(history=5) as (store, publisher):
        for i in range(1, 9):
            store.commit(("web", str(i)))
        assert publisher.statistics().topics["health"].floor == 3
        again = publisher.subscribe(SubscribeRequest(HEALTH, key, index=index, epoch=publisher.epoch))
        assert kinds(ready(again)) == [f"{i}:web={i}" for i in range(index + 1, 9)]
        assert store.runs == 0


@pytest.mark.parametrize("index", [1, 2, 3])
@pytest.mark.parametrize("trusting", [True, False])
async def test_an_index_that_the_history_has_passed_is_stale(index: int, trusting: bool) -> None:
    """C5, D5, D6, Nomad: resume at 2 with 7-10 kept must not start at 7 without a word."""
    async with opened(history=4) as (store, publisher):
        for i in range(1, 9):
            store.commit(("web", str(i)))
        again = publisher.subscribe(web(index, None if trusting else publisher.epoch))
        assert kinds(await until_live(again)) == ["marker", "8:web=8", "eos@8"]
        store.commit(("web", "9"))
        assert kinds([await again.receive()]) == ["9:web=9"]


async def test_a_subject_without_events_resumes_from_any_index_that_is_kept() -> None:
    """D7: there, only the newest item of a buffer that is in use can be resumed from."""
    async with opened(history=4) as (store, publisher):
        for i in range(1, 9):
            store.commit(("db", str(i)))
        resumed = [publisher.subscribe(web(index, publisher.epoch)) for index in range(4, 9)]
        assert [kinds(ready(subscription)) for subscription in resumed] == [[]] * 5
        store.commit(("web", "9"))
        assert [kinds(ready(subscription)) for subscription in resumed] == [["9:web=9"]] * 5
        assert kinds(await until_live(publisher.subscribe(web(3, publisher.epoch)))) == [
            "marker",
            "9:web=9",
            "eos@9",
        ]


async def test_the_history_of_another_topic_does_not_matter() -> None:
    """D7: history counts commits of each topic."""
    async with opened(history=2) as (store, publisher):
        store.commit(("web", "1"))
        for i in range(2, 9):
            store.commit(("web", str(i)), topic=JOBS)
        assert ready(publisher.subscribe(web(1))) == []
        assert kinds(ready(publisher.subscribe(SubscribeRequest(HEALTH, "web", index=0)))) == []
        stale = publisher.subscribe(SubscribeRequest(JOBS, "web", index=1))
        assert kinds(await until_live(stale)) == ["marker", "8:web=8", "eos@8"]


async def test_an_index_of_the_future_waits_and_never_gets_older_events() -> None:
    """D7, etcd #20221: a replica that is behind the one that gave the index."""
    async with opened(epoch="one") as (store, publisher):
        store.commit(("web", "1"))
        ahead = publisher.subscribe(web(4, "one"))
        for value in "234":
            store.commit(("web", value))
            assert await settled(ahead) == []
            assert ahead.index == 4
        store.commit(("web", "5"))
        assert kinds([await ahead.receive()]) == ["5:web=5"]
        assert store.runs == 0


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_older_events_cannot_make_a_reader_from_the_future_lag(on_lag: str) -> None:
    """D6, D7: what it never was to get cannot have been missed."""
    async with opened(epoch="one", history=2) as (_, publisher):
        ahead = publisher.subscribe(web(8, "one"), on_lag="reset" if on_lag == "reset" else "close")
        for i in range(1, 11):
            publisher.publish([event(i, "web")])
        assert kinds(ready(ahead)) == ["9:web=ok", "10:web=ok"]


@pytest.mark.parametrize(
    ("index", "epoch"),
    [(9, None), (1, "another"), (2, "another"), (9, "another"), (2, "")],
    ids=[
        "of the future without an epoch",
        "kept, wrong epoch",
        "newest, wrong epoch",
        "of the future",
        "no name",
    ],
)
async def test_an_index_that_cannot_be_trusted_is_stale(index: int, epoch: str | None) -> None:
    """D7: a wrong epoch always, and an index that nobody can have been given."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        again = publisher.subscribe(web(index, epoch))
        assert kinds(await until_live(again)) == ["marker", "2:web=2", "eos@2"]
        assert again.epoch == publisher.epoch


@pytest.mark.parametrize("epoch", [None, "another"])
async def test_index_0_is_a_fresh_start_whatever_the_epoch(epoch: str | None) -> None:
    """D7, departure 10: there is nothing to drop, so there is no marker."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        assert kinds(await until_live(publisher.subscribe(web(0, epoch)))) == ["1:web=1", "eos@1"]


async def test_a_publisher_that_starts_at_an_index_can_be_resumed_from_there_and_not_from_before() -> None:
    """D7: also for a topic that is registered later."""
    later = Catalogue(index=5)
    async with open_publisher({HEALTH: later.snapshot}, index=5, epoch="one") as publisher:
        later.states, later.publisher = {5: {}}, publisher
        at, before = publisher.subscribe(web(5, "one")), publisher.subscribe(web(4, "one"))
        assert kinds(await until_live(before)) == ["marker", "eos@5"]
        later.commit(("web", "6"))
        publisher.register_handler(JOBS, later.snapshot)
        assert kinds(ready(at)) == kinds(ready(before)) == ["6:web=6"]
        assert ready(publisher.subscribe(SubscribeRequest(JOBS, index=6, epoch="one"))) == []
        unknown = publisher.subscribe(SubscribeRequest(JOBS, index=5, epoch="one"))
        assert kinds(await until_live(unknown)) == ["marker", "eos@6"]


async def test_an_event_of_a_blank_key_comes_once_to_who_asks_for_all() -> None:
    """D3, Nomad: an event that matches two asked keys is delivered twice."""
    async with opened(index=1) as (_, publisher):
        everything = publisher.subscribe(SubscribeRequest(HEALTH, index=1))
        publisher.publish([event(2, "", "a"), event(2, "web", "b")])
        assert kinds(ready(everything)) == ["2:=a+web=b"]


async def test_going_on_with_the_resume_request_again_and_again_loses_nothing_and_repeats_nothing() -> None:
    """D3, D7: also over events that were hidden."""
    async with opened() as (store, publisher):
        request, received = ALL, []
        readable = frozenset({"a", "c"})
        for i in range(1, 30):
            store.commit((key := "abcd"[i % 4], str(i)))
            async with publisher.subscribe(request, authorizer=readable) as subscription:
                if i == 1:
                    await until_live(subscription)
                received += ready(subscription)
                assert subscription.index == i
            request = subscription.resume_request()
            assert request == replace(ALL, index=i, epoch=publisher.epoch), key
        assert [got.index for got in received] == list(range(2, 30, 2))


async def test_a_refreshed_topic_starts_again_and_the_others_go_on() -> None:
    """D6: its subscriptions are closed, its history and its snapshots dropped; the epoch stays."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("web", "2"), topic=JOBS)
        epoch = publisher.epoch
        health, jobs = publisher.subscribe(WEB), publisher.subscribe(SubscribeRequest(JOBS))
        await until_live(health)
        await until_live(jobs)
        store.states[store.index][HEALTH] = {}
        publisher.refresh(HEALTH)
        with pytest.raises(SubscriptionForceClosed) as closed:
            health.receive_nowait()
        assert (closed.value.reason, closed.value.index) == (CloseReason.REFRESH, 2)
        assert (publisher.epoch, publisher.index) == (epoch, 2)
        assert kinds(await until_live(publisher.subscribe(WEB))) == ["eos@2"]
        stale = publisher.subscribe(web(1, epoch))
        assert kinds(await until_live(stale)) == ["marker", "eos@2"]
        assert ready(jobs) == []
        store.commit(("web", "3"), topic=JOBS)
        assert kinds(ready(jobs)) == ["3:web=3"]
        assert kinds(ready(publisher.subscribe(SubscribeRequest(JOBS, index=1)))) == ["2:web=2", "3:web=3"]


@pytest.mark.parametrize("epoch", [None, "two"])
async def test_a_restored_store_begins_a_new_epoch_at_a_lower_index(epoch: str | None) -> None:
    """D6, D7, etcd #15271, Consul #20642: every topic is closed, and no old index is misread."""
    async with opened(epoch="one") as (store, publisher):
        for i in range(1, 6):
            store.commit(("web", str(i)))
        requests = [WEB, ALL, SubscribeRequest(JOBS), web(9, "one")]
        subscriptions = [publisher.subscribe(request) for request in requests]
        publisher.refresh(index=2, epoch=epoch)
        for subscription in subscriptions:
            with pytest.raises(SubscriptionForceClosed) as closed:
                subscription.receive_nowait()
            assert (closed.value.reason, closed.value.epoch) == (CloseReason.REFRESH, "one")
            assert subscription.resume_request().index == 0
        assert publisher.index == 2
        assert publisher.epoch == (epoch or publisher.epoch) != "one"
        store.index, store.states = 2, {2: {}}
        again = [publisher.subscribe(web(index, "one")) for index in (2, 3, 5, 9)]
        store.commit(("web", "new"))
        for subscription in again:
            assert kinds(await until_live(subscription)) == ["marker", "3:web=new", "eos@3"]
        assert kinds(ready(publisher.subscribe(web(2, publisher.epoch)))) == ["3:web=new"]


def revoke(publisher: EventPublisher) -> object:
    return publisher.close_subscriptions(["t"])


@pytest.mark.parametrize("close", [EventPublisher.refresh, revoke])
async def test_all_who_were_closed_are_woken_although_the_publisher_stops_at_once(
    close: Callable[[EventPublisher], object],
) -> None:
    """D9, D16, broadcaster #144: however many they are; a dead source must not leave them hanging."""
    reasons: list[CloseReason] = []

    async def read(subscription: Subscription[Health]) -> None:
        with pytest.raises(SubscriptionForceClosed) as closed:
            await subscription.receive()
        reasons.append(closed.value.reason)

    async with anyio.create_task_group() as readers:
        async with opened(index=1) as (_, publisher):
            request = SubscribeRequest(HEALTH, "web", index=1, token="t")
            for _number in range(1_000):
                readers.start_soon(read, publisher.subscribe(request))
            await quiet()
            close(publisher)
    assert len(reasons) == 1_000
    assert CloseReason.STOPPED not in reasons


async def test_lost_commits_are_skipped_on_the_same_timeline_and_nobody_resumes_across_them() -> None:
    """D6, D7."""
    async with opened(epoch="one") as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(web(1, "one"))
        publisher.refresh(index=5, epoch="one")
        with pytest.raises(SubscriptionForceClosed):
            subscription.receive_nowait()
        store.index, store.states = 5, {5: {}}
        again = publisher.subscribe(web(4, "one"))
        store.commit(("web", "6"))
        assert kinds(await until_live(again)) == ["marker", "6:web=6", "eos@6"]


async def test_a_restored_store_without_an_index_begins_at_0() -> None:
    async with opened(index=7) as (_, publisher):
        publisher.refresh()
        assert publisher.index == 0
        publisher.publish([event(1, "web")])


async def test_a_refresh_that_makes_no_sense_is_refused_and_changes_nothing() -> None:
    """D18."""
    refused: list[tuple[type[Exception], Callable[[EventPublisher], None]]] = [
        (ValueError, lambda publisher: publisher.refresh(HEALTH, index=1)),
        (ValueError, lambda publisher: publisher.refresh(HEALTH, epoch="two")),
        (ValueError, lambda publisher: publisher.refresh(index=-1)),
        (ValueError, lambda publisher: publisher.refresh(epoch="one")),
        (ValueError, lambda publisher: publisher.refresh(epoch="")),
        (LookupError, lambda publisher: publisher.refresh(replace(HEALTH, name="other"))),
    ]
    async with opened(index=7, epoch="one") as (_, publisher):
        subscription = publisher.subscribe(web(7, "one"))
        for error, refresh in refused:
            with pytest.raises(error):
                refresh(publisher)
        assert (publisher.index, publisher.epoch, ready(subscription)) == (7, "one", [])


async def inside_a_snapshot(subscription: Subscription[Health], publisher: EventPublisher) -> None:
    await subscription.receive()
    await quiet()


async def live(subscription: Subscription[Health], publisher: EventPublisher) -> None:
    await until_live(subscription)
    publisher.publish([event(3, "web")])
    await subscription.receive()


Reach = Callable[[Subscription[Health], EventPublisher], Awaitable[None]]


@pytest.mark.parametrize(("reach", "index"), [(inside_a_snapshot, 0), (live, 3)])
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda s, p: None, None),
        (lambda s, p: s.unsubscribe(), None),
        (lambda s, p: p.close_subscriptions(["t"]), CloseReason.TOKEN),
        (lambda s, p: p.refresh(HEALTH), CloseReason.REFRESH),
        (lambda s, p: p.refresh(), CloseReason.REFRESH),
        (lambda s, p: [p.publish([event(i, "web")]) for i in range(4, 9)], CloseReason.LAGGED),
    ],
    ids=["open", "unsubscribed", "token", "topic refreshed", "all refreshed", "lagged"],
)
async def test_the_resume_request_goes_on_where_the_subscription_stands(
    reach: Reach, index: int, end: Callable[[object, object], object], reason: CloseReason | None
) -> None:
    """D16: from the start where what was received must be dropped."""
    request = SubscribeRequest(HEALTH, "web", token="t", index=1, epoch="old")
    async with opened(history=2, index=1, epoch="one") as (store, publisher):
        store.commit(("web", "2"))
        subscription = publisher.subscribe(request)
        await reach(subscription, publisher)
        end(subscription, publisher)
        if reason:
            with pytest.raises(SubscriptionForceClosed) as closed:
                subscription.receive_nowait()
            assert (closed.value.reason, closed.value.index) == (reason, index)
        if reason in (CloseReason.TOKEN, CloseReason.REFRESH):
            index = 0
        assert subscription.resume_request() == replace(request, index=index, epoch="one" if index else None)


async def test_the_resume_request_of_a_stopped_publisher_is_good_for_its_successor() -> None:
    """D7, D16."""
    async with opened(epoch="one") as (store, publisher):
        store.commit(("web", "1"))
        subscription, inside = publisher.subscribe(WEB), publisher.subscribe(WEB)
        await until_live(subscription)
        await inside.receive()
    assert inside.resume_request() == WEB
    assert subscription.resume_request() == web(1, "one")
    async with opened(epoch="one", index=1) as (store, publisher):
        again = publisher.subscribe(subscription.resume_request())
        store.commit(("web", "2"))
        assert kinds([await again.receive()]) == ["2:web=2"]


async def test_who_lagged_is_told_again_by_the_marker_when_it_comes_back() -> None:
    """D6: what it received is right, but old."""
    async with opened(history=2) as (store, publisher):
        store.commit(("web", "1"))
        async with publisher.subscribe(WEB) as subscription:
            await until_live(subscription)
            for value in "2345":
                store.commit(("web", value))
            with pytest.raises(SubscriptionLagged):
                await subscription.receive()
        assert subscription.resume_request() == web(1, publisher.epoch)
        again = publisher.subscribe(subscription.resume_request())
        assert kinds(await until_live(again)) == ["marker", "5:web=5", "eos@5"]


async def test_who_waited_for_a_snapshot_that_failed_starts_again() -> None:
    """D16."""
    held = Held(Catalogue(index=-1, states={-1: {}}))
    held.go.set()
    async with opened(held) as (_, publisher):
        subscription = publisher.subscribe(web(5))
        with pytest.raises(SnapshotFailed):
            await until_live(subscription)
        assert subscription.resume_request() == WEB


@pytest.mark.parametrize("size", [1, 31, 32, 100])
async def test_a_prefix_resumes_over_commits_of_any_size(size: int) -> None:
    """D3, D4, D7: nobody has read it before, so that it has to be looked for in the history."""
    async with opened() as (store, publisher):
        for _ in range(3):
            store.commit(*((f"{name}{number}", f"{number}") for number in range(size) for name in "wx"))
        request = SubscribeRequest(HEALTH, "w", index=1, epoch=publisher.epoch, prefix=True)
        async with publisher.subscribe(request) as subscription:
            received = [await subscription.receive() for _ in range(2)]
            assert await subscription.receive_until_current() == []
    assert [each.index for each in received] == [2, 3]
    for each in received:
        assert [payload.subject.key for payload in each.payloads] == [f"w{number}" for number in range(size)]
