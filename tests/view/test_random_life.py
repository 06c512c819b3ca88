"""The whole of it, through a view: whatever happens, what it shows is what was true at the index that it says."""

import random
from itertools import count
from typing import Any

import anyio
import pytest
from backends import in_virtual_time
from catalogue import HEALTH, JOBS, Catalogue, Health, event
from scenes import ALL, WEB, opened
from view.wires import HealthView, values, viewing

from trio_stream import SnapshotAppender, SubscribeRequest, Subscription
from trio_stream.view import EpochChanged, Frozen, Status

KEYS = ("web", "db", "api")
REQUESTS = [ALL, WEB, SubscribeRequest(HEALTH, "db", token="t"), SubscribeRequest(HEALTH, token="t")]
WIDE = [
    ALL | SubscribeRequest(JOBS),
    WEB | SubscribeRequest(JOBS, "db"),
    WEB | SubscribeRequest(HEALTH, "db"),
    SubscribeRequest(HEALTH, "w", prefix=True, token="t"),
    SubscribeRequest(HEALTH, "a", prefix=True, token="t") | SubscribeRequest(JOBS, token="t"),
]


def truth(store: Catalogue, index: int, request: SubscribeRequest[Health]) -> dict[Any, str | None]:
    """What a view of the request must show at an index."""
    newest = max(known for known in store.states if known <= index)
    rows = {
        (topic, subject.namespace, subject.key): value
        for topic, state in store.states[newest].items()
        for subject, value in state.items()
        if request.covers(topic, subject)
    }
    is_one_topic = len({interest.topic for interest in request.interests}) == 1
    return {place[2] if is_one_topic else place: value for place, value in rows.items()}


class World:
    """Three writers and a publisher with trouble; views that open and close, and check all that they show."""

    def __init__(self, seed: int, most: float, *, is_wide: bool = False) -> None:
        self.is_wide = is_wide
        self.rng = random.Random(seed)
        self.most = most  # seconds that anybody pauses; 0 is only a checkpoint
        self.is_over = False
        self.checked = 0
        self.waits = 0
        self.resets = 0

    async def run(self, *, ttl: float) -> None:
        history = 64 if self.is_wide else 16  # to compose takes longer
        async with opened(self.snapshot, snapshot_cache_ttl=ttl, history=history) as (
            self.store,
            self.publisher,
        ):
            async with anyio.create_task_group() as viewing_:
                for number in range(8):
                    viewing_.start_soon(self.view, random.Random(f"{self.rng.random()} {number}"))
                async with anyio.create_task_group() as writing:
                    for _ in range(3):
                        writing.start_soon(self.write, random.Random(self.rng.random()), 67)
                    writing.start_soon(self.trouble)
                self.is_over = True
            left = self.publisher.statistics()
            assert (left.subscriptions, left.waiting, left.tokens) == (0, 0, 0)
        assert self.store.index >= 200

    @property
    def has_shown_enough(self) -> bool:
        """Until then the writers go on: a view that was unlucky at first connects again after a while."""
        return self.checked > 100 and self.waits > 3

    async def pause(self, rng: random.Random) -> None:
        await anyio.sleep(self.most * rng.random() ** 3)

    async def write(self, rng: random.Random, commits: int) -> None:
        for number in count():
            if number >= commits and self.has_shown_enough:
                return
            for _ in range(rng.choice([1, 1, 2, 8])):
                keys = rng.choice([("web",), ("db",), ("web", "db"), KEYS])
                index = self.store.index + 1
                topics = (
                    rng.choice([(HEALTH,), (JOBS,), (HEALTH, JOBS), (JOBS, HEALTH)])
                    if self.is_wide
                    else (HEALTH,)
                )
                self.store.commit_events(
                    event(index, key, rng.choice([None, f"{index}"]), topic=topic)
                    for topic in topics
                    for key in keys
                )
            for _ in range(rng.choice([1, 2, 6])):
                await self.pause(rng)

    async def trouble(self) -> None:
        """Rights that change, topics that are refreshed, stores that are replaced."""
        for _ in range(12):
            for _ in range(12):
                await self.pause(self.rng)
            match self.rng.randrange(4):
                case 0:
                    self.publisher.refresh(HEALTH)
                case 1:
                    self.publisher.refresh(index=self.store.index)
                case _:
                    self.publisher.close_subscriptions(["t"])

    async def snapshot(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await self.pause(self.rng)
        index = await self.store.snapshot(request, snapshot)
        await self.pause(self.rng)
        if self.rng.random() < (0.02 if self.is_wide else 0.1):
            raise LookupError("the store is not ready")
        return index

    async def view(self, rng: random.Random) -> None:
        while not self.is_over:
            request = rng.choice(WIDE if self.is_wide else REQUESTS)

            def connect(request: SubscribeRequest[Any], rng: random.Random = rng) -> Subscription[Any]:
                return self.publisher.subscribe(request, on_lag=rng.choice(["close", "reset"]))

            async with viewing(connect, request) as view, anyio.create_task_group() as tasks:
                tasks.start_soon(self.watch, view)
                tasks.start_soon(self.fold_changes, view)
                for _ in range(rng.randrange(8)):
                    await self.pause(rng)
                    if rng.random() < 0.5:
                        tasks.start_soon(self.read_own_writes, view)
                tasks.start_soon(self.leave, tasks.cancel_scope, rng)
            self.resets += view.statistics().snapshots - 1

    async def leave(self, scope: anyio.CancelScope, rng: random.Random) -> None:
        for _ in range(rng.choice([20, 80, 240] if self.is_wide else [5, 20, 60])):  # to compose takes longer
            await self.pause(rng)
        scope.cancel()

    def check(self, state: Frozen[Any, Health], view: HealthView) -> None:
        assert values(state) == truth(self.store, state.index, view.request)
        assert len(state) == len(dict(state))
        self.checked += 1

    async def watch(self, view: HealthView) -> None:
        last: list[tuple[str, int]] = []

        def look(state: Frozen[Any, Health]) -> bool:
            self.check(state, view)
            if last and last[-1][0] == state.epoch:
                assert state.index >= last[-1][1]
            last.append((state.epoch, state.index))
            assert view.status.status is Status.CURRENT
            for index in range(state.index - 3, state.index + 1):
                if index >= 0 and (known := view.state_at(index)) is not None:
                    assert known.index <= index
                    assert values(known) == truth(self.store, index, view.request)
            return False

        await view.wait_for(look)

    async def fold_changes(self, view: HealthView) -> None:
        async with view.changes() as changes:
            told = dict(view.frozen())
            async for change in changes:
                assert told.get(change.key) == change.old
                if change.new is None:
                    del told[change.key]
                else:
                    told[change.key] = change.new

    async def read_own_writes(self, view: HealthView) -> None:
        index, epoch = self.store.commit(("web", "mine")), self.publisher.epoch
        await view.wait_for(lambda state: state.epoch == epoch)
        try:
            state = await view.wait_index(index)
        except EpochChanged:
            assert epoch != self.publisher.epoch
            return
        self.waits += 1
        assert state.index >= index or values(state) == truth(self.store, index, view.request)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(6))
async def test_at_every_index_that_a_view_shows_its_mapping_is_that_of_the_store(seed: int) -> None:
    """C18, D1, D13: readers lag, tokens are revoked, topics refreshed, epochs begin, snapshots fail."""
    await World(seed, most=0).run(ttl=0.002)


@pytest.mark.anyio
@in_virtual_time
@pytest.mark.parametrize("seed", range(6))
async def test_so_it_is_while_snapshots_are_cached_for_10_ms(seed: int) -> None:
    """C18, D1, D13."""
    world = World(1000 + seed, most=0.005)
    await world.run(ttl=0.01)
    assert world.resets > 5


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(6))
async def test_so_it_is_over_several_topics_and_for_prefixes(seed: int) -> None:
    """D22, D1, D13."""
    await World(2000 + seed, most=0, is_wide=True).run(ttl=0.002)


@pytest.mark.anyio
@in_virtual_time
@pytest.mark.parametrize("seed", range(6))
async def test_so_it_is_over_several_topics_while_snapshots_are_cached(seed: int) -> None:
    """D22, D1, D13."""
    world = World(3000 + seed, most=0.005, is_wide=True)
    await world.run(ttl=0.01)
    assert world.resets > 5
