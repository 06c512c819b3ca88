"""How a subscription ends: by its owner, or with a typed error that says what is true; and nothing of it is left."""

import copy
import gc
import pickle
import weakref
from collections.abc import Awaitable, Callable

import anyio
import pytest
import trio
from backends import in_virtual_time
from catalogue import HEALTH, Catalogue, Health, event, kinds, ready, until_live
from scenes import opened, quiet

from trio_stream import (
    BusyResourceError,
    ClosedResourceError,
    CloseReason,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    WouldBlock,
    open_publisher,
)

pytestmark = pytest.mark.anyio

WEB = SubscribeRequest(HEALTH, "web", token="t")


async def aclose(subscription: Subscription[Health]) -> None:
    await subscription.aclose()


async def close(subscription: Subscription[Health]) -> None:
    subscription.close()


async def unsubscribe(subscription: Subscription[Health]) -> None:
    subscription.unsubscribe()


async def leave_the_block(subscription: Subscription[Health]) -> None:
    async with subscription:
        pass


own_closes = pytest.mark.parametrize("closing", [aclose, close, unsubscribe, leave_the_block])
Closing = Callable[[Subscription[Health]], Awaitable[None]]

CALLS: dict[str, Callable[[Subscription[Health]], Awaitable[object]]] = {
    "receive": lambda subscription: subscription.receive(),
    "receive_batch": lambda subscription: subscription.receive_batch(),
    "anext": anext,
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


async def failing(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    await snapshot.append([event(1, "web")])
    raise OSError("disk")


async def ended(subscription: Subscription[Health]) -> SubscriptionForceClosed:
    with pytest.raises(SubscriptionForceClosed) as caught:
        while True:
            await subscription.receive()
    return caught.value


def bring_about(reason: CloseReason, publisher: EventPublisher, store: Catalogue) -> None:
    match reason:
        case CloseReason.TOKEN:
            publisher.close_subscriptions(["t"])
        case CloseReason.REFRESH:
            publisher.refresh(HEALTH)
        case CloseReason.LAGGED:
            for _ in range(5):
                store.commit(("web", "a"))
        case CloseReason.SNAPSHOT_FAILED | CloseReason.STOPPED:
            pass  # by the snapshot function, and by leaving the block


async def how_it_ends(reason: CloseReason) -> tuple[Subscription[Health], SubscriptionForceClosed]:
    """A subscription that has ended for this reason, and what it raised."""
    handler = failing if reason is CloseReason.SNAPSHOT_FAILED else None
    async with opened(handler, epoch="e", history=2, index=1) as (store, publisher):
        subscription = publisher.subscribe(WEB)
        if reason is not CloseReason.SNAPSHOT_FAILED:
            await until_live(subscription)
        bring_about(reason, publisher, store)
        if reason is not CloseReason.STOPPED:
            return subscription, await ended(subscription)
    return subscription, await ended(subscription)


@own_closes
@calls
async def test_after_the_owner_has_closed_every_call_says_so_at_once(
    closing: Closing, call: Callable[[Subscription[Health]], Awaitable[object]]
) -> None:
    """C8, D5: whatever was queued."""
    publisher = EventPublisher({HEALTH: failing}, index=1)
    subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
    publisher.publish([event(2, "web")])
    await closing(subscription)
    for _ in range(2):
        for kind in (ClosedResourceError, trio.ClosedResourceError, anyio.ClosedResourceError):
            with pytest.raises(kind), anyio.fail_after(30):
                await call(subscription)
        with pytest.raises(ClosedResourceError):
            subscription.receive_nowait()
        await closing(subscription)


@own_closes
async def test_after_the_owner_has_closed_a_loop_gets_nothing_more(closing: Closing) -> None:
    """C8, D5: also in the middle of what `async for` takes without a look at anything else."""
    publisher = EventPublisher({HEALTH: failing}, index=1)
    subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
    for index in (2, 3, 4):
        publisher.publish([event(index, "web")])
    assert [(await anext(subscription)).index for _ in range(2)] == [2, 3]
    await closing(subscription)
    with pytest.raises(ClosedResourceError):
        await anext(subscription)


@pytest.mark.parametrize("closing", [aclose, close, unsubscribe])
@calls
@pytest.mark.parametrize("waits_in_snapshot", [True, False])
async def test_a_close_from_another_task_wakes_the_one_that_waits(
    closing: Closing, call: Callable[[Subscription[Health]], Awaitable[object]], waits_in_snapshot: bool
) -> None:
    """C8, langgraph: closing did not wake the reader."""
    woken = False

    async def wait() -> None:
        nonlocal woken
        with pytest.raises(ClosedResourceError):
            await call(subscription)
        woken = True

    publisher = EventPublisher({HEALTH: failing}, index=1)  # does not run: no snapshot will come
    subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=0 if waits_in_snapshot else 1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await quiet()
        publisher.publish([event(2, "other")])
        await closing(subscription)
    assert woken
    assert publisher.statistics().waiting == publisher.statistics().subscriptions == 0


async def test_closing_and_publishing_in_one_tick_delivers_nothing() -> None:
    """C8, D5."""
    for publish_first in (True, False):
        publisher = EventPublisher({HEALTH: failing}, index=1)
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))

        async def wait(waiting: Subscription[Health] = subscription) -> None:
            with pytest.raises(ClosedResourceError):
                await waiting.receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await quiet()
            if publish_first:
                publisher.publish([event(2, "web")])
            subscription.close()
            if not publish_first:
                publisher.publish([event(2, "web")])


@pytest.mark.parametrize("reason", list(CloseReason))
async def test_every_end_of_the_publishers_has_its_type_and_repeats_with_the_same_fields(
    reason: CloseReason,
) -> None:
    """D16, D5."""
    subscription, end = await how_it_ends(reason)
    kinds_of = {CloseReason.LAGGED: SubscriptionLagged, CloseReason.SNAPSHOT_FAILED: SnapshotFailed}
    assert type(end) is kinds_of.get(reason, SubscriptionForceClosed)
    index = 0 if reason is CloseReason.SNAPSHOT_FAILED else 1
    assert (end.reason, end.index, end.epoch) == (reason, index, "e")
    subscription.close()  # the first end wins
    for call in CALLS.values():
        with pytest.raises(type(end)) as caught:
            await call(subscription)
        again = caught.value
        assert (again.reason, again.index, again.epoch) == (reason, index, "e")
        assert (str(again), again.args) == (str(end), end.args)
        assert again.__cause__ is end.__cause__
        assert again is not end  # it would drag its traceback along
    with pytest.raises(type(end)):
        subscription.receive_nowait()


@pytest.mark.parametrize("reason", list(CloseReason))
async def test_an_end_is_what_both_libraries_call_broken_and_says_how_to_go_on(reason: CloseReason) -> None:
    """D16."""
    _, end = await how_it_ends(reason)
    assert isinstance(end, trio.BrokenResourceError)
    assert isinstance(end, anyio.BrokenResourceError)
    assert not isinstance(end, trio.ClosedResourceError | anyio.ClosedResourceError)
    assert reason.value in str(end)
    assert "'e'" in str(end)
    assert "resume_request" in str(end)


@pytest.mark.parametrize("reason", list(CloseReason))
async def test_an_end_can_be_copied_and_sent_to_another_process(reason: CloseReason) -> None:
    """D16."""
    _, end = await how_it_ends(reason)
    for same in (copy.copy(end), pickle.loads(pickle.dumps(end))):
        assert type(same) is type(end)
        assert (same.reason, same.index, same.epoch, str(same)) == (
            end.reason,
            end.index,
            end.epoch,
            str(end),
        )


async def test_a_lagged_end_says_how_many_were_missed_and_a_failed_one_why() -> None:
    """D6, D11, D16."""
    _, lagged = await how_it_ends(CloseReason.LAGGED)
    assert isinstance(lagged, SubscriptionLagged)
    assert lagged.missed == 3
    assert "3" in str(lagged)
    assert copy.copy(lagged).missed == 3
    _, failed = await how_it_ends(CloseReason.SNAPSHOT_FAILED)
    assert isinstance(failed.__cause__, OSError)


@pytest.mark.parametrize("reason", list(CloseReason))
async def test_the_request_to_go_on_with_starts_anew_where_what_was_received_must_be_dropped(
    reason: CloseReason,
) -> None:
    """D16."""
    subscription, _ = await how_it_ends(reason)
    keeps = {CloseReason.LAGGED, CloseReason.STOPPED}
    expected = (1, "e") if reason in keeps else (0, None)
    again = subscription.resume_request()
    assert (again.index, again.epoch) == expected
    assert (again.topic, again.subject, again.token) == (HEALTH, WEB.subject, "t")


async def test_the_request_to_go_on_with_after_an_own_close_continues_unless_a_snapshot_was_cut_off() -> None:
    """D7."""
    async with opened(index=1, epoch="e") as (_, publisher):
        whole, cut = publisher.subscribe(WEB), publisher.subscribe(WEB)
        await until_live(whole)
        whole.close()
        cut.close()
        assert (whole.resume_request().index, whole.resume_request().epoch) == (1, "e")
        assert (cut.resume_request().index, cut.resume_request().epoch) == (0, None)
        publisher.publish([event(2, "web")])
        assert kinds(ready(publisher.subscribe(whole.resume_request()))) == ["2:web=ok"]


@pytest.mark.parametrize("library", [trio, anyio])
async def test_errors_of_use_are_both_libraries_own(library: object) -> None:
    """D16: `except trio.X` and `except anyio.X` both work."""
    for kind in (ClosedResourceError, BusyResourceError, WouldBlock):
        assert issubclass(kind, getattr(library, kind.__name__))
    publisher = EventPublisher({HEALTH: failing})
    subscription = publisher.subscribe(WEB)
    with pytest.raises(trio.WouldBlock if library is trio else anyio.WouldBlock):
        subscription.receive_nowait()


async def test_a_subscription_is_what_both_libraries_call_a_receiving_end() -> None:
    subscription = EventPublisher({HEALTH: failing}).subscribe(WEB)
    assert isinstance(subscription, trio.abc.ReceiveChannel)
    assert isinstance(subscription, anyio.abc.ObjectReceiveStream)


@pytest.mark.parametrize("reason", [*CloseReason, None])
async def test_nothing_of_an_ended_subscription_is_left(reason: CloseReason | None) -> None:
    """D13: no object, even while its publisher runs on or its error is kept."""
    references: list[weakref.ref[Subscription[Health]]] = []
    errors: list[Exception] = []

    async def use(publisher: EventPublisher, store: Catalogue) -> None:
        subscription = publisher.subscribe(WEB)
        references.append(weakref.ref(subscription))
        try:
            if reason is not CloseReason.SNAPSHOT_FAILED:
                await until_live(subscription)
            if reason is None:
                subscription.close()
            else:
                bring_about(reason, publisher, store)
            while True:
                await subscription.receive()
        except (SubscriptionForceClosed, ClosedResourceError) as error:
            errors.append(error.with_traceback(None))

    handler = failing if reason is CloseReason.SNAPSHOT_FAILED else None
    async with anyio.create_task_group() as tasks:
        async with opened(handler, history=2, index=1) as (store, publisher):
            tasks.start_soon(use, publisher, store)
            await quiet()
            gc.collect()
            assert (references[0]() is None) == (reason is not CloseReason.STOPPED)
    gc.collect()
    assert references[0]() is None
    assert len(errors) == 1


async def test_after_the_last_subscriber_of_each_subject_is_gone_nothing_is_left_but_history() -> None:
    """D13: no waiter, no token, no feed, no snapshot."""

    async def come_and_go(key: str) -> None:
        with anyio.CancelScope() as scope:
            async with publisher.subscribe(SubscribeRequest(HEALTH, key, token=key)) as subscription:
                await until_live(subscription)
                scopes.append(scope)
                await subscription.receive()

    scopes: list[anyio.CancelScope] = []
    async with (
        open_publisher({HEALTH: Catalogue().snapshot}, snapshot_cache_ttl=0) as publisher,
        anyio.create_task_group() as tasks,
    ):
        for number in range(50):
            tasks.start_soon(come_and_go, f"key-{number % 25}")
        await quiet()
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (50, 50, 25)
        assert statistics.topics["health"].feeds == 25
        publisher.publish([event(1, "unasked")])
        for scope in scopes:
            scope.cancel()
        await quiet()
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
        of_topic = statistics.topics["health"]
        assert (of_topic.commits, of_topic.feeds, of_topic.snapshots) == (
            1,
            2,
            0,
        )  # its key, and the blank one


@pytest.mark.parametrize("disturbance", ["none", "refresh the topic", "refresh all", "pass it", "read on"])
@in_virtual_time
async def test_a_cached_snapshot_stays_for_its_time_and_no_longer(disturbance: str) -> None:
    """D13, and the publisher survives that what should leave the cache has left it before."""
    async with opened(snapshot_cache_ttl=5, history=2, index=1) as (store, publisher):
        reader = publisher.subscribe(WEB)
        await until_live(reader)
        if disturbance != "read on":
            reader.close()
        await anyio.sleep(4)
        assert publisher.statistics().topics["health"].snapshots == 1
        match disturbance:
            case "refresh the topic":
                publisher.refresh(HEALTH)
            case "refresh all":
                publisher.refresh(index=store.index)
            case "pass it":
                for _ in range(3):
                    store.commit(("web", "a"))
            case _:
                pass
        later = publisher.subscribe(SubscribeRequest(HEALTH, "db"))
        await until_live(later)
        await anyio.sleep(2)
        assert publisher.statistics().topics["health"].snapshots == 1  # that of the later one
        later.close()
        await anyio.sleep(4)
        assert publisher.statistics().topics["health"].snapshots == 0
        reader.close()
        store.commit(("web", "b"))


@pytest.mark.parametrize("reason", [CloseReason.TOKEN, None])
async def test_nothing_is_left_of_those_that_waited_when_they_ended_although_their_subject_is_read_on(
    reason: CloseReason | None,
) -> None:
    """D13: not until the next event, which may be long in coming."""
    references: list[weakref.ref[Subscription[Health]]] = []

    async def wait(publisher: EventPublisher) -> None:
        subscription = publisher.subscribe(WEB)
        references.append(weakref.ref(subscription))
        with pytest.raises((SubscriptionForceClosed, ClosedResourceError)):
            await subscription.receive()
            await subscription.receive()

    def unsubscribe(reference: weakref.ref[Subscription[Health]]) -> None:
        subscription = reference()
        assert subscription is not None
        subscription.unsubscribe()

    async with opened() as (_, publisher):
        reader = publisher.subscribe(SubscribeRequest(HEALTH, "web"))
        await until_live(reader)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait, publisher)
            await quiet()
            if reason is None:
                for reference in references:
                    unsubscribe(reference)
            else:
                publisher.close_subscriptions(["t"])
        gc.collect()
        assert [reference() for reference in references] == [None] * 3


def test_an_end_has_its_fields_as_arguments_for_those_who_only_print_it() -> None:
    end = SubscriptionForceClosed(CloseReason.TOKEN, 7, "e")
    assert end.args == (CloseReason.TOKEN, 7, "e")
    assert SubscriptionLagged(7, "e", 3).args == (CloseReason.LAGGED, 7, "e")
    assert SnapshotFailed(7, "e").args == (CloseReason.SNAPSHOT_FAILED, 7, "e")


def test_the_reasons_have_names_that_may_be_written_down() -> None:
    names = {reason.value: reason for reason in CloseReason}
    for reason, name in [
        (CloseReason.TOKEN, "token"),
        (CloseReason.REFRESH, "refresh"),
        (CloseReason.LAGGED, "lagged"),
        (CloseReason.SNAPSHOT_FAILED, "snapshot-failed"),
        (CloseReason.STOPPED, "stopped"),
    ]:
        assert names[name] is reason
