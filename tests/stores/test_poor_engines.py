"""U21: whatever an engine does, no round of the feed is without a wait, and little is logged.

Time does not matter here: a test counts how often the feed asks the engine for changes, and how often it has waited.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import anyio
import pytest
from stores.engines import Stepping
from stores.readers import cursors
from stores.storehouse import ALL_JOBS, PATIENCE, commit_each, kinds, put, receive, until_live
from typing_extensions import override

from trio_stream import CloseReason, Cursor, EventPublisher, SubscriptionForceClosed
from trio_stream.stores import Commit, Head, HistoryLostError, Store, StoreError, open_store_publisher

pytestmark = pytest.mark.anyio

MANY = 30  # rounds


@dataclass
class Waits:
    """The bounds of the waits of the feed, which take no time."""

    bounds: list[float]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    waits = Waits([])

    def uniform(low: float, high: float) -> float:
        assert low == 0
        waits.bounds.append(high)
        return 0.0

    monkeypatch.setattr("random.uniform", uniform)
    return waits


class EndsAtOnce(Stepping):
    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        raise StopAsyncIteration


class FailsAtOnce(Stepping):
    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        raise StoreError("jobs.db: on fire")


class FailsInAGroup(Stepping):
    """As an engine with tasks of its own does."""

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        raise ExceptionGroup("tasks", [ExceptionGroup("tasks", [StoreError("jobs.db: on fire")])])


class FailsOnEntering(Stepping):
    @override
    def enter(self, after: int) -> None:
        raise ExceptionGroup("tasks", [StoreError("jobs.db: on fire")])


class LosesHistory(Stepping):
    """And has it, if one believes the rest that it says."""

    @override
    def enter(self, after: int) -> None:
        raise HistoryLostError(after, 0, "whatever")


class LosesHistoryThatItHas(Stepping):
    epoch: str

    @override
    async def head(self) -> Head:
        head = await super().head()
        self.epoch = head.epoch
        return head

    @override
    def enter(self, after: int) -> None:
        raise HistoryLostError(after, after, self.epoch)


class LosesMoreHistoryEachTime(LosesHistoryThatItHas):
    @override
    def enter(self, after: int) -> None:
        raise HistoryLostError(after, after + 1, self.epoch)


class RepeatsItself(Stepping):
    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        return Commit(after, (put("again"),))


class IsTwoStores(Stepping):
    """As one behind a load balancer might be."""

    asked = 0

    @override
    async def head(self) -> Head:
        self.asked += 1
        head = await super().head()
        return replace(head, epoch=f"{self.asked // 3}") if self.rounds else head

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        raise StopAsyncIteration


class IsBehind(Stepping):
    """A replica: what it has is older than what it has given."""

    @override
    async def head(self) -> Head:
        head = await super().head()
        return replace(head, index=0) if self.rounds > 1 else head

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        raise StopAsyncIteration


POOR = [
    EndsAtOnce,
    FailsAtOnce,
    FailsInAGroup,
    FailsOnEntering,
    LosesHistory,
    LosesHistoryThatItHas,
    LosesMoreHistoryEachTime,
    RepeatsItself,
    IsTwoStores,
    IsBehind,
]


class Switched(Stepping):
    """A good engine until it is told to be the poor one."""

    def __init__(self, store: Store, poor: Stepping) -> None:
        super().__init__(store)
        self.poor = poor
        self.is_poor = False

    @override
    async def head(self) -> Head:
        return await (self.poor if self.is_poor else self.store).head()

    @override
    def enter(self, after: int) -> None:
        if self.is_poor:
            self.poor.rounds = self.rounds
            self.poor.enter(after)

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        if self.is_poor:
            return await self.poor.step(commits, after)
        commit = await anext(commits)
        if self.is_poor:  # while this has waited
            raise StoreError("jobs.db: begins to be poor")
        return commit


@pytest.mark.parametrize("kind", POOR, ids=[kind.__name__ for kind in POOR])
async def test_no_round_without_progress_is_without_a_wait_and_little_is_logged(
    store: Store, kind: type[Stepping], waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    await store.commit([put("first")])
    engine = Switched(store, kind(store))
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        engine.is_poor = True
        await store.commit([put("a")])
        await engine.wait_rounds(MANY)
        assert len(waits.bounds) >= MANY - 3
        assert waits.bounds[-1] == 5.0
        assert len(caplog.records) <= 11
        # And it goes on when the engine is a good one again.
        engine.is_poor = False
        with anyio.fail_after(PATIENCE):
            while (index := (await store.head()).index) > publisher.index or not await is_live(
                publisher, index
            ):
                await store.commit([put("b")])


async def is_live(publisher: EventPublisher, index: int) -> bool:
    """Whether a subscriber gets the state of this index."""
    try:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            return (await until_live(subscription))[-1].index >= index
    except SubscriptionForceClosed:
        return False


async def test_an_engine_that_ends_after_each_commit_is_followed_without_delay(
    store: Store, waits: Waits
) -> None:
    """Only what brings nothing is waited for."""

    class EndsAfterOne(Stepping):
        @override
        def enter(self, after: int) -> None:
            self.given = 0

        @override
        async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
            self.given += 1
            if self.given == 2:
                raise StopAsyncIteration
            return await super().step(commits, after)

    engine = EndsAfterOne(store)
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            keys = [f"{number}" for number in range(1, MANY)]
            await commit_each(store, *keys)
            assert kinds([await receive(subscription) for _ in keys]) == [f"{n}:{n}={n}" for n in keys]
    assert waits.bounds == []
    assert engine.rounds >= MANY - 1


async def test_errors_between_commits_are_waited_out_with_the_first_bound(store: Store, waits: Waits) -> None:
    """And nothing is lost, nor twice."""

    class FailsAfterOne(Stepping):
        @override
        def enter(self, after: int) -> None:
            self.given = 0

        @override
        async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
            self.given += 1
            if self.given == 2:
                raise ExceptionGroup("tasks", [StoreError("jobs.db: on fire")])
            return await super().step(commits, after)

    async with open_store_publisher(FailsAfterOne(store), ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            keys = [f"{number}" for number in range(1, MANY)]
            await commit_each(store, *keys)
            assert kinds([await receive(subscription) for _ in keys]) == [f"{n}:{n}={n}" for n in keys]
    assert len(waits.bounds) >= MANY - 2
    assert set(waits.bounds) == {0.1}


class ForgetsItsFloor(Stepping):
    """Its head does not know of a compaction."""

    @override
    async def head(self) -> Head:
        return replace(await super().head(), floor=0)


async def test_a_compaction_of_which_the_head_does_not_know_is_passed(store: Store, waits: Waits) -> None:
    """The floor of the error is where the feed goes on."""

    class Fails(ForgetsItsFloor):
        failing = False

        @override
        async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
            commit = await super().step(commits, after)
            if self.failing:
                self.failing = False
                await committed.wait()
                places.extend(await cursors(store))
                await store.compact(3)
                raise StoreError("jobs.db: on fire")
            return commit

    places: list[Cursor] = []
    committed = anyio.Event()
    engine = Fails(store)
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            engine.failing = True
            await store.commit([put("a")])
            await commit_each(store, "b", "c", "d")
            committed.set()
            with pytest.raises(SubscriptionForceClosed) as closed:
                while True:
                    await receive(subscription)
            assert closed.value.reason is CloseReason.REFRESH
        async with publisher.subscribe(subscription.resume_request()) as subscription:
            assert kinds(await until_live(subscription))[-1] == "eos@4"
            await store.commit([put("e")])
            assert (await receive(subscription)).index == 5
        async with publisher.subscribe(ALL_JOBS.after(places[1])) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]
        async with publisher.subscribe(ALL_JOBS.after(places[2])) as subscription:
            assert kinds([await receive(subscription)]) == ["4:d=d"]
    assert len(waits.bounds) < 5


async def test_a_publisher_begins_behind_a_compaction_of_which_the_head_does_not_know(store: Store) -> None:
    await commit_each(store, "a", "b", "c")
    places = await cursors(store)
    await store.compact(2)
    async with open_store_publisher(ForgetsItsFloor(store), ["jobs"]) as publisher:
        assert publisher.index == 3
        for place, is_stale in zip(places, (True, False, False), strict=True):
            async with publisher.subscribe(ALL_JOBS.after(place)) as subscription:
                assert bool(await subscription.receive_until_current()) is (place.index < 3)
            assert (subscription.statistics().delivered > 1) is is_stale


@pytest.mark.parametrize("kind", [FailsOnEntering, LosesHistory])
async def test_an_engine_that_is_poor_from_the_beginning_is_an_error_of_the_block(
    store: Store, kind: type[Stepping], waits: Waits
) -> None:
    await commit_each(store, "a")
    with pytest.raises(StoreError):
        async with open_store_publisher(kind(store), ["jobs"]):
            pytest.fail("there is nothing to publish")


async def test_an_error_that_is_not_of_the_store_leaves_the_block(store: Store) -> None:
    """Also when one of the store is with it."""

    class HasAFault(Stepping):
        @override
        async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
            await super().step(commits, after)
            raise ExceptionGroup("tasks", [StoreError("jobs.db: on fire"), KeyError("a fault")])

    with pytest.raises(ExceptionGroup) as caught:
        async with open_store_publisher(HasAFault(store), ["jobs"]):
            await store.commit([put("a")])
            await anyio.sleep_forever()
    assert caught.group_contains(KeyError)


async def test_a_store_that_fails_while_it_is_cancelled_does_not_keep_the_block(store: Store) -> None:
    class FailsInTheEnd(Stepping):
        @override
        async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
            async def fail() -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    raise StoreError("jobs.db: on fire")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
                waiting.set()
                await anyio.sleep_forever()
            raise AssertionError

    waiting = anyio.Event()
    async with open_store_publisher(FailsInTheEnd(store), ["jobs"]):
        with anyio.fail_after(PATIENCE):
            await waiting.wait()
        await anyio.wait_all_tasks_blocked()
