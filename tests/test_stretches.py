"""D15, U11: however much ends, is let go of or is hidden, the event loop has its turn in between.

A test counts calls of the library's functions, or objects that are freed, in one stretch between two turns of the loop.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from scenes import ALL, opened, quiet
from stretches import Stretches, stretches
from typing_extensions import override

from trio_stream import (
    CloseReason,
    Cursor,
    Event,
    EventPublisher,
    Interest,
    Payload,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    Topic,
    WouldBlock,
    close_subscription_event,
    open_publisher,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])]

MANY = 2_000
FEW = 8_300  # calls in one stretch, of which ending the many would take 30,000; or objects, of 20,000
HEAVY = 20_000


@asynccontextmanager
async def many_readers(**options: Any) -> AsyncIterator[tuple[EventPublisher, list[Subscription[Health]]]]:
    """A running publisher, and very many subscriptions of some subjects, each with a token of its own."""
    async with opened(index=1, **options) as (_, publisher):
        readers = [
            publisher.subscribe(SubscribeRequest(HEALTH, f"s{number % 500}", token=f"{number}", index=1))
            for number in range(MANY)
        ]
        await quiet()
        yield publisher, readers


def tokens() -> list[str]:
    return [f"{number}" for number in range(MANY)]


@pytest.mark.parametrize("how", ["refresh a topic", "refresh", "close_subscriptions", "publish"])
async def test_an_end_that_concerns_thousands_is_made_in_portions(how: str) -> None:
    """D9: it is true for all of them at once, and taking them apart follows."""
    async with many_readers() as (publisher, readers):
        publisher.publish(event(2, f"s{number}") for number in range(500))
        await quiet()
        with stretches() as seen:
            match how:
                case "refresh a topic":
                    publisher.refresh(HEALTH)
                case "refresh":
                    publisher.refresh()
                case "close_subscriptions":
                    assert publisher.close_subscriptions(tokens()) == MANY
                case _:
                    publisher.publish([close_subscription_event(tokens())])
            assert publisher.statistics().subscriptions == publisher.statistics().tokens == 0
            seen.cut()
            reason = CloseReason.REFRESH if "refresh" in how else CloseReason.TOKEN
            for subscription in readers[:: MANY // 10]:
                with pytest.raises(SubscriptionForceClosed) as closed:
                    subscription.receive_nowait()
                assert closed.value.reason is reason
            await quiet()
        assert seen.longest < FEW
        assert seen.calls > seen.longest
        assert publisher.statistics().topics["health"].feeds == (0 if "refresh" in how else 501)


async def test_thousands_that_wait_for_as_many_indexes_are_woken_in_portions() -> None:
    """D15: one commit may pass all of them."""
    many = 2 * MANY
    async with opened(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        for number in range(many):
            tasks.start_soon(subscription.wait_published, 2 + number)
        await quiet()
        with stretches() as seen:
            publisher.publish((), index=2 + many)
            seen.cut()
            await quiet()
        assert many <= seen.calls
        assert seen.longest < FEW


@pytest.mark.parametrize("tokens_each", [1, MANY])
async def test_thousands_that_wait_are_woken_in_portions_when_they_are_closed(tokens_each: int) -> None:
    ends: list[CloseReason] = []

    async def read(subscription: Subscription[Health]) -> None:
        try:
            await subscription.receive()
        except SubscriptionForceClosed as closed:
            ends.append(closed.reason)

    async with opened(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        for number in range(MANY):
            token = "t" if tokens_each == MANY else f"{number}"
            request = SubscribeRequest(HEALTH, "web", token=token, index=1)
            tasks.start_soon(read, publisher.subscribe(request))
        await quiet()
        with stretches() as seen:
            closed = publisher.close_subscriptions(["t"] if tokens_each == MANY else tokens())
            await quiet()
        assert closed == MANY
        assert seen.longest < FEW
    assert ends == [CloseReason.TOKEN] * MANY


async def test_a_publisher_with_thousands_of_readers_stops_in_portions() -> None:
    """D5: those that wait, those that have something to read, and those inside a snapshot."""
    ends: list[CloseReason] = []

    async def read(subscription: Subscription[Health]) -> None:
        try:
            while True:
                await subscription.receive()
        except SubscriptionForceClosed as closed:
            ends.append(closed.reason)

    async def endless(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await anyio.sleep_forever()
        return 0

    async with anyio.create_task_group() as tasks:
        with stretches() as seen:
            async with open_publisher({HEALTH: Catalogue().snapshot, JOBS: endless}, index=1) as publisher:
                idle = [
                    publisher.subscribe(
                        SubscribeRequest(topic, f"s{number % 300}", token=f"{number}", index=index)
                    )
                    for number in range(MANY)
                    for topic, index in ((HEALTH, 1), (JOBS, 0))
                    if number % 2
                ]
                for number in range(MANY):
                    request = SubscribeRequest(HEALTH, f"s{number}", index=1)
                    tasks.start_soon(read, publisher.subscribe(request))
                await quiet()
                publisher.publish([event(2, "s1"), event(2, "another")])
                seen.cut()
                seen.longest = 0
            await quiet()
        assert seen.longest < FEW
        assert ends == [CloseReason.STOPPED] * MANY
        behind = [each for each in idle if each.request.topic == HEALTH and each.request.key == "s1"]
        assert publisher.statistics().subscriptions == len(behind) > 1
        assert [kinds(upto_the_end(each)) for each in behind] == [["2:s1=ok"]] * len(behind)


def upto_the_end(subscription: Subscription[Health]) -> list[Event[Health]]:
    got: list[Event[Health]] = []
    with suppress(SubscriptionForceClosed):
        while True:
            got.append(subscription.receive_nowait())
    return got


async def test_thousands_of_snapshots_that_one_commit_passes_are_let_go_of_in_portions() -> None:
    """D11: and none of them is handed to anybody meanwhile."""
    async with opened(history=1) as (store, publisher):
        store.commit(("web", "1"))
        for number in range(MANY):
            subscription = publisher.subscribe(SubscribeRequest(HEALTH, f"s{number}"))
            if number % 2:
                await until_live(subscription)
                subscription.unsubscribe()
        await quiet()
        with stretches() as seen:
            store.commit(("web", "2"))
            store.commit(("web", "3"))
            fresh = publisher.subscribe(SubscribeRequest(HEALTH, f"s{MANY - 1}"))
            seen.cut()
            await quiet()
        assert seen.longest < FEW
        assert kinds(ready(fresh)) == ["eos@3"]
        assert publisher.statistics().topics["health"].snapshots == 1


class Counted(Payload):
    """A payload that notes that it was freed."""

    __slots__ = ("_key",)
    seen: ClassVar[Stretches] = Stretches()

    def __init__(self, key: str = "web") -> None:
        self._key = key

    @property
    @override
    def subject(self) -> str:
        return self._key

    @override
    def has_read_permission(self, authorizer: object, /) -> bool:
        return bool(authorizer)

    def __del__(self) -> None:
        self.seen.count()


async def large(request: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
    for _ in range(HEAVY):
        await snapshot.append([Event(HEALTH, 1, Counted())])
    return 1


async def test_a_snapshot_that_was_made_meanwhile_is_not_let_go_of() -> None:
    """D6: it was passed while its handler waited, and is newer now than what was dropped."""

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        for number in range(1_025 if request.key == "slow" else 1):
            await snapshot.append([Event(HEALTH, 1, Health(request.key, str(number)))])
        return publisher.index

    async with opened(handler, history=1) as (_, publisher):
        publisher.publish([event(1, "web")])
        others = [publisher.subscribe(SubscribeRequest(HEALTH, f"s{number}")) for number in range(1_000)]
        await quiet()
        slow = publisher.subscribe(SubscribeRequest(HEALTH, "slow"))
        await quiet()
        for each in others:
            each.unsubscribe()
        publisher.publish([event(2, "web")])
        publisher.publish([event(3, "web")])
        received = ready(slow)
        await quiet()  # the handler goes on, and ends
        received += ready(slow)
        assert kinds(received)[-1] == "eos@3"
        assert len(received) == 1_026
        publisher.publish([event(4, "slow")])
        assert kinds(ready(slow)) == ["4:slow=ok"]


async def test_a_large_snapshot_leaves_the_cache_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(large, snapshot_cache_ttl=0.01, index=1) as (_, publisher):
        async with publisher.subscribe(ALL) as subscription:
            with stretches(calls=False) as seen:
                monkeypatch.setattr(Counted, "seen", seen)
                await subscription.receive_until_current()
                subscription.unsubscribe()
                while publisher.statistics().topics["health"].snapshots:
                    await quiet()
                await quiet()
        assert 0 < seen.most_counted < FEW


@pytest.mark.parametrize("how", ["refresh", "passed", "left", "stop"])
async def test_what_is_large_is_released_in_portions(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that is dropped, passed or left, and the history."""
    ttl = 0 if how == "left" else 1e9
    with stretches(calls=False) as seen:
        async with opened(large, snapshot_cache_ttl=ttl, index=1, history=4) as (_, publisher):
            subscription = publisher.subscribe(ALL)
            events = await subscription.receive_until_current() if how != "left" else []
            del events
            if how == "left":
                while publisher.statistics().topics["health"].snapshots:
                    await subscription.receive_batch()
            gc.collect()
            seen.cut()
            seen.most_counted = 0
            monkeypatch.setattr(Counted, "seen", seen)
            match how:
                case "refresh":
                    publisher.refresh(HEALTH)
                case "passed":
                    for index in range(2, 8):
                        publisher.publish([event(index, "another")])
                case "left":
                    subscription.unsubscribe()
                case _:
                    subscription.unsubscribe()
            await quiet()
            if how != "stop":
                assert 0 < seen.most_counted < FEW
        if how == "stop":
            assert 0 < seen.most_counted < FEW


async def test_a_large_snapshot_that_is_left_before_it_is_whole_is_released_in_portions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A read of what is current wanted all of it, and was given up."""

    async def endless(request: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        await large(request, snapshot)
        tasks.cancel_scope.cancel()
        await anyio.sleep_forever()
        raise AssertionError

    with stretches(calls=False) as seen:
        async with opened(endless, index=1) as (_, publisher):
            subscription = publisher.subscribe(ALL)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(subscription.receive_until_current)
            monkeypatch.setattr(Counted, "seen", seen)
            seen.cut()
            seen.most_counted = 0
            subscription.unsubscribe()
            await quiet()
            assert 0 < seen.most_counted < FEW


async def test_a_snapshot_of_few_large_commits_is_released_in_portions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def in_groups(request: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        for _ in range(HEAVY // 1_000):
            await snapshot.append([Event(HEALTH, 1, Counted()) for _ in range(1_000)])
        return 1

    with stretches(calls=False) as seen:
        async with opened(in_groups, index=1, snapshot_cache_ttl=1e9, history=1) as (_, publisher):
            async with publisher.subscribe(ALL) as subscription:
                await subscription.receive_until_current()
            monkeypatch.setattr(Counted, "seen", seen)
            seen.cut()
            for index in (2, 3):
                publisher.publish([event(index, "another")])
            await quiet()
            assert 0 < seen.most_counted < FEW


async def medium(request: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
    for _ in range(200):
        await snapshot.append([Event(HEALTH, 1, Counted(request.key))])
    return 1


@pytest.mark.parametrize("how", ["passed", "left", "closed"])
async def test_many_snapshots_of_middle_size_are_released_in_portions(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as go in one slice: what is in them must not go in the same."""
    many = 100
    ttl = 1e9 if how == "passed" else 0
    with stretches(calls=False) as seen:
        async with opened(medium, snapshot_cache_ttl=ttl, index=1, history=1) as (_, publisher):
            readers = [publisher.subscribe(SubscribeRequest(HEALTH, f"s{number}")) for number in range(many)]
            await quiet()
            assert publisher.statistics().topics["health"].snapshots == (many if ttl else 0)
            monkeypatch.setattr(Counted, "seen", seen)
            seen.cut()
            seen.most_counted = 0
            match how:
                case "passed":
                    for index in (2, 3):
                        publisher.publish([event(index, "another")])
                case "left":
                    for each in readers:
                        each.unsubscribe()
                case _:
                    publisher.close_subscriptions([""])
            await quiet()
            assert 0 < seen.most_counted < FEW


@pytest.mark.parametrize("how", ["refresh", "stop"])
async def test_a_large_history_is_released_in_portions(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with stretches(calls=False) as seen:
        async with opened(index=1, history=HEAVY) as (_, publisher):
            for index in range(2, HEAVY):
                publisher.publish([Event(HEALTH, index, Counted())])
            monkeypatch.setattr(Counted, "seen", seen)
            seen.cut()
            if how == "refresh":
                publisher.refresh()
                await quiet()
        await quiet()
        gc.collect()
    assert 0 < seen.most_counted < FEW
    assert publisher.statistics().topics["health"].commits == 0


async def test_a_history_of_few_commits_with_many_events_is_released_in_portions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There are few feeds, and few commits, but not few events."""
    few = 100
    with stretches(calls=False) as seen:
        async with opened(index=1) as (_, publisher):
            for index in range(2, few + 2):
                publisher.publish([Event(HEALTH, index, Counted(f"s{number}")) for number in range(few)])
            monkeypatch.setattr(Counted, "seen", seen)
            seen.cut()
            publisher.refresh()
            await quiet()
            assert 0 < seen.most_counted < FEW


async def test_a_batch_has_an_upper_bound() -> None:
    """D15: of a million that are ready."""
    many = 140_000
    async with opened(index=1, history=many) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        web = Health("web")
        for index in range(2, many + 2):
            publisher.publish([Event(HEALTH, index, web)])
        sizes = [len(await subscription.receive_batch()) for _ in range(3)]
        assert sizes == [65_536, 65_536, many - 2 * 65_536]
        assert subscription.index == many + 1


class Hidden(Payload):
    """Asks itself who may read it, and counts."""

    asked: ClassVar[int] = 0

    @property
    @override
    def subject(self) -> str:
        return "web"

    @override
    def has_read_permission(self, authorizer: object, /) -> bool:
        type(self).asked += 1
        return False


@pytest.mark.parametrize("how", ["receive_nowait", "horizon", "resume_request"])
async def test_one_call_looks_at_no_more_than_so_many_hidden_events(how: str) -> None:
    """D15: and the next one goes on from there."""
    many, most = 10_000, 4_096
    async with opened(index=1, history=2 * many) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), authorizer="me")
        hidden = Hidden()
        for index in range(2, many + 2):
            publisher.publish([Event(HEALTH, index, hidden)])
        publisher.publish([event(many + 2, "another")])
        seen: list[int] = []
        for _ in range(4):
            before = Hidden.asked
            match how:
                case "receive_nowait":
                    with pytest.raises(WouldBlock):
                        subscription.receive_nowait()
                case "horizon":
                    assert subscription.horizon <= publisher.index
                case _:
                    assert subscription.resume_request().index <= publisher.index
            seen.append(Hidden.asked - before)
        assert seen == [most, most, many - 2 * most, 0]
        assert subscription.horizon == publisher.index


async def test_a_read_of_what_is_current_gives_way_while_it_passes_over_hidden_events() -> None:
    """D15: also when it has found nothing yet."""

    class Asked(Hidden):
        __slots__ = ()

        @override
        def has_read_permission(self, authorizer: object, /) -> bool:
            seen.count()
            return False

    many = 10_000
    async with opened(index=1, history=many) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), authorizer="me")
        hidden = Asked()
        for index in range(2, many + 2):
            publisher.publish([Event(HEALTH, index, hidden)])
        with stretches(calls=False) as seen:
            assert await subscription.receive_until_current() == []
        assert 0 < seen.most_counted <= 4_096
        assert subscription.index == many + 1


async def test_what_thousands_of_subscriptions_cost_statistics_is_little() -> None:
    """D15."""
    async with many_readers() as (publisher, _):
        with stretches() as seen:
            assert publisher.statistics().subscriptions == MANY
        assert seen.calls < MANY // 10


async def test_what_thousands_of_unions_cost_statistics_is_little() -> None:
    """D15: and each counts once for each of its topics, as long as it is read."""
    async with opened(index=1) as (_, publisher):
        requests = [
            SubscribeRequest[Health](
                interests=[Interest(topic, f"{number}{end}") for topic in (HEALTH, JOBS) for end in "ab"]
            )
            for number in range(MANY)
        ]
        readers = [publisher.subscribe(each) for each in requests]
        with stretches() as seen:
            topics = publisher.statistics().topics
        assert seen.calls < MANY // 10
        assert [(each.feeds, each.snapshots) for each in topics.values()] == [(MANY, MANY)] * 2
        for each in readers[1:]:
            each.unsubscribe()
        assert [each.feeds for each in publisher.statistics().topics.values()] == [1, 1]
        publisher.refresh(JOBS)
        assert [each.feeds for each in publisher.statistics().topics.values()] == [0, 0]


async def test_one_call_looks_at_no_more_than_so_many_hidden_events_of_a_snapshot() -> None:
    """D15."""
    many, most = 10_000, 4_096
    hidden = Hidden()

    async def handler(_: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        for _number in range(many):
            await snapshot.append([Event(HEALTH, 1, hidden)])
        return 1

    async with opened(handler, index=1) as (_, publisher):
        await publisher.subscribe(ALL).receive_until_current()
        subscription = publisher.subscribe(ALL, authorizer="me")
        seen: list[int] = []
        for _ in range(2):
            before = Hidden.asked
            with pytest.raises(WouldBlock):
                subscription.receive_nowait()
            seen.append(Hidden.asked - before)
        assert seen == [most, most]
        assert kinds([subscription.receive_nowait()]) == ["eos@1"]


async def test_many_topics_with_a_little_each_are_released_in_portions_when_the_publisher_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics = [Topic[Any](f"{number}") for number in range(10)]
    with stretches(calls=False) as seen:
        async with open_publisher(dict.fromkeys(topics, Catalogue().snapshot), index=1) as publisher:
            for topic in topics:
                for _ in range(8):
                    index = publisher.next_index
                    publisher.publish([Event(topic, index, Counted("web")) for _number in range(250)])
            monkeypatch.setattr(Counted, "seen", seen)
            seen.cut()
        assert 0 < seen.most_counted < FEW


async def test_how_much_there_is_to_release_is_not_counted_to_the_end() -> None:
    async with opened(large, snapshot_cache_ttl=1e9, index=1) as (_, publisher):
        async with publisher.subscribe(ALL) as subscription:
            await subscription.receive_until_current()
        with stretches() as seen:
            publisher.refresh(HEALTH)
            await quiet()
        assert seen.longest < FEW


async def test_what_a_union_of_hundreds_needs_is_filled_in_by_portions() -> None:
    """D15: however many interests there are, and however large the commits."""
    many = 300
    request = SubscribeRequest[Health](interests=[Interest(HEALTH, f"s{number}") for number in range(many)])
    async with opened(index=1) as (_, publisher):
        for index in range(2, 202):
            publisher.publish([event(index, f"s{number}") for number in range(30)])
        resumed = publisher.subscribe(request.after(Cursor(1, publisher.epoch)))
        with stretches() as seen:
            await quiet()
        assert seen.longest < FEW
        assert seen.calls > seen.longest
        assert len(ready(resumed)) == 200


async def test_a_union_of_hundreds_is_composed_in_portions() -> None:
    """D15: its parts are begun, and let go of, a few at a time."""
    request = SubscribeRequest[Health](interests=[Interest(HEALTH, f"s{number}") for number in range(600)])
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(request)
        with stretches() as seen:
            await quiet()
        assert kinds(ready(subscription)) == ["eos@1"]
        assert seen.longest < FEW
        assert seen.calls > 6 * seen.longest


async def test_a_refresh_of_a_topic_that_thousands_ask_for_in_ways_of_their_own_is_made_in_portions() -> None:
    """D15: what is looked for in each of their feeds is looked for when they leave."""
    async with opened(index=1) as (_, publisher):
        readers = [
            publisher.subscribe(SubscribeRequest(HEALTH, f"s{number}", prefix=True, index=1))
            for number in range(MANY)
        ]
        await quiet()
        with stretches() as seen:
            publisher.refresh(HEALTH)
            await quiet()
        assert seen.longest < FEW
        later = publisher.subscribe(SubscribeRequest(HEALTH, "s1", prefix=True))
        assert kinds(await until_live(later)) == ["eos@1"]
        publisher.publish([event(2, "s1")])
        assert kinds([await later.receive()]) == ["2:s1=ok"]
        with pytest.raises(SubscriptionForceClosed):
            readers[1].receive_nowait()
