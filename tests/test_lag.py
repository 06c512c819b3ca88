"""Slow readers: what they are told, that they cost nobody anything, and that they hold nothing in memory."""

import gc
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Health, State, apply, event, kinds, ready, until_live
from scenes import ALL, WEB, Heavy, opened, quiet
from traced import traced

from trio_stream import (
    CloseReason,
    Event,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionLagged,
    SubscriptionState,
)

pytestmark = pytest.mark.anyio

LIVE = SubscribeRequest(HEALTH, "web", index=1)  # of a publisher that starts at 1


async def nowait(subscription: Subscription[Health]) -> object:
    await anyio.lowlevel.checkpoint()
    return subscription.receive_nowait()


async def one(subscription: Subscription[Health]) -> object:
    return await subscription.receive()


async def batch(subscription: Subscription[Health]) -> object:
    return await subscription.receive_batch()


async def iterate(subscription: Subscription[Health]) -> object:
    return await anext(aiter(subscription))


Receive = Callable[[Subscription[Health]], Awaitable[object]]
every_style = pytest.mark.parametrize("receive", [nowait, one, batch, iterate])


@every_style
async def test_who_falls_off_the_history_is_told_how_much_was_missed_every_time(receive: Receive) -> None:
    """D5, D6, D11, etcd #17529: the very next thing that the reader gets says so."""
    async with opened(history=4, index=1, epoch="one") as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        publisher.publish([event(2, "web")])
        assert kinds(ready(subscription)) == ["2:web=ok"]
        for index in range(3, 10):
            publisher.publish([event(index, "web")])
        for _ in range(3):
            with pytest.raises(SubscriptionLagged) as lagged:
                await receive(subscription)
            assert (lagged.value.missed, lagged.value.index, lagged.value.epoch) == (3, 2, "one")
            assert lagged.value.reason is CloseReason.LAGGED
        assert subscription.statistics().state is SubscriptionState.FORCE_CLOSED


@every_style
async def test_who_is_behind_by_the_whole_history_gets_all_of_it(receive: Receive) -> None:
    """D3, D11: one delivery more would be too many."""
    async with opened(history=4, index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        for index in range(2, 6):
            publisher.publish([event(index, "web")])
        await receive(subscription)
        publisher.publish([event(6, "web")])
        ready(subscription)
        assert subscription.index == 6


async def test_only_what_the_subscription_was_to_get_is_missed() -> None:
    """D3, D6: commits of other subjects make the history move on, but nobody misses them."""
    async with opened(history=4, index=1) as (_, publisher):
        current, behind = publisher.subscribe(LIVE), publisher.subscribe(LIVE)
        publisher.publish([event(2, "web"), event(2, "db")])
        publisher.publish([event(3, "web", "1"), event(3, "web", "2")])
        assert kinds(ready(current)) == ["2:web=ok", "3:web=1+web=2"]
        for index in range(4, 20):
            publisher.publish([event(index, "db")])
        assert ready(current) == []
        with pytest.raises(SubscriptionLagged) as lagged:
            behind.receive_nowait()
        assert lagged.value.missed == 2


async def test_lag_is_per_receiver() -> None:
    """D10: whoever keeps up notices nothing."""
    async with opened(history=4, index=1) as (_, publisher):
        slow, fast, other = (publisher.subscribe(LIVE) for _ in range(3))
        for index in range(2, 30):
            publisher.publish([event(index, "web")])
            assert kinds([await fast.receive()]) == [f"{index}:web=ok"]
            if index % 4 == 0:
                ready(other)
        for subscription in (slow, slow):
            with pytest.raises(SubscriptionLagged):
                subscription.receive_nowait()
        assert len(ready(other)) == 1
        assert publisher.statistics().subscriptions == 2


async def test_nothing_remains_of_readers_that_lagged() -> None:
    """D13, etcd #22294: however many they are."""
    async with opened(history=1, index=1) as (_, publisher):
        slow = [
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1, token=str(i))) for i in range(300)
        ]
        for index in (2, 3, 4):
            publisher.publish([event(index, "web")])
        for subscription in slow:
            with pytest.raises(SubscriptionLagged):
                subscription.receive_nowait()
        publisher.publish([event(5, "db")])
        left = publisher.statistics()
        assert (left.subscriptions, left.tokens, left.topics["health"].feeds) == (0, 0, 2)


@every_style
async def test_who_asked_for_it_gets_a_new_snapshot_instead_of_the_end(receive: Receive) -> None:
    """D5, D6, D11: marker, snapshot, end-of-snapshot, live, in the same subscription."""
    async with opened(history=4) as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB, on_lag="reset")
        await until_live(subscription)
        for round_ in range(3):
            for value in "abcdef":
                store.commit(("web", value))
            assert ready(subscription) == []  # until the snapshot is whole
            await quiet()
            first = await receive(subscription)
            assert isinstance(first, Event | list)
            received = [first] if isinstance(first, Event) else first
            assert subscription.index == 0 or received[-1].is_end_of_snapshot
            while not received[-1].is_end_of_snapshot:
                received.append(await subscription.receive())
            assert kinds(received) == ["marker", f"{store.index}:web=f", f"eos@{store.index}"]
            store.commit(("web", str(round_)))
            assert kinds(ready(subscription)) == [f"{store.index}:web={round_}"]
        assert subscription.statistics().state is SubscriptionState.LIVE


async def test_a_new_snapshot_after_a_lag_is_not_an_old_one_behind_which_one_lags_again() -> None:
    """D11, KEP-6268: a slow reader is killed, replays, is killed again."""
    async with opened(history=8, index=1) as (store, publisher):
        slow = publisher.subscribe(LIVE, on_lag="reset")
        store.commit(("web", "2"))
        await until_live(publisher.subscribe(WEB))  # cached at 2
        for i in range(3, 11):
            store.commit(("web", str(i)))
        assert kinds([await slow.receive()]) == ["marker"]
        store.commit(("web", "11"))  # the history passes 2
        received = await until_live(slow)
        assert len(received) == 2
        assert received[-1].index >= 10
        store.commit(("web", "12"))
        assert [got.index for got in ready(slow)] == list(range(received[-1].index + 1, 13))


async def test_a_reader_much_slower_than_the_writer_gets_further_with_every_reset() -> None:
    """D1, D6, D11: three commits for each event that it takes; its state is right whenever it is live."""
    async with opened(history=20) as (store, publisher):
        store.commit(("a", "0"), ("b", "0"))
        slow = publisher.subscribe(ALL, on_lag="reset")
        state: State = {}
        ends = []
        for i in range(100):
            for key in "abc":
                store.commit((key, str(i)))
            received = await slow.receive()
            apply(state, received)
            if received.is_end_of_snapshot:
                ends.append(received.index)
            if slow.index:
                assert state == store.state_at(slow.index, ALL)
        assert len(ends) > 3
        assert ends == sorted(set(ends))


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_reader_that_stalls_inside_a_snapshot_is_detached_and_the_snapshot_freed(on_lag: Any) -> None:
    """D11: when the history has passed it, without the reader calling."""
    payloads: list[weakref.ref[Heavy]] = []

    async def handler(_: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        index = publisher.index
        for _number in range(10):
            heavy = Heavy()
            payloads.append(weakref.ref(heavy))
            await snapshot.append([Event(HEALTH, index, heavy)])
        return index

    async with opened(handler, history=2, index=1) as (_, publisher):
        stalled = publisher.subscribe(WEB, on_lag=on_lag)
        assert (await stalled.receive()).index == 1
        await quiet()
        publisher.publish([event(2, "web")])
        publisher.publish([event(3, "db")])
        gc.collect()
        assert all(payload() is not None for payload in payloads)
        assert publisher.statistics().topics["health"].snapshots == 1
        publisher.publish([event(4, "db")])
        publisher.publish([event(5, "web")])
        gc.collect()
        assert [payload() for payload in payloads] == [None] * 10
        assert publisher.statistics().topics["health"].snapshots == 0
        if on_lag == "close":
            with pytest.raises(SubscriptionLagged) as lagged:
                await stalled.receive()
            assert lagged.value.index == 0
            assert lagged.value.missed > 0
            assert stalled.resume_request() == WEB
        else:
            assert (await stalled.receive()).is_new_snapshot_to_follow
            assert (await until_live(stalled))[-1].index == 5


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_snapshot_function_that_waits_for_a_stalled_reader_is_given_up_with_it(on_lag: Any) -> None:
    """D11, D13: it would wait, and hold what it has made, for ever."""
    payloads: list[weakref.ref[Heavy]] = []
    runs = 0

    async def handler(_: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        nonlocal runs
        runs += 1
        for _number in range(50_000 if runs == 1 else 1):
            heavy = Heavy()
            payloads.append(weakref.ref(heavy))
            await snapshot.append([Event(HEALTH, 1, heavy)])
        return publisher.index

    async with opened(handler, history=2, index=1) as (_, publisher):
        stalled = publisher.subscribe(WEB, on_lag=on_lag)
        assert (await stalled.receive()).index == 1
        await quiet()
        assert len(payloads) < 5_000
        for index in range(2, 6):
            publisher.publish([event(index, "web")])
        await quiet()
        gc.collect()
        assert not any(payload() for payload in payloads)
        if on_lag == "close":
            with pytest.raises(SubscriptionLagged):
                await stalled.receive()
        else:
            assert (await stalled.receive()).is_new_snapshot_to_follow
            assert (await until_live(stalled))[-1].index == 5
            assert runs == 2


async def test_who_had_read_all_but_the_end_of_a_snapshot_is_told_too() -> None:
    """D6: what came between is gone."""
    async with opened(history=2) as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        assert kinds([await subscription.receive()]) == ["1:web=1"]
        await quiet()
        for value in "2345":
            store.commit(("web", value))
        with pytest.raises(SubscriptionLagged):
            await subscription.receive()


async def test_a_snapshot_slower_than_the_history_is_not_continued_with_a_gap() -> None:
    """D6: those who waited for it are told; who comes later has a new one."""
    held = 0

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        nonlocal held
        held += 1
        index = await store.snapshot(request, snapshot)
        if held == 1:
            for value in "12345":
                store.commit(("web", value))
        return index

    async with opened(handler, history=2) as (store, publisher):
        waiting, resetting = publisher.subscribe(WEB), publisher.subscribe(WEB, on_lag="reset")
        with pytest.raises(SubscriptionLagged):
            await waiting.receive()
        assert kinds(await until_live(resetting)) == ["marker", "5:web=5", "eos@5"]


async def test_the_statistics_of_a_subscription_say_how_far_it_is_behind() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        seen = [subscription.statistics()]
        await quiet()
        seen.append(subscription.statistics())
        store.commit(("web", "2"))
        store.commit(("db", "3"))
        seen.append(subscription.statistics())
        await subscription.receive()
        seen.append(subscription.statistics())
        await subscription.receive()
        seen.append(subscription.statistics())
        ready(subscription)
        seen.append(subscription.statistics())
        subscription.unsubscribe()
        seen.append(subscription.statistics())
    snapshot, is_live, closed = SubscriptionState.SNAPSHOT, SubscriptionState.LIVE, SubscriptionState.CLOSED
    assert [(s.lag, s.delivered, s.state) for s in seen] == [
        (0, 0, snapshot),
        (2, 0, snapshot),
        (3, 0, snapshot),
        (2, 1, snapshot),
        (1, 2, is_live),
        (0, 3, is_live),
        (0, 3, closed),
    ]
    assert all(s.peak_lag >= s.lag for s in seen)
    assert [s.peak_lag for s in seen] == sorted(s.peak_lag for s in seen)


async def test_the_peak_of_the_lag_never_falls() -> None:
    """Although a loop does not look at each event how far it is behind."""
    async with opened(index=1, history=1000) as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        for index in range(2, 72):
            publisher.publish([event(index, "web")])
        peaks: list[int] = []
        async for received in subscription:
            if received.index == 3:
                for _ in range(100):
                    publisher.publish([event(publisher.index + 1, "web")])
            peaks.append(subscription.statistics().peak_lag)
            if received.index == publisher.index:
                break
        assert peaks == [70, *[168] * 169]


async def test_the_peak_of_the_lag_is_remembered() -> None:
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        for index in range(2, 12):
            publisher.publish([event(index, "web")])
        assert subscription.statistics().peak_lag == 10
        ready(subscription)
        publisher.publish([event(12, "web")])
        ready(subscription)
        assert (subscription.statistics().lag, subscription.statistics().peak_lag) == (0, 10)


@pytest.mark.parametrize("history", [50, 2_000], ids=["lagging", "behind"])
async def test_stalled_readers_cost_less_than_a_byte_for_each_event_that_they_have_not_taken(
    history: int,
) -> None:
    """D10, D11, client-go #1326: 300 readers, 1,000 events."""
    commits = [[event(index, "web")] for index in range(2, 1_002)]
    async with opened(history=history, index=1) as (_, publisher):
        stalled = [publisher.subscribe(LIVE) for _ in range(300)]
        tracemalloc.start()
        try:
            before = traced()
            for commit in commits:
                publisher.publish(commit)
            assert traced() - before < 300 * 1_000
        finally:
            tracemalloc.stop()
        assert len(stalled) == 300


@pytest.mark.parametrize("request_", [LIVE, WEB], ids=["live", "snapshot"])
async def test_an_idle_subscription_costs_at_most_600_bytes_and_nothing_when_it_is_closed(
    request_: SubscribeRequest[Health],
) -> None:
    """D11, D13."""
    async with opened(index=1) as (_, publisher):
        await until_live(publisher.subscribe(WEB))
        await until_live(publisher.subscribe(SubscribeRequest(JOBS)))
        request = replace(request_, token="idle")
        for _ in range(3):  # what runs for the first time makes the interpreter and coverage allocate
            publisher.subscribe(request).unsubscribe()
        tracemalloc.start()
        try:
            before = traced()
            idle = [publisher.subscribe(request) for _ in range(1_000)]
            assert traced() - before <= 600 * 1_000
            for subscription in idle:
                subscription.unsubscribe()
            del idle, subscription
            assert traced() - before < 20_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("taken", [1, 3])
async def test_inside_a_snapshot_what_was_left_of_it_is_missed(taken: int) -> None:
    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        for number in range(10):
            await snapshot.append([event(1, "web", f"{number}")])
        return 1

    async with opened(handler, index=1, history=2) as (store, publisher):
        subscription = publisher.subscribe(WEB)
        await quiet()
        for _ in range(taken):
            subscription.receive_nowait()
        for _ in range(4):
            store.commit(("web", "new"))
        with pytest.raises(SubscriptionLagged) as lagged:
            subscription.receive_nowait()
        assert lagged.value.missed == 11 - taken
