"""D21: however slow a reader is, with `on_lag="reset"` it gets on, by whole snapshots."""

import gc
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, State, apply, event, kinds, ready, until_live
from scenes import ALL, WEB, Heavy, Held, opened, quiet, settled

from trio_stream import (
    CloseReason,
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    SubscriptionState,
    WouldBlock,
)

pytestmark = pytest.mark.anyio

LIVE = SubscribeRequest(HEALTH, "web", token="t", index=1)  # of a publisher that starts at 1


def commit_past(store: Catalogue, history: int = 4) -> None:
    """So many that a reader, or a snapshot, of before has been passed."""
    for _ in range(history + 2):
        store.commit(("web", f"{store.index + 1}"))


async def fallen(publisher: EventPublisher, store: Catalogue) -> Subscription[Health]:
    """A live reader that has lost something, and does not know it yet."""
    subscription = publisher.subscribe(LIVE, on_lag="reset")
    commit_past(store)
    return subscription


@pytest.mark.parametrize("ttl", [0, 10])
async def test_a_reader_that_pauses_longer_than_the_history_lasts_gets_a_state_every_time(ttl: int) -> None:
    """U7: seven of seven batches were the marker alone."""
    async with opened(history=4, snapshot_cache_ttl=ttl) as (store, publisher):
        store.commit(("web", "0"))
        subscription = publisher.subscribe(ALL, on_lag="reset")
        await subscription.receive_until_current()
        state: State = {}
        for _ in range(7):
            commit_past(store)
            before = store.index
            got = await subscription.receive_batch()
            assert [each.is_new_snapshot_to_follow for each in got] == [True, *[False] * (len(got) - 1)]
            assert got[-1].is_end_of_snapshot
            for each in got:
                apply(state, each)
            assert state == store.state_at(got[-1].index, ALL)
            assert got[-1].index >= before


async def test_the_marker_waits_until_the_snapshot_behind_it_is_whole() -> None:
    """D21: what the reader holds is right as of its index until then."""
    handler = Held()
    async with opened(handler, history=4, index=1) as (store, publisher):
        handler.store = store
        subscription = await fallen(publisher, store)
        for _ in range(2):
            with pytest.raises(WouldBlock):
                subscription.receive_nowait()
            await quiet()
        assert handler.requests
        assert (subscription.index, subscription.horizon) == (1, 1)
        assert subscription.resume_request().index == 1
        assert subscription.statistics().state is SubscriptionState.SNAPSHOT
        assert subscription.statistics().lag == 0
        handler.go.set()
        await quiet()
        assert subscription.statistics().lag == 3
        assert subscription.receive_nowait().is_new_snapshot_to_follow
        assert (subscription.index, subscription.resume_request().index) == (0, 0)
        assert kinds(ready(subscription)) == [f"{store.index}:web={store.index}", f"eos@{store.index}"]


@pytest.mark.parametrize("style", ["receive", "receive_batch", "async for", "receive_until_current"])
async def test_a_waiting_reader_is_woken_when_its_snapshot_is_whole(style: str) -> None:
    got: list[Event[Health]] = []

    async def read() -> None:
        match style:
            case "receive":
                got.append(await subscription.receive())
            case "receive_batch":
                got.extend(await subscription.receive_batch())
            case "receive_until_current":
                got.extend(await subscription.receive_until_current())
            case _:
                got.append(await anext(subscription))

    handler = Held()
    async with opened(handler, history=4, index=1) as (store, publisher):
        handler.store = store
        subscription = await fallen(publisher, store)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await quiet()
            assert got == []
            handler.go.set()
    assert got[0].is_new_snapshot_to_follow


async def test_a_stale_resume_waits_for_the_whole_snapshot_too() -> None:
    """D21: one rule for every marker under `reset`; under `close` it comes at once."""
    handler = Held()
    async with opened(handler, index=5) as (store, publisher):
        handler.store = store
        store.commit(("web", "6"))
        stale = SubscribeRequest(HEALTH, "web", index=2)
        closing, resetting = publisher.subscribe(stale), publisher.subscribe(stale, on_lag="reset")
        assert await settled(resetting) == []
        assert await settled(closing) == ["marker"]
        handler.go.set()
        assert await settled(resetting) == ["marker", "6:web=6", "eos@6"]
        assert await settled(closing) == ["6:web=6", "eos@6"]


async def test_a_snapshot_that_was_begun_is_kept_to_its_end() -> None:
    """D21, KEP-6268: and then the reader is told that there is more behind it."""
    async with opened(history=4, snapshot_cache_ttl=0) as (store, publisher):
        for key in "abc":
            store.commit((key, "0"))
        subscription = publisher.subscribe(ALL, on_lag="reset")
        await subscription.receive_until_current()
        commit_past(store)
        with pytest.raises(WouldBlock):
            subscription.receive_nowait()
        await quiet()
        first = store.index
        apply({}, await subscription.receive())
        state: State = {}
        while not subscription.index:
            apply(state, await subscription.receive())
            commit_past(store)
        assert subscription.index == first
        assert state == store.state_at(first, ALL)
        assert (await subscription.receive()).is_new_snapshot_to_follow
        assert (await until_live(subscription))[-1].index == store.index


async def test_a_snapshot_function_slower_than_the_history_still_gets_its_reader_on() -> None:
    """D21: each snapshot is passed before it is whole, and is handed out all the same."""
    runs = 0

    async def slow(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        nonlocal runs
        runs += 1
        index = await store.snapshot(request, snapshot)
        if runs > 1:
            commit_past(store)
        return index

    async with opened(slow, history=4, snapshot_cache_ttl=0) as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB, on_lag="reset")
        await subscription.receive_until_current()
        commit_past(store)
        seen = [0]
        for _ in range(4):
            got = await subscription.receive_batch()
            assert kinds(got)[0] == "marker"
            assert got[-1].is_end_of_snapshot
            assert kinds(got)[1] == f"{got[-1].index}:web={got[-1].index}"
            seen.append(got[-1].index)
        assert seen == sorted(set(seen))


async def test_a_snapshot_larger_than_the_window_comes_to_its_end_before_anybody_reads_it() -> None:
    """D11, D21: the function would wait for a reader that waits for it."""
    async with opened(history=4, index=1) as (store, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, index=1), on_lag="reset")
        store.commit_events(event(2, f"s{number}") for number in range(3_000))
        commit_past(store)
        with anyio.fail_after(30):
            got = await subscription.receive_batch()
        assert len(got) == 3_003
        assert got[-1].is_end_of_snapshot


async def test_a_third_snapshot_takes_the_oldest_from_its_readers() -> None:
    """D11, D21: at most two of a subject are kept, and who loses one gets the marker again."""
    async with opened(history=4, snapshot_cache_ttl=0) as (store, publisher):
        for key in "abc":
            store.commit((key, "0"))
        readers = [publisher.subscribe(ALL, on_lag="reset") for _ in range(3)]
        for subscription in readers:
            await subscription.receive_until_current()
        begun = []
        for subscription in readers:
            commit_past(store)
            assert (await subscription.receive()).is_new_snapshot_to_follow
            assert not (await subscription.receive()).is_framing
            begun.append(store.index)
        commit_past(store)
        first, *others = readers
        for subscription, index in zip(others, begun[1:], strict=True):
            rest = await until_live(subscription)
            assert not any(each.is_new_snapshot_to_follow for each in rest)
            assert rest[-1].index == index
        assert (await first.receive()).is_new_snapshot_to_follow
        assert (await until_live(first))[-1].index == store.index


async def test_who_reads_beside_it_without_reset_is_told_as_ever() -> None:
    """D6, D11: a snapshot is kept for those who keep it only."""
    handler = Held()
    async with opened(handler, history=4, index=1) as (store, publisher):
        handler.store = store
        keeping = await fallen(publisher, store)
        assert ready(keeping) == []
        beside = publisher.subscribe(WEB)
        late = publisher.subscribe(WEB, on_lag="reset")
        handler.go.set()
        await quiet()
        made_at = store.index
        commit_past(store)
        with pytest.raises(SubscriptionLagged) as lagged:
            beside.receive_nowait()
        assert lagged.value.missed > 0
        assert kinds([await keeping.receive()]) == ["marker"]
        assert (await until_live(keeping))[-1].index == made_at
        assert kinds([await late.receive()]) == ["marker"]
        assert (await until_live(late))[-1].index == store.index


async def test_a_kept_snapshot_is_freed_when_it_was_read() -> None:
    """D11, D13."""
    payloads: list[weakref.ref[Heavy]] = []

    async def handler(_: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        index = publisher.index
        for _number in range(10):
            heavy = Heavy()
            payloads.append(weakref.ref(heavy))
            await snapshot.append([Event(HEALTH, index, heavy)])
        return index

    def alive() -> int:
        gc.collect()
        return sum(payload() is not None for payload in payloads)

    async with opened(handler, history=2, index=1) as (store, publisher):
        subscription = await fallen(publisher, store)
        other = await fallen(publisher, store)
        for reader in (subscription, other):
            assert (await reader.receive()).is_new_snapshot_to_follow
            assert not (await reader.receive()).is_framing
        commit_past(store)
        await quiet()
        assert alive() == 10
        await until_live(subscription)
        assert alive() == 10
        other.unsubscribe()
        assert alive() == 0
        assert publisher.statistics().topics["health"].snapshots == 0


async def test_a_reader_that_leaves_while_it_waits_ends_the_making_of_its_snapshot() -> None:
    """D13, D14."""
    handler = Held()
    async with opened(handler, history=4, index=1) as (store, publisher):
        handler.store = store
        subscription = await fallen(publisher, store)
        assert await settled(subscription) == []
        await quiet()
        subscription.unsubscribe()
        await quiet()
        assert handler.cancelled == 1
        assert publisher.statistics().topics["health"].snapshots == 0


async def test_a_snapshot_that_fails_fails_the_reader_that_waits_for_it() -> None:
    """D16."""

    async def failing(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot.append([event(store.index, "web")])
        raise OSError("disk")

    async with opened(failing, history=4, index=1) as (store, publisher):
        subscription = await fallen(publisher, store)
        with pytest.raises(SnapshotFailed) as failed:
            await subscription.receive()
        assert isinstance(failed.value.__cause__, OSError)
        assert subscription.resume_request().index == 0


@pytest.mark.parametrize("end", ["token", "refresh"])
async def test_what_takes_rights_or_truth_away_reaches_a_reader_that_waits(end: str) -> None:
    """D9."""
    async with opened(Held(), history=4, index=1) as (store, publisher):
        subscription = await fallen(publisher, store)
        assert await settled(subscription) == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ends_with, subscription, CloseReason(end))
            await quiet()
            if end == "token":
                publisher.close_subscriptions(["t"])
            else:
                publisher.refresh(HEALTH)


async def ends_with(subscription: Subscription[Health], reason: CloseReason) -> None:
    with pytest.raises(SubscriptionForceClosed) as closed:
        await subscription.receive()
    assert closed.value.reason is reason


@pytest.mark.parametrize("pace", [1, 3, 7, 20, 50])
async def test_a_reader_at_any_pace_has_right_states_and_gets_on(pace: int) -> None:
    """D1, D21: it takes one event for so many commits; at every end of a snapshot it is compared."""
    async with opened(history=12, snapshot_cache_ttl=0) as (store, publisher):
        store.commit(("a", "0"), ("b", "0"))
        subscription = publisher.subscribe(ALL, on_lag="reset")
        state: State = {}
        ends: list[int] = []
        for turn in range(1, 20 * pace + 1):
            store.commit(("abc"[turn % 3], f"{turn}"))
            await quiet_enough()
            if turn % pace:
                continue
            try:
                received = subscription.receive_nowait()
            except WouldBlock:
                continue
            apply(state, received)
            if subscription.index:
                assert state == store.state_at(subscription.index, ALL)
            if received.is_end_of_snapshot:
                ends.append(received.index)
        assert ends == sorted(set(ends))
        assert len(ends) >= (3 if pace > 3 else 1)


async def quiet_enough() -> None:
    for _ in range(8):
        await anyio.lowlevel.checkpoint()


async def test_a_snapshot_that_comes_to_its_end_while_thousands_are_taken_apart_is_kept_once() -> None:
    """D15, D21: the history passes it while its function goes on for a reader who keeps it."""

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        index = publisher.index
        for number in range(1_025):  # one more than the window
            await snapshot.append([event(1, f"s{number}")])
        return index

    async with opened(handler, history=1, index=1) as (_, publisher):
        publisher.subscribe(ALL)  # who never reads
        many = [publisher.subscribe(SubscribeRequest(JOBS, token="t", index=1)) for _ in range(2_000)]
        await quiet()
        assert publisher.close_subscriptions(["t"]) == len(many)
        reader = publisher.subscribe(SubscribeRequest(HEALTH, index=1, epoch="another"), on_lag="reset")
        for index in (2, 3):
            publisher.publish([event(index, "web")])
        await quiet()
        publisher.subscribe(ALL)  # asks for another: two are kept, but not two times the same
        assert (await reader.receive()).is_new_snapshot_to_follow
        events = await until_live(reader)
        assert (len(events), events[-1].index) == (1_026, 1)


async def test_a_passed_snapshot_is_kept_for_nobody_when_who_kept_it_has_gone() -> None:
    """D11: not for one that stalls in it, without reset."""
    payloads: list[weakref.ref[Heavy]] = []

    async def handler(_: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        index = publisher.index
        heavy = Heavy()
        payloads.append(weakref.ref(heavy))
        await snapshot.append([Event(HEALTH, index, heavy)])
        return index

    async with opened(handler, history=4, index=1) as (store, publisher):
        keeping = await fallen(publisher, store)
        assert ready(keeping) == []
        beside = publisher.subscribe(WEB)
        await quiet()
        assert (await keeping.receive()).is_new_snapshot_to_follow
        commit_past(store)
        await quiet()
        keeping.unsubscribe()
        gc.collect()
        assert [payload() for payload in payloads] == [None]
        with pytest.raises(SubscriptionLagged):
            beside.receive_nowait()


async def test_a_reader_that_is_reset_does_not_wait_for_one_that_stalls_in_its_snapshot() -> None:
    """D10, D21: the snapshot function, which waits for that one, goes on."""
    rows = 5000

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        index = publisher.index
        for number in range(rows):
            await snapshot.append([event(index, "web", f"{number}")])
        return index

    async with opened(handler, history=4, index=1) as (store, publisher):
        subscription = await fallen(publisher, store)
        stalled = publisher.subscribe(WEB)
        await quiet()
        assert stalled.statistics().lag < rows
        assert ready(subscription) == []
        await quiet()
        assert subscription.receive_nowait().is_new_snapshot_to_follow
        assert stalled.statistics().lag == rows + 1


async def test_a_snapshot_that_is_passed_as_a_reader_joins_it_is_one_of_two_that_are_kept() -> None:
    """D21: its function had waited for another reader, and is just about to go on."""

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        index = publisher.index
        for number in range(2000):
            await snapshot.append([event(index, "web", f"{number}")])
        return index

    async with opened(handler, history=4, index=1) as (store, publisher):
        first, second = (publisher.subscribe(LIVE, on_lag="reset") for _ in range(2))
        commit_past(store)
        publisher.subscribe(WEB)
        await quiet()
        made_at = store.index
        assert ready(first) == []
        commit_past(store)
        await quiet()
        assert kinds([first.receive_nowait()]) == ["marker"]
        assert ready(second) == []
        received = await until_live(first)
        assert (len(received), received[-1].index) == (2001, made_at)
        assert kinds([await second.receive()]) == ["marker"]


async def test_an_iteration_that_is_reset_reads_its_snapshot_whole() -> None:
    """D1: also one that was live before, with positions in the feed like those in the snapshot."""

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        index = publisher.index
        for number in range(100):
            await snapshot.append([event(index, "web", f"{number}")])
        return index

    async with opened(handler, history=20, index=1) as (store, publisher):
        subscription = publisher.subscribe(LIVE, on_lag="reset")
        store.commit(("web", "live"))
        assert (await anext(subscription)).index == 2
        commit_past(store, 40)
        made_at = store.index
        received = [await anext(subscription) for _ in range(102)]
        expected = [f"{made_at}:web={number}" for number in range(100)]
        assert kinds(received) == ["marker", *expected, f"eos@{made_at}"]
