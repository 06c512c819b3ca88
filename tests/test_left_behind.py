"""What a snapshot function, or a thread, leaves behind when what it works for has ended."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest
from catalogue import HEALTH, Health, event, kinds, until_live
from interruptions import on_asyncio, on_trio
from scenes import ALL, Heavy, Held, opened, quiet

from trio_stream import (
    ClosedResourceError,
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    SubscriptionForceClosed,
)
from trio_stream._inbox import Inbox
from trio_stream._wait import Parking, _Closed

pytestmark = pytest.mark.anyio

AHEAD = 1024  # how many deliveries a snapshot function may be ahead of its readers


async def test_appends_that_still_wait_when_the_snapshot_function_returns_are_refused() -> None:
    """D1, D11, D13: at once; they are in no snapshot, and the one that was returned is whole without them."""
    refused = 0

    async def late(snapshot: SnapshotAppender[Health]) -> None:
        nonlocal refused
        with pytest.raises(ClosedResourceError):
            await snapshot.append([event(1, "late")])
        refused += 1

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        for number in range(AHEAD):
            await snapshot.append([event(1, f"key-{number}")])
        tasks.start_soon(late, snapshot)
        tasks.start_soon(late, snapshot)
        await quiet()
        assert refused == 0
        return 1

    async with opened(handler) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(ALL)
        while refused < 2:
            await quiet()
        received = await until_live(subscription)
        assert kinds(received) == [*(f"1:key-{number}=ok" for number in range(AHEAD)), "eos@1"]
        assert kinds(await until_live(publisher.subscribe(ALL))) == kinds(received)


async def test_an_append_when_the_snapshot_function_has_returned_is_refused_although_the_window_is_full() -> (
    None
):
    """D13, D18: no reader that comes closer would let it through."""
    appenders: list[SnapshotAppender[Health]] = []

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        appenders.append(snapshot)
        for number in range(AHEAD):
            await snapshot.append([event(1, f"key-{number}")])
        return 1

    async with opened(handler) as (_, publisher):
        subscription = publisher.subscribe(ALL)
        await quiet()
        with pytest.raises(ClosedResourceError):
            await appenders[0].append([event(1, "late")])
        assert len(await until_live(subscription)) == AHEAD + 1


async def test_a_snapshot_function_that_cannot_be_cancelled_is_not_left_waiting_for_readers_who_have_gone() -> (
    None
):
    """D13, D16: it comes to its end, and the publisher to its own."""
    appended = 0

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        nonlocal appended
        with anyio.CancelScope(shield=True):
            for number in range(AHEAD + 100):
                await snapshot.append([event(1, f"key-{number}")])
                appended += 1
        return 1

    async with opened(handler) as (_, publisher):
        subscription = publisher.subscribe(ALL)
        await quiet()
        assert appended == AHEAD
        subscription.unsubscribe()
        await quiet()
        assert appended == AHEAD + 100
        assert publisher.statistics().topics["health"].snapshots == 0


@on_asyncio
async def test_a_task_of_a_snapshot_function_that_has_failed_is_not_left_waiting_for_readers() -> None:
    """D13: `gather` leaves the others running when one fails."""
    left: list[asyncio.Task[None]] = []
    go = anyio.Event()

    async def rows(snapshot: SnapshotAppender[Health]) -> None:
        for number in range(AHEAD + 100):
            await snapshot.append([event(1, f"key-{number}")])

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        left.append(asyncio.create_task(rows(snapshot)))
        await go.wait()
        raise OSError("the database has gone")

    async with opened(handler) as (_, publisher):
        subscription = publisher.subscribe(ALL)
        await quiet()
        assert not left[0].done()
        go.set()
        await quiet()
        with pytest.raises(SnapshotFailed):
            subscription.receive_nowait()
        await quiet()
        assert isinstance(left[0].exception(), ClosedResourceError)


@on_asyncio
async def test_a_group_with_a_cancellation_that_nobody_asked_for_fails_its_snapshot_only() -> None:
    """D14, D16."""

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        raise BaseExceptionGroup("of a task of its own", [asyncio.CancelledError(), ValueError("v")])

    async with opened(handler) as (_, publisher):
        with pytest.raises(SnapshotFailed) as failed:
            await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))
        assert isinstance(failed.value.__cause__, BaseExceptionGroup)
        publisher.publish([event(1, "web")])


def test_a_thread_that_comes_when_the_event_loop_has_just_ended_is_refused() -> None:
    """D18: it does not wait for a loop that will not come back."""

    def ended(_: object) -> None:
        raise RuntimeError("the event loop has ended")

    inbox = Inbox(Parking())
    inbox.open(ended)
    with pytest.raises(ClosedResourceError):
        inbox.put(lambda: None)


class Stop(BaseException):
    """No error, as `KeyboardInterrupt` is none."""


@pytest.mark.parametrize(
    "lets_out",
    [Stop(), BaseExceptionGroup("of a nursery of its own", [Stop()]), asyncio.CancelledError()],
    ids=["no error", "a group", "a cancellation of asyncio"],
)
async def test_whatever_a_snapshot_function_lets_out_fails_its_snapshot_only(lets_out: BaseException) -> None:
    """D14, D16: but what ends the program."""

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        raise lets_out

    async with opened(handler) as (_, publisher):
        with pytest.raises(SnapshotFailed) as failed:
            await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))
        assert failed.value.__cause__ is lets_out
        publisher.publish([event(1, "web")])


async def test_what_goes_wrong_in_a_task_group_of_a_snapshot_function_that_is_stopped_is_nobodys() -> None:
    """D16: its cancellation and that error come in one group."""

    async def fails_at_the_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("the connection is closed already")

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        async with anyio.create_task_group() as own:
            own.start_soon(fails_at_the_end)
            await anyio.sleep_forever()
        return 1

    async with opened(handler) as (_, publisher):
        subscription = publisher.subscribe(ALL)
        await quiet()
    with pytest.raises(SubscriptionForceClosed):
        subscription.receive_nowait()


@on_trio
@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(1)], ids=["interrupt", "exit"])
async def test_what_ends_the_program_is_not_kept_in_a_snapshot(end: BaseException) -> None:
    """D16: it comes out of the publisher, which ends; on asyncio it ends the event loop at once."""

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        raise end

    with pytest.raises(BaseExceptionGroup) as caught:
        async with opened(handler) as (_, publisher):
            publisher.subscribe(ALL)
            await anyio.sleep_forever()
    assert caught.value.subgroup(type(end)) is not None


class Key(str):  # noqa: SLOT000 - see below
    """A key to which there can be weak references."""


async def test_who_left_before_the_publisher_ran_leaves_nothing_behind() -> None:
    """D13: nor a snapshot to be made."""
    publisher = EventPublisher({HEALTH: Held()})
    key = Key("web")
    reference = weakref.ref(key)
    publisher.subscribe(SubscribeRequest(HEALTH, key)).unsubscribe()
    del key
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("step", [1, -1])
async def test_snapshots_of_the_same_index_that_nobody_reads_any_more_leave_nothing_behind(step: int) -> None:
    """D13: although the history never passes them, and in whatever order they are left."""
    async with opened(index=1, snapshot_cache_ttl=0) as (_, publisher):
        keys = [Key(f"{number}") for number in range(3)]
        references = [weakref.ref(key) for key in keys]
        subscriptions = [publisher.subscribe(SubscribeRequest(HEALTH, key)) for key in keys]
        await quiet()
        for subscription in subscriptions[::step]:
            subscription.unsubscribe()
        await quiet()
        del keys[:], subscriptions[:], subscription
        gc.collect()
        assert [reference() for reference in references] == [None] * 3


async def test_a_snapshot_whose_function_left_an_append_behind_is_freed_when_the_history_passes_it() -> None:
    """D11: although a reader stalls in it."""
    payloads: list[weakref.ref[Heavy]] = []

    async def late(snapshot: SnapshotAppender[Any]) -> None:
        with pytest.raises(ClosedResourceError):
            await snapshot.append([Event(HEALTH, 1, Heavy())])

    async def handler(_: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        for _number in range(AHEAD):
            heavy = Heavy()
            payloads.append(weakref.ref(heavy))
            await snapshot.append([Event(HEALTH, 1, heavy)])
        tasks.start_soon(late, snapshot)
        tasks.start_soon(late, snapshot)
        await quiet()
        return 1

    async with opened(handler, index=1, history=4) as (_, publisher), anyio.create_task_group() as tasks:
        stalled = publisher.subscribe(ALL)
        while stalled.statistics().lag <= AHEAD:
            await quiet()
        for _ in range(6):
            publisher.publish([event(publisher.next_index, "web")])
        await quiet()
        gc.collect()
        assert not any(payload() for payload in payloads)


async def test_a_cached_snapshot_that_is_replaced_leaves_nothing_behind() -> None:
    """D13: nor until its time in the cache would have been over."""
    async with opened(index=1, history=10, snapshot_cache_ttl=1e9) as (store, publisher):
        slow = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), on_lag="reset")
        for _ in range(7):
            store.commit(("web", f"{store.index}"))
        key = Key("web")
        reference = weakref.ref(key)
        async with publisher.subscribe(SubscribeRequest(HEALTH, key)) as subscription:
            await subscription.receive_until_current()
        del subscription, key
        for _ in range(7):
            store.commit(("web", f"{store.index}"))
        gc.collect()
        assert reference() is not None
        assert (await slow.receive()).is_new_snapshot_to_follow
        assert store.runs == 2
        gc.collect()
        assert reference() is None


class Recorded:
    """Stands for a back end, and says what it was asked for."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: (name, *arguments)


def test_where_nobody_wakes_any_more_to_park_is_a_checkpoint_and_the_rest_is_as_before() -> None:
    closed: Any = _Closed(cast("Any", Recorded()))
    assert closed.park("slot") == closed.checkpoint() == ("checkpoint",)
    assert closed.call_from_thread() == ("call_from_thread",)
    closed.check()
    closed.wake(())
