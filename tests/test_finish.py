"""D5: a subject that is finished ends after its last event, for those who read just that, and nobody else."""

import copy
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from finishes import LIVE, Receive, receives, to_the_end
from scenes import WEB, Held, opened, quiet
from typing_extensions import override

from trio_stream import (
    ALL,
    BusyResourceError,
    ClosedResourceError,
    CloseReason,
    EndOfSubject,
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    Source,
    Subject,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    SubscriptionState,
    WouldBlock,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio

Call = Callable[[Subscription[Health]], Awaitable[object]]


@asynccontextmanager
async def live(**options: Any) -> AsyncIterator[tuple[Catalogue, EventPublisher, Subscription[Health]]]:
    """A publisher that starts at 1, and a reader of `web` that has had everything."""
    async with opened(index=1, epoch="e", **options) as (store, publisher):
        yield store, publisher, publisher.subscribe(LIVE)


# The end, and what comes before it.


@receives
async def test_what_was_published_is_read_and_then_the_subject_ends(receive: Receive) -> None:
    """D5, D16."""
    async with live() as (store, publisher, subscription):
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        store.commit(("web", "3"), finish=["web"])
        store.commit(("db", "4"))
        assert await to_the_end(subscription, receive) == (["2:web=1", "3:web=2", "4:web=3"], 4)
        assert publisher.statistics().subscriptions == publisher.statistics().tokens == 0


@receives
async def test_a_finish_without_events_is_the_end_at_its_index(receive: Receive) -> None:
    async with live() as (store, _, subscription):
        store.commit(("web", "1"))
        assert store.commit(finish=["web"]) == 3
        store.commit(("db", "4"))
        assert await to_the_end(subscription, receive) == (["2:web=1"], 3)


@receives
async def test_the_events_of_the_commit_that_finishes_come_together_and_then_the_end(
    receive: Receive,
) -> None:
    """D4."""
    async with live() as (store, _, subscription):
        store.commit(("web", "1"), ("db", "1"), ("web", None), finish=["web"])
        assert await to_the_end(subscription, receive) == (["2:web=1+web=None"], 2)


@pytest.mark.parametrize("given", ["web", Subject("web")], ids=["by key", "by subject"])
async def test_a_subject_is_finished_by_its_key_or_as_a_whole(given: str | Subject) -> None:
    async with live() as (_, publisher, subscription):
        publisher.publish([event(2, "web")], finish=[(HEALTH, given)])
        assert await to_the_end(subscription) == (["2:web=ok"], 2)


async def test_a_subject_of_another_namespace_is_finished_as_a_subject() -> None:
    async with live() as (_, publisher, subscription):
        elsewhere = publisher.subscribe(SubscribeRequest(HEALTH, "web", namespace="prod", index=1))
        publisher.publish([event(2, "web", namespace="prod")], finish=[(HEALTH, Subject("web", "prod"))])
        assert await to_the_end(elsewhere) == (["2:web=ok"], 2)
        publisher.publish([event(3, "web")])
        assert kinds(ready(subscription)) == ["3:web=ok"]


async def test_finishing_what_is_finished_changes_nothing() -> None:
    async with live() as (_, publisher, subscription):
        publisher.publish([event(2, "web")], finish=[(HEALTH, "web"), (HEALTH, Subject("web"))])
        publisher.publish((), index=3, finish=[(HEALTH, "web")])
        publisher.publish((), index=4, finish=iter([(HEALTH, "web")]))
        assert publisher.index == 4
        assert await to_the_end(subscription) == (["2:web=ok"], 2)
        assert await to_the_end(publisher.subscribe(LIVE)) == (["2:web=ok"], 2)


async def test_a_commit_of_several_topics_finishes_subjects_of_each() -> None:
    """D4."""
    async with live() as (_, publisher, subscription):
        job = publisher.subscribe(SubscribeRequest(JOBS, "a", index=1))
        other = publisher.subscribe(SubscribeRequest(JOBS, "web", index=1))
        publisher.publish(
            [event(2, "web"), event(2, "a", topic=JOBS), event(2, "web", topic=JOBS)],
            finish=[(HEALTH, "web"), (JOBS, "a")],
        )
        assert await to_the_end(subscription) == (["2:web=ok"], 2)
        assert await to_the_end(job) == (["2:a=ok"], 2)
        publisher.publish([event(3, "web", topic=JOBS)])
        assert kinds(ready(other)) == ["2:web=ok", "3:web=ok"]


async def test_a_publish_from_a_thread_can_finish() -> None:
    async with live() as (_, publisher, subscription):
        await anyio.to_thread.run_sync(
            lambda: publisher.publish_from_thread([event(2, "web")], finish=[(HEALTH, "web")])
        )
        assert await to_the_end(subscription) == (["2:web=ok"], 2)


async def test_a_batch_is_what_is_ready_and_the_end_comes_next() -> None:
    async with live() as (store, _, subscription):
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        assert kinds(await subscription.receive_batch()) == ["2:web=1", "3:web=2"]
        with pytest.raises(EndOfSubject):
            await subscription.receive_batch()


async def test_a_read_until_current_returns_what_there_is_before_the_end() -> None:
    async with live() as (store, _, subscription):
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        assert kinds(await subscription.receive_until_current()) == ["2:web=1", "3:web=2"]
        with pytest.raises(EndOfSubject):
            await subscription.receive_until_current()


async def test_a_loop_stops_in_the_middle_of_a_burst_and_again_if_it_is_begun_again() -> None:
    async with live() as (store, _, subscription):
        for _ in range(150):
            store.commit(("web", "1"))
        got: list[int] = []
        async for each in subscription:
            got.append(each.index)
            if each.index == 100:
                store.commit(("web", "last"), finish=["web"])
        assert got == [*range(2, 153)]
        assert [each async for each in subscription] == []
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)


async def test_a_loop_with_rights_stops_too() -> None:
    """D19."""
    async with live() as (store, publisher, _):
        reader = publisher.subscribe(LIVE, authorizer=frozenset({"web=1"}), where=lambda each: True)
        for value in ("1", "2", "1", "2"):
            store.commit(("web", value))
        store.commit(finish=["web"])
        assert kinds([each async for each in reader]) == ["2:web=1", "4:web=1"]
        assert reader.state is SubscriptionState.FINISHED


async def test_who_may_see_nothing_of_it_is_told_that_it_ends() -> None:
    async with live() as (store, publisher, _):
        blind = publisher.subscribe(LIVE, authorizer=frozenset())
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        assert await to_the_end(blind) == ([], 3)


@receives
@pytest.mark.parametrize("is_quiet", [False, True])
async def test_who_may_see_nothing_resumes_at_the_finish_and_not_before(
    receive: Receive, is_quiet: bool
) -> None:
    """D7: also where the finish has no event, and the events before it have left the history."""
    async with live(history=2) as (store, publisher, _):
        blind = publisher.subscribe(LIVE, authorizer=frozenset())
        if not is_quiet:
            store.commit(("web", "1"))
        finished = store.commit(finish=["web"])
        assert await to_the_end(blind, receive) == ([], finished)
        if is_quiet:
            store.commit(("db", "1"))
        request = blind.resume_request()
        assert request.index == finished
        assert await to_the_end(publisher.subscribe(request), receive) == ([], finished)


async def test_a_withdrawal_comes_before_the_end() -> None:
    """D19."""

    class Row(Health):
        @override
        def withdrawn(self) -> "Row":
            return Row(self.key, None)

    async with live() as (_, publisher, _):
        reader = publisher.subscribe(LIVE, where=lambda each: each.value != "2")
        publisher.publish([Event(HEALTH, 2, Row("web", "1"))])
        publisher.publish(
            [Event(HEALTH, 3, Row("web", "2"), previous=Row("web", "1"))], finish=[(HEALTH, "web")]
        )
        assert await to_the_end(reader) == (["2:web=1", "3:web=None"], 3)


@pytest.mark.parametrize("how", ["receive", "receive_batch", "receive_nowait", "receive_until_current"])
async def test_an_end_that_a_payload_raises_is_not_that_of_the_subject(how: str) -> None:
    """D5, D16."""
    error = EndOfSubject(1, "x")

    class Broken(Health):
        @override
        def has_read_permission(self, authorizer: object, /) -> bool:
            raise error

    async with live() as (_, publisher, _):
        reader = publisher.subscribe(LIVE, authorizer=1)
        publisher.publish([Event(HEALTH, 2, Broken("web"))])
        for _ in range(2):
            with pytest.raises(EndOfSubject) as caught:
                if how == "receive_nowait":
                    reader.receive_nowait()
                else:
                    await getattr(reader, how)()
            assert caught.value is error
            assert reader.state is SubscriptionState.LIVE


# Who waits, and who asks.

WAITS: dict[str, Call] = {
    "receive": lambda subscription: subscription.receive(),
    "receive_batch": lambda subscription: subscription.receive_batch(),
    "a read of one more": lambda subscription: subscription.receive_batch(1),
}


@pytest.mark.parametrize("call", WAITS.values(), ids=WAITS)
async def test_who_waits_is_woken_by_the_end(call: Call) -> None:
    ended: list[int] = []

    async def wait() -> None:
        with pytest.raises(EndOfSubject) as caught:
            await call(subscription)
        ended.append(caught.value.index)

    async with live() as (store, _, subscription):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await quiet()
            store.commit(finish=["web"])
            await quiet()
            assert ended == [2]


async def test_a_loop_that_waits_stops() -> None:
    stopped: list[list[str]] = []

    async def loop() -> None:
        stopped.append(kinds([each async for each in subscription]))

    async with live() as (store, _, subscription):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loop)
            await quiet()
            store.commit(("web", "1"), finish=["web"])
            await quiet()
            assert stopped == [["2:web=1"]]


async def test_a_second_receiver_is_refused_as_long_as_the_first_waits() -> None:
    """D18."""
    async with live() as (store, _, subscription):
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(EndOfSubject):
                    await subscription.receive()

            tasks.start_soon(wait)
            await quiet()
            with pytest.raises(BusyResourceError):
                subscription.receive_nowait()
            store.commit(finish=["web"])


async def test_very_many_who_wait_are_woken() -> None:
    """D10, D15."""
    ended = 0

    async def wait(subscription: Subscription[Health]) -> None:
        nonlocal ended
        with pytest.raises(EndOfSubject):
            await subscription.receive()
        ended += 1

    async with live() as (store, publisher, _):
        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(wait, publisher.subscribe(LIVE))
            await quiet()
            store.commit(finish=["web"])
            await quiet()
            assert ended == 1000
        assert publisher.statistics().waiting == 0


async def test_what_waits_for_an_index_learns_of_the_end_when_that_was_received() -> None:
    told: list[str] = []

    async def wait() -> None:
        with pytest.raises(EndOfSubject):
            await subscription.wait_published(100)
        told.append("the end")

    async with live() as (store, _, subscription):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await quiet()
            store.commit(("web", "1"), finish=["web"])
            assert kinds([await subscription.receive()]) == ["2:web=1"]
            with pytest.raises(EndOfSubject):
                await subscription.receive()
            await quiet()
            assert told == ["the end"]
        with pytest.raises(EndOfSubject):
            await subscription.wait_published(1)


async def test_what_waits_for_an_index_that_is_published_returns_as_long_as_the_end_was_not_received() -> (
    None
):
    async with live() as (store, _, subscription):
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        with anyio.fail_after(30):
            await subscription.wait_published(3)
            await subscription.wait_ready()
        assert await to_the_end(subscription) == (["2:web=1", "3:web=2"], 3)


async def test_wait_ready_raises_the_end_once_it_was_received() -> None:
    async with live() as (store, _, subscription):
        store.commit(finish=["web"])
        await to_the_end(subscription)
        with pytest.raises(EndOfSubject) as ended:
            await subscription.wait_ready()
        assert ended.value.index == 2


async def test_the_state_is_live_until_the_last_event_was_received() -> None:
    async with live() as (store, _, subscription):
        store.commit(("web", "1"), finish=["web"])
        assert subscription.state is subscription.statistics().state is SubscriptionState.LIVE
        await to_the_end(subscription)
        assert subscription.statistics().state is SubscriptionState.FINISHED
        assert subscription.statistics().delivered == 1
        assert subscription.statistics().lag == 0
        assert "finished" in repr(subscription)


async def test_who_leaves_before_the_end_has_closed_it() -> None:
    async with live() as (store, _, subscription):
        store.commit(("web", "1"), finish=["web"])
        subscription.unsubscribe()
        with pytest.raises(ClosedResourceError):
            await subscription.receive()
        assert subscription.state is SubscriptionState.CLOSED


@pytest.mark.parametrize("leave", ["unsubscribe", "close", "aclose"])
async def test_leaving_after_the_end_is_fine_and_says_the_end_still(leave: str) -> None:
    """D5: one terminal exception."""
    async with live() as (store, _, subscription):
        store.commit(finish=["web"])
        await to_the_end(subscription)
        if leave == "aclose":
            await subscription.aclose()
        else:
            getattr(subscription, leave)()
        with pytest.raises(EndOfSubject):
            await subscription.receive()


# Who reads more than that.


@pytest.mark.parametrize(
    "request_",
    [
        SubscribeRequest(HEALTH),
        SubscribeRequest(HEALTH, "we", prefix=True),
        SubscribeRequest(HEALTH, "web", namespace=ALL),
        SubscribeRequest(HEALTH, "web") | SubscribeRequest(HEALTH, "d", prefix=True),
        SubscribeRequest(HEALTH, "web") | SubscribeRequest(JOBS),
    ],
    ids=["every key", "a prefix", "every namespace", "a key and a prefix", "a key and every key"],
)
async def test_broader_readers_get_the_events_and_go_on(request_: SubscribeRequest[Health]) -> None:
    store = Catalogue(index=1, states={1: {}})
    source = Source(store.snapshot, wide=True)
    async with open_publisher({HEALTH: source, JOBS: source}, index=1) as store.publisher:
        reader = store.publisher.subscribe(request_)
        await until_live(reader)
        store.commit(("web", "1"), finish=["web"])
        store.commit(finish=["db"])
        store.commit(("web", "x"), topic=JOBS)
        assert [each for each in kinds(ready(reader)) if not each.endswith("x")] == ["2:web=1"]
        assert reader.state is SubscriptionState.LIVE
        assert reader.horizon == 4
        with pytest.raises(WouldBlock):
            reader.receive_nowait()


async def test_readers_of_other_subjects_are_told_nothing() -> None:
    """D10."""
    async with live() as (store, publisher, _):
        others = [
            publisher.subscribe(SubscribeRequest(HEALTH, "db", index=1)),
            publisher.subscribe(SubscribeRequest(JOBS, "web", index=1)),
            publisher.subscribe(SubscribeRequest(HEALTH, "web", namespace="prod", index=1)),
            publisher.subscribe(SubscribeRequest(HEALTH, "we", index=1)),
        ]
        store.commit(("web", "1"), finish=["web"])
        for each in others:
            with pytest.raises(WouldBlock):
                each.receive_nowait()
            assert each.horizon == 2


# What else ends a subscription.


@receives
async def test_of_a_publisher_that_has_stopped_the_subject_still_ends_after_what_was_published(
    receive: Receive,
) -> None:
    """D5: the finish comes first."""
    async with live() as (store, publisher, subscription):
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        store.commit(("db", "3"))
    assert await to_the_end(subscription, receive) == (["2:web=1", "3:web=2"], 3)
    assert publisher.statistics().subscriptions == 0


@receives
async def test_the_finish_comes_before_the_stop_also_for_who_has_had_every_event(receive: Receive) -> None:
    """D5."""
    async with live() as (store, _, subscription):
        store.commit(("web", "1"))
        await subscription.receive()
        store.commit(finish=["web"])
    assert await to_the_end(subscription, receive) == ([], 3)


async def test_who_waits_while_the_finish_and_the_stop_come_in_one_tick_is_told_of_the_finish() -> None:
    """D5, D17."""
    ended: list[str] = []

    async def wait(subscription: Subscription[Health]) -> None:
        with pytest.raises(EndOfSubject):
            await subscription.receive()
        ended.append("finished")

    async with anyio.create_task_group() as tasks:
        async with live() as (store, publisher, subscription):
            tasks.start_soon(wait, subscription)
            for _ in range(20):
                tasks.start_soon(wait, publisher.subscribe(LIVE))
            await quiet()
            store.commit(finish=["web"])
    assert ended == ["finished"] * 21


async def test_a_whole_snapshot_of_a_finished_subject_is_read_after_the_stop_and_then_the_end_comes() -> None:
    """D5."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        await quiet()
        store.commit(("web", "2"), finish=["web"])
    assert await to_the_end(subscription) == (["1:web=1", "eos@1", "2:web=2"], 2)


async def test_a_snapshot_of_a_finished_subject_that_is_not_whole_ends_by_the_stop() -> None:
    """D5."""
    async with opened(held := Held()) as (store, publisher):
        held.store = store
        subscription = publisher.subscribe(WEB)
        await quiet()
        store.commit(("web", "2"), finish=["web"])
    with pytest.raises(SubscriptionForceClosed) as ended:
        await subscription.receive()
    assert ended.value.reason is CloseReason.STOPPED


async def test_after_the_stop_nothing_is_finished_any_more() -> None:
    """D18: not with a close event either, and nobody is closed by that."""
    async with live() as (store, publisher, subscription):
        store.commit(("web", "1"))
    for events in ([event(3, "web")], [close_subscription_event(["t"])], []):
        with pytest.raises(ClosedResourceError):
            publisher.publish(events, index=3, finish=[(HEALTH, "web")])
    assert kinds([await subscription.receive()]) == ["2:web=1"]
    with pytest.raises(SubscriptionForceClosed) as ended:
        await subscription.receive()
    assert ended.value.reason is CloseReason.STOPPED


@pytest.mark.parametrize("by", ["a call", "an event", "an event of the commit that finishes"])
@receives
async def test_the_close_of_a_token_overtakes_the_end(by: str, receive: Receive) -> None:
    """D5, D9."""
    async with live() as (_, publisher, subscription):
        closing = [close_subscription_event(["t"])]
        together = closing if by == "an event of the commit that finishes" else []
        publisher.publish([*together, event(2, "web")], finish=[(HEALTH, "web")])
        if by == "a call":
            assert publisher.close_subscriptions(["t"]) == 1
        elif by == "an event":
            publisher.publish(closing)
        with pytest.raises(SubscriptionForceClosed) as ended:
            await receive(subscription)
        assert ended.value.reason is CloseReason.TOKEN
        assert subscription.state is SubscriptionState.FORCE_CLOSED


async def test_after_the_end_was_received_the_token_closes_nothing_more() -> None:
    """D5: one terminal exception."""
    async with live() as (store, publisher, subscription):
        store.commit(("web", "1"), finish=["web"])
        await to_the_end(subscription)
        assert publisher.close_subscriptions(["t"]) == 0
        publisher.refresh(HEALTH)
        publisher.refresh(epoch="other")
        await to_the_end(subscription)
    await to_the_end(subscription)


@pytest.mark.parametrize("whole", [False, True], ids=["a topic", "everything"])
async def test_a_refresh_overtakes_the_end_and_forgets_it(whole: bool) -> None:
    """D5: a subject of a store that was restored may well go on."""
    async with live() as (store, publisher, subscription):
        store.commit(("web", "1"), finish=["web"])
        if whole:
            publisher.refresh(epoch="other", index=2)
        else:
            publisher.refresh(HEALTH)
        with pytest.raises(SubscriptionForceClosed) as ended:
            await subscription.receive()
        assert ended.value.reason is CloseReason.REFRESH
        again = publisher.subscribe(WEB)
        await until_live(again)
        store.commit(("web", "2"))
        assert kinds(ready(again)) == ["3:web=2"]


async def test_who_has_fallen_off_before_the_end_is_told_that() -> None:
    """D6."""
    async with live(history=2) as (store, _, subscription):
        for value in ("1", "2", "3"):
            store.commit(("web", value))
        store.commit(finish=["web"])
        with pytest.raises(SubscriptionLagged) as lagged:
            await subscription.receive()
        assert lagged.value.missed == 2
        assert subscription.state is SubscriptionState.FORCE_CLOSED


async def test_who_has_fallen_off_and_resets_gets_a_snapshot_and_the_end() -> None:
    """D6, D21."""
    async with opened(index=1, history=2) as (store, publisher):
        reader = publisher.subscribe(LIVE, on_lag="reset")
        for value in ("1", "2", "3"):
            store.commit(("web", value))
        store.commit(finish=["web"])
        with pytest.raises(WouldBlock):
            reader.receive_nowait()
        await quiet()
        assert await to_the_end(reader) == (["marker", "4:web=3", "eos@5"], 5)


async def test_who_has_had_every_event_does_not_fall_off_when_the_finish_leaves_the_history() -> None:
    """D3, D6: nothing was missed."""
    async with live(history=2) as (store, _, subscription):
        store.commit(("web", "1"), finish=["web"])
        await subscription.receive()
        for _ in range(5):
            store.commit(("db", "x"))
        assert await to_the_end(subscription) == ([], 2)


async def test_who_has_had_every_event_does_not_fall_off_when_a_finish_of_its_own_leaves_the_history() -> (
    None
):
    """D3, D6: the same where the finish had no event."""
    async with live(history=2) as (store, _, subscription):
        store.commit(("web", "1"))
        await subscription.receive()
        store.commit(finish=["web"])
        for _ in range(5):
            store.commit(("db", "x"))
        assert await to_the_end(subscription) == ([], 3)


async def test_a_snapshot_that_fails_overtakes_the_end() -> None:
    """D5."""

    async def failing(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot.append([event(1, "web")])
        raise OSError("disk")

    async with opened(failing, index=1) as (_, publisher):
        publisher.publish([event(2, "web")], finish=[(HEALTH, "web")])
        subscription = publisher.subscribe(WEB)
        await quiet()
        with pytest.raises(SnapshotFailed):
            while True:
                await subscription.receive()


# What the end is.


async def test_the_end_is_of_both_libraries_and_is_not_a_force_close() -> None:
    """D16."""
    async with live() as (store, _, subscription):
        store.commit(("web", "1"), finish=["web"])
        await subscription.receive()
        with pytest.raises(trio.EndOfChannel):
            await subscription.receive()
        with pytest.raises(anyio.EndOfStream):
            subscription.receive_nowait()
        with pytest.raises(EndOfSubject) as ended:
            await subscription.receive_batch()
        assert not isinstance(ended.value, trio.BrokenResourceError | trio.ClosedResourceError)
        assert (ended.value.index, ended.value.epoch) == (2, "e")
        assert "2" in str(ended.value)
        assert "'e'" in str(ended.value)


async def test_each_call_raises_an_end_of_its_own() -> None:
    """D16: one that was raised before drags its traceback along."""
    async with live() as (store, _, subscription):
        store.commit(finish=["web"])
        ends: list[EndOfSubject] = []
        for _ in range(2):
            with pytest.raises(EndOfSubject) as ended:
                await subscription.receive()
            ends.append(ended.value)
        assert ends[0] is not ends[1]


def test_an_end_can_be_copied_and_pickled() -> None:
    """D16."""
    end = EndOfSubject(7, "e")
    for made in (copy.copy(end), copy.deepcopy(end), pickle.loads(pickle.dumps(end))):
        assert type(made) is EndOfSubject
        assert (made.index, made.epoch, made.args, str(made)) == (7, "e", (7, "e"), str(end))


async def test_a_resume_at_the_end_ends_again_at_once() -> None:
    """D7."""
    async with live() as (store, publisher, subscription):
        store.commit(("web", "1"), finish=["web"])
        store.commit(("db", "2"))
        await to_the_end(subscription)
        request = subscription.resume_request()
        assert (request.index, request.epoch, request.key) == (2, "e", "web")
        assert await to_the_end(publisher.subscribe(request)) == ([], 2)


async def test_a_resume_at_the_end_of_a_quiet_subject_is_not_too_old() -> None:
    """D7: its last event has left the history long ago; the finish is the newest commit."""
    async with live(history=4) as (store, publisher, subscription):
        store.commit(("web", "1"))
        await subscription.receive()
        for _ in range(20):
            store.commit(("db", "x"))
        store.commit(finish=["web"])
        await to_the_end(subscription)
        assert await to_the_end(publisher.subscribe(subscription.resume_request())) == ([], 23)


async def test_nothing_is_left_of_a_finished_subject_but_history() -> None:
    """D13."""
    async with live(history=2, snapshot_cache_ttl=0) as (store, publisher, subscription):
        store.commit(("db", "0"))
        store.commit(("db", "0"))
        feeds = publisher.statistics().topics["health"].feeds - 1  # but that of the reader
        store.commit(("web", "1"), finish=["web"])
        await to_the_end(subscription)
        store.commit(("db", "2"))
        store.commit(("db", "3"))
        assert publisher.statistics().topics["health"].feeds == feeds


async def test_nothing_is_left_of_very_many_subjects_that_are_finished_and_that_nobody_knew() -> None:
    """D11, D13."""
    async with opened(history=2, index=1) as (store, publisher):
        store.commit(("db", "0"))
        store.commit(("db", "0"))
        feeds = publisher.statistics().topics["health"].feeds
        for number in range(300):
            store.commit(finish=[f"a{number}", f"b{number}"])
        assert publisher.statistics().topics["health"].feeds <= feeds + 4
        store.commit(("db", "1"))
        store.commit(("db", "1"))
        assert publisher.statistics().topics["health"].feeds == feeds
