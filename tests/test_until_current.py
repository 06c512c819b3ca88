"""Reading once: everything up to now, however old a cached snapshot is, and nothing twice or half."""

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, Catalogue, Health, State, apply, event, kinds, ready, until_live
from interruptions import Stepwise
from scenes import ALL, WEB, Held, opened, quiet

from trio_stream import (
    BusyResourceError,
    ClosedResourceError,
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
)

pytestmark = pytest.mark.anyio


def rows(count: int) -> Catalogue:
    """A store with so many services, one commit each."""
    store = Catalogue()
    for number in range(count):
        store.commit((f"s{number}", "ok"))
        store.states = {store.index: store.states[store.index]}
    return store


@asynccontextmanager
async def held(**options: object) -> AsyncIterator[tuple[Held, EventPublisher]]:
    """A snapshot function that waits to be let go."""
    handler = Held()
    async with opened(handler, **options) as (store, publisher):
        handler.store = store
        yield handler, publisher


async def test_a_read_of_a_cached_snapshot_has_the_changes_since() -> None:
    """U17, D8: one that stops at end-of-snapshot has a state as old as the cache."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        await until_live(publisher.subscribe(ALL))
        store.commit(("web", "2"))
        store.commit(("db", "3"))
        assert store.runs == 1
        async with publisher.subscribe(ALL) as subscription:
            events = await subscription.receive_until_current()
        assert kinds(events) == ["1:web=1", "eos@1", "2:web=2", "3:db=3"]
        assert store.runs == 1


async def test_a_read_waits_for_a_snapshot_and_has_all_of_it() -> None:
    async with held() as (handler, publisher):
        handler.store.commit(("web", "1"))
        got: list[Event[Health]] = []

        async def read() -> None:
            got.extend(await publisher.subscribe(WEB).receive_until_current())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await quiet()
            assert got == []
            handler.store.commit(("web", "2"))
            handler.go.set()
        assert kinds(got)[:2] == ["1:web=1", "eos@1"]


async def test_a_read_is_not_held_up_by_the_window_of_the_snapshot_function() -> None:
    """D11: it takes the snapshot as a whole, so that the function need not wait for it."""
    store = rows(2_500)
    async with opened(store.snapshot, index=store.index) as (_, publisher):
        with anyio.fail_after(30):
            events = await publisher.subscribe(ALL).receive_until_current()
        assert len(events) == 2_501
        assert events[-1].is_end_of_snapshot


async def test_a_reader_that_has_everything_gets_nothing_at_once() -> None:
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        publisher.publish([event(2, "another")])
        assert await subscription.receive_until_current() == []
        ahead = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=9, epoch=publisher.epoch))
        assert await ahead.receive_until_current() == []


async def test_a_resume_gets_what_it_missed_and_goes_on_behind_it() -> None:
    """D3, D7."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        for index in (2, 3):
            publisher.publish([event(index, "web")])
        assert kinds(await subscription.receive_until_current()) == ["2:web=ok", "3:web=ok"]
        assert (subscription.index, subscription.statistics().delivered) == (3, 2)
        publisher.publish([event(4, "web")])
        assert kinds(await subscription.receive_until_current()) == ["4:web=ok"]
        assert ready(subscription) == []


async def test_a_read_in_the_middle_of_a_snapshot_has_the_rest() -> None:
    async with opened() as (store, publisher):
        store.commit(("a", "1"), ("b", "1"))
        store.commit(("c", "2"))
        subscription = publisher.subscribe(ALL)
        first = await subscription.receive()
        events = [first, *await subscription.receive_until_current()]
        state: State = {}
        for each in events:
            apply(state, each)
        assert state == store.state_at(2, ALL)
        assert subscription.statistics().state is SubscriptionState.LIVE
        store.commit(("a", "3"))
        assert kinds([await subscription.receive()]) == ["3:a=3"]


async def test_a_read_shows_only_what_may_be_seen() -> None:
    """C16."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("db", "2"))
        subscription = publisher.subscribe(ALL, authorizer=frozenset({"db"}))
        await quiet()
        store.commit(("web", "3"))
        store.commit(("db", "4"))
        assert kinds(await subscription.receive_until_current()) == ["2:db=2", "eos@2", "4:db=4"]


async def test_a_stale_resume_is_told_first() -> None:
    """D5."""
    async with opened(index=5) as (store, publisher):
        store.commit(("web", "6"))
        for on_lag in ("close", "reset"):
            subscription = publisher.subscribe(
                SubscribeRequest(HEALTH, "web", index=2),
                on_lag="reset" if on_lag == "reset" else "close",
            )
            assert kinds(await subscription.receive_until_current()) == ["marker", "6:web=6", "eos@6"]


async def test_a_reader_that_has_fallen_behind_is_told_or_begins_anew() -> None:
    """D6, D11."""
    async with opened(history=2) as (store, publisher):
        store.commit(("web", "1"))
        closing, resetting = publisher.subscribe(WEB), publisher.subscribe(WEB, on_lag="reset")
        for subscription in (closing, resetting):
            await subscription.receive_until_current()
        for value in "2345":
            store.commit(("web", value))
        with pytest.raises(SubscriptionLagged) as lagged:
            await closing.receive_until_current()
        assert (lagged.value.index, lagged.value.missed) == (1, 2)
        assert kinds(await resetting.receive_until_current()) == ["marker", "5:web=5", "eos@5"]
        with pytest.raises(SubscriptionLagged):
            closing.receive_nowait()


@pytest.mark.parametrize("end", ["close", "token", "refresh", "stop"])
async def test_a_read_that_waits_ends_as_the_subscription_does(end: str) -> None:
    """D9, D16: and returns nothing of what it had."""
    raised: list[Exception] = []

    async def read(subscription: Subscription[Health]) -> None:
        try:
            await subscription.receive_until_current()
        except (ClosedResourceError, SubscriptionForceClosed) as error:
            raised.append(error)

    async with anyio.create_task_group() as tasks:
        async with held() as (handler, publisher):
            handler.store.commit(("web", "1"))
            subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t"))
            tasks.start_soon(read, subscription)
            await quiet()
            match end:
                case "close":
                    subscription.close()
                case "token":
                    publisher.close_subscriptions(["t"])
                case "refresh":
                    publisher.refresh()
                case _:
                    pass
    (error,) = raised
    if end == "close":
        assert isinstance(error, ClosedResourceError)
    else:
        assert isinstance(error, SubscriptionForceClosed)
        assert error.reason is {
            "token": CloseReason.TOKEN,
            "refresh": CloseReason.REFRESH,
            "stop": CloseReason.STOPPED,
        }.get(end)
    with pytest.raises(type(error)):
        await subscription.receive_until_current()
    assert publisher.statistics().subscriptions == 0


async def test_a_snapshot_that_fails_fails_the_read() -> None:
    """D16."""

    async def failing(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot.append([event(1, "web")])
        raise OSError("disk")

    async with opened(failing) as (_, publisher):
        with pytest.raises(SnapshotFailed) as failed:
            await publisher.subscribe(WEB).receive_until_current()
        assert isinstance(failed.value.__cause__, OSError)


async def test_a_payload_that_raises_fails_the_read_and_nothing_was_received() -> None:
    class Moody(Health):
        def has_read_permission(self, authorizer: object, /) -> bool:
            if self.value == "2" and not allowed:
                raise LookupError("no such rule")
            return True

    allowed: list[bool] = []
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), authorizer="me")
        for index in (2, 3):
            publisher.publish([Event(HEALTH, index, Moody("web", f"{index - 1}"))])
        with pytest.raises(LookupError):
            await subscription.receive_until_current()
        assert (subscription.index, subscription.statistics().delivered) == (1, 0)
        allowed.append(True)
        assert kinds(await subscription.receive_until_current()) == ["2:web=1", "3:web=2"]


async def test_a_rule_that_closes_the_subscription_ends_the_read() -> None:
    """D9."""

    class Closing(Health):
        def has_read_permission(self, authorizer: EventPublisher, /) -> bool:  # type: ignore[override]
            authorizer.close_subscriptions(["t"])
            return True

    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(
            SubscribeRequest(HEALTH, "web", token="t", index=1), authorizer=publisher
        )
        publisher.publish([Event(HEALTH, 2, Closing("web"))])
        with pytest.raises(SubscriptionForceClosed) as closed:
            await subscription.receive_until_current()
        assert closed.value.reason is CloseReason.TOKEN


async def test_a_rule_may_look_at_the_horizon_meanwhile() -> None:
    """It stands where it stood: nothing is received before the call returns."""

    class Looking(Health):
        def has_read_permission(self, authorizer: object, /) -> bool:
            horizons.append(subscription.horizon)
            return True

    horizons: list[int] = []
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), authorizer="me")
        for index in (2, 3):
            publisher.publish([Event(HEALTH, index, Looking("web"))])
        assert len(await subscription.receive_until_current()) == 2
    assert horizons == [1, 1]


async def test_one_that_was_just_closed_with_thousands_leaves_nothing() -> None:
    """D13: while the others are still being taken apart."""
    async with opened(index=1) as (_, publisher):
        many = [publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1)) for _ in range(1_000)]
        publisher.close_subscriptions([""])
        with pytest.raises(SubscriptionForceClosed):
            await many[-1].receive_until_current()
        await quiet()
        assert publisher.statistics().topics["health"].feeds == 0


async def test_nobody_else_may_receive_meanwhile() -> None:
    """D18."""
    async with held() as (handler, publisher):
        handler.store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscription.receive_until_current)
            await quiet()
            assert publisher.statistics().waiting == 1
            with pytest.raises(BusyResourceError):
                subscription.receive_nowait()
            with pytest.raises(BusyResourceError):
                await subscription.receive_until_current()
            tasks.cancel_scope.cancel()
        handler.go.set()
        assert kinds(await subscription.receive_until_current()) == ["1:web=1", "eos@1"]


async def test_a_read_that_is_cancelled_leaves_the_snapshot_to_the_reader_and_nothing_behind() -> None:
    """D12, D13."""
    async with held(snapshot_cache_ttl=0) as (handler, publisher):
        handler.store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(subscription.receive_until_current)
                await quiet()
                scope.cancel()
        assert (handler.cancelled, publisher.statistics().waiting) == (0, 0)
        subscription.unsubscribe()
        await quiet()
        assert handler.cancelled == 1
        assert publisher.statistics().topics["health"].snapshots == 0


async def test_a_very_long_read_gives_way_and_is_one_read_all_the_same() -> None:
    """D12, D15: at its beginning, and between two portions."""
    many = 140_000
    async with opened(index=1, history=many) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        one = Health("web")
        for index in range(2, many + 2):
            publisher.publish([Event(HEALTH, index, one)])
        reading = Stepwise(subscription.receive_until_current)
        events = await reading
        assert reading.suspensions == 3
        assert [events[0].index, events[-1].index, len(events)] == [2, many + 1, many]


@pytest.mark.parametrize("hidden", [255, 256, 5000])
async def test_a_read_passes_over_any_number_of_hidden_events(hidden: int) -> None:
    async with opened(index=1, history=20_000) as (_, publisher):
        request = SubscribeRequest(HEALTH, index=1)
        subscription = publisher.subscribe(request, authorizer=frozenset({"db"}))
        for _ in range(hidden):
            publisher.publish([event(publisher.next_index, "web")])
        publisher.publish([event(publisher.next_index, "db")])
        for _ in range(hidden):
            publisher.publish([event(publisher.next_index, "web")])
        assert kinds(await subscription.receive_until_current()) == [f"{hidden + 2}:db=ok"]
        assert await subscription.receive_until_current() == []


async def test_who_has_given_up_a_read_is_not_kept_by_those_who_wait_on() -> None:
    """D13."""
    async with held() as (handler, publisher):
        waiting = publisher.subscribe(WEB)
        leaving = publisher.subscribe(WEB)
        reference = weakref.ref(leaving)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leaving.receive_until_current)
            await quiet()
            tasks.cancel_scope.cancel()
        leaving.unsubscribe()
        del leaving, tasks
        gc.collect()
        assert reference() is None
        handler.go.set()
        assert kinds(await waiting.receive_until_current()) == ["eos@0"]


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_after_a_read_an_iteration_goes_on_behind_it(count: int) -> None:
    """D3: wherever that is in what is there."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        await quiet()
        for _ in range(count):
            publisher.publish([event(publisher.next_index, "web")])
        assert len(await subscription.receive_until_current()) == 1 + count
        for _ in range(3):
            publisher.publish([event(publisher.next_index, "web")])
        assert [(await anext(subscription)).index for _ in range(3)] == [2 + count, 3 + count, 4 + count]


@pytest.mark.parametrize("closes_this", [False, True])
async def test_a_rule_may_let_out_the_end_of_another_subscription(closes_this: bool) -> None:
    """D9, D16: it is not about this one, which goes on, unless the rule has closed it too."""

    class Asking(Health):
        def has_read_permission(self, authorizer: object, /) -> bool:
            if closes_this:
                subscription.unsubscribe()
            other.receive_nowait()
            return True

    async with opened(index=1) as (_, publisher):
        other = publisher.subscribe(SubscribeRequest(HEALTH, "web", token="other", index=1))
        publisher.close_subscriptions(["other"])
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), authorizer="me")
        publisher.publish([Event(HEALTH, 2, Asking("web"))])
        with pytest.raises(ClosedResourceError if closes_this else SubscriptionForceClosed):
            await subscription.receive_until_current()
        ended = subscription.statistics().state is not SubscriptionState.LIVE
        assert ended is closes_this
