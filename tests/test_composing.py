"""D1, D5, D22, D24: what may go wrong while a snapshot of several interests is put together, and does not."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
import pytest
from catalogue import HEALTH, JOBS, Health, event, kinds, ready, until_live
from scenes import quiet

from trio_stream import (
    CloseReason,
    Cursor,
    Event,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    Topic,
    open_publisher,
)

pytestmark = pytest.mark.anyio

HERE = "here"  # the epoch
BOTH = SubscribeRequest(HEALTH) | SubscribeRequest(JOBS)


@dataclass
class Made:
    """A snapshot function that gives what it was told, whatever the store may have."""

    index: int = 0
    mark: str = ""
    rows: Sequence[Event[Health]] = field(default_factory=list)

    async def __call__(self, _: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int | Cursor:
        index, mark = self.index, self.mark
        for row in self.rows:
            await snapshot.append([row])
        return Cursor(index, HERE, mark) if mark else index


def rows(count: int, topic: Topic[Health]) -> list[Event[Health]]:
    return [event(1, f"row{number}", topic=topic) for number in range(count)]


def marked(index: int, key: str, mark: str, *, topic: Topic[Health] = HEALTH) -> Event[Health]:
    return Event(topic, index, Health(key, f"{mark}"), mark=mark)


async def received(subscription: Subscription[Health]) -> list[str]:
    """Everything up to its end, and that."""
    events: list[Event[Health]] = []
    with pytest.raises(SubscriptionForceClosed) as raised:
        async for each in subscription:
            events.append(each)  # noqa: PERF401 - what raises would lose a comprehension
    return [*kinds(events), raised.value.reason.value]


async def test_after_the_stop_a_union_behind_cached_parts_is_read_with_all_behind_it() -> None:
    """D5: its parts were cached before the last commits, and its feed was made after them."""
    health, jobs = Made(1, rows=rows(63, HEALTH)), Made(1, rows=rows(63, JOBS))
    async with open_publisher({HEALTH: health, JOBS: jobs}, epoch=HERE, index=1) as publisher:
        for request in (SubscribeRequest(HEALTH), SubscribeRequest(JOBS)):
            async with publisher.subscribe(request) as subscription:
                await until_live(subscription)
        publisher.publish([event(2, "web")])
        publisher.publish([event(3, "web")])
        subscription = publisher.subscribe(BOTH)
        await quiet()
    assert (await received(subscription))[-4:] == ["eos@1", "2:web=ok", "3:web=ok", "stopped"]


async def test_what_is_newer_than_the_whole_is_not_in_it() -> None:
    """D1, D22: of a part that is ahead, the late events are passed, and not what comes behind them."""
    health, jobs = Made(5, rows=[event(5, "web", "five")]), Made(3)
    async with open_publisher({HEALTH: health, JOBS: jobs}, index=3) as publisher:
        async with publisher.subscribe(BOTH) as subscription:
            await quiet()
            for index in (4, 5, 6):
                publisher.publish([event(index, "web", str(index))])
            await quiet()
            assert kinds(ready(subscription)) == ["5:web=five", "eos@5", "6:web=6"]


async def test_a_part_behind_much_history_is_waited_for() -> None:
    """D15, D22: the feed of a prefix is filled in slices; nothing spins meanwhile."""
    health, jobs = Made(10, rows=[event(10, "web", "10")]), Made(1_000)
    async with open_publisher({HEALTH: health, JOBS: jobs}) as publisher:
        for index in range(1, 1_001):
            publisher.publish([event(index, "web", str(index))])
        union = SubscribeRequest(HEALTH, "w", prefix=True) | SubscribeRequest(JOBS)
        async with publisher.subscribe(union) as subscription:
            await quiet()
            got = kinds(ready(subscription))
            assert got == [*[f"{index}:web={index}" for index in range(10, 1_001)], "eos@1000"]


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_part_that_begins_anew_with_very_much_is_not_waited_for(on_lag: str) -> None:
    """D21, D24: its snapshot function waits for a reader, and the whole waited for that: nobody would go on."""
    health, jobs = Made(2, "false", [marked(1, "web", "false")]), Made(1, "one")
    async with open_publisher({HEALTH: health, JOBS: jobs}, epoch=HERE, index=1, mark="one") as publisher:
        union = publisher.subscribe(BOTH, on_lag="reset" if on_lag == "reset" else "close")
        await quiet()
        health.index, health.mark = 2, "true"
        health.rows = [marked(2, f"row{number}", "true") for number in range(3_000)]
        publisher.publish([marked(2, "web", "true")])
        with anyio.fail_after(20):  # there is nothing to wait for
            if on_lag == "reset":
                events = await union.receive_until_current()
                assert (events[0].is_new_snapshot_to_follow, len(events)) == (True, 3_002)
            else:
                with pytest.raises(SubscriptionLagged):
                    await union.receive_until_current()


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_batch_ends_where_a_snapshot_turns_out_to_be_of_another_copy(on_lag: str) -> None:
    """D5, D24: the marker comes next, and not the snapshot behind it."""
    health = Made(2, "false", [marked(1, "web", "false")])
    async with open_publisher({HEALTH: health}, epoch=HERE, index=1, mark="one") as publisher:
        slow = publisher.subscribe(SubscribeRequest(HEALTH), on_lag="reset" if on_lag == "reset" else "close")
        await quiet()
        health.index, health.mark, health.rows = 2, "true", [marked(2, "db", "true")]
        publisher.publish([marked(2, "db", "true")])
        async with publisher.subscribe(SubscribeRequest(HEALTH)) as subscription:
            await until_live(subscription)  # so that the snapshot behind the marker is whole
        assert kinds(await slow.receive_batch()) == ["1:web=false"]
        assert kinds(await slow.receive_batch()) == ["marker", "2:db=true", "eos@2"]


async def test_a_snapshot_of_another_copy_is_found_out_although_its_mark_is_forgotten() -> None:
    """D24: it is judged when its index is published, not when its reader comes to its end."""
    health, jobs = Made(2, "false", [marked(1, "web", "false")]), Made(1, "one")
    async with open_publisher(
        {HEALTH: health, JOBS: jobs}, epoch=HERE, index=1, mark="one", history=2
    ) as publisher:
        slow = publisher.subscribe(SubscribeRequest(HEALTH))
        await quiet()
        health.index, health.mark, health.rows = 2, "two", [marked(2, "db", "two")]
        for index in range(2, 9):
            publisher.publish([marked(index, "x", "two", topic=JOBS)])
        await quiet()
        assert kinds(ready(slow)) == ["1:web=false", "marker"]
        assert kinds(await until_live(slow)) == ["2:db=two", "eos@2"]


async def test_a_right_cursor_is_good_although_its_mark_is_forgotten_when_its_reader_looks() -> None:
    """D7: one that is ahead is judged when its index is published."""
    async with open_publisher({HEALTH: Made(), JOBS: Made()}, epoch=HERE, history=1) as publisher:
        publisher.publish([], index=1, mark="one")
        request = SubscribeRequest(HEALTH).after(Cursor(2, HERE, "two"))
        subscription = publisher.subscribe(request)
        for index, mark in ((2, "two"), (3, "three"), (4, "four")):
            publisher.publish([marked(index, "x", mark, topic=JOBS)])
        publisher.publish([marked(5, "web", "five")])
        assert kinds([await subscription.receive()]) == ["5:web=five"]


async def test_a_cursor_keeps_the_mark_of_the_snapshot_although_another_commit_has_its_index_since() -> None:
    """D24: who comes back with it is told, and not resumed."""
    health = Made(2, "false", [marked(1, "web", "false")])
    async with open_publisher({HEALTH: health}, epoch=HERE, index=1, mark="one") as publisher:
        async with publisher.subscribe(SubscribeRequest(HEALTH)) as subscription:
            await until_live(subscription)
            publisher.publish([marked(2, "web", "true")])
            assert subscription.cursor == Cursor(2, HERE, "false")
            request = subscription.resume_request()
        health.mark, health.rows = "true", [marked(2, "web", "true")]
        async with publisher.subscribe(request) as subscription:
            assert (await subscription.receive()).is_new_snapshot_to_follow


async def test_a_whole_snapshot_that_is_ahead_is_read_at_once_although_the_publisher_stops() -> None:
    """D5: to its end. What is not published yet is not waited for."""
    health = Made(3, "three", [marked(3, "web", "three")])
    async with open_publisher({HEALTH: health}, epoch=HERE, index=1, mark="one") as publisher:
        subscription = publisher.subscribe(SubscribeRequest(HEALTH))
        reads_now = publisher.subscribe(SubscribeRequest(HEALTH))
        assert kinds(await reads_now.receive_until_current()) == ["3:web=three", "eos@3"]
        await quiet()
    assert kinds(await subscription.receive_until_current()) == ["3:web=three", "eos@3"]
    with pytest.raises(SubscriptionForceClosed) as raised:
        await subscription.receive()
    assert raised.value.reason is CloseReason.STOPPED
