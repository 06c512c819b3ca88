"""Nobody resumes over a refresh: who held the newest commit before it does not hold the state after it."""

import pytest
from catalogue import HEALTH, Health, event, kinds, until_live
from scenes import ALL, opened, settled

from trio_stream import SnapshotAppender, SubscribeRequest

pytestmark = pytest.mark.anyio


async def test_the_index_of_the_newest_commit_before_a_refresh_is_stale() -> None:
    """D6, D7."""
    async with opened() as (store, publisher):
        index = store.commit(("web", "ok"))
        publisher.refresh(HEALTH)
        request = SubscribeRequest(HEALTH, "web", index=index, epoch=publisher.epoch)
        received = await until_live(publisher.subscribe(request))
        assert kinds(received) == ["marker", "1:web=ok", "eos@1"]


async def test_the_index_of_a_snapshot_that_was_ahead_before_a_refresh_is_stale() -> None:
    """D6, D7: an index above all that is published is no reason to wait for it, if it is of the state before."""

    async def ahead(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot.append([event(9, "web")])
        return 12

    async with opened(ahead) as (_, publisher):
        before = publisher.subscribe(ALL)
        await until_live(before)
        publisher.refresh(HEALTH)
        after = publisher.subscribe(SubscribeRequest(HEALTH, index=12, epoch=publisher.epoch))
        assert await settled(after) == ["marker", "9:web=ok", "eos@12"]


async def test_a_snapshot_that_was_ahead_before_a_restore_does_not_make_later_indexes_stale() -> None:
    """D7: it was of the timeline that is over."""
    index = 50

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot.append([event(1, "web")])
        return index

    async with opened(handler) as (_, publisher):
        await until_live(publisher.subscribe(ALL))
        publisher.refresh()
        publisher.refresh(HEALTH)
        publisher.publish([event(1, "web")])
        publisher.publish([event(2, "web", "2")])
        again = publisher.subscribe(SubscribeRequest(HEALTH, index=1, epoch=publisher.epoch))
        assert await settled(again) == ["2:web=2"]
