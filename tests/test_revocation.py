"""Force-closing by token: when it is done, no call on an affected subscription returns an event."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from scenes import opened, quiet

from trio_stream import (
    CloseReason,
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio

Receiving = Callable[[Subscription[Health]], Awaitable[list[Event[Health]]]]
Closing = Callable[[EventPublisher, list[str]], None]


async def receive(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await subscription.receive()]


async def iterate(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await anext(aiter(subscription))]


async def receive_batch(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_batch())


async def receive_nowait(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [subscription.receive_nowait()]


def by_call(publisher: EventPublisher, tokens: list[str]) -> None:
    publisher.close_subscriptions(tokens)


def by_event(publisher: EventPublisher, tokens: list[str]) -> None:
    publisher.publish([close_subscription_event(tokens)])


waits = pytest.mark.parametrize("receiving", [receive, iterate, receive_batch])
every_call = pytest.mark.parametrize("receiving", [receive, iterate, receive_batch, receive_nowait])
closes = pytest.mark.parametrize("closing", [by_call, by_event])


@dataclass
class Reader:
    """Receives once, in a task, and keeps what came of it."""

    subscription: Subscription[Health]
    receiving: Receiving = receive
    events: list[Event[Health]] = field(default_factory=list)
    reason: CloseReason | None = None

    async def __call__(self) -> None:
        try:
            self.events += await self.receiving(self.subscription)
        except SubscriptionForceClosed as closed:
            self.reason = closed.reason


@asynccontextmanager
async def publisher_at_1() -> AsyncIterator[EventPublisher]:
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1, epoch="e") as publisher:
        yield publisher


def live(publisher: EventPublisher, key: str = "web", token: str = "t") -> Subscription[Health]:
    """A subscription without a snapshot."""
    return publisher.subscribe(SubscribeRequest(HEALTH, key, token=token, index=1, epoch="e"))


def assert_closed(subscription: Subscription[Health], reason: CloseReason = CloseReason.TOKEN) -> None:
    with pytest.raises(SubscriptionForceClosed) as caught:
        subscription.receive_nowait()
    assert caught.value.reason is reason


@closes
@waits
async def test_a_waiting_reader_is_told_and_others_go_on(receiving: Receiving, closing: Closing) -> None:
    """C14, D9."""
    async with publisher_at_1() as publisher:
        closed, other = Reader(live(publisher), receiving), Reader(live(publisher, token="u"), receiving)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(closed)
            tasks.start_soon(other)
            await quiet()
            closing(publisher, ["t"])
            await quiet()
            assert closed.reason is CloseReason.TOKEN
            assert publisher.statistics().waiting == publisher.statistics().subscriptions == 1
            publisher.publish([event(2, "web")])
    assert (closed.events, kinds(other.events)) == ([], ["2:web=ok"])


@pytest.mark.parametrize("publish_first", [True, False])
@closes
@waits
async def test_a_reader_that_was_woken_in_the_same_tick_gets_no_event(
    receiving: Receiving, closing: Closing, publish_first: bool
) -> None:
    """D9: not even one that was already waiting for it."""
    async with publisher_at_1() as publisher:
        reader = Reader(live(publisher), receiving)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            await quiet()
            if publish_first:
                publisher.publish([event(2, "web")])
                closing(publisher, ["t"])
            else:
                closing(publisher, ["t"])
                publisher.publish([event(2, "web")])
    assert (reader.events, reader.reason) == ([], CloseReason.TOKEN)


@closes
@every_call
async def test_what_was_queued_before_the_close_is_not_returned(
    receiving: Receiving, closing: Closing
) -> None:
    """D9, D5: the end overtakes the queue, and repeats."""
    async with publisher_at_1() as publisher:
        subscription = live(publisher)
        for index in range(2, 6):
            publisher.publish([event(index, "web")])
        assert kinds(await receive(subscription)) == ["2:web=ok"]
        closing(publisher, ["t"])
        for _ in range(3):
            with pytest.raises(SubscriptionForceClosed) as caught:
                await receiving(subscription)
            assert (caught.value.reason, caught.value.index, caught.value.epoch) == (
                CloseReason.TOKEN,
                2,
                "e",
            )


async def test_a_loop_that_is_closed_in_the_middle_of_a_burst_gets_no_further_event() -> None:
    """D9: the events that `async for` takes without a checkpoint are no exception."""
    async with publisher_at_1() as publisher:
        for index in range(2, 12):
            publisher.publish([event(index, "web")])
        seen: list[int] = []
        with pytest.raises(SubscriptionForceClosed):
            async for received in live(publisher):
                seen.append(received.index)
                if received.index == 5:
                    publisher.close_subscriptions(["t"])
        assert seen == [2, 3, 4, 5]


async def test_a_close_between_the_checkpoint_of_a_call_and_its_return_is_seen_by_the_call() -> None:
    """D9: something was ready when the call began."""
    async with publisher_at_1() as publisher:
        reader = Reader(live(publisher))
        publisher.publish([event(2, "web")])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            publisher.close_subscriptions(["t"])
    assert (reader.events, reader.reason) == ([], CloseReason.TOKEN)


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_close_event_among_other_events_takes_effect_before_them(place: int) -> None:
    """D9: wherever in the commit it stands; nobody receives it."""
    async with publisher_at_1() as publisher:
        closed, other = Reader(live(publisher)), Reader(live(publisher, token="u"))
        commit = [event(2, "web", "a"), event(2, "web", "b")]
        commit.insert(place, close_subscription_event(["t"]))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(closed)
            tasks.start_soon(other)
            await quiet()
            publisher.publish(commit)
        assert (closed.events, closed.reason) == ([], CloseReason.TOKEN)
        assert kinds(other.events) == ["2:web=a+web=b"]
        assert ready(other.subscription) == []


async def test_a_close_event_alone_takes_no_index() -> None:
    """D9."""
    async with publisher_at_1() as publisher:
        other = live(publisher, token="u")
        publisher.publish([close_subscription_event(["t"])])
        assert publisher.index == 1
        assert ready(other) == []
        publisher.publish([event(2, "web")])
        assert kinds(ready(other)) == ["2:web=ok"]


async def test_close_subscriptions_returns_how_many_it_closed() -> None:
    """D9: duplicates count once, tokens that nobody uses not at all."""
    async with publisher_at_1() as publisher:
        subscriptions = [live(publisher, token=token) for token in "ttuv"]
        assert publisher.close_subscriptions(iter(["t", "nobody", "t", "u"])) == 3
        assert publisher.close_subscriptions(["t", "u"]) == 0
        assert publisher.close_subscriptions([]) == 0
        publisher.publish([close_subscription_event(["nobody", "nobody"])])
        for subscription in subscriptions[:3]:
            assert_closed(subscription)
        assert ready(subscriptions[3]) == []
        assert publisher.statistics().tokens == 1


async def test_tokens_are_compared_exactly_and_the_empty_one_is_a_token() -> None:
    """D9."""
    async with publisher_at_1() as publisher:
        tokens = ["", "t", "T", "t "]
        subscriptions = {token: live(publisher, token=token) for token in tokens}
        assert publisher.close_subscriptions([""]) == 1
        assert_closed(subscriptions[""])
        assert publisher.close_subscriptions(["t"]) == 1
        assert_closed(subscriptions["t"])
        assert [ready(subscriptions[token]) for token in ("T", "t ")] == [[], []]


async def test_one_string_is_not_taken_for_its_letters() -> None:
    """D18."""
    async with publisher_at_1() as publisher:
        subscription = live(publisher, token="t")
        for closing in (publisher.close_subscriptions, close_subscription_event):
            with pytest.raises(TypeError):
                closing("t")
            with pytest.raises(TypeError):
                closing([b"t"])  # type: ignore[list-item]
        assert ready(subscription) == []


async def test_both_subscriptions_of_one_request_object_are_closed() -> None:
    """D9; Consul kept only the second."""
    async with publisher_at_1() as publisher:
        request = SubscribeRequest(HEALTH, "web", token="t", index=1)
        first, second = publisher.subscribe(request), publisher.subscribe(request)
        second.close()
        third = publisher.subscribe(request)
        assert publisher.close_subscriptions(["t"]) == 2
        assert_closed(first)
        assert_closed(third)


async def test_a_token_that_was_used_before_it_existed_is_closed_when_it_is_announced() -> None:
    """C17."""
    async with publisher_at_1() as publisher:
        reader = Reader(live(publisher, token="not yet"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            await quiet()
            publisher.publish([close_subscription_event(["not yet"])])
        assert reader.reason is CloseReason.TOKEN
        again = publisher.subscribe(SubscribeRequest(HEALTH, "web", token="not yet"))
        await until_live(again)
        publisher.publish([event(2, "web")])
        assert kinds(ready(again)) == ["2:web=ok"]


@closes
async def test_hundreds_of_waiting_readers_are_all_told(closing: Closing) -> None:
    """D9, D15."""
    async with publisher_at_1() as publisher:
        readers = [Reader(live(publisher)) for _ in range(300)]
        other = Reader(live(publisher, token="u"))
        async with anyio.create_task_group() as tasks:
            for reader in [*readers, other]:
                tasks.start_soon(reader)
            await quiet()
            publisher.publish([event(2, "web")])
            closing(publisher, ["t"])
    assert {reader.reason for reader in readers} == {CloseReason.TOKEN}
    assert not any(reader.events for reader in readers)
    assert kinds(other.events) == ["2:web=ok"]


@closes
async def test_a_reader_inside_a_snapshot_is_told_and_the_others_of_the_snapshot_go_on(
    closing: Closing,
) -> None:
    """D9, D14."""
    go = anyio.Event()

    async def slow(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot.append([event(1, "web")])
        await go.wait()
        return 1

    async with open_publisher({HEALTH: slow}) as publisher:
        closed = Reader(publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t")))
        other = publisher.subscribe(SubscribeRequest(HEALTH, "web"))
        await closed()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(closed)
            await quiet()
            closing(publisher, ["t"])
        assert (kinds(closed.events), closed.reason) == (["1:web=ok"], CloseReason.TOKEN)
        go.set()
        assert kinds(await until_live(other)) == ["1:web=ok", "eos@1"]


async def test_closing_the_last_reader_of_a_snapshot_cancels_its_handler() -> None:
    """D9, D13, D14."""
    cancelled = anyio.Event()

    async def endless(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        return 1

    async with open_publisher({HEALTH: endless}) as publisher:
        publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t"))
        await quiet()
        publisher.close_subscriptions(["t"])
        await cancelled.wait()
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.tokens, statistics.topics["health"].snapshots) == (
            0,
            0,
            0,
        )


async def test_going_on_after_a_token_change_starts_from_the_beginning() -> None:
    """D16: what was received may no longer be seen."""
    catalogue = Catalogue()
    async with open_publisher({HEALTH: catalogue.snapshot}) as publisher:
        catalogue.publisher = publisher
        catalogue.commit(("web", "a"))
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t"))
        await until_live(subscription)
        assert subscription.resume_request().index == 1
        publisher.close_subscriptions(["t"])
        assert_closed(subscription)
        again = subscription.resume_request()
        assert again == SubscribeRequest(HEALTH, "web", token="t")
        assert kinds(await until_live(publisher.subscribe(again))) == ["1:web=a", "eos@1"]


async def test_one_that_is_closed_already_is_not_closed_again() -> None:
    """D5: the first end wins, whichever it was."""
    async with publisher_at_1() as publisher:
        by_owner, by_token = live(publisher), live(publisher)
        by_owner.unsubscribe()
        assert publisher.close_subscriptions(["t"]) == 1
        by_token.unsubscribe()
        publisher.refresh()
        assert_closed(by_token)
        with pytest.raises(anyio.ClosedResourceError):
            by_owner.receive_nowait()


async def test_a_handler_may_revoke_the_very_readers_it_serves() -> None:
    """D9, D14."""
    async with open_publisher({}) as publisher:

        async def revoking(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
            await snapshot.append([event(1, "web")])
            publisher.close_subscriptions(["t"])
            await snapshot.append([event(1, "web")])
            return 1

        publisher.register_handler(HEALTH, revoking)
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t"))
        await quiet()
        assert_closed(subscription)
        assert publisher.statistics().topics["health"].snapshots == 0


async def test_the_tokens_of_other_topics_stay_known_when_one_topic_is_refreshed() -> None:
    """D9."""
    async with opened(index=1) as (_, publisher):
        refreshed = publisher.subscribe(SubscribeRequest(HEALTH, token="t", index=1))
        others = [publisher.subscribe(SubscribeRequest(JOBS, token=token, index=1)) for token in ("t", "u")]
        publisher.refresh(HEALTH)
        with pytest.raises(SubscriptionForceClosed):
            refreshed.receive_nowait()
        assert (publisher.statistics().subscriptions, publisher.statistics().tokens) == (2, 2)
        assert publisher.close_subscriptions(["t"]) == 1
        with pytest.raises(SubscriptionForceClosed) as closed:
            others[0].receive_nowait()
        assert closed.value.reason is CloseReason.TOKEN
        publisher.publish([event(2, "job", topic=JOBS)])
        assert others[1].receive_nowait().index == 2
