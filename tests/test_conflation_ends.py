"""D5, D9, D12, D16, D21: how a reader that conflates ends, is cancelled, and what a row that goes wrong is."""

from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, State, apply, event, kinds, until_live
from conflated import EVERY, by_row, by_subject, live, taken
from interruptions import Interrupt, ways
from scenes import quiet
from typing_extensions import override
from unions import BOTH, both, fold, rows_at

from trio_stream import (
    BusyResourceError,
    ClosedResourceError,
    CloseReason,
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    InvalidCommitError,
    SnapshotAppender,
    SnapshotFailed,
    Source,
    Subject,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    WouldBlock,
    close_subscription_event,
)

pytestmark = pytest.mark.anyio

WEB = SubscribeRequest(HEALTH, "web", token="t")


async def ended(subscription: Subscription[Health]) -> CloseReason:
    """How every further call ends."""
    reasons: set[CloseReason] = set()
    for receive in (subscription.receive, subscription.receive_batch, subscription.receive_until_current):
        with pytest.raises(SubscriptionForceClosed) as raised:
            await receive()
        reasons.add(raised.value.reason)
    with pytest.raises(SubscriptionForceClosed) as raised:
        subscription.receive_nowait()
    reasons.add(raised.value.reason)
    (reason,) = reasons
    return reason


async def test_after_a_stop_what_was_published_comes_conflated_and_then_the_end() -> None:
    """D5."""
    async with by_row(history=4, index=1) as (store, publisher):
        subscription = live(publisher)
        for number in range(9):
            store.commit((f"k{number % 2}", f"{number}"))
    got = await subscription.receive()
    assert kinds([got]) == ["10:k1=7+k0=8"]
    assert await ended(subscription) is CloseReason.STOPPED
    assert subscription.horizon == 10


async def test_a_snapshot_that_is_whole_is_read_to_its_end_after_a_stop() -> None:
    """D5: and then what was published since, conflated."""
    async with by_row() as (store, publisher):
        store.commit(("a", "0"))
        subscription = publisher.subscribe(EVERY, on_lag="conflate")
        await subscription.receive()
        for number in range(3):
            store.commit(("a", f"{number}"))
    assert kinds([await subscription.receive(), await subscription.receive()]) == ["eos@1", "4:a=2"]
    assert await ended(subscription) is CloseReason.STOPPED


async def test_who_is_below_what_is_kept_when_the_publisher_stops_ends_without_a_marker() -> None:
    """E1: nothing starts any more."""
    async with by_row(history=2, history_events=3, index=1) as (store, publisher):
        subscription = live(publisher)
        for number in range(9):
            store.commit((f"k{number}", "1"))
    assert await ended(subscription) is CloseReason.STOPPED
    assert subscription.index == 1


@pytest.mark.parametrize("how", ["call", "event", "refresh"])
async def test_a_force_close_overtakes_what_would_be_conflated(how: str) -> None:
    """D9, E1."""
    async with by_row(history=4, index=1) as (store, publisher):
        subscription = live(publisher, WEB)
        for number in range(9):
            store.commit(("web", f"{number}"))
        match how:
            case "call":
                assert publisher.close_subscriptions(["t"]) == 1
            case "event":
                publisher.publish([event(11, "web"), close_subscription_event(["t"])])
            case _:
                publisher.refresh(HEALTH)
        assert await ended(subscription) is (CloseReason.REFRESH if how == "refresh" else CloseReason.TOKEN)
        assert subscription.index == 1


async def test_a_token_that_is_revoked_after_the_stop_still_overtakes() -> None:
    """D5, D9."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher, WEB)
        store.commit(("web", "1"))
        store.commit(("web", "2"))
    publisher.close_subscriptions(["t"])
    assert await ended(subscription) is CloseReason.TOKEN


async def test_closing_it_is_as_always() -> None:
    """D16."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        store.commit(("a", "1"))
        store.commit(("a", "2"))
        subscription.unsubscribe()
        subscription.close()
        with pytest.raises(ClosedResourceError):
            await subscription.receive()
        assert subscription.state is SubscriptionState.CLOSED
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.tokens) == (0, 0)


async def test_closing_it_wakes_who_waits() -> None:
    async with by_row(index=1) as (_, publisher):
        subscription = live(publisher)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(closed_while_waiting, subscription)
            await quiet()
            with pytest.raises(BusyResourceError):
                await subscription.receive()
            subscription.close()


async def closed_while_waiting(subscription: Subscription[Health]) -> None:
    with pytest.raises(ClosedResourceError):
        await subscription.receive()


async def test_closing_it_wakes_who_waits_until_its_cursor_is_judged() -> None:
    """D7, D16: ahead of the publisher."""
    async with by_row(index=1, mark="m1", epoch="e") as (_, publisher):
        for receive in (Subscription.receive, Subscription.receive_until_current, Subscription.wait_ready):
            request = EVERY.after(Cursor(3, "e", "m3"))
            subscription: Subscription[Health] = publisher.subscribe(request, on_lag="conflate")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(raises_closed, receive, subscription)
                await quiet()
                subscription.close()
        assert publisher.statistics().subscriptions == 0


async def raises_closed(
    receive: Callable[[Subscription[Health]], Awaitable[object]], subscription: Subscription[Health]
) -> None:
    with pytest.raises(ClosedResourceError):
        await receive(subscription)


async def test_a_finished_subject_ends_behind_the_conflated_delivery() -> None:
    """E1."""
    async with by_row(index=1) as (_, publisher):
        subscription = live(publisher, SubscribeRequest(HEALTH, "web"))
        publisher.publish([event(2, "web", "1")])
        publisher.publish([event(3, "web", "2")], finish=[(HEALTH, "web")])
        assert kinds([await subscription.receive()]) == ["3:web=2"]
        with pytest.raises(EndOfSubject):
            await subscription.receive()
        assert subscription.state is SubscriptionState.FINISHED


async def test_a_failing_snapshot_is_its_end_as_always() -> None:
    """D16: the first one, and the one that would bring it on."""
    fails = True

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        if fails:
            raise LookupError("not ready")
        return await store.snapshot(request, snapshot)

    async with by_row(handler=handler, history=2, history_events=3, snapshot_cache_ttl=0) as (
        store,
        publisher,
    ):
        with pytest.raises(SnapshotFailed):
            await publisher.subscribe(EVERY, on_lag="conflate").receive()
        fails = False
        subscription = publisher.subscribe(EVERY, on_lag="conflate")
        assert kinds(await until_live(subscription)) == ["eos@0"]
        fails = True
        for number in range(9):
            store.commit((f"k{number}", "1"))
        with pytest.raises(SnapshotFailed) as raised:
            await subscription.receive()
        assert isinstance(raised.value.__cause__, LookupError)
        assert await ended(subscription) is CloseReason.SNAPSHOT_FAILED


def styles(subscription: Subscription[Health]) -> list[Callable[[], Awaitable[Any]]]:
    return [
        subscription.receive,
        subscription.receive_batch,
        subscription.receive_until_current,
        subscription.__anext__,
    ]


@pytest.mark.parametrize("style", range(4))
async def test_a_cancelled_call_has_received_nothing(style: int) -> None:
    """D12: cancelled at its first suspension, wherever that is; the next call has it all."""
    for interrupt in ways():
        await cancelled(interrupt, style)


async def cancelled(interrupt: Interrupt, style: int) -> None:
    async with by_row(history=4, index=1) as (store, publisher):
        subscription = live(publisher)

        async def call() -> None:
            got.append(await styles(subscription)[style]())

        def otherwise(_: int) -> None:
            pass

        got: list[Any] = []
        for number in range(9):
            store.commit((f"k{number % 2}", f"{number}"))
        before = publisher.index
        assert await interrupt(call, 0, otherwise)
        assert got == []
        assert subscription.index == 1
        assert subscription.statistics().delivered == 0
        store.commit(("k2", "9"))
        assert kinds(taken(subscription)) == [f"{before + 1}:k1=7+k0=8+k2=9"]


async def test_a_call_that_is_cancelled_while_it_waits_has_received_nothing() -> None:
    """D12: the events come in the same turn in which it is cancelled."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscription.receive)
            await quiet()
            tasks.cancel_scope.cancel()
            store.commit(("a", "1"))
            store.commit(("a", "2"))
        assert kinds(taken(subscription)) == ["3:a=2"]


class Later:
    """What has to be awaited, and can be hashed."""

    def __await__(self) -> Iterator[Any]:
        return iter(())


def fussy(wrong: Any) -> Callable[[Health], Hashable]:
    """A row that goes wrong for the key "bad"."""

    def row(payload: Health) -> Hashable:
        if payload.key != "bad":
            return payload.subject
        if isinstance(wrong, Exception):
            raise wrong
        return wrong  # type: ignore[no-any-return]

    return row


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (LookupError("no row"), LookupError),
        (["a"], TypeError),
        ({}, TypeError),
        (([],), TypeError),
        (Later(), TypeError),
    ],
    ids=["raises", "list", "dict", "tuple of a list", "to be awaited"],
)
@pytest.mark.parametrize("rights", [{}, {"where": lambda _: True}], ids=["", "where"])
async def test_a_row_that_goes_wrong_is_told_to_those_who_conflate(
    wrong: Any, error: type[Exception], rights: dict[str, Any]
) -> None:
    """D10, D18: the commit is published, and nobody else is concerned."""
    async with by_row(fussy(wrong), index=1) as (_, publisher):
        subscription, other = live(publisher, **rights), live(publisher, SubscribeRequest(HEALTH, "a"))
        beside = publisher.subscribe(EVERY.after(publisher.cursor))
        publisher.publish([event(2, "a", "1")])
        publisher.publish([event(3, "bad", "1"), event(3, "a", "2")])
        publisher.publish([event(4, "b", "1")])
        assert publisher.index == 4
        for receive in styles(subscription):
            with pytest.raises(error):
                await receive()
        with pytest.raises(error):
            subscription.receive_nowait()
        assert (subscription.index, subscription.horizon) == (1, 1)
        assert subscription.state is SubscriptionState.LIVE
        assert kinds(taken(beside)) == ["2:a=1", "3:bad=1+a=2", "4:b=1"]
        assert kinds(taken(other)) == ["3:a=2"]


async def test_a_row_that_went_wrong_does_not_keep_it_from_coming_back() -> None:
    """D7: whoever gets that error can go on where it stands, without conflation."""
    async with by_row(fussy([]), index=1) as (_, publisher):
        subscription = live(publisher)
        publisher.publish([event(2, "a", "1")])
        publisher.publish([event(3, "bad", "1")])
        with pytest.raises(TypeError):
            await subscription.receive()
        request = subscription.resume_request()
        subscription.close()
        assert kinds(taken(publisher.subscribe(request))) == ["2:a=1", "3:bad=1"]


async def test_a_row_that_publishes_does_not_mix_two_commits() -> None:
    """D2, D3, D18: refused, or a commit of its own, before or after: both readers agree on what there was."""
    publishers: list[EventPublisher] = []
    outcomes: list[bool] = []

    def row(payload: Health) -> Hashable:
        if payload.value == "first" and not outcomes:
            outcomes.append(True)
            try:
                publishers[0].publish([event(3, "inner", "second")])
            except InvalidCommitError:
                outcomes.append(False)
        return payload.subject

    async with by_row(row, index=1) as (_, publisher):
        publishers.append(publisher)
        subscription = live(publisher)
        beside = publisher.subscribe(EVERY.after(publisher.cursor))
        try:
            publisher.publish([event(2, "outer", "first")])
        except InvalidCommitError:
            outcomes.append(False)
        publisher.publish([event(4, "a", "third")])
        plain = taken(beside)
        indexes = [each.index for each in plain]
        assert indexes == sorted(set(indexes))
        assert outcomes
        assert indexes[-1] == 4
        state: State = {}
        conflated: State = {}
        for each in plain:
            apply(state, each)
        for each in taken(subscription):
            apply(conflated, each)
        assert conflated == state


async def test_a_row_that_subscribes_leaves_nothing_out() -> None:
    """D3: what it is asked about is published later, and so is for the new reader, in each topic of the commit."""
    readers: list[Subscription[Health]] = []
    publishers: list[EventPublisher] = []

    def row(payload: Health) -> Hashable:
        if not readers:
            readers.append(live(publishers[0], BOTH))
        return payload.subject

    async with by_row(row, index=1) as (store, publisher):
        publishers.append(publisher)
        live(publisher)
        both(store, (JOBS, "a", "1"), (HEALTH, "a", "1"))
        both(store, (HEALTH, "b", "2"))
        assert fold({}, taken(readers[0])) == rows_at(store, 3, BOTH)


async def test_a_subject_that_subscribes_leaves_nothing_out() -> None:
    """D3."""
    readers: list[Subscription[Health]] = []

    class Curious(Health):
        @property
        @override
        def subject(self) -> Subject:
            if not readers:
                readers.append(live(publisher))
            return Subject(self.key)

    async with by_row(index=1) as (_, publisher):
        publisher.publish([Event(HEALTH, 2, Curious("a", "1"))])
        publisher.publish([event(3, "b", "2")])
        assert kinds(taken(readers[0])) == ["3:a=1+b=2"]


async def test_a_row_that_finishes_a_subject_has_its_commit_refused() -> None:
    """D18: an event of a finished subject, which it was not yet when the commit was given."""
    publishers: list[EventPublisher] = []

    def row(payload: Health) -> Hashable:
        if payload.value == "last" and publishers:
            publishers.pop().publish((), index=3, finish=[(HEALTH, "a")])
        return payload.subject

    async with by_row(row, index=1) as (_, publisher):
        publishers.append(publisher)
        live(publisher)
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(5, "a", "last")])
        assert publisher.index == 3


async def test_a_row_that_closes_its_reader_ends_it() -> None:
    """D9: nothing is returned any more, and the commit is published."""
    readers: list[Subscription[Health]] = []

    def row(payload: Health) -> Hashable:
        if payload.value == "close":
            readers[0].close()
        return payload.subject

    async with by_row(row, index=1) as (_, publisher):
        readers.append(live(publisher))
        beside = publisher.subscribe(EVERY.after(publisher.cursor))
        publisher.publish([event(2, "a", "1")])
        publisher.publish([event(3, "a", "close")])
        with pytest.raises(ClosedResourceError):
            await readers[0].receive()
        assert kinds(taken(beside)) == ["2:a=1", "3:a=close"]
        assert publisher.statistics().subscriptions == 1


async def test_a_reader_of_a_publisher_that_does_not_run_yet_conflates() -> None:
    publisher = EventPublisher({HEALTH: Source(Catalogue().snapshot, row=by_subject)}, index=1)
    subscription = live(publisher)
    for number in range(3):
        publisher.publish([event(number + 2, "a", f"{number}")])
    assert kinds(taken(subscription)) == ["4:a=2"]
    with pytest.raises(WouldBlock):
        subscription.receive_nowait()
    subscription.close()
