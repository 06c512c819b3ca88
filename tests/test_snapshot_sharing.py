"""One snapshot for everybody who asks for the same: while it is made, while it is cached, and not a moment longer."""

import enum
import gc
import math
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from backends import in_virtual_time
from catalogue import HEALTH, JOBS, Health, event, kinds, ready, until_live
from scenes import ALL, WEB, Heavy, Held, opened, quiet, settled

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
)

pytestmark = pytest.mark.anyio


def snapshots(publisher: EventPublisher) -> int:
    return publisher.statistics().topics["health"].snapshots


async def failing(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    await anyio.lowlevel.checkpoint()
    raise LookupError("not ready")


class Counted:
    """A snapshot function that says which of its runs it was."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        self.runs += 1
        await snapshot.append([event(0, "web", str(self.runs))])
        return 0


async def test_a_herd_shares_one_run_and_the_very_same_events() -> None:
    """D14: those who come while it is being made, and those who come later."""
    async with opened() as (store, publisher):
        store.commit(("a", "1"), ("b", "2"))
        herd = [publisher.subscribe(ALL) for _ in range(100)]
        received = [await until_live(subscription) for subscription in herd]
        received += [ready(publisher.subscribe(ALL)) for _ in range(100)]
        assert store.runs == 1
        assert len({tuple(map(id, events)) for events in received}) == 1


async def test_what_a_request_adds_to_its_subject_does_not_keep_it_from_sharing() -> None:
    """D14: token, authorizer, lag policy and stale index are the subscription's own."""
    held = Held()
    async with opened(held) as (_, publisher):
        subscriptions = [
            publisher.subscribe(WEB),
            publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t"), authorizer=frozenset({"web"})),
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=7), on_lag="reset"),
        ]
        held.go.set()
        for subscription in subscriptions:
            await until_live(subscription)
        assert held.requests == [WEB]


async def test_other_subjects_and_topics_have_snapshots_of_their_own() -> None:
    requests = [
        WEB,
        ALL,
        SubscribeRequest(HEALTH, "web", namespace="team"),
        SubscribeRequest(HEALTH, "web", partition="west"),
        SubscribeRequest(JOBS, "web"),
    ]
    async with opened() as (store, publisher):
        for request in requests:
            await until_live(publisher.subscribe(request))
        assert store.runs == len(requests)


async def test_the_others_keep_the_snapshot_when_the_one_that_caused_it_leaves() -> None:
    """D14."""
    held = Held()
    async with opened(held) as (_, publisher):
        first, second, third = (publisher.subscribe(WEB) for _ in range(3))
        await quiet()
        first.unsubscribe()
        second.unsubscribe()
        assert await settled(third) == []
        held.go.set()
        assert kinds(await until_live(third)) == ["eos@0"]
        assert (len(held.requests), held.cancelled) == (1, 0)


@pytest.mark.parametrize("how", ["unsubscribe", "close event"])
async def test_the_snapshot_function_is_cancelled_when_all_have_left(how: str) -> None:
    """D13, D14: and what it had made so far is not cached."""
    held = Held()
    async with opened(held) as (_, publisher):
        herd = [publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t")) for _ in range(5)]
        await quiet()
        if how == "unsubscribe":
            for subscription in herd:
                subscription.unsubscribe()
        else:
            publisher.close_subscriptions(["t"])
        await quiet()
        assert (len(held.requests), held.cancelled, snapshots(publisher)) == (1, 1, 0)
        held.go.set()
        assert kinds(await until_live(publisher.subscribe(WEB))) == ["eos@0"]
        assert len(held.requests) == 2


@pytest.mark.parametrize("meanwhile", ["nothing", "somebody comes", "it is made"])
async def test_very_many_who_are_closed_leave_no_snapshot_behind_and_take_none_from_who_comes(
    meanwhile: str,
) -> None:
    """D13, D14: so many that they leave one after the other, a few at a time."""
    held = Held()
    async with opened(held, snapshot_cache_ttl=0) as (_, publisher):
        herd = [publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t")) for _ in range(1000)]
        await quiet()
        assert publisher.close_subscriptions(["t"]) == len(herd)
        if meanwhile == "somebody comes":
            late = publisher.subscribe(WEB)
            await quiet()
            assert (len(held.requests), held.cancelled, snapshots(publisher)) == (1, 0, 1)
            held.go.set()
            assert kinds(await until_live(late)) == ["eos@0"]
            assert len(held.requests) == 1
        elif meanwhile == "it is made":
            held.go.set()
        await quiet()
        assert snapshots(publisher) == 0
        if meanwhile == "nothing":
            assert held.cancelled == 1
        held.go.set()
        assert kinds(await until_live(publisher.subscribe(WEB))) == ["eos@0"]
        assert len(held.requests) == 2


async def test_a_snapshot_that_nobody_waits_for_any_more_is_not_even_started() -> None:
    """D13."""
    async with opened() as (store, publisher):
        publisher.subscribe(WEB).unsubscribe()
        await quiet()
        assert (store.runs, snapshots(publisher)) == (0, 0)


async def test_who_comes_after_all_have_left_does_not_get_the_cancelled_snapshot() -> None:
    """D14: not even in the moment between the cancellation and its arrival."""
    held = Held()
    async with opened(held) as (_, publisher):
        first = publisher.subscribe(WEB)
        await quiet()
        first.unsubscribe()
        second = publisher.subscribe(WEB)
        held.go.set()
        assert kinds(await until_live(second)) == ["eos@0"]
        assert (len(held.requests), held.cancelled) == (2, 1)


async def test_a_failure_reaches_all_who_waited_and_is_not_cached() -> None:
    """D14, D16."""
    runs = 0

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        nonlocal runs
        runs += 1
        await snapshot.append([event(1, "web")])
        return await failing(request, snapshot) if runs == 1 else 1

    async with opened(handler) as (_, publisher):
        herd = [publisher.subscribe(WEB) for _ in range(5)]
        await quiet()
        for subscription in herd:
            with pytest.raises(SnapshotFailed) as failed:
                await until_live(subscription)
            assert isinstance(failed.value.__cause__, LookupError)
        assert kinds(await until_live(publisher.subscribe(WEB))) == ["1:web=ok", "eos@1"]
        assert runs == 2


async def test_a_cached_snapshot_serves_while_the_handler_fails() -> None:
    """C3: the same snapshot, end-of-snapshot, then live."""
    calls = 0

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        nonlocal calls
        calls += 1
        return await (store.snapshot if calls == 1 else failing)(request, snapshot)

    async with opened(handler) as (store, publisher):
        store.commit(("web", "1"))
        async with publisher.subscribe(WEB) as first:
            before = await until_live(first)
        second = publisher.subscribe(WEB)
        assert await until_live(second) == before
        store.commit(("web", "2"))
        assert kinds([await second.receive()]) == ["2:web=2"]
        assert calls == 1


@pytest.mark.parametrize("ttl", [0, 10])
async def test_two_subscribers_of_a_key_leave_one_after_the_other_and_then_nothing_remains(ttl: int) -> None:
    """C9, D13: but the snapshot for as long as it may be cached, and history."""
    async with opened(snapshot_cache_ttl=ttl) as (_, publisher):
        request = SubscribeRequest(HEALTH, "web", token="t")
        first, second = publisher.subscribe(request), publisher.subscribe(request)
        await until_live(first)
        first.unsubscribe()
        assert kinds(await until_live(second)) == ["eos@0"]
        assert publisher.statistics().tokens == 1
        second.unsubscribe()
        left = publisher.statistics()
        assert (left.subscriptions, left.waiting, left.tokens) == (0, 0, 0)
        assert (left.topics["health"].feeds, left.topics["health"].snapshots) == (0, 1 if ttl else 0)


async def test_without_a_time_to_live_a_snapshot_is_shared_only_while_it_is_made() -> None:
    """D14: ttl = 0."""
    held = Held()
    async with opened(held, snapshot_cache_ttl=0) as (_, publisher):
        herd = [publisher.subscribe(WEB) for _ in range(3)]
        held.go.set()
        for subscription in herd:
            await until_live(subscription)
        assert (len(held.requests), snapshots(publisher)) == (1, 0)
        await until_live(publisher.subscribe(WEB))
        assert len(held.requests) == 2


async def test_a_slow_reader_finishes_a_snapshot_that_is_no_longer_cached() -> None:
    """D14: ttl = 0."""
    async with opened(snapshot_cache_ttl=0) as (store, publisher):
        store.commit(("a", "1"))
        store.commit(("b", "2"))
        slow, fast = publisher.subscribe(ALL), publisher.subscribe(ALL)
        await until_live(fast)
        assert kinds([await slow.receive()]) == ["1:a=1"]
        store.commit(("c", "3"))
        assert kinds(ready(slow)) == ["2:b=2", "eos@2", "3:c=3"]


async def test_a_snapshot_that_the_history_has_passed_is_no_longer_cached() -> None:
    """D6, D11: what came after it is not complete any more."""
    async with opened(history=2) as (store, publisher):
        await until_live(publisher.subscribe(WEB))
        for value in "12":
            store.commit(("web", value))
        assert kinds(ready(publisher.subscribe(WEB))) == ["eos@0", "1:web=1", "2:web=2"]
        store.commit(("db", "3"))
        assert snapshots(publisher) == 0
        assert kinds(await until_live(publisher.subscribe(WEB))) == ["2:web=2", "eos@3"]
        assert store.runs == 2


class Watched:
    """A snapshot function whose payloads are watched; it may not let itself be cancelled."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.payloads: list[weakref.ref[Heavy]] = []
        self.stubborn = stubborn
        self.go = anyio.Event()

    async def __call__(self, request: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        heavy = Heavy()
        self.payloads.append(weakref.ref(heavy))
        with anyio.CancelScope(shield=self.stubborn):
            await snapshot.append([Event(HEALTH, 0, heavy)])
            await self.go.wait()
        return 0

    def kept(self) -> int:
        gc.collect()
        return sum(payload() is not None for payload in self.payloads)


@pytest.mark.parametrize("ttl", [0, 10])
async def test_a_snapshot_function_that_shrugs_off_its_cancellation_works_for_nobody(ttl: int) -> None:
    """D13, D14: what it returns is neither cached nor kept."""
    handler = Watched(stubborn=True)
    async with opened(handler, snapshot_cache_ttl=ttl) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        await subscription.receive()
        subscription.unsubscribe()
        handler.go.set()
        await quiet()
        assert (handler.kept(), snapshots(publisher)) == (0, 0)
        assert (await until_live(publisher.subscribe(WEB)))[-1].index == 0
        assert len(handler.payloads) == 2


@in_virtual_time
class TestTheTimeToLive:
    async def test_a_snapshot_is_cached_for_its_time_from_when_it_was_complete(self) -> None:
        """D13, D14."""
        handler = Counted()
        async with opened(handler, snapshot_cache_ttl=10) as (_, publisher):
            await until_live(publisher.subscribe(WEB))
            await anyio.sleep(9)
            assert ready(publisher.subscribe(WEB))
            assert (handler.runs, snapshots(publisher)) == (1, 1)
            await anyio.sleep(2)
            assert snapshots(publisher) == 0
            assert kinds(await until_live(publisher.subscribe(WEB))) == ["0:web=2", "eos@0"]

    @pytest.mark.parametrize("last", ["the reader", "the cache"])
    async def test_nothing_is_kept_of_a_snapshot_that_is_neither_read_nor_cached(self, last: str) -> None:
        """D11, D13: whichever of them was the last."""
        handler = Watched()
        handler.go.set()
        async with opened(handler, snapshot_cache_ttl=10) as (_, publisher):
            subscription = publisher.subscribe(WEB)
            await subscription.receive()
            await quiet()
            if last == "the cache":
                subscription.unsubscribe()
            assert handler.kept() == 1
            await anyio.sleep(11)
            assert handler.kept() == (1 if last == "the reader" else 0)
            subscription.unsubscribe()
            assert handler.kept() == 0

    async def test_every_subject_has_a_time_of_its_own(self) -> None:
        """D14."""
        async with opened(snapshot_cache_ttl=10) as (_, publisher):
            seen = []
            for key in "abc":
                await until_live(publisher.subscribe(SubscribeRequest(HEALTH, key)))
                await anyio.sleep(4)
                seen.append(snapshots(publisher))
            await anyio.sleep(1)
            assert [*seen, snapshots(publisher)] == [1, 2, 2, 2]
            await anyio.sleep(20)
            assert snapshots(publisher) == 0

    async def test_the_end_of_its_time_changes_nothing_for_who_is_reading_it(self) -> None:
        """D3."""
        async with opened(snapshot_cache_ttl=1) as (store, publisher):
            store.commit(("a", "1"))
            store.commit(("b", "2"))
            subscription = publisher.subscribe(ALL)
            assert kinds([await subscription.receive()]) == ["1:a=1"]
            await anyio.sleep(2)
            store.commit(("c", "3"))
            assert kinds(ready(subscription)) == ["2:b=2", "eos@2", "3:c=3"]

    async def test_the_time_of_an_older_snapshot_does_not_end_a_newer_one(self) -> None:
        """D14, Consul: a TTL timer evicts a newer snapshot of the same key."""
        async with opened(snapshot_cache_ttl=10, history=1) as (store, publisher):
            store.commit(("web", "1"))
            await until_live(publisher.subscribe(WEB))
            await anyio.sleep(6)
            for value in "23":
                store.commit(("web", value))
            await until_live(publisher.subscribe(WEB))
            assert store.runs == 2
            await anyio.sleep(6)
            assert kinds(ready(publisher.subscribe(WEB))) == ["3:web=3", "eos@3"]
            await anyio.sleep(6)
            assert (store.runs, snapshots(publisher)) == (2, 0)

    @pytest.mark.parametrize("refreshed", [HEALTH, None], ids=["topic", "all"])
    @pytest.mark.parametrize("reading", [True, False])
    async def test_the_time_of_a_snapshot_that_a_refresh_dropped_ends_without_harm(
        self, refreshed: Any, reading: bool
    ) -> None:
        """D13."""
        async with opened(snapshot_cache_ttl=1) as (store, publisher):
            store.commit(("web", "1"))
            subscription = publisher.subscribe(WEB)
            await until_live(subscription)
            if not reading:
                subscription.unsubscribe()
            publisher.refresh(refreshed)
            await anyio.sleep(2)
            store.index = publisher.index
            assert (await until_live(publisher.subscribe(WEB)))[-1].is_end_of_snapshot

    @pytest.mark.parametrize("reading", [True, False])
    async def test_the_time_of_a_snapshot_that_a_lagging_reader_replaced_ends_without_harm(
        self, reading: bool
    ) -> None:
        """D14: a newer one takes the place of one that is nearly passed; both have readers and a time of their own."""
        async with opened(snapshot_cache_ttl=10, history=4, index=1) as (store, publisher):
            slow = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), on_lag="reset")
            store.commit(("web", "2"))
            reader = publisher.subscribe(WEB)
            assert kinds([await reader.receive()]) == ["2:web=2"]
            await quiet()
            if not reading:
                reader.unsubscribe()
            for value in "3456":
                store.commit(("web", value))
            assert kinds(await until_live(slow)) == ["marker", "6:web=6", "eos@6"]
            if reading:
                assert kinds(ready(reader)) == ["eos@2", *(f"{i}:web={i}" for i in range(3, 7))]
                reader.unsubscribe()
            await anyio.sleep(20)
            store.commit(("web", "7"))
            assert kinds([await slow.receive()]) == ["7:web=7"]
            assert snapshots(publisher) == 0

    async def test_the_clock_keeps_nothing_of_what_is_no_longer_cached(self) -> None:
        """D11, D13: passed by the history, or replaced and left, long before its time is over."""
        async with opened(snapshot_cache_ttl=1e6, history=1) as (store, publisher):
            counts = []
            for _ in range(3):
                for _ in range(200):
                    store.commit(("web", "1"))
                    store.states = {store.index: store.states[store.index]}
                    await until_live(subscription := publisher.subscribe(WEB))
                    subscription.unsubscribe()
                gc.collect()
                counts.append(len(gc.get_objects()))
            assert counts[2] - counts[1] < 100

    async def test_a_time_without_end_keeps_nothing_of_snapshots_that_the_history_has_passed(self) -> None:
        """D11, D13."""
        async with opened(snapshot_cache_ttl=math.inf, history=1) as (store, publisher):
            counts = []
            for _ in range(3):
                for _ in range(200):
                    store.commit(("web", "1"))
                    store.states = {store.index: store.states[store.index]}
                    await until_live(subscription := publisher.subscribe(WEB))
                    subscription.unsubscribe()
                gc.collect()
                counts.append(len(gc.get_objects()))
            assert counts[2] - counts[1] < 100


class Service(enum.StrEnum):
    """Keys that are strings, and look otherwise."""

    WEB = "web"


@pytest.mark.parametrize("keys", [(Service.WEB, "web"), ("web", Service.WEB)], ids=["enum", "str"])
async def test_what_a_request_says_is_never_that_of_another(keys: tuple[str, str]) -> None:
    """D14: requests are immutable, also where equal ones share what they ask for."""
    async with opened() as (_, publisher):
        requests = [SubscribeRequest(HEALTH, key) for key in keys]
        shown = list(map(repr, requests))
        for each in requests:
            publisher.subscribe(each)
        assert list(map(repr, requests)) == shown
