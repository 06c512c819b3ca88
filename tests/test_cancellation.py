"""Cancelling any call wherever it waits, and calling again, is as if it had never been cancelled; nothing is left."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from catalogue import HEALTH, Catalogue, Health, event, kinds, ready, until_live
from interruptions import Interrupt, natively, on_asyncio, on_trio, soon, ways
from scenes import quiet
from typing_extensions import override

from trio_stream import (
    ClosedResourceError,
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    WouldBlock,
    open_publisher,
)

pytestmark = pytest.mark.anyio


async def receive(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await subscription.receive()]


async def iterate(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await anext(subscription)]


async def receive_batch(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_batch())


async def receive_some(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_batch(2))


Receiving = Callable[[Subscription[Health]], Awaitable[list[Event[Health]]]]
receives = pytest.mark.parametrize("receiving", [receive, iterate, receive_batch, receive_some])

# What is committed after the snapshot; a reader with permission for `web` alone has to wait several times in one call.
LATER = [["secret"], ["web", "web"], ["secret"], ["secret"], ["web"], ["web", "secret"], ["secret"], ["web"]]
RECEIVED = ["2:web=ok", "eos@2", "4:web=ok+web=ok", "7:web=ok", "8:web=ok", "10:web=ok"]


@asynccontextmanager
async def two_commits() -> AsyncIterator[Catalogue]:
    """A store with one visible and one hidden service in its snapshot, and its publisher."""
    catalogue = Catalogue()
    async with open_publisher({HEALTH: catalogue.snapshot}) as publisher:
        catalogue.publisher = publisher
        catalogue.commit(("secret", "ok"))
        catalogue.commit(("web", "ok"))
        yield catalogue


async def with_cancellations(receiving: Receiving, interrupt: Interrupt, at: int) -> tuple[list[str], int]:
    """What a reader gets each of whose calls is cancelled at the same suspension first, and how often it was."""
    cancelled = 0
    got: list[Event[Health]] = []
    async with two_commits() as store:
        publisher = store.publisher
        assert publisher is not None
        request, rights = SubscribeRequest(HEALTH), frozenset({"web"})
        async with publisher.subscribe(request, authorizer=rights) as subscription:
            later = iter(LATER)

            def commit(_: int) -> None:
                if subscription.index > 0:
                    soon(
                        lambda: [
                            store.commit(*((key, "ok") for key in keys))
                            for keys in itertools.islice(later, 1)
                        ]
                    )

            async def call() -> None:
                got.extend(await receiving(subscription))

            while subscription.index < 10:
                cancelled += await interrupt(call, at, commit)
                if subscription.index < 10:
                    await interrupt(call, -1, commit)
            await quiet()
            with pytest.raises(WouldBlock):
                subscription.receive_nowait()
            assert publisher.statistics().waiting == 0
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.tokens) == (0, 0)
    return kinds(got), cancelled


@receives
async def test_what_is_received_is_the_same_wherever_each_call_is_cancelled(receiving: Receiving) -> None:
    """D12, D3: at the k-th suspension, for every k that there is."""
    for interrupt in ways():
        for at in itertools.count():
            got, cancelled = await with_cancellations(receiving, interrupt, at)
            assert got == RECEIVED
            if not cancelled:
                break
        assert at >= 2  # or the sweep has swept nothing


@receives
@pytest.mark.parametrize("cancel_first", [True, False])
@pytest.mark.parametrize("others", [0, 300])
async def test_a_cancel_and_a_wake_in_the_same_tick_lose_nothing(
    receiving: Receiving, cancel_first: bool, others: int
) -> None:
    """D12: alone, and among so many that the publisher's own task does the waking."""
    got: list[Event[Health]] = []

    async def read() -> None:
        got.extend(await receiving(subscription))

    for native in [way is natively for way in ways()]:
        got.clear()
        async with (
            open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher,
            anyio.create_task_group() as tasks,
        ):
            request = SubscribeRequest(HEALTH, index=1)
            for _ in range(others):
                tasks.start_soon(publisher.subscribe(request).receive)
            subscription = publisher.subscribe(request)
            cancel = asyncio.create_task(read()).cancel if native else cancellable(tasks, read)
            await quiet()
            if cancel_first:
                cancel()
            publisher.publish([event(2, "web")])
            if not cancel_first:
                cancel()
            await quiet()
            assert publisher.statistics().waiting == 0
            assert kinds([*got, *ready(subscription)]) == ["2:web=ok"]


def cancellable(tasks: anyio.abc.TaskGroup, call: Callable[[], Awaitable[None]]) -> Callable[[], object]:
    """Starts a task; returns what cancels it."""
    scope = anyio.CancelScope()

    async def main() -> None:
        with scope:
            await call()

    tasks.start_soon(main)
    return scope.cancel


@on_asyncio
async def test_asyncios_own_timeouts_lose_nothing() -> None:
    """D12, anyio's memory stream: the item that was handed over is lost."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
    subscription = publisher.subscribe(SubscribeRequest(HEALTH, index=1))
    got: list[Event[Health]] = []
    for index in range(2, 22):
        asyncio.get_running_loop().call_soon(publisher.publish, [event(index, "web")])
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                got.append(await subscription.receive())
        waiting = asyncio.create_task(subscription.receive_batch())
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            got += await waiting
    got += ready(subscription)
    assert [received.index for received in got] == list(range(2, 22))


async def test_an_append_that_is_cancelled_and_made_again_is_in_the_snapshot_once() -> None:
    """D12, D1: wherever the append waits, for its checkpoint or for readers who are far behind."""
    groups = 1200  # more than a snapshot function may be ahead of its readers
    for interrupt in ways():
        for at in itertools.count():
            cancelled = 0

            async def handler(
                request: SubscribeRequest[Health],
                snapshot: SnapshotAppender[Health],
                interrupt: Interrupt = interrupt,
                at: int = at,
            ) -> int:
                nonlocal cancelled
                for number in range(groups):

                    async def append(number: int = number) -> None:
                        await snapshot.append([event(1, f"key-{number}")])

                    if number % 100 and number < 1020:  # a sample, and all that wait for readers
                        await append()
                    elif await interrupt(append, at, lambda _: None):
                        cancelled += 1
                        await append()
                return 1

            async with open_publisher({HEALTH: handler}) as publisher:
                subscription = publisher.subscribe(SubscribeRequest(HEALTH))
                await quiet()
                received = await until_live(subscription)
                await quiet()
                assert kinds(received) == [*(f"1:key-{number}=ok" for number in range(groups)), "eos@1"]
                assert publisher.statistics().waiting == 0
            if not cancelled:
                break
        assert at >= 1


async def test_a_close_that_is_cancelled_has_closed() -> None:
    """D12, D13: `aclose`, and leaving the block, which is what a cancelled reader does."""
    for interrupt in ways():
        publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)

        async def leave(publisher: EventPublisher = publisher) -> None:
            async with publisher.subscribe(SubscribeRequest(HEALTH, index=1)):
                pass

        subscription = publisher.subscribe(SubscribeRequest(HEALTH, index=1))
        for close in (subscription.aclose, leave):
            assert await interrupt(close, 0, lambda _: None)
            assert not await interrupt(close, 1, lambda _: None)
            assert publisher.statistics().subscriptions == 0
        with pytest.raises(ClosedResourceError):
            await subscription.receive()


async def test_a_reader_that_is_cancelled_anywhere_between_subscribe_and_its_end_leaves_nothing() -> None:
    """D12, D13, litestar: what was registered before a checkpoint stayed for ever."""
    for interrupt in ways():
        for at in itertools.count():
            async with two_commits() as store:
                publisher = store.publisher
                assert publisher is not None

                async def use(publisher: EventPublisher = publisher) -> None:
                    async with publisher.subscribe(SubscribeRequest(HEALTH, token="t")) as subscription:
                        await until_live(subscription)

                cancelled = await interrupt(use, at, lambda _: None)
                await quiet()
                statistics = publisher.statistics()
                assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
            if not cancelled:
                break
        assert at >= 2


async def test_a_publisher_that_is_cancelled_anywhere_has_stopped_and_told_everybody() -> None:
    """D12, D13, D16: in `open_publisher`'s beginning, its block or its end, with readers and a handler at work."""
    for interrupt in ways():
        for at in itertools.count():
            left: list[tuple[EventPublisher, Subscription[Health]]] = []
            began = ended = 0

            async def endless(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
                nonlocal began, ended
                began += 1
                try:
                    await anyio.sleep_forever()
                finally:
                    ended += 1
                return 1

            async def use(handler: Any = endless, left: list[Any] = left) -> None:
                block: AbstractAsyncContextManager[EventPublisher] = open_publisher({HEALTH: handler})
                async with block as publisher:
                    left.append((publisher, publisher.subscribe(SubscribeRequest(HEALTH))))
                    await anyio.lowlevel.checkpoint()
                    await anyio.lowlevel.checkpoint()

            with anyio.fail_after(30):
                cancelled = await interrupt(use, at, lambda _: None)
            await quiet()
            assert began == ended
            for publisher, subscription in left:
                with pytest.raises(SubscriptionForceClosed, match="stopped"):
                    subscription.receive_nowait()
                with pytest.raises(ClosedResourceError):
                    publisher.publish([])
                assert publisher.statistics().subscriptions == 0
            if not cancelled:
                break
        assert at >= 3


async def test_a_publisher_whose_run_is_cancelled_anywhere_has_stopped_and_told_everybody() -> None:
    """D12, D16: also while it wakes readers who are many."""

    async def read(subscription: Subscription[Health]) -> None:
        with pytest.raises(SubscriptionForceClosed, match="stopped"):
            async for _ in subscription:
                pass

    for interrupt in ways():
        for at in range(6):
            publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
            request = SubscribeRequest(HEALTH, index=1)

            def commit(number: int, at: int = at, publisher: EventPublisher = publisher) -> None:
                if number < at:
                    soon(lambda: publisher.publish([event(publisher.index + 1, "web")]))

            async with anyio.create_task_group() as tasks:
                for _ in range(300):
                    tasks.start_soon(read, publisher.subscribe(request))
                await quiet()
                assert await interrupt(publisher.run, at, commit)
            assert publisher.statistics().subscriptions == publisher.statistics().waiting == 0
            with pytest.raises(ClosedResourceError):
                await publisher.run()


async def test_thousands_of_receivers_that_give_up_leave_nothing() -> None:
    """D13, D10, tokio and mini-redis: each left a waiter that every later send had to pass."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
    subscription = publisher.subscribe(SubscribeRequest(HEALTH, index=1))
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(10_000):
            try:
                await subscription.receive()
            except anyio.get_cancelled_exc_class():
                assert publisher.statistics().waiting == 0
    assert subscription.statistics().lag == 0
    publisher.publish([event(2, "web")])
    assert kinds(ready(subscription)) == ["2:web=ok"]


@on_trio
async def test_a_publish_after_thousands_of_receivers_have_given_up_wakes_one() -> None:
    """D13, D10: counted, not timed."""

    class Wakes(trio.abc.Instrument):
        count = 0

        @override
        def task_scheduled(self, task: trio.lowlevel.Task) -> None:
            self.count += 1

    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
    subscription = publisher.subscribe(SubscribeRequest(HEALTH, index=1))
    for _ in range(1000):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await subscription.receive()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(subscription.receive)
        await quiet()
        trio.lowlevel.add_instrument(wakes := Wakes())
        publisher.publish([event(2, "web")])
        assert wakes.count == 1
        trio.lowlevel.remove_instrument(wakes)
