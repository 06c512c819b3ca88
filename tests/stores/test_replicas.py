"""Stores of several places, one of which may be behind: a snapshot waits for it, and does not fail."""

from collections.abc import Callable
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from stores.clocks import Clock
from stores.engines import Plain
from stores.readers import end_of, until_index
from stores.storehouse import ALL_JOBS, commit_each, kinds, receive, until_live
from typing_extensions import override

from trio_stream import Cursor, SnapshotAppender, SnapshotFailed, SubscribeRequest
from trio_stream.stores import BehindError, EpochIndex, Head, Record, Store, StoreError, open_store_publisher

pytestmark = pytest.mark.anyio


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)


class KnowsThatItIsBehind(Plain):
    """By what it has given before, as an engine with anchors does."""

    def __init__(self, store: Store, *, times: int, wrapped: Callable[[StoreError], Exception]) -> None:
        super().__init__(store)
        self.times = times
        self.wrapped = wrapped
        self.asked = 0

    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        self.asked += 1
        if self.asked <= self.times:
            raise self.wrapped(BehindError("jobs.db: the replica is behind"))
        return await super().snapshot(request, snapshot)


def in_a_group(error: StoreError) -> Exception:
    return ExceptionGroup("tasks", [error])


@pytest.mark.parametrize("wrapped", [lambda error: error, in_a_group], ids=["plain", "in a group"])
async def test_a_snapshot_waits_for_a_replica_that_is_behind(
    store: Store, no_waits: None, wrapped: Callable[[StoreError], Exception]
) -> None:
    await commit_each(store, "a")
    engine = KnowsThatItIsBehind(store, times=3, wrapped=wrapped)
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a=a", "eos@1"]
    assert engine.asked == 4


async def test_a_replica_that_stays_behind_is_an_error_of_the_snapshot(store: Store, no_waits: None) -> None:
    engine = KnowsThatItIsBehind(store, times=1000, wrapped=in_a_group)
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            end = await end_of(subscription)
    assert isinstance(end, SnapshotFailed)
    assert isinstance(end.__cause__, BehindError)
    assert 1 < engine.asked < 20


class IsBehind(Plain):
    """And does not know it: it gives the state of before, and the head of that."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.by = 0
        self.questions = 0
        self.snapshots = 0
        # The question after which it is no longer behind.
        self.until = 0

    def is_behind_now(self) -> int:
        return self.by if self.questions < self.until else 0

    @override
    async def head(self) -> Head:
        self.questions += 1
        head = await super().head()
        return replace(
            head, index=head.index - self.is_behind_now(), mark="" if self.is_behind_now() else head.mark
        )

    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        self.snapshots += 1
        by = self.is_behind_now()
        reached = await super().snapshot(request, snapshot)
        assert isinstance(reached, EpochIndex)
        return EpochIndex(reached - by, reached.epoch, "" if by else reached.mark)


async def test_a_snapshot_waits_for_a_replica_that_was_seen_to_be_behind(
    store: Store, no_waits: None, clock: Clock
) -> None:
    await commit_each(store, "a", "b")
    engine = IsBehind(store)
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        engine.by, engine.until = 1, engine.questions + 30
        while engine.questions < engine.until - 4:
            await anyio.lowlevel.checkpoint()
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a=a", "2:b=b", "eos@2"]
    assert engine.questions >= engine.until
    assert engine.snapshots == 1


async def test_a_replica_that_gave_a_snapshot_of_before_is_asked_how_far_it_is_the_next_time(
    store: Store, no_waits: None
) -> None:
    await commit_each(store, "a", "b")
    engine = IsBehind(store)
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        engine.by, engine.until = 1, engine.questions + 5
        async with publisher.subscribe(ALL_JOBS) as subscription:
            end = await end_of(subscription)
            assert isinstance(end.__cause__, BehindError)
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a=a", "2:b=b", "eos@2"]
    assert engine.snapshots == 2


async def test_a_snapshot_of_a_little_before_is_completed_from_what_was_published(
    store: Store, no_waits: None
) -> None:
    """As far as the history reaches."""
    await commit_each(store, "a")
    engine = IsBehind(store)
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        await commit_each(store, "b", "c")
        await until_index(publisher, 3)
        engine.by, engine.until = 1, 1000
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription))[-1] == "eos@2"
            assert kinds([await receive(subscription)]) == ["3:c=c"]
