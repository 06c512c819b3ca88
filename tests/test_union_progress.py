"""D21: a reader of several interests gets on beside a writer that never rests."""

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Health, event

from trio_stream import Event, SnapshotAppender, SubscribeRequest, open_publisher

pytestmark = pytest.mark.anyio

KEYS = 20
COMMITS = 1_000


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
