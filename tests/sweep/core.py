"""The public async calls of the core, each in a setting in which it has to wait."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, apply, event, ready
from scenes import ALL, WEB, Held, opened, quiet
from sweep.driver import Scene, Setting

from trio_stream import (
    ClosedResourceError,
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    NoOpEventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    open_publisher,
    running,
)
from trio_stream.testing import Model, check_trace

BOTH = SubscribeRequest(HEALTH) | SubscribeRequest(JOBS, "w", prefix=True)
PREFIX = SubscribeRequest(HEALTH, "we", prefix=True)
KEYS = WEB | SubscribeRequest(HEALTH, "db")
ENOUGH = 5  # commits, after which what would run for ever is ended
FAR = 1030  # appends of a snapshot function, more than it may be ahead of its readers


class Writer:
    """Commits one more each time, and remembers all."""

    def __init__(self, store: Catalogue, publisher: EventPublisher) -> None:
        self.store = store
        self.publisher = publisher
        self.commits: list[list[Event[Health]]] = []
        self.commit()

    def commit(self) -> None:
        index = self.store.index + 1
        self.commits.append([event(index, "web", f"{index}")])
        self.store.commit(("web", f"{index}"))

    def check(self, request: SubscribeRequest[Health], events: Iterable[Event[Health]]) -> None:
        """D1 to D5, and that there is everything."""
        check_trace(events, Model(request=request, commits=self.commits, apply=apply), upto=self.store.index)

    async def nobody_waits(self) -> None:
        assert self.publisher.statistics().waiting == 0

    async def nobody_is_there(self) -> None:
        statistics = self.publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
        assert statistics.topics["health"].snapshots == 0


@asynccontextmanager
async def written() -> AsyncIterator[Writer]:
    """A publisher of which nothing must be left in the end but its history."""
    async with opened(snapshot_cache_ttl=0) as (store, publisher):
        writer = Writer(store, publisher)
        yield writer
        await quiet()
        await writer.nobody_is_there()


def receiving(
    take: Callable[[Subscription[Health]], Awaitable[Iterable[Event[Health]]]],
    request: SubscribeRequest[Health] = ALL,
) -> Scene:
    """From the snapshot to a change: what was taken and what is ready then is the whole trace."""

    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with written() as writer, writer.publisher.subscribe(request) as subscription:
            got: list[Event[Health]] = []

            async def call() -> None:
                while subscription.index < 3:
                    got.extend(await take(subscription))

            async def check() -> None:
                writer.commit()
                writer.check(request, [*got, *ready(subscription)])

            yield Setting(call, writer.commit, writer.nobody_waits, check)

    return scene


def ending(
    take: Callable[[Subscription[Health]], Awaitable[Iterable[Event[Health]]]],
    request: SubscribeRequest[Health],
) -> Scene:
    """From the snapshot to the end of what is asked for: what was taken is the whole trace, and then it ends again."""

    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with written() as writer, writer.publisher.subscribe(request) as subscription:
            got: list[Event[Health]] = []
            keys = ["db", "web"]

            def wake() -> None:
                if writer.store.index < 3:
                    writer.commit()
                elif keys:
                    writer.store.commit(finish=[keys.pop(0)])

            async def call() -> None:
                with suppress(EndOfSubject):
                    while True:
                        got.extend(await take(subscription))

            async def check() -> None:
                writer.check(request, got)
                assert subscription.state is SubscriptionState.FINISHED
                with pytest.raises(EndOfSubject):
                    await subscription.receive()

            yield Setting(call, wake, writer.nobody_waits, check)

    return scene


class Returned:
    """Readers of several interests who come back: with a cursor for which their feed has to be filled, and with one
    that has to be judged.
    """

    def __init__(self, publisher: EventPublisher) -> None:
        self.publisher = publisher
        for _ in range(3):
            self.commit()
        cursors = [Cursor(index, publisher.epoch, f"m{index}") for index in (1, 5)]
        self.got: dict[Subscription[Health], list[Event[Health]]] = {
            publisher.subscribe(BOTH.after(cursor)): [] for cursor in cursors
        }

    def commit(self) -> None:
        index = self.publisher.next_index
        self.publisher.publish([event(index, "web", f"{index}")], mark=f"m{index}")

    async def nobody_waits(self) -> None:
        assert self.publisher.statistics().waiting == 0

    async def check(self) -> None:
        """D3, D7: each has everything after its cursor, once."""
        for subscription, events in self.got.items():
            events.extend(ready(subscription))
            first = subscription.request.index + 1
            assert [one.index for one in events] == list(range(first, self.publisher.index + 1))
            subscription.unsubscribe()


def resuming(take: Callable[[Subscription[Health]], Awaitable[Iterable[Event[Health]]]]) -> Scene:
    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with opened(snapshot_cache_ttl=0) as (_, publisher):
            returned = Returned(publisher)

            async def call() -> None:
                for subscription, events in returned.got.items():
                    while subscription.index < 6:
                        events.extend(await take(subscription))

            yield Setting(call, returned.commit, returned.nobody_waits, returned.check)

    return scene


@asynccontextmanager
async def waiting_until_ready() -> AsyncIterator[Setting]:
    """Until somebody else has received the snapshot."""
    async with written() as writer, writer.publisher.subscribe(BOTH) as subscription:
        got: list[Event[Health]] = []

        async def check() -> None:
            assert subscription.state is SubscriptionState.LIVE
            writer.commit()
            writer.check(BOTH, [*got, *ready(subscription)])

        yield Setting(
            subscription.wait_ready, lambda: got.extend(ready(subscription)), writer.nobody_waits, check
        )


@asynccontextmanager
async def waiting_until_judged() -> AsyncIterator[Setting]:
    """Until it is known whether a cursor that is ahead is right."""
    async with opened(snapshot_cache_ttl=0) as (_, publisher):
        subscription = publisher.subscribe(BOTH.after(Cursor(2, publisher.epoch, "m2")))

        def commit() -> None:
            publisher.publish([event(publisher.next_index, "web")], mark=f"m{publisher.next_index}")

        async def check() -> None:
            assert publisher.index >= 2
            assert subscription.state is SubscriptionState.LIVE
            commit()
            indexes = [one.index for one in ready(subscription)]
            assert indexes == list(range(3, publisher.index + 1))
            subscription.unsubscribe()

        yield Setting(subscription.wait_ready, commit, check=check)


async def receive(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await subscription.receive()]


async def iterate(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await anext(subscription)]


async def receive_batch(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_batch(2))


async def receive_until_current(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_until_current())


@asynccontextmanager
async def waiting_for_an_index() -> AsyncIterator[Setting]:
    async with written() as writer, writer.publisher.subscribe(ALL) as subscription:

        async def call() -> None:
            await subscription.wait_published(3)
            assert writer.publisher.index >= 3

        async def check() -> None:
            writer.commit()
            await quiet()
            writer.check(ALL, ready(subscription))

        yield Setting(call, writer.commit, writer.nobody_waits, check)


@asynccontextmanager
async def entering() -> AsyncIterator[Setting]:
    async with written() as writer:
        subscription = writer.publisher.subscribe(ALL)

        async def check() -> None:
            writer.commit()
            await quiet()
            writer.check(ALL, ready(subscription))
            subscription.unsubscribe()

        yield Setting(subscription.__aenter__, writer.commit, writer.nobody_waits, check)


def leaving(leave: Callable[[Subscription[Health]], Awaitable[object]]) -> Scene:
    """A close that is cancelled has closed."""

    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with written() as writer:
            subscription = writer.publisher.subscribe(ALL)

            async def check() -> None:
                with suppress(ClosedResourceError):
                    raise AssertionError(await subscription.receive())

            yield Setting(lambda: leave(subscription), writer.commit, writer.nobody_is_there, check)

    return scene


async def leave_block(subscription: Subscription[Health]) -> None:
    await subscription.__aexit__(None, None, None)


@asynccontextmanager
async def running_a_publisher() -> AsyncIterator[Setting]:
    """Until it has run for some commits; one that was cancelled has stopped, and told everybody."""
    store = Catalogue()
    publisher = EventPublisher({HEALTH: store.snapshot})
    store.publisher = publisher
    scope = anyio.CancelScope()
    subscription = publisher.subscribe(ALL)

    async def call() -> None:
        nonlocal scope
        with anyio.CancelScope() as scope, suppress(ClosedResourceError):
            await publisher.run()

    def wake() -> None:
        if store.index < ENOUGH:
            with suppress(ClosedResourceError):
                store.commit(("web", "ok"))
        else:
            scope.cancel()

    async def left() -> None:
        with pytest.raises(SubscriptionForceClosed, match="stopped"):
            while True:
                await subscription.receive()
        assert (publisher.statistics().subscriptions, publisher.statistics().waiting) == (0, 0)

    yield Setting(call, wake, left)


@asynccontextmanager
async def running_a_disabled_publisher() -> AsyncIterator[Setting]:
    publisher = NoOpEventPublisher()
    yield Setting(publisher.run)


async def append(appender: SnapshotAppender[Health], rows: Iterable[Sequence[Event[Health]]]) -> None:
    for row in rows:
        await appender.append(row)


async def extend(appender: SnapshotAppender[Health], rows: Iterable[Sequence[Event[Health]]]) -> None:
    await appender.extend(rows)


@asynccontextmanager
async def appending(
    how: Callable[[SnapshotAppender[Health], Iterable[Sequence[Event[Health]]]], Awaitable[None]],
) -> AsyncIterator[Setting]:
    """Far ahead of the readers, so that it has to wait for them: what was cancelled is not in the snapshot."""
    appenders: list[SnapshotAppender[Health]] = []
    done = anyio.Event()

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        appenders.append(snapshot)
        await done.wait()
        return 1

    async with opened(handler, snapshot_cache_ttl=0) as (_, publisher):
        async with publisher.subscribe(ALL) as subscription:
            await quiet()
            appended = 0
            got: list[Event[Health]] = []

            def rows() -> Iterator[Sequence[Event[Health]]]:
                nonlocal appended
                while appended < FAR:
                    yield [event(1, f"{appended}")]
                    appended += 1  # who asks for the next one has appended it

            async def call() -> None:
                await how(appenders[0], rows())

            while appended < FAR - 8:  # as many as can be appended without a reader
                await appenders[0].append([event(1, f"{appended}")])
                appended += 1

            async def left() -> None:
                assert publisher.statistics().waiting == 0

            async def check() -> None:
                done.set()
                await quiet()
                got.extend(ready(subscription))
                payloads = [one.payload for received in got for one in received.events]
                assert [p.key for p in payloads if isinstance(p, Health)] == [f"{n}" for n in range(FAR)]
                assert got[-1].is_end_of_snapshot

            yield Setting(call, lambda: got.extend(ready(subscription)), left, check)


@asynccontextmanager
async def opening_a_publisher() -> AsyncIterator[Setting]:
    """In its beginning, its block or its end, with a reader and a handler at work."""
    used: list[tuple[EventPublisher, Subscription[Health], Held]] = []

    async def call() -> None:
        held = Held()
        block: AbstractAsyncContextManager[EventPublisher] = open_publisher({HEALTH: held})
        async with block as publisher:
            used.append((publisher, publisher.subscribe(ALL), held))
            for _ in range(3):
                await anyio.lowlevel.checkpoint()

    async def left() -> None:
        for publisher, subscription, held in used:
            assert len(held.requests) == held.cancelled
            assert publisher.statistics().subscriptions == 0
            with suppress(SubscriptionForceClosed):
                raise AssertionError(await subscription.receive())

    yield Setting(call, left=left)


@asynccontextmanager
async def running_beside_a_block() -> AsyncIterator[Setting]:
    begun: list[str] = []
    ended: list[str] = []

    async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        begun.append("")
        try:
            await anyio.lowlevel.checkpoint()
            task_status.started()
            await anyio.sleep_forever()
        finally:
            ended.append("")

    async def call() -> None:
        async with running(serve):
            await anyio.lowlevel.checkpoint()
            assert len(begun) == len(ended) + 1

    async def left() -> None:
        assert len(begun) == len(ended)

    yield Setting(call, left=left)


CORE: dict[str, Any] = {
    "Subscription.receive": receiving(receive),
    "Subscription.__anext__": receiving(iterate),
    "Subscription.receive_batch": receiving(receive_batch),
    "Subscription.receive_until_current": receiving(receive_until_current),
    "Subscription.wait_published": waiting_for_an_index,
    "Subscription.wait_ready": waiting_until_ready,
    "Subscription.wait_ready, each step of a cursor that is ahead": waiting_until_judged,
    "Subscription.receive, each step of a union": receiving(receive, BOTH),
    "Subscription.receive_batch, each step of a prefix": receiving(receive_batch, PREFIX),
    "Subscription.receive_until_current, each step of a union": receiving(receive_until_current, BOTH),
    "Subscription.__anext__, each step of resumed unions": resuming(iterate),
    "Subscription.receive_batch, each step of resumed unions": resuming(receive_batch),
    "Subscription.receive, each step to the end": ending(receive, WEB),
    "Subscription.receive_batch, each step to the end of a union": ending(receive_batch, KEYS),
    "Subscription.receive_until_current, each step to the end": ending(receive_until_current, WEB),
    "Subscription.__aenter__": entering,
    "Subscription.__aexit__": leaving(leave_block),
    "Subscription.aclose": leaving(Subscription[Health].aclose),
    "EventPublisher.run": running_a_publisher,
    "NoOpEventPublisher.run": running_a_disabled_publisher,
    "SnapshotAppender.append": partial(appending, append),
    "SnapshotAppender.extend": partial(appending, extend),
    "open_publisher": opening_a_publisher,
    "running": running_beside_a_block,
}
