"""A snapshot that is of no use to anybody is neither kept nor handed to the next who asks."""

import gc
import weakref

import anyio
import pytest
from catalogue import HEALTH, event, until_live
from scenes import ALL, Heavy, opened, quiet

from trio_stream import Event, SnapshotAppender, SubscribeRequest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("all_topics", [False, True])
async def test_a_refresh_frees_the_cached_snapshots_at_once(all_topics: bool) -> None:
    """D11, D13: although their time in the cache is not over."""
    payloads: list[weakref.ref[Heavy]] = []

    async def handler(request: SubscribeRequest[Heavy], snapshot: SnapshotAppender[Heavy]) -> int:
        heavy = Heavy()
        payloads.append(weakref.ref(heavy))
        await snapshot.append([Event(HEALTH, 1, heavy)])
        return 1

    async with opened(handler, snapshot_cache_ttl=3600) as (_, publisher):  # type: ignore[arg-type]
        for _ in range(2):
            async with publisher.subscribe(ALL) as subscription:
                while not (await subscription.receive()).is_end_of_snapshot:
                    pass
            publisher.refresh(None if all_topics else HEALTH)
        gc.collect()
        assert [payload() for payload in payloads] == [None, None]


async def test_who_comes_later_does_not_share_the_fate_of_a_reader_that_stalls_inside_a_snapshot() -> None:
    """D10: the history is about to pass the snapshot at which that one stands."""

    async def handler(request: SubscribeRequest[object], snapshot: SnapshotAppender[object]) -> int:
        index = publisher.index
        for number in range(3000):
            await snapshot.append([event(index, f"key-{number}")])
        return index

    async with opened(handler, history=3) as (_, publisher):  # type: ignore[arg-type]
        for index in range(1, 6):
            publisher.publish([event(index, "web")])
        stalled = publisher.subscribe(ALL)
        await quiet()
        for index in range(6, 9):
            publisher.publish([event(index, "web")])
        prompt = publisher.subscribe(ALL)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until_live, prompt)
            publisher.publish([event(9, "web")])
        assert prompt.index >= 8
        assert stalled.index == 0
