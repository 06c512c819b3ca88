"""Batches of a reader with an authorizer: all that is ready and readable, within bounds, whatever the payloads do."""

from collections.abc import Callable
from typing import Any

import pytest
from catalogue import HEALTH, Catalogue, Health, event, kinds, ready
from interruptions import Stepwise
from scenes import opened

from trio_stream import (
    BusyResourceError,
    ClosedResourceError,
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    Topic,
    close_subscription_event,
)

pytestmark = pytest.mark.anyio

ALL = SubscribeRequest(HEALTH, token="t", index=1)


class Asked:
    """An authorizer that runs code when it is asked about `key=value`, and shows what that is true of."""

    def __init__(self, answer: Callable[[str], object]) -> None:
        self._answer = answer

    def __contains__(self, asked: object) -> bool:
        return "=" in str(asked) and bool(self._answer(str(asked)))


def publisher_at_1() -> EventPublisher:
    return EventPublisher({HEALTH: Catalogue().snapshot}, index=1, history=10_000)


@pytest.mark.parametrize("hidden", [1, 300, 2000])
async def test_a_batch_goes_on_behind_whatever_is_hidden(hidden: int) -> None:
    """All that is ready, although it was looked at in portions."""
    publisher = publisher_at_1()
    subscription = publisher.subscribe(ALL, authorizer=frozenset({"web"}))
    publisher.publish([event(2, "web")])
    for index in range(3, 3 + hidden):
        publisher.publish([event(index, "secret")])
    publisher.publish([event(publisher.index + 1, "web")])
    batch = await subscription.receive_batch()
    assert [each.index for each in batch] == [2, publisher.index]


@pytest.mark.parametrize("hidden", [1, 300, 2000])
async def test_a_batch_goes_on_behind_whatever_is_hidden_in_a_snapshot(hidden: int) -> None:
    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        for key in ("web", *(f"secret {number}" for number in range(hidden)), "api"):
            await snapshot.append([event(1, key)])
        return 1

    async with opened(handler, index=1) as (_, publisher):
        request = SubscribeRequest(HEALTH)
        async with publisher.subscribe(request) as other:
            await other.receive_until_current()  # the snapshot is whole
            subscription = publisher.subscribe(request, authorizer=frozenset({"web", "api"}))
            batch = await subscription.receive_batch()
    assert kinds(batch) == ["1:web=ok", "1:api=ok", "eos@1"]


@pytest.mark.parametrize("first", ["horizon", "receive_nowait", "receive_batch", "async for"])
async def test_a_payload_that_is_asked_may_look_at_the_horizon(first: str) -> None:
    """D3: which stands still meanwhile, and every event comes once and is counted once."""
    publisher = publisher_at_1()
    horizons: list[int] = []

    def answer(asked: str) -> bool:
        horizons.append(subscription.horizon)
        return asked.startswith("web")

    subscription = publisher.subscribe(ALL, authorizer=Asked(answer))
    for index in range(2, 7):
        publisher.publish([event(index, "web" if index > 4 else "secret")])
    got: list[Event[Health]] = []
    match first:
        case "horizon":
            assert subscription.horizon == 4
        case "receive_nowait":
            got.append(subscription.receive_nowait())
        case "receive_batch":
            got += await subscription.receive_batch()
        case _:
            got.append(await anext(subscription))
    assert [received.index for received in [*got, *ready(subscription)]] == [5, 6]
    assert subscription.statistics().delivered == 2
    assert horizons == sorted(horizons)
    assert horizons[-1] == 5


async def test_a_snapshot_that_fails_says_why_to_a_reader_with_an_authorizer_too() -> None:
    """D16: the cause is what the snapshot function raised, and nothing that the batch has put before it."""
    failure = RuntimeError("no state")

    async def fail(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        raise failure

    async with opened(fail) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH), authorizer=frozenset({"web"}))
        for _ in range(2):
            with pytest.raises(SnapshotFailed) as failed:
                await subscription.receive_batch()
            assert failed.value.__cause__ is failure


async def test_a_batch_looks_at_a_bounded_number_of_deliveries() -> None:
    """D15: also where few of them may be seen."""
    asked = 0

    def every_100th(_: str) -> bool:
        nonlocal asked
        asked += 1
        return asked % 100 == 0

    publisher = publisher_at_1()
    subscription = publisher.subscribe(ALL, authorizer=Asked(every_100th))
    for index in range(2, 10_002):
        publisher.publish([event(index, "web")])
    looked_at = []
    received = 0
    while received < 100:
        before = asked
        call = Stepwise(subscription.receive_batch)
        received += len(await call)
        looked_at.append((asked - before) / call.suspensions)
    assert len(looked_at) > 1
    assert max(looked_at) < 5_000


@pytest.mark.parametrize("end", ["unsubscribe", "token", "event", "refresh"])
async def test_a_payload_that_ends_its_subscription_inside_a_batch_ends_it_where_the_reader_is(
    end: str,
) -> None:
    """D5, D9: nothing of the batch is returned, and the error is the same each time."""
    ends: dict[str, Callable[[], object]] = {
        "unsubscribe": lambda: subscription.unsubscribe(),  # noqa: PLW0108 - it is not there yet
        "token": lambda: publisher.close_subscriptions(["t"]),
        "event": lambda: publisher.publish([close_subscription_event(["t"])]),
        "refresh": lambda: publisher.refresh(HEALTH),
    }
    publisher = publisher_at_1()
    subscription: Subscription[Any] = publisher.subscribe(
        ALL, authorizer=Asked(lambda asked: ends[end]() or True if asked == "bad=ok" else True)
    )
    for index, key in enumerate(("web", "db", "bad", "web"), 2):
        publisher.publish([event(index, key)])
    assert kinds(await subscription.receive_batch(1)) == ["2:web=ok"]
    seen = []
    for _ in range(3):
        with pytest.raises((SubscriptionForceClosed, ClosedResourceError)) as caught:
            await subscription.receive_batch()
        assert caught.value.__cause__ is None
        seen.append((type(caught.value), str(caught.value)))
    assert len(set(seen)) == 1
    assert (subscription.index, subscription.statistics().delivered) == (2, 1)


class Stop(BaseException):
    """No error, as `KeyboardInterrupt` is none."""


async def test_whatever_a_payload_raises_inside_a_batch_what_was_taken_before_it_is_not_lost() -> None:
    """D12."""
    is_bad = True

    def answer(asked: str) -> bool:
        if asked == "bad=ok" and is_bad:
            raise Stop
        return True

    publisher = publisher_at_1()
    subscription = publisher.subscribe(ALL, authorizer=Asked(answer))
    for index, key in enumerate(("web", "bad", "db"), 2):
        publisher.publish([event(index, key)])
    assert kinds(await subscription.receive_batch()) == ["2:web=ok"]
    with pytest.raises(Stop):
        await subscription.receive_batch()
    is_bad = False
    assert kinds(await subscription.receive_batch()) == ["3:bad=ok", "4:db=ok"]


async def test_a_payload_cannot_receive_from_the_subscription_that_asks_it() -> None:
    """D3, D18: the event that it is asked about would be delivered twice."""
    refused = 0

    def answer(_: str) -> bool:
        nonlocal refused
        with pytest.raises(BusyResourceError):
            subscription.receive_nowait()
        refused += 1
        return True

    publisher = publisher_at_1()
    subscription: Subscription[Any] = publisher.subscribe(ALL, authorizer=Asked(answer))
    publisher.publish([event(2, "web")])
    publisher.publish([event(3, "web")])
    assert kinds(ready(subscription)) == ["2:web=ok", "3:web=ok"]
    assert refused == 2


class Promise:
    """What an async function returns, without the warning that nobody awaits it."""

    def __await__(self) -> Any:
        raise AssertionError


class AsyncHealth:
    subject = "web"

    def has_read_permission(self, authorizer: object, /) -> Any:
        return Promise()


async def test_a_permission_that_would_have_to_be_awaited_is_an_error_and_not_a_yes() -> None:
    """D9: an awaitable is true, whatever comes of it."""
    topic = Topic[Any]("async")
    publisher = EventPublisher({topic: Catalogue().snapshot}, index=1)
    subscription = publisher.subscribe(SubscribeRequest(topic, index=1), authorizer=object())
    publisher.publish([Event(topic, 2, AsyncHealth())])
    with pytest.raises(TypeError, match="AsyncHealth"):
        subscription.receive_nowait()
    assert subscription.index == 1
