"""D21: a reader of several interests gets on beside a writer that never rests."""

from typing import Literal

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Health, event
from scenes import quiet

from trio_stream import (
    Cursor,
    Event,
    SnapshotAppender,
    SubscribeRequest,
    SubscriptionLagged,
    open_publisher,
)

pytestmark = pytest.mark.anyio

KEYS = 20
COMMITS = 1_000
MANY = 4_000  # commits of so many events, which take many slices to look through
EACH = 8


@pytest.mark.parametrize("history", [32, 64])
async def test_with_reset_snapshots_become_whole_although_the_history_is_short(history: int) -> None:
    """D21, D22: one commit in each turn of the event loop, and a reader that takes one delivery in four."""
    state: dict[str, Event[Health]] = {}

    async def snapshot_of(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        index = publisher.index
        for each in list(state.values()):
            await snapshot.append([each] if request.topic == HEALTH else [])
        return index

    whole = 0

    async def read() -> None:
        nonlocal whole
        request = SubscribeRequest(HEALTH, "k1", prefix=True) | SubscribeRequest(JOBS)
        async with publisher.subscribe(request, on_lag="reset") as subscription:
            while True:
                whole += (await subscription.receive()).is_end_of_snapshot
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()

    async with open_publisher({HEALTH: snapshot_of, JOBS: snapshot_of}, history=history) as publisher:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for number in range(COMMITS):
                changed = event(publisher.next_index, f"k{number % KEYS}")
                state[f"k{number % KEYS}"] = changed
                publisher.publish([changed])
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert whole > 2


async def test_a_part_that_has_to_be_filled_in_is_waited_for() -> None:
    """D1, D22: its snapshot is older than what was published when it was asked for, and nobody has read it before."""

    held = anyio.Event()

    async def oldest(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot.append([])
        if request.topic == HEALTH:  # the last part, so that it is not filled in when all have been made
            await held.wait()
        return 0

    async with open_publisher({HEALTH: oldest, JOBS: oldest}) as publisher:
        for index in range(1, MANY):
            rows = [event(index, f"k{number}") for number in range(EACH)]
            publisher.publish([*rows, event(index, "db", topic=JOBS)])
        request = SubscribeRequest(HEALTH, "k", prefix=True) | SubscribeRequest(JOBS, "d", prefix=True)
        async with publisher.subscribe(request) as subscription:
            await quiet()
            held.set()
            events = await subscription.receive_until_current()
    assert events[-1].index == MANY - 1
    subjects = [payload.subject for each in events for payload in each.payloads]
    assert len(subjects) == (EACH + 1) * (MANY - 1)


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_part_that_turns_out_to_be_of_another_copy_while_another_part_is_made(
    on_lag: Literal["close", "reset"],
) -> None:
    """D22, D24: nothing of it is kept; who reads the union begins again, or is told that it has to."""
    answers = [Cursor(2, "e", "false")]
    held = anyio.Event()

    async def health(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        cursor = answers.pop() if answers else publisher.cursor
        await snapshot.append([event(1, "web", cursor.mark)])
        return cursor

    async def jobs(_: SubscribeRequest[Health], __: SnapshotAppender[Health]) -> Cursor:
        await held.wait()
        return publisher.cursor

    async with open_publisher({HEALTH: health, JOBS: jobs}, epoch="e", index=1, mark="one") as publisher:
        request = SubscribeRequest(HEALTH) | SubscribeRequest(JOBS)
        async with publisher.subscribe(request, on_lag=on_lag) as subscription:
            await quiet()
            publisher.publish([event(2, "db")], mark="two")
            await quiet()
            held.set()
            if on_lag == "close":
                with pytest.raises(SubscriptionLagged):
                    await subscription.receive_until_current()
            else:
                received = await subscription.receive_until_current()
                assert received[0].is_new_snapshot_to_follow
                assert [payload.value for payload in received[1].payloads] == ["two"]
                assert received[-1].index == 2
