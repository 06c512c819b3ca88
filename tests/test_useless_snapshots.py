"""A snapshot that is of no use to anybody is neither kept nor handed to the next who asks."""

import gc
import weakref

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, event, kinds, until_live
from scenes import ALL, Heavy, opened, quiet

from trio_stream import Event, SnapshotAppender, SnapshotFailed, SubscribeRequest, SubscriptionLagged

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


@pytest.mark.parametrize(("behind", "runs"), [(2, 1), (3, 2)])
async def test_who_has_lagged_shares_a_cached_snapshot_with_half_of_the_history_behind_it(
    behind: int, runs: int
) -> None:
    """D11, D14: behind an older one it would soon lag again, and a newer one need not be made."""
    async with opened(history=4, index=1) as (store, publisher):
        slow = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), on_lag="reset")
        for index in range(2, 8):
            store.commit(("web", f"{index}"))
            if index == 7 - behind:
                await until_live(publisher.subscribe(SubscribeRequest(HEALTH, "web")))
        received = await until_live(slow)
        assert kinds(received) == ["marker", *kinds(received[1:-1]), f"eos@{7 - behind if runs == 1 else 7}"]
        assert store.runs == runs


@pytest.mark.parametrize("how", ["the topic is refreshed", "commits were lost"])
async def test_a_snapshot_from_before_what_was_refreshed_is_not_taken(how: str) -> None:
    """D1, D6: the store of the snapshot function is behind, and what it lacks will never be published."""

    async def handler(request: SubscribeRequest[object], snapshot: SnapshotAppender[object]) -> int:
        await anyio.lowlevel.checkpoint()
        return index

    async with opened(handler, index=1) as (_, publisher):  # type: ignore[arg-type]
        publisher.publish([event(5, "web")])
        if how == "the topic is refreshed":
            publisher.refresh(HEALTH)
        else:
            publisher.refresh(index=9, epoch=publisher.epoch)
        index = publisher.index - 1
        with pytest.raises(SnapshotFailed) as failed:
            await until_live(publisher.subscribe(ALL))
        assert isinstance(failed.value.__cause__, ValueError)
        index += 1
        assert kinds(await until_live(publisher.subscribe(ALL))) == [f"eos@{index}"]


@pytest.mark.parametrize("is_read", [False, True])
async def test_nothing_is_kept_of_a_snapshot_that_a_newer_one_has_replaced_in_the_cache(
    is_read: bool,
) -> None:
    """D11, D13: it is kept for who reads it, and no longer."""
    payloads: list[weakref.ref[Heavy]] = []

    async def handler(request: SubscribeRequest[Heavy], snapshot: SnapshotAppender[Heavy]) -> int:
        heavy = Heavy()
        payloads.append(weakref.ref(heavy))
        await snapshot.append([Event(HEALTH, publisher.index, heavy)])
        return publisher.index

    async with opened(handler, history=8, index=1, snapshot_cache_ttl=3600) as (_, publisher):  # type: ignore[arg-type]
        slow = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), on_lag="reset")
        publisher.publish([event(2, "web")])
        reader = publisher.subscribe(SubscribeRequest(HEALTH, "web"))
        await reader.receive()
        if not is_read:
            reader.unsubscribe()
        for index in range(3, 11):
            publisher.publish([event(index, "web")])
        await until_live(slow)
        gc.collect()
        assert [payload() is not None for payload in payloads] == [is_read, True]
        reader.unsubscribe()
        gc.collect()
        assert [payload() is not None for payload in payloads] == [False, True]


async def test_what_is_appended_to_a_snapshot_that_was_given_up_is_not_kept() -> None:
    """D11: its reader has not called since, and its snapshot function does not let itself be cancelled."""
    payloads: list[weakref.ref[Heavy]] = []
    is_done = anyio.Event()

    async def handler(request: SubscribeRequest[Heavy], snapshot: SnapshotAppender[Heavy]) -> int:
        with anyio.CancelScope(shield=True):
            for _ in range(2000):
                heavy = Heavy()
                payloads.append(weakref.ref(heavy))
                await snapshot.append([Event(HEALTH, 1, heavy)])
        is_done.set()
        return 1

    async with opened(handler, history=2, index=1) as (_, publisher):  # type: ignore[arg-type]
        stalled = publisher.subscribe(SubscribeRequest(HEALTH, "web"))
        await quiet()
        for index in range(2, 6):
            publisher.publish([event(index, "web")])
        await is_done.wait()
        gc.collect()
        assert len(payloads) == 2000
        assert sum(payload() is not None for payload in payloads) <= 1  # the loop's own
        with pytest.raises(SubscriptionLagged):
            stalled.receive_nowait()
