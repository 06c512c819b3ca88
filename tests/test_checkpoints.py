"""Where the library gives way to other tasks: never in what does not wait, once in what does, and often in a loop."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, until_live
from interruptions import Stepwise, on_trio
from scenes import quiet

from trio_stream import (
    BusyResourceError,
    ClosedResourceError,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio


def live(commits: int, *, authorizer: Any = None) -> tuple[EventPublisher, Subscription[Health]]:
    """A publisher that does not run, and a subscription for which so many commits are ready."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1, history=10_000)
    subscription = publisher.subscribe(SubscribeRequest(HEALTH, token="t", index=1), authorizer=authorizer)
    for index in range(2, 2 + commits):
        publisher.publish([event(index, "web")])
    return publisher, subscription


CALLS: dict[str, Callable[[Subscription[Health]], Awaitable[Any]]] = {
    "receive": lambda subscription: subscription.receive(),
    "receive_batch": lambda subscription: subscription.receive_batch(),
    "receive_batch(1)": lambda subscription: subscription.receive_batch(1),
    "anext": anext,
    "aclose": lambda subscription: subscription.aclose(),
    "aexit": lambda subscription: subscription.__aexit__(None, None, None),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
@pytest.mark.parametrize("commits", [1, 2, 5000])
async def test_a_call_for_which_something_is_ready_gives_way_exactly_once(
    call: Callable[[Subscription[Health]], Awaitable[Any]], commits: int
) -> None:
    """D12, D15."""
    _, subscription = live(commits)
    counted = Stepwise(lambda: call(subscription))
    await counted
    assert counted.suspensions == 1


@on_trio
@calls
async def test_a_call_is_a_checkpoint_to_trio(call: Callable[[Subscription[Health]], Awaitable[Any]]) -> None:
    """D12: it schedules, and it can be cancelled; also when it ends with an error."""
    _, subscription = live(3)
    with trio.testing.assert_checkpoints():
        await call(subscription)
    subscription.close()
    with trio.testing.assert_checkpoints():
        with suppress(ClosedResourceError):
            await call(subscription)


@on_trio
async def test_publish_and_subscribe_and_all_that_does_not_wait_have_no_checkpoint() -> None:
    """D12, D8: what is decided is decided in one go."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(publisher.subscribe(SubscribeRequest(HEALTH, token="t", index=1)).receive)
            await quiet()
            with trio.testing.assert_no_checkpoints():
                publisher.publish([event(2, "web"), close_subscription_event(["u"])])
                subscription = publisher.subscribe(SubscribeRequest(HEALTH, index=2))
                publisher.publish_from_thread([event(3, "web")])
                assert kinds([subscription.receive_nowait()]) == ["3:web=ok"]
                subscription.resume_request()
                subscription.statistics()
                subscription.unsubscribe()
                assert publisher.close_subscriptions(["u"]) == 0
                publisher.register_handler(JOBS, Catalogue().snapshot)
                publisher.subscribe(SubscribeRequest(JOBS)).close()
                publisher.refresh(JOBS)


async def test_entering_a_subscription_does_not_wait() -> None:
    """D12, litestar: there is no point between `subscribe` and the block at which it could leak."""
    _, subscription = live(0)
    counted = Stepwise(subscription.__aenter__)
    assert await counted is subscription
    assert counted.suspensions == 0


async def test_an_append_gives_way_exactly_once_while_its_reader_keeps_up() -> None:
    """D15: whether it appends one event, many or none."""
    suspensions: list[int] = []

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        for count in (1, 0, 100, 1):
            counted = Stepwise(
                partial(snapshot.append, [event(1, f"key-{number}") for number in range(count)])
            )
            await counted
            suspensions.append(counted.suspensions)
        return 1

    async with open_publisher({HEALTH: handler}) as publisher:
        await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))
    assert suspensions == [1, 1, 1, 1]


@pytest.mark.parametrize("hidden", [0, 3])
async def test_a_loop_gives_way_at_least_every_64_events(hidden: int) -> None:
    """D15: whatever is hidden between them, and whatever other calls come in between."""
    publisher, subscription = live(0, authorizer=frozenset({"web"}) if hidden else None)
    for _ in range(1000):
        for _ in range(hidden):
            publisher.publish([event(publisher.index + 1, "secret")])
        publisher.publish([event(publisher.index + 1, "web")])
    bursts = [0]
    for number in range(1000):
        counted = Stepwise(lambda: anext(subscription))
        received = await counted
        assert received.index == 2 + hidden + number * (hidden + 1)
        if counted.suspensions:
            bursts.append(0)
        bursts[-1] += 1
    assert bursts[0] == 0  # the first call gives way
    assert max(bursts) <= 64
    assert len(bursts) < 100  # and what they are for: most events come without


async def test_what_is_before_a_snapshot_counts_in_a_loop_too() -> None:
    """D15: new-snapshot-to-follow is one of the 64."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:

        async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
            for number in range(200):
                await snapshot.append([event(1, f"key-{number}", topic=JOBS)])
            return 1

        publisher.register_handler(JOBS, handler)
        subscription = publisher.subscribe(SubscribeRequest(JOBS, index=3, epoch="another"))
        await quiet()
        bursts: list[int] = []
        async with subscription:
            for _ in range(202):
                counted = Stepwise(lambda: anext(subscription))
                await counted
                if counted.suspensions:
                    bursts.append(0)
                bursts[-1] += 1
    assert bursts == [64, 64, 64, 10]


async def test_a_loop_that_is_begun_again_and_again_still_gives_way() -> None:
    """D15: leaving it after each event does not start the count anew."""
    _, subscription = live(300)
    events_since = most = 0
    for _ in range(300):
        counted = Stepwise(partial(anext, aiter(subscription)))
        await counted
        events_since = 1 if counted.suspensions else events_since + 1
        most = max(most, events_since)
    assert most <= 64


async def test_other_tasks_run_while_a_loop_has_all_it_wants() -> None:
    """D15: as seen by a task that only passes its turn on."""
    _, subscription = live(1000)
    turns = 0

    async def compete() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(compete)
        async for received in subscription:
            if received.index == 1001:
                break
        tasks.cancel_scope.cancel()
    assert turns >= 1000 // 64 - 1


async def test_a_reader_passing_over_hidden_events_gives_way() -> None:
    """D15: 5000 of them are not passed over in one stretch."""
    publisher, subscription = live(0, authorizer=frozenset({"web"}))
    for index in range(2, 4002):
        publisher.publish([event(index, "secret")])
    publisher.publish([event(4002, "web")])
    for call in (subscription.receive, subscription.receive_batch):
        counted = Stepwise(call)
        await counted
        assert counted.suspensions >= 4
        for index in range(publisher.index + 1, publisher.index + 4001):
            publisher.publish([event(index, "secret")])
        publisher.publish([event(publisher.index + 1, "web")])


async def test_an_end_inside_a_loop_gives_way_before_it_is_raised() -> None:
    """D15, D12: a task that ignores it cannot keep the event loop for itself."""
    publisher, subscription = live(3)
    await anext(subscription)
    publisher.close_subscriptions(["t"])
    for _ in range(2):
        counted = Stepwise(lambda: anext(subscription))
        with pytest.raises(SubscriptionForceClosed):
            await counted
        assert counted.suspensions == 1


async def test_a_second_receiver_is_refused_without_waiting_for_the_first() -> None:
    """D18."""
    _, subscription = live(0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(subscription.receive)
        await quiet()
        with pytest.raises(BusyResourceError), anyio.fail_after(30):
            await subscription.receive()
        tasks.cancel_scope.cancel()
