"""D5, D9, D12, D13, D20: what ends a reader that is replayed, and what a cancelled call has done."""

from typing import Any

import anyio
import pytest
from catalogue import HEALTH, Health, event, kinds, ready, until_live
from conflated import EVERY
from interruptions import drives, ways
from logged import EPOCH, after, filled, indexes, logged, until
from scenes import quiet, settled

from trio_stream import (
    BusyResourceError,
    ClosedResourceError,
    CloseReason,
    Cursor,
    EndOfSubject,
    Event,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio


async def reason(subscription: Subscription[Health]) -> CloseReason:
    reasons = set()
    for _ in range(2):
        with pytest.raises(SubscriptionForceClosed) as raised:
            await subscription.receive()
        reasons.add(raised.value.reason)
    return reasons.pop()


@pytest.mark.parametrize("how", ["call", "event", "refresh", "restore"])
@pytest.mark.parametrize("held", [0, 6])
async def test_what_takes_rights_or_truth_away_overtakes_a_page(how: str, held: int) -> None:
    """D9, E1: what is there of it is not returned, and the function is cancelled."""
    async with logged(filled(20)) as (store, publisher):
        store.hold(held)
        subscription = publisher.subscribe(after(store, 3, token="t"))
        await quiet()
        if held:
            assert (await subscription.receive()).index == 4
        match how:
            case "call":
                publisher.close_subscriptions(["t"])
            case "event":
                publisher.publish([event(21, "a"), close_subscription_event(["t"])])
            case "refresh":
                publisher.refresh(HEALTH)
            case _:
                publisher.refresh()
        expected = CloseReason.TOKEN if how in ("call", "event") else CloseReason.REFRESH
        assert await reason(subscription) is expected
        await quiet()
        assert [page.is_cancelled for page in store.pages] == [True]
        assert subscription.resume_request().index == 0


async def test_a_cursor_of_before_the_revocation_is_not_replayed() -> None:
    """D20: it is stale, whatever the log has."""
    async with logged(filled(20)) as (store, publisher):
        publisher.close_subscriptions(["t"])
        revoked = publisher.subscribe(after(store, 3, token="t"))
        assert (await revoked.receive()).is_new_snapshot_to_follow
        assert store.pages == []
        other = publisher.subscribe(after(store, 3, token="u"))
        assert indexes(await until(other, 20)) == [*range(4, 21)]


async def test_after_a_restore_a_cursor_of_before_is_not_replayed() -> None:
    """D7: another epoch."""
    async with logged(filled(20)) as (store, publisher):
        request = after(store, 3)
        publisher.refresh(index=20)
        assert (await publisher.subscribe(request).receive()).is_new_snapshot_to_follow
        assert store.pages == []


async def test_who_has_begun_after_a_refresh_of_the_topic_is_replayed() -> None:
    """D21: although it stands at the index of the refresh, as a cursor of before could."""
    async with logged(filled(20), history=2) as (store, publisher):
        publisher.refresh(HEALTH)
        subscription = publisher.subscribe(EVERY)
        assert kinds(await until_live(subscription))[-1] == "eos@20"
        store.fill(10)
        assert indexes(await until(subscription, 30)) == list(range(21, 31))


async def test_after_a_refresh_of_the_topic_a_cursor_of_before_is_not_replayed() -> None:
    """D7: its state has changed other than by commits, and so the log does not lead from one to the other."""
    async with logged(filled(20)) as (store, publisher):
        request = after(store, 3)
        publisher.refresh(HEALTH)
        assert (await publisher.subscribe(request).receive()).is_new_snapshot_to_follow
        assert store.pages == []
        store.fill(10)
        assert (await publisher.subscribe(request).receive()).is_new_snapshot_to_follow
        assert indexes(await until(publisher.subscribe(after(store, 21)), 30)) == [*range(22, 31)]


@pytest.mark.parametrize("held", [19, None], ids=["in a page", "behind it"])
async def test_a_cursor_ahead_of_the_publisher_is_of_before_the_refresh_too(held: int | None) -> None:
    """D7: what was replayed is of the state that was replaced, whatever its index is."""
    store = filled(20, size=100)
    async with logged(store, index=15) as (_, publisher):
        if held is not None:
            store.hold(held)
        subscription = publisher.subscribe(after(store, 3))
        await until(subscription, 18 if held else 20)
        request = subscription.resume_request()
        subscription.close()
        publisher.refresh(HEALTH)
        assert (await settled(publisher.subscribe(request)))[0] == "marker"


async def test_where_commits_were_left_out_the_log_has_them() -> None:
    """D7: the same epoch goes on after an index; what came before is in the log."""
    async with logged(filled(20)) as (store, publisher):
        store.publisher = None
        store.fill(20)
        publisher.refresh(index=40, epoch=EPOCH)
        store.publisher = publisher
        assert indexes(await until(publisher.subscribe(after(store, 15)), 40)) == [*range(16, 41)]


@pytest.mark.parametrize("copy", ["", "a"], ids=["", "marks"])
@pytest.mark.parametrize("held", [0, 4, 6, 7])
async def test_a_stop_ends_the_reading_behind_what_is_there(held: int, copy: str) -> None:
    """D5, D7, E1: without a marker; and it can be resumed where it stands."""
    store = filled(20, copy=copy)
    async with logged(store) as (_, publisher):
        store.hold(held)
        subscription = publisher.subscribe(after(store, 3))
        await quiet()
    got: list[int] = []
    with pytest.raises(SubscriptionForceClosed) as raised:
        while True:
            got.append((await subscription.receive()).index)
    assert raised.value.reason is CloseReason.STOPPED
    assert got == [*range(4, 4 + len(got))]
    assert len(got) <= (held or 4) - 4
    assert subscription.resume_request().index == (got[-1] if got else 3)
    assert all(page.is_cancelled for page in store.pages if len(page.appended) < store.size)
    store.gates.clear()
    async with logged(store) as (_, publisher):
        resumed = publisher.subscribe(subscription.resume_request())
        assert got + indexes(await until(resumed, 20)) == [*range(4, 21)]


async def test_what_a_function_appends_after_the_stop_is_not_returned() -> None:
    """D5, E1: also of one that does not let itself be cancelled; what was there before is read."""
    store = filled(20, size=20)

    async def replay(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        with anyio.CancelScope(shield=True):
            reached = await store.replay(request, cursor, appender)
        return reached  # noqa: RET504 - for a type checker the scope may swallow what is raised

    async with anyio.create_task_group() as tasks, logged(store, replay=replay) as (_, publisher):
        gate = store.hold(6)
        subscription = publisher.subscribe(after(store, 3))
        tasks.start_soon(opened_after_the_stop, subscription, gate)
        await quiet()
    assert indexes(await until(subscription, 5)) == [4, 5]
    assert await reason(subscription) is CloseReason.STOPPED
    assert subscription.resume_request().index == 5


async def opened_after_the_stop(subscription: Subscription[Health], gate: anyio.Event) -> None:
    with pytest.raises(SubscriptionForceClosed):
        await subscription.wait_published(100)
    gate.set()


async def test_a_slow_reader_is_not_replayed_after_the_stop() -> None:
    """E1: nothing starts any more; no marker, no end but STOPPED."""
    store = filled(1)
    async with logged(store) as (_, publisher):
        readers = [publisher.subscribe(after(store, 1), on_lag=each) for each in ("close", "reset")]
        for each in readers:
            await each.wait_ready()
        store.fill(20)
    for each in readers:
        assert await reason(each) is CloseReason.STOPPED
        assert each.index == 1
        assert each.resume_request().index == 1
    assert store.pages == []


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_snapshot_that_was_passed_is_read_to_its_end_after_the_stop(on_lag: Any) -> None:
    """D5, E1: and nothing is read from the log behind it."""
    async with logged(filled(3), snapshot_cache_ttl=0) as (store, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH), on_lag=on_lag)
        got = [await subscription.receive()]
        await quiet()
        store.fill(20)
    got += await until_live(subscription)
    assert got[-1].index == 3
    assert await reason(subscription) is CloseReason.STOPPED
    assert store.pages == []
    assert subscription.resume_request().index == 3


async def test_a_token_that_is_revoked_after_the_stop_overtakes() -> None:
    """D5, D9."""
    store = filled(20)
    async with logged(store) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3, token="t"))
        await subscription.receive()
        await quiet()
    publisher.close_subscriptions(["t"])
    assert await reason(subscription) is CloseReason.TOKEN


async def test_closing_it_wakes_who_waits_for_a_page() -> None:
    """D16."""
    async with logged(filled(20)) as (store, publisher):
        store.hold()
        subscription = publisher.subscribe(after(store, 3))

        async def read() -> None:
            with pytest.raises(ClosedResourceError):
                await subscription.receive()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await quiet()
            with pytest.raises(BusyResourceError):
                await subscription.receive()
            subscription.close()
        await quiet()
        assert store.pages[0].is_cancelled
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
        assert {each.snapshots for each in statistics.topics.values()} == {0}


async def test_one_that_was_closed_can_be_resumed_where_it_stood() -> None:
    """D7: its mark is known, although the publisher has forgotten it long ago."""
    async with logged(filled(20, copy="a")) as (store, publisher):
        subscription = publisher.subscribe(after(store, 3))
        await until(subscription, 5)
        subscription.close()
        assert subscription.cursor == store.cursor(5)
        resumed = publisher.subscribe(subscription.resume_request())
        assert indexes(await until(resumed, 20)) == [*range(6, 21)]


async def test_wait_ready_raises_how_it_ended() -> None:
    async with logged(filled(20)) as (store, publisher):
        store.hold()
        subscription = publisher.subscribe(after(store, 3))

        async def wait() -> None:
            with pytest.raises(ClosedResourceError):
                await subscription.wait_ready()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await quiet()
            subscription.close()


async def test_a_finish_that_was_published_ends_the_reading_behind_the_log() -> None:
    """D5, E1: the subject has ended in what the history has."""
    async with logged(filled(20)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 3, SubscribeRequest(HEALTH, "a")))
        store.publisher = None
        index = store.commit(("a", "21"))
        publisher.publish(store.log[-1], finish=[(HEALTH, "a")])
        assert indexes(await until(subscription, index)) == [6, 9, 12, 15, 18, 21]
        with pytest.raises(EndOfSubject) as raised:
            await subscription.receive()
        assert raised.value.index == 21
        assert subscription.state is SubscriptionState.FINISHED


async def test_the_log_may_say_that_a_subject_is_finished() -> None:
    """E1: by `finish`, behind what was appended."""
    store = filled(20)

    async def replay(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        reached = await store.replay(request, cursor, appender)
        if reached.index == 20:
            appender.finish()
        return reached

    sources = {HEALTH: Source(store.snapshot, replay=replay, finishes=True)}
    async with open_publisher(sources, index=20, epoch=EPOCH, history=4) as publisher:
        subscription = publisher.subscribe(after(store, 3, SubscribeRequest(HEALTH, "a")))
        assert indexes([received async for received in subscription]) == [6, 9, 12, 15, 18]
        with pytest.raises(EndOfSubject):
            await subscription.receive()
        assert subscription.state is SubscriptionState.FINISHED


async def test_a_finish_behind_what_was_not_taken_is_not_believed() -> None:
    """D3, E1: of a page that was full long before; the next one says how it is."""
    store = filled(2_500, "a")

    async def heedless(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> int:
        for commit in store.log[cursor.index :]:
            await appender.append(commit)
        if cursor.index == 1:
            appender.finish()
        return store.index

    sources = {HEALTH: Source(store.snapshot, replay=heedless, finishes=True)}
    async with open_publisher(sources, index=2_500, epoch=EPOCH, history=4) as publisher:
        subscription = publisher.subscribe(after(store, 1, SubscribeRequest(HEALTH, "a")))
        assert indexes(await until(subscription, 2_500)) == [*range(2, 2_501)]
        assert ready(subscription) == []
        publisher.publish([event(2_501, "a")])
        assert (await subscription.receive()).index == 2_501


async def test_a_function_that_has_returned_can_finish_nothing() -> None:
    """D18."""
    appenders: list[SnapshotAppender[Health]] = []
    store = filled(20)

    async def replay(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        appenders.append(appender)
        return await store.replay(request, cursor, appender)

    sources = {HEALTH: Source(store.snapshot, replay=replay, finishes=True)}
    async with open_publisher(sources, index=20, epoch=EPOCH, history=4) as publisher:
        subscription = publisher.subscribe(after(store, 17, SubscribeRequest(HEALTH, "a")))
        assert indexes(await until(subscription, 18)) == [18]
        assert ready(subscription) == []
        with pytest.raises(ClosedResourceError):
            appenders[0].finish()
        assert subscription.state is SubscriptionState.LIVE


async def test_only_a_source_that_finishes_may_say_so() -> None:
    """D18: it is a function that fails."""
    errors: list[str] = []
    store = filled(20)

    async def replay(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        try:
            appender.finish()
        except RuntimeError as error:
            errors.append(str(error))
        return await store.replay(request, cursor, appender)

    async with logged(store, replay=replay) as (_, publisher):
        subscription = publisher.subscribe(after(store, 17, SubscribeRequest(HEALTH, "a")))
        assert indexes(await until(subscription, 18)) == [18]
        assert errors


class Caller:
    """Calls a subscription in one way, and keeps what it got."""

    def __init__(self, subscription: Subscription[Health], style: str) -> None:
        self.call = getattr(subscription, style)
        self.got: list[Event[Health]] = []

    async def __call__(self) -> None:
        received = await self.call()
        if isinstance(received, Event):
            self.got.append(received)
        elif received is not None:
            self.got += received


styles = pytest.mark.parametrize(
    "style", ["receive", "receive_batch", "receive_until_current", "__anext__", "wait_ready"]
)


@styles
@pytest.mark.parametrize("held", [0, 4, 6, 7])
async def test_a_cancelled_call_has_received_nothing(style: str, held: int) -> None:
    """D12: while it waits for the function, in the midst of a page, or between two."""
    for drive in drives():
        async with logged(filled(20)) as (store, publisher):
            gate = store.hold(held)
            subscription = publisher.subscribe(after(store, 3))
            caller = Caller(subscription, style)
            assert await drive(caller, lambda number, cancel: cancel() if number == 0 else None)
            assert caller.got == []
            assert subscription.statistics().delivered == 0
            await quiet()
            assert not [page for page in store.pages if page.is_cancelled]
            gate.set()
            assert indexes(await until(subscription, 20)) == [*range(4, 21)]


@styles
async def test_wherever_a_call_is_cancelled_it_has_all_or_nothing(style: str) -> None:
    """D12: also in the turn in which the page comes."""
    for interrupt in ways():
        for at in range(6):
            async with logged(filled(20)) as (store, publisher):
                subscription = publisher.subscribe(after(store, 3))
                caller = Caller(subscription, style)
                await interrupt(caller, at, lambda _: None)
                assert subscription.statistics().delivered == len(caller.got)
                got = caller.got + await until(subscription, 20)
                assert indexes(got) == [*range(4, 21)]


async def test_the_one_that_asked_first_may_be_cancelled_and_leave() -> None:
    """D14: the others keep the page."""
    async with logged(filled(20)) as (store, publisher):
        gate = store.hold(6)
        first, second = (publisher.subscribe(after(store, 3)) for _ in range(2))

        async def read() -> None:
            async with first:
                await until(first, 20)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await quiet()
            tasks.cancel_scope.cancel()
        await quiet()
        assert not store.pages[0].is_cancelled
        gate.set()
        assert indexes(await until(second, 20)) == [*range(4, 21)]
        assert store.asked.count(3) == 1


async def test_nothing_remains_of_a_replay() -> None:
    """D13: when its last reader has gone, wherever it was."""
    for held in (0, 4, 6, 7, 20, None):
        store = filled(20)
        async with logged(store) as (_, publisher):
            if held is not None:
                store.hold(held)
            readers = [publisher.subscribe(after(store, index)) for index in (3, 3, 4, 9)]
            await quiet()
            for each in readers:
                ready(each)
            for each in readers:
                each.close()
            await quiet()
            statistics = publisher.statistics()
            assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
            assert {(each.feeds, each.snapshots) for each in statistics.topics.values()} == {(0, 0)}
