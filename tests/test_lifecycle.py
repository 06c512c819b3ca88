"""Starting and stopping: what works before, while and after the publisher runs, and what leaves `open_publisher`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from interruptions import on_asyncio, on_trio
from scenes import quiet

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
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio


def one_service() -> Catalogue:
    catalogue = Catalogue()
    catalogue.commit(("web", "a"))
    return catalogue


async def endless(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    await snapshot.append([event(1, "web", topic=request.topic)])
    await anyio.sleep_forever()
    return 1


async def stopped_publisher() -> EventPublisher:
    async with open_publisher({HEALTH: one_service().snapshot}) as publisher:
        pass
    return publisher


@on_trio
async def test_a_trio_nursery_starts_a_publisher_as_the_design_shows_it() -> None:
    async with trio.open_nursery() as nursery:
        publisher = EventPublisher({HEALTH: one_service().snapshot})
        await nursery.start(publisher.run)
        subscription = publisher.subscribe(SubscribeRequest(HEALTH))
        assert kinds(await until_live(subscription)) == ["1:web=a", "eos@1"]
        nursery.cancel_scope.cancel()


async def test_an_anyio_task_group_starts_a_publisher() -> None:
    async with anyio.create_task_group() as tasks:
        publisher = EventPublisher({HEALTH: one_service().snapshot})
        await tasks.start(publisher.run)
        assert kinds(await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))) == ["1:web=a", "eos@1"]
        tasks.cancel_scope.cancel()
    with pytest.raises(ClosedResourceError):
        publisher.subscribe(SubscribeRequest(HEALTH))


@on_asyncio
async def test_a_native_task_runs_a_publisher_and_its_cancellation_stops_it() -> None:
    """D12, D17."""
    publisher = EventPublisher({HEALTH: one_service().snapshot})
    task = asyncio.create_task(publisher.run())
    subscription = publisher.subscribe(SubscribeRequest(HEALTH))
    assert kinds(await until_live(subscription)) == ["1:web=a", "eos@1"]
    reader = asyncio.create_task(subscription.receive())
    await quiet()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(SubscriptionForceClosed) as caught:
        await reader
    assert caught.value.reason is CloseReason.STOPPED


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.11 has no eager tasks")
@on_asyncio
async def test_eager_tasks_do_not_get_ahead_of_what_they_serve() -> None:
    """D17: a snapshot function must not begin before its subscription is counted."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    try:
        async with open_publisher({HEALTH: one_service().snapshot}) as publisher:
            assert kinds(await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))) == [
                "1:web=a",
                "eos@1",
            ]
    finally:
        loop.set_task_factory(None)  # uvloop cannot be closed with that one


async def test_publish_and_subscribe_work_before_the_publisher_runs_and_snapshots_wait_for_it() -> None:
    catalogue = Catalogue()
    publisher = catalogue.publisher = EventPublisher({HEALTH: catalogue.snapshot})
    fresh = publisher.subscribe(SubscribeRequest(HEALTH, "web"))
    catalogue.commit(("web", "a"))
    resumed = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
    catalogue.commit(("web", "b"))
    assert kinds([await resumed.receive()]) == ["2:web=b"]
    assert (ready(fresh), catalogue.runs) == ([], 0)
    async with anyio.create_task_group() as tasks:
        await tasks.start(publisher.run)
        assert kinds(await until_live(fresh)) == ["2:web=b", "eos@2"]
        tasks.cancel_scope.cancel()


async def test_readers_that_wait_before_the_publisher_runs_are_woken_by_a_publish() -> None:
    """D10: also when they are so many that the publisher's own task should wake them."""
    publisher = EventPublisher({HEALTH: one_service().snapshot}, index=1)
    got: list[str] = []

    async def read() -> None:
        received = await publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1)).receive()
        got.extend(kinds([received]))

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(read)
        await quiet()
        publisher.publish([event(2, "web")])
        await quiet()
        woken_without_run = len(got)
        await tasks.start(publisher.run)
        await quiet()
        tasks.cancel_scope.cancel()
    assert got == ["2:web=ok"] * 40
    assert woken_without_run == 40


@pytest.mark.parametrize("leave", ["unsubscribe", "close_subscriptions", "close_event", "refresh"])
async def test_what_was_done_before_there_was_an_event_loop_does_not_choose_one(
    leave: str, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    """D17: a module may make its publisher, and even use it, at import."""

    def at_import() -> EventPublisher:
        publisher = EventPublisher({HEALTH: one_service().snapshot})
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, token="t"))
        match leave:
            case "unsubscribe":
                subscription.unsubscribe()
            case "close_subscriptions":
                assert publisher.close_subscriptions(["t"]) == 1
            case "close_event":
                publisher.publish([close_subscription_event(["t"])])
            case _:
                publisher.refresh()
        return publisher

    publisher = await anyio.to_thread.run_sync(at_import)  # a thread without an event loop
    async with anyio.create_task_group() as tasks:
        await tasks.start(publisher.run)
        assert kinds(await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))) == ["1:web=a", "eos@1"]
        tasks.cancel_scope.cancel()


async def test_stopping_ends_every_subscription_with_its_type_also_one_inside_its_snapshot() -> None:
    """C2, D16, D5: waiting or not, and every time."""
    ends: dict[str, SubscriptionForceClosed] = {}

    async def read(name: str, subscription: Subscription[Health]) -> None:
        try:
            await subscription.receive()
        except SubscriptionForceClosed as closed:
            ends[name] = closed

    async with anyio.create_task_group() as tasks:
        async with open_publisher({HEALTH: one_service().snapshot, JOBS: endless}, epoch="e") as publisher:
            live = publisher.subscribe(SubscribeRequest(HEALTH, "web"))
            inside = publisher.subscribe(SubscribeRequest(JOBS))
            idle = publisher.subscribe(SubscribeRequest(HEALTH))
            await until_live(live)
            await inside.receive()
            tasks.start_soon(read, "live", live)
            tasks.start_soon(read, "inside", inside)
            await quiet()
            publisher.publish([event(7, "other")])
    assert {name: (end.reason, end.index, end.epoch) for name, end in ends.items()} == {
        "live": (CloseReason.STOPPED, 1, "e"),
        "inside": (CloseReason.STOPPED, 0, "e"),
    }
    assert kinds(await until_live(idle)) == ["1:web=a", "eos@1"]
    assert kinds([await idle.receive()]) == ["7:other=ok"]
    for subscription in (live, inside, idle):
        for _ in range(2):
            with pytest.raises(SubscriptionForceClosed, match="stopped"):
                await subscription.receive()
        with pytest.raises(SubscriptionForceClosed, match="stopped"):
            subscription.receive_nowait()
    assert [each.resume_request().index for each in (live, inside, idle)] == [7, 0, 7]
    statistics = publisher.statistics()
    assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
    assert [(of.commits, of.feeds, of.snapshots) for of in statistics.topics.values()] == [(0, 0, 0)] * 2


@pytest.mark.parametrize("how", ["close_subscriptions", "close_event", "refresh", "publish", "nothing"])
async def test_hundreds_of_readers_are_released_when_the_publisher_stops_in_the_same_tick(how: str) -> None:
    """D5, D16: a wake-up that was due must not stop with the publisher that owed it."""
    released: list[CloseReason | int] = []

    async def read(publisher: EventPublisher) -> None:
        try:
            received = await publisher.subscribe(SubscribeRequest(HEALTH, token="t", index=1)).receive()
            released.append(received.index)
        except SubscriptionForceClosed as closed:
            released.append(closed.reason)

    with anyio.move_on_after(10):
        async with anyio.create_task_group() as tasks:
            async with open_publisher({HEALTH: one_service().snapshot}, index=1) as publisher:
                for _ in range(600):
                    tasks.start_soon(read, publisher)
                await quiet()
                match how:
                    case "close_subscriptions":
                        publisher.close_subscriptions(["t"])
                    case "close_event":
                        publisher.publish([close_subscription_event(["t"])])
                    case "refresh":
                        publisher.refresh()
                    case "publish":
                        publisher.publish([event(2, "web")])
                    case _:
                        pass
    expected: dict[str, set[CloseReason | int]] = {
        "refresh": {CloseReason.REFRESH},
        "publish": {CloseReason.STOPPED, 2},
        "nothing": {CloseReason.STOPPED},
    }
    assert len(released) == 600
    assert set(released) <= expected.get(how, {CloseReason.TOKEN})


async def test_a_publisher_whose_start_fails_has_stopped() -> None:
    """D18: whoever waits for it is told."""

    class Unwanted(anyio.abc.TaskStatus[None]):
        def started(self, value: None = None) -> None:
            raise ValueError("nobody waits")

    publisher = EventPublisher({HEALTH: endless})
    subscription = publisher.subscribe(SubscribeRequest(HEALTH))
    with pytest.raises(ExceptionGroup):
        await publisher.run(task_status=Unwanted())
    with pytest.raises(SubscriptionForceClosed):
        await subscription.receive()
    with pytest.raises(ClosedResourceError):
        publisher.publish([])


CALLS: dict[str, Callable[[EventPublisher], object]] = {
    "publish": lambda publisher: publisher.publish([event(9, "web")]),
    "publish nothing": lambda publisher: publisher.publish([]),
    "publish a close event": lambda publisher: publisher.publish([close_subscription_event(["t"])]),
    "publish_from_thread": lambda publisher: publisher.publish_from_thread([event(9, "web")]),
    "subscribe": lambda publisher: publisher.subscribe(SubscribeRequest(HEALTH)),
    "close_subscriptions": lambda publisher: publisher.close_subscriptions(["t"]),
    "refresh": lambda publisher: publisher.refresh(),
    "refresh a topic": lambda publisher: publisher.refresh(HEALTH),
    "register_handler": lambda publisher: publisher.register_handler(JOBS, endless),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_after_the_publisher_has_stopped_every_call_says_so_at_once(
    call: Callable[[EventPublisher], object],
) -> None:
    """D18, Consul: subscribe succeeded and hung, publish blocked."""
    publisher = await stopped_publisher()
    before = publisher.statistics()
    for kind in (ClosedResourceError, trio.ClosedResourceError, anyio.ClosedResourceError):
        with pytest.raises(kind):
            call(publisher)
    with pytest.raises(ClosedResourceError):
        await anyio.to_thread.run_sync(publisher.publish_from_thread, [event(9, "web")])
    with pytest.raises(ClosedResourceError):
        await publisher.run()
    assert publisher.statistics() == before


async def test_a_publisher_runs_once_at_a_time() -> None:
    """D18: the running one is not disturbed."""
    async with open_publisher({HEALTH: one_service().snapshot}) as publisher:
        with pytest.raises(RuntimeError):
            await publisher.run()
        assert kinds(await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))) == ["1:web=a", "eos@1"]


async def raising(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    raise OSError("no such table")


async def raising_a_group(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(raising, request, snapshot)
    return 1


async def appending_nonsense(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    await snapshot.append([event(1, "web"), event(2, "web")])
    return 2


async def returning_text(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Any:
    await snapshot.append([event(1, "web")])
    return "1"


async def returning_less_than_nothing(
    request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]
) -> int:
    return -1


def not_async(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Any:
    return 1


@pytest.mark.parametrize(
    "handler",
    [raising, raising_a_group, appending_nonsense, returning_text, returning_less_than_nothing, not_async],
)
async def test_a_handler_that_fails_never_takes_the_publisher_down(
    handler: Callable[..., Awaitable[int]],
) -> None:
    async with open_publisher({HEALTH: handler, JOBS: one_service().snapshot}) as publisher:
        for _ in range(2):
            with pytest.raises(SnapshotFailed) as caught:
                await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))
            assert isinstance(caught.value.__cause__, Exception)
        assert kinds(await until_live(publisher.subscribe(SubscribeRequest(JOBS))))[-1] == "eos@1"


async def test_a_handler_may_publish_subscribe_and_unsubscribe() -> None:
    """D15, Consul: one that subscribed was locked for ever."""
    async with open_publisher({JOBS: one_service().snapshot}) as publisher:
        inner: list[Event[Health]] = []

        async def busy(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
            publisher.publish([event(5, "web")])
            async with publisher.subscribe(SubscribeRequest(JOBS)) as other:
                inner.extend(await until_live(other))
            await snapshot.append([event(5, "web")])
            return 5

        publisher.register_handler(HEALTH, busy)
        received = await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))
        assert (kinds(received), inner[-1].is_end_of_snapshot) == (["5:web=ok", "eos@5"], True)


async def test_two_publishers_in_one_event_loop_do_not_know_of_each_other() -> None:
    async with open_publisher({HEALTH: one_service().snapshot}) as other:
        theirs = other.subscribe(SubscribeRequest(HEALTH, token="t"))
        async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
            ours = publisher.subscribe(SubscribeRequest(HEALTH, token="t"))
            assert [kinds(await until_live(s))[-1] for s in (ours, theirs)] == ["eos@0", "eos@1"]
            publisher.publish([event(9, "web"), close_subscription_event(["t"])])
            assert publisher.epoch != other.epoch
        assert ready(theirs) == []
        other.publish([event(2, "web")])
        assert kinds(ready(theirs)) == ["2:web=ok"]
