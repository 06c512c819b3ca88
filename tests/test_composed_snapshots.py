"""Snapshots that are composed of others while commits come: as of one index, and with nothing from after it."""

from functools import partial

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, kinds
from scenes import quiet

from trio_stream import SnapshotAppender, SnapshotHandlers, SubscribeRequest, open_publisher
from trio_stream.testing import collect

pytestmark = pytest.mark.anyio

BOTH = SubscribeRequest(HEALTH) | SubscribeRequest(JOBS)


@pytest.mark.parametrize("turns", range(8))
async def test_a_commit_that_comes_with_the_last_part_is_delivered_once(turns: int) -> None:
    """D22, D3: it wakes the reader of another part, and the index is settled before that has its turn.

    Which of two tasks has its turn first is by chance on trio.
    """
    for _ in range(8):
        store, go = Catalogue(), anyio.Event()

        async def late(
            store: Catalogue, go: anyio.Event, _: SubscribeRequest[Health], __: SnapshotAppender[Health]
        ) -> int:
            await go.wait()
            return store.index

        handlers: SnapshotHandlers = {HEALTH: store.snapshot, JOBS: partial(late, store, go)}
        async with open_publisher(handlers, snapshot_cache_ttl=0) as publisher:
            store.publisher = publisher
            async with publisher.subscribe(BOTH) as subscription:
                store.commit(("web", "a"))
                await quiet()
                go.set()
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                store.commit(("web", "b"))
                received = kinds(await collect(subscription, upto=2))
        assert received in (["1:web=a", "eos@1", "2:web=b"], ["1:web=a", "2:web=b", "eos@2"])
