"""D5, U8: a publisher that stops is read to the end: first what it published, then that it has stopped."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, Catalogue, Health, event, kinds, ready, until_live
from interruptions import on_asyncio
from scenes import ALL, WEB, Held, opened, quiet

from trio_stream import (
    ClosedResourceError,
    CloseReason,
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio

LIVE = SubscribeRequest(HEALTH, "web", token="t", index=1)  # of a publisher that starts at 1


async def by_receive(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await subscription.receive()]


async def by_batch(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_batch())


async def by_iteration(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await anext(subscription)]


async def without_waiting(subscription: Subscription[Health]) -> list[Event[Health]]:
    await anyio.lowlevel.checkpoint()
    return [subscription.receive_nowait()]


Receive = Callable[[Subscription[Health]], Awaitable[list[Event[Health]]]]


async def until_current(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_until_current())


styles = pytest.mark.parametrize(
    "receive", [by_receive, by_batch, by_iteration, without_waiting, until_current]
)


async def to_the_end(
    subscription: Subscription[Health], receive: Receive = by_receive
) -> tuple[list[str], CloseReason]:
    """What it still gives, and how it has ended."""
    got: list[Event[Health]] = []
    with pytest.raises(SubscriptionForceClosed) as closed:
        while True:
            got += await receive(subscription)
    assert closed.value.index == subscription.index
    with pytest.raises(SubscriptionForceClosed):
        await receive(subscription)
    return kinds(got), closed.value.reason


@asynccontextmanager
async def stopped(
    request: SubscribeRequest[Health] = LIVE, commits: int = 3, **options: object
) -> AsyncIterator[tuple[EventPublisher, Subscription[Health]]]:
    """A publisher that has stopped, and a subscription that has not read the commits 2, 3, ... ."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1, **options) as publisher:  # type: ignore[arg-type]
        subscription = publisher.subscribe(request)
        for index in range(2, 2 + commits):
            publisher.publish([event(index, "web")])
    yield publisher, subscription


@pytest.mark.parametrize("style", ["receive", "receive_batch", "async for"])
async def test_the_last_commit_before_the_stop_always_arrives(style: str) -> None:
    """U8: it did, or it did not, by the luck of the scheduler."""

    async def read(subscription: Subscription[Health], got: list[int]) -> None:
        with pytest.raises(SubscriptionForceClosed, match="stopped"):
            match style:
                case "receive":
                    while True:
                        got.append((await subscription.receive()).index)
                case "receive_batch":
                    while True:
                        got.extend(each.index for each in await subscription.receive_batch())
                case _:
                    while True:
                        got.append((await anext(subscription)).index)

    for turns in range(50):
        got: list[list[int]] = [[] for _ in range(20)]
        async with anyio.create_task_group() as tasks:
            async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
                for each in got:
                    tasks.start_soon(read, publisher.subscribe(LIVE), each)
                for _ in range(turns % 5):
                    await anyio.lowlevel.checkpoint()
                publisher.publish([event(2, "web")])
                publisher.publish([event(3, "web")])
        assert got == [[2, 3]] * 20


@styles
async def test_what_was_published_is_read_and_then_the_end_comes(receive: Receive) -> None:
    async with stopped() as (publisher, subscription):
        assert subscription.statistics().state is SubscriptionState.LIVE
        assert publisher.statistics().subscriptions == 1
        assert await to_the_end(subscription, receive) == (
            ["2:web=ok", "3:web=ok", "4:web=ok"],
            CloseReason.STOPPED,
        )
        assert publisher.statistics().subscriptions == 0


@styles
async def test_a_whole_snapshot_is_read_to_its_end_and_then_what_was_published(receive: Receive) -> None:
    async with opened() as (store, publisher):
        store.commit(("a", "1"))
        store.commit(("b", "2"))
        subscription = publisher.subscribe(ALL)
        await quiet()
        assert kinds([await subscription.receive()]) == ["1:a=1"]
        store.commit(("a", "3"))
    assert await to_the_end(subscription, receive) == (["2:b=2", "eos@2", "3:a=3"], CloseReason.STOPPED)


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_snapshot_that_is_not_whole_ends_at_once(on_lag: str) -> None:
    handler = Held()
    async with opened(handler) as (store, publisher):
        handler.store = store
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB, on_lag="reset" if on_lag == "reset" else "close")
        await quiet()
    assert publisher.statistics().subscriptions == 0
    assert handler.cancelled == 1
    assert await to_the_end(subscription) == ([], CloseReason.STOPPED)
    assert subscription.resume_request() == WEB


async def test_a_stale_resume_whose_snapshot_is_not_whole_ends_without_a_marker() -> None:
    """D5: also before it has been told of the stop, which reaches thousands in portions."""
    got: list[str] = []

    async def read_at_the_stop(many: list[Subscription[Health]]) -> None:
        with pytest.raises(SubscriptionForceClosed):
            await many[0].wait_published(2)
        for each in many:
            with pytest.raises(SubscriptionForceClosed, match="stopped"):
                got.extend(kinds([each.receive_nowait()]))

    async with anyio.create_task_group() as tasks:
        async with open_publisher({HEALTH: Held()}, index=1) as publisher:
            request = SubscribeRequest(HEALTH, "web", index=1, epoch="another")
            many = [publisher.subscribe(request) for _ in range(2_000)]
            tasks.start_soon(read_at_the_stop, many)
            await quiet()
    assert got == []


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_who_has_fallen_behind_ends_without_a_marker(on_lag: str) -> None:
    """Nothing starts any more."""
    async with opened(history=2, index=1) as (store, publisher):
        subscription = publisher.subscribe(LIVE, on_lag="reset" if on_lag == "reset" else "close")
        for value in "abcd":
            store.commit(("web", value))
    assert await to_the_end(subscription) == ([], CloseReason.STOPPED)
    assert (subscription.index, subscription.resume_request().index) == (1, 1)


async def test_a_reader_that_waits_for_its_whole_snapshot_when_the_publisher_stops_ends() -> None:
    """D5, D21."""
    async with anyio.create_task_group() as tasks:
        async with opened(Held(), history=2, index=1) as (store, publisher):
            subscription = publisher.subscribe(LIVE, on_lag="reset")
            for value in "abcd":
                store.commit(("web", value))
            assert ready(subscription) == []
            tasks.start_soon(to_the_end, subscription)
            await quiet()


async def test_one_that_has_its_whole_snapshot_reads_it() -> None:
    """D5, D21: the marker, too."""
    async with opened(history=2, index=1) as (store, publisher):
        subscription = publisher.subscribe(LIVE, on_lag="reset")
        for value in "abcd":
            store.commit(("web", value))
        assert ready(subscription) == []
        await quiet()
    assert await to_the_end(subscription) == (["marker", "5:web=d", "eos@5"], CloseReason.STOPPED)


async def test_hidden_events_at_the_end_are_passed_over() -> None:
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        subscription = publisher.subscribe(LIVE, authorizer=frozenset({"web=shown"}))
        publisher.publish([event(2, "web", "shown")])
        for index in range(3, 700):
            publisher.publish([event(index, "web", "hidden")])
    assert await to_the_end(subscription) == (["2:web=shown"], CloseReason.STOPPED)
    assert subscription.resume_request().index == 699


@pytest.mark.parametrize("by_event", [False, True])
@pytest.mark.parametrize("receive", [by_receive, by_iteration, without_waiting])
async def test_rights_that_are_taken_away_overtake_what_is_left(receive: Receive, by_event: bool) -> None:
    """D9: also after the stop."""
    async with stopped() as (publisher, subscription):
        other = SubscribeRequest(HEALTH, "web", token="other", index=1)
        assert kinds(await receive(subscription))[0] == "2:web=ok"
        if by_event:
            publisher.publish([close_subscription_event(["another"])])
            publisher.publish([close_subscription_event(["t"])])
        else:
            assert publisher.close_subscriptions(["another"]) == 0
            assert publisher.close_subscriptions(["t", "t"]) == 1
        assert await to_the_end(subscription, receive) == ([], CloseReason.TOKEN)
        with pytest.raises(ClosedResourceError):
            publisher.subscribe(other)


async def test_nothing_else_can_be_published_after_the_stop() -> None:
    """D18."""
    async with stopped() as (publisher, subscription):
        for events in (
            [],
            [event(9, "web")],
            [close_subscription_event(["t"]), event(9, "web")],
        ):
            with pytest.raises(ClosedResourceError):
                publisher.publish(events)
        with pytest.raises(ClosedResourceError):
            publisher.publish([], index=9)
        with pytest.raises(ClosedResourceError):
            publisher.refresh()
        assert len(ready_until_the_end(subscription)) == 3
        with pytest.raises(ClosedResourceError):
            publisher.close_subscriptions(["t"])
        with pytest.raises(ClosedResourceError):
            publisher.publish([close_subscription_event(["t"])])


def ready_until_the_end(subscription: Subscription[Health]) -> list[Event[Health]]:
    got: list[Event[Health]] = []
    with pytest.raises(SubscriptionForceClosed):
        while True:
            got.append(subscription.receive_nowait())
    return got


async def test_a_client_resumes_behind_everything_it_has_had() -> None:
    """D7, U9: also behind the commits of others; another publisher of the same timeline goes on from there."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1, epoch="e") as publisher:
        subscription = publisher.subscribe(LIVE)
        publisher.publish([event(2, "web")])
        for index in range(3, 50):
            publisher.publish([event(index, "another")])
    assert subscription.resume_request().index == 1
    await to_the_end(subscription)
    assert (subscription.index, subscription.horizon) == (2, 49)
    request = subscription.resume_request()
    assert (request.index, request.epoch) == (49, "e")
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=49, epoch="e") as publisher:
        again = publisher.subscribe(request)
        publisher.publish([event(50, "web")])
        assert kinds([await again.receive()]) == ["50:web=ok"]


async def test_waiting_for_an_index_that_will_not_come_ends() -> None:
    async with stopped() as (_, subscription):
        await subscription.wait_published(4)
        for _ in range(2):
            with pytest.raises(SubscriptionForceClosed) as closed:
                await subscription.wait_published(5)
            assert closed.value.reason is CloseReason.STOPPED
        assert [each.index for each in ready_until_the_end(subscription)] == [2, 3, 4]


async def test_an_owner_may_close_what_is_not_read_to_its_end() -> None:
    async with stopped() as (publisher, subscription):
        subscription.unsubscribe()
        assert publisher.statistics().subscriptions == 0
        with pytest.raises(ClosedResourceError):
            subscription.receive_nowait()


async def test_a_reader_that_is_cancelled_while_it_reads_the_rest_gets_it_later() -> None:
    """D12."""
    async with stopped() as (_, subscription):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await subscription.receive()
        assert scope.cancelled_caught
        assert (await to_the_end(subscription))[0] == ["2:web=ok", "3:web=ok", "4:web=ok"]


async def test_readers_in_a_nursery_outside_read_everything_although_the_publisher_is_cancelled() -> None:
    """D5: its nursery is cancelled, not theirs."""
    got: list[str] = []

    async def read() -> None:
        got.extend((await to_the_end(subscription))[0])

    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
    async with anyio.create_task_group() as readers:
        async with anyio.create_task_group() as inner:
            await inner.start(publisher.run)
            subscription = publisher.subscribe(LIVE)
            readers.start_soon(read)
            await quiet()
            publisher.publish([event(2, "web")])
            inner.cancel_scope.cancel()
            publisher.publish([event(3, "web")])
    assert got == ["2:web=ok", "3:web=ok"]
    assert (await until_stopped(subscription)).reason is CloseReason.STOPPED


async def until_stopped(subscription: Subscription[Health]) -> SubscriptionForceClosed:
    with pytest.raises(SubscriptionForceClosed) as closed:
        await until_live(subscription)
    return closed.value


async def test_one_whose_rights_are_taken_away_while_thousands_are_told_of_the_stop_keeps_that_end() -> None:
    """D5, D9, D16: although its snapshot is not whole and it has not been told of the stop yet."""
    async with anyio.create_task_group() as tasks:
        publisher = EventPublisher({HEALTH: Held()})
        scope = anyio.CancelScope()

        async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            with scope:
                await publisher.run(task_status=task_status)

        await tasks.start(run)
        many = [publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t")) for _ in range(2_000)]
        await quiet()
        scope.cancel()
        while "stopped" not in repr(publisher):
            await anyio.lowlevel.checkpoint()
        closed = publisher.close_subscriptions(["t"])
    reasons = [(await to_the_end(each))[1] for each in many]
    assert 0 < closed == reasons.count(CloseReason.TOKEN)
    assert publisher.statistics().subscriptions == 0


async def test_a_snapshot_that_failed_before_the_stop_is_the_end_that_its_reader_gets() -> None:
    """D16: what is true of it did not come with the stop."""

    async def failing(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        raise OSError("disk")

    async with opened(failing) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        await quiet()
    with pytest.raises(SnapshotFailed) as failed:
        await subscription.receive()
    assert isinstance(failed.value.__cause__, OSError)


async def test_the_figures_of_a_publisher_that_has_stopped_are_those_of_its_end() -> None:
    async with opened(index=1) as (store, publisher):
        store.commit(("web", "1"))
    figures = publisher.statistics()
    assert (figures.index, figures.subscriptions, figures.waiting, figures.tokens) == (2, 0, 0, 0)
    topic = figures.topics["health"]
    assert (topic.commits, topic.floor, topic.feeds, topic.snapshots) == (0, 1, 0, 0)


@on_asyncio
async def test_a_stop_that_is_cancelled_again_ends_everybody_all_the_same() -> None:
    """D12, D16: natively, in the middle of the portions in which it is told."""
    many = 1_000
    ends: list[CloseReason] = []

    async def read(subscription: Subscription[Health]) -> None:
        with pytest.raises(SubscriptionForceClosed) as closed:
            await subscription.receive()
        ends.append(closed.value.reason)

    for ticks in range(5):
        ends.clear()
        publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
        running = asyncio.create_task(publisher.run())
        await quiet()
        async with anyio.create_task_group() as tasks:
            for _ in range(many):
                tasks.start_soon(read, publisher.subscribe(LIVE))
            await quiet()
            running.cancel()
            for _ in range(ticks):
                await anyio.lowlevel.checkpoint()
            running.cancel()
            await asyncio.wait([running])
        assert running.cancelled()
        assert ends == [CloseReason.STOPPED] * many
