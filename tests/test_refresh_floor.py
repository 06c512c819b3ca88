"""Nobody resumes over a refresh: who held the newest commit before it does not hold the state after it."""

import pytest
from catalogue import HEALTH, Health, event, kinds, ready, until_live
from logged import after, filled, indexes, logged, until
from scenes import ALL, opened, quiet, settled

from trio_stream import SnapshotAppender, SubscribeRequest, Topic

OTHERS = Topic[Health]("others")

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


async def test_the_floor_does_not_fall_when_the_history_moves_on() -> None:
    """U28, D7: the first commit that it drops is older than the refresh."""
    async with opened(history=2) as (store, publisher):
        for value in "123":
            store.commit(("web", value))
        ahead = publisher.index + 5

        async def snapshot(request: SubscribeRequest[Health], appender: SnapshotAppender[Health]) -> int:
            return max(ahead, publisher.index)

        publisher.register_handler(OTHERS, snapshot)
        await until_live(publisher.subscribe(SubscribeRequest(OTHERS)))
        publisher.refresh(OTHERS)
        floors = [publisher.statistics().topics["others"].floor]
        for index in range(4, 12):
            publisher.publish([event(index, "web", topic=OTHERS)])
            floors.append(publisher.statistics().topics["others"].floor)
            stale = SubscribeRequest(OTHERS, index=min(ahead, floors[0] - 1), epoch=publisher.epoch)
            assert await settled(publisher.subscribe(stale)) != []
        assert floors[0] == ahead + 1
        assert floors == sorted(floors)


async def test_the_floor_does_not_fall_when_commits_are_lost() -> None:
    """U28, D7: the same epoch goes on, and so does what was refreshed in it."""
    async with opened(index=5) as (store, publisher):
        store.commit(("web", "6"))
        publisher.refresh(HEALTH)
        floor = publisher.statistics().topics["health"].floor
        assert floor == 7
        publisher.refresh(index=6, epoch=publisher.epoch)
        assert publisher.statistics().topics["health"].floor == floor
        stale = SubscribeRequest(HEALTH, "web", index=6, epoch=publisher.epoch)
        assert (await settled(publisher.subscribe(stale)))[0] == "marker"


async def test_a_new_epoch_begins_with_a_floor_of_its_own() -> None:
    """D7: a snapshot that was ahead on the timeline before is nobody's any more (U25)."""

    async def ahead(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        return publisher.index + 40

    async with opened(ahead, index=5) as (_, publisher):
        await until_live(publisher.subscribe(ALL))
        publisher.refresh(index=2)
        publisher.refresh(HEALTH)
        assert publisher.statistics().topics["health"].floor == 3


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


async def test_the_index_of_a_replay_that_was_ahead_before_a_refresh_is_stale() -> None:
    """D7: the log knew what was not published yet."""
    async with logged(filled(9, size=20)) as (store, publisher):
        store.publisher = None
        store.fill(5)
        reader = publisher.subscribe(after(store, 2))
        assert indexes(await until(reader, 14)) == [*range(3, 15)]
        await quiet()
        ready(reader)
        request = reader.resume_request()
        assert request.index == 14
        publisher.refresh(HEALTH)
        assert (await publisher.subscribe(request).receive()).is_new_snapshot_to_follow
