"""D5, D6: what readers of several interests, and of cursors that are not judged, get when the publisher stops."""

from dataclasses import dataclass

import anyio
import anyio.lowlevel
import pytest

from trio_stream import (
    CloseReason,
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    SubscriptionForceClosed,
    Topic,
    open_publisher,
)

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Row:
    """A payload."""

    subject: str


ROWS = Topic[Row]("rows")
A_TO_Z = SubscribeRequest(ROWS, "a", prefix=True)


def commit(index: int, key: str = "ab") -> list[Event[Row]]:
    return [Event(ROWS, index, Row(key))]


async def test_a_snapshot_behind_the_newest_commit_is_read_after_the_stop_with_all_behind_it() -> None:
    """D5: a whole one is read to its end, and then what was published before and after it was made."""

    async def older(_: SubscribeRequest[Row], snapshot: SnapshotAppender[Row]) -> int:
        await snapshot.append(commit(1))
        return 1

    async with open_publisher({ROWS: Source(older, wide=True)}) as publisher:
        for index in range(1, 4):
            publisher.publish(commit(index))
        subscription = publisher.subscribe(A_TO_Z)
        while not subscription.statistics().lag >= 2:
            await anyio.lowlevel.checkpoint()
    events = [await subscription.receive() for _ in range(4)]
    assert [event.index for event in events] == [1, 1, 2, 3]
    assert events[1].is_end_of_snapshot
    with pytest.raises(SubscriptionForceClosed) as raised:
        await subscription.receive()
    assert (raised.value.reason, raised.value.index) == (CloseReason.STOPPED, 3)
    assert subscription.cursor.index == 3


async def test_the_same_while_the_publisher_runs_gets_what_was_published_before_it_asked() -> None:
    """D3, D8: a reader of a prefix is given the commits behind an old snapshot, each once."""

    async def older(_: SubscribeRequest[Row], snapshot: SnapshotAppender[Row]) -> int:
        await snapshot.append(commit(1))
        return 1

    async with open_publisher({ROWS: Source(older, wide=True)}) as publisher:
        for index in range(1, 4):
            publisher.publish(commit(index, "ab" if index != 2 else "b"))
        async with publisher.subscribe(A_TO_Z) as subscription:
            events = await subscription.receive_until_current()
            publisher.publish(commit(4))
            events = [*events, await subscription.receive()]
    assert [event.index for event in events] == [1, 1, 3, 4]


@pytest.mark.parametrize("mark", ["right", "wrong"])
async def test_a_cursor_that_was_not_judged_before_the_stop_gets_no_marker(mark: str) -> None:
    """D5, D7: it ends as stopped; the right one after what was published."""

    async def nothing(_: SubscribeRequest[Row], __: SnapshotAppender[Row]) -> int:
        return 0

    publisher: EventPublisher
    async with open_publisher({ROWS: nothing}) as publisher:
        publisher.publish(commit(1), mark="one")
        ahead = publisher.subscribe(SubscribeRequest(ROWS).after(Cursor(2, publisher.epoch, mark)))
        never = publisher.subscribe(SubscribeRequest(ROWS).after(Cursor(9, publisher.epoch, mark)))
        publisher.publish(commit(2), mark="right")
        publisher.publish(commit(3), mark="three")
    got: list[int] = []
    with pytest.raises(SubscriptionForceClosed) as raised:
        while True:
            got.append((await ahead.receive()).index)
    assert raised.value.reason is CloseReason.STOPPED
    assert got == ([3] if mark == "right" else [])
    with pytest.raises(SubscriptionForceClosed) as raised:
        await never.receive()
    assert raised.value.reason is CloseReason.STOPPED
    assert never.resume_request().index == 9
