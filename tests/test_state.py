"""The whole of it: whatever happens, what a reader holds is what was true at the index that it has reached."""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from backends import ASYNCIO, in_virtual_time
from catalogue import HEALTH, Catalogue, Health, State, apply, kinds, ready, until_live
from scenes import ALL, WEB, opened, quiet

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    open_publisher,
)

DB = SubscribeRequest(HEALTH, "db")
KEYS = ("web", "db")
Style = Callable[[Subscription[Health]], Awaitable[Sequence[Event[Health]]]]


async def by_receive(subscription: Subscription[Health]) -> Sequence[Event[Health]]:
    return [await subscription.receive()]


async def by_iteration(subscription: Subscription[Health]) -> Sequence[Event[Health]]:
    return [await anext(aiter(subscription))]


async def by_batch(subscription: Subscription[Health]) -> Sequence[Event[Health]]:
    return await subscription.receive_batch()


STYLES: Final[list[Style]] = [by_receive, by_iteration, by_batch]


@pytest.mark.anyio
@pytest.mark.parametrize("style", STYLES)
async def test_a_thousand_readers_from_the_same_point_see_all_in_order(style: Style) -> None:
    """C12, D2, D3: one writer that pauses as Zipf has it."""
    commits = 40
    rng = random.Random(12)
    seen: list[list[int]] = []

    async def read(subscription: Subscription[Health]) -> None:
        indexes: list[int] = []
        while not indexes or indexes[-1] < commits:
            indexes += [received.index for received in await style(subscription)]
        seen.append(indexes)

    async with opened() as (store, publisher):
        async with anyio.create_task_group() as tasks:
            for _ in range(1_000):
                tasks.start_soon(read, publisher.subscribe(WEB))
            await quiet()
            for _ in range(commits):
                store.commit(("web", "ok"), ("db", "ok"))
                for _ in range(min(20, int(rng.paretovariate(1)) - 1)):
                    await anyio.lowlevel.checkpoint()
        assert publisher.statistics().topics["health"].floor == 0
        assert store.runs == 1
    assert seen == [list(range(commits + 1))] * 1_000


class Reader:
    """Joins and leaves at random, in every way; checks each promise at each event."""

    def __init__(self, world: "World", seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.state: State = {}
        self.request = WEB
        self.sessions = 0
        self.checked = 0

    async def run(self) -> None:
        while True:
            await self.world.pause(self.rng)
            if self.world.is_over:
                break
            if self.request.index == 0 or self.rng.random() < 0.3:
                self.request = self.rng.choice([WEB, DB, ALL])
                self.state.clear()
            lag: Literal["close", "reset"] = self.rng.choice(["close", "reset"])
            async with self.world.publisher.subscribe(self.request, on_lag=lag) as subscription:
                self.sessions += 1
                with anyio.CancelScope() as self.session:
                    try:
                        await self.read(subscription, self.rng.choice(STYLES), self.rng.randrange(40))
                    except SnapshotFailed:
                        pass
                    except SubscriptionForceClosed:
                        assert subscription.statistics().state is SubscriptionState.FORCE_CLOSED
            self.request = subscription.resume_request()

    async def read(self, subscription: Subscription[Health], style: Style, patience: int) -> None:
        before: int | None = self.request.index or None  # None inside a snapshot
        for _ in range(patience):
            for received in await style(subscription):
                apply(self.state, received)
                if received.is_new_snapshot_to_follow:
                    before = None
                elif received.is_end_of_snapshot:
                    before = received.index
                    self.check(before)
                elif before is not None:
                    assert self.world.touched(self.request, before, received.index) == [received.index]
                    before = received.index
                    self.check(before)
            assert subscription.index == (before or 0)
            if self.rng.random() < 0.1:
                await self.world.pause(self.rng)

    def check(self, index: int) -> None:
        assert self.state == self.world.store.state_at(index, self.request)
        self.checked += 1


class World:
    """Three writers, their store, and a snapshot function that takes its time and sometimes fails."""

    def __init__(self, store: Catalogue, publisher: EventPublisher, seed: int, most: float) -> None:
        self.store = store
        self.publisher = publisher
        self.rng = random.Random(seed)
        self.most = most  # seconds that anybody pauses; 0 is only a checkpoint
        self.is_over = False
        self.commits: list[list[Event[Health]]] = []

    async def pause(self, rng: random.Random) -> None:
        await anyio.sleep(self.most * rng.random() ** 3)

    async def write(self, rng: random.Random, commits: int) -> None:
        for _ in range(commits):
            for _ in range(rng.choice([1, 1, 1, 2, 12])):
                keys = rng.choice([*KEYS, KEYS])
                index = self.store.index + 1
                events = [
                    Event(HEALTH, index, Health(key, rng.choice([None, f"{index}"])))
                    for key in (KEYS if keys is KEYS else (keys, keys))
                    if isinstance(key, str)
                ]
                self.commits.append(events)
                self.store.commit_events(events)
            for _ in range(rng.choice([1, 1, 5])):
                await self.pause(rng)

    def touched(self, request: SubscribeRequest[Health], after: int, until: int) -> list[int]:
        """The commits in (after, until] that a subscription must get."""
        return [
            commit[0].index
            for commit in self.commits[after:until]
            if any(
                isinstance(e.payload, Health) and request.covers(e.topic, e.payload.subject) for e in commit
            )
        ]

    async def snapshot(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await self.pause(self.rng)
        index = await self.store.snapshot(request, snapshot)
        await self.pause(self.rng)
        if self.rng.random() < 0.1 and not self.is_over:
            raise LookupError("the store is not ready")
        return index


async def random_life(seed: int, *, ttl: float, most: float) -> None:
    handlers: list[World] = []

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        return await handlers[0].snapshot(request, snapshot)

    async with opened(handler, snapshot_cache_ttl=ttl, history=24) as (store, publisher):
        world = World(store, publisher, seed, most)
        handlers.append(world)
        readers = [Reader(world, seed + i) for i in range(10)]
        async with anyio.create_task_group() as reading:
            for reader in readers:
                reading.start_soon(reader.run)
            async with anyio.create_task_group() as writing:
                for i in range(3):
                    writing.start_soon(world.write, random.Random(f"{seed} {i}"), 67)
            world.is_over = True
            for reader in readers:
                reader.session.cancel()
        final = publisher.subscribe(ALL)
        last = (await until_live(final) + ready(final))[-1]
        assert last.index == store.index >= 200
        final.unsubscribe()
        assert sum(reader.checked for reader in readers) > 500
        assert sum(reader.sessions for reader in readers) > 20
        left = publisher.statistics()
        assert (left.subscriptions, left.waiting, left.tokens) == (0, 0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(6))
async def test_at_every_index_that_a_reader_sees_its_state_is_that_of_the_store(seed: int) -> None:
    """C18, D1, D2, D3, D4, D12, D13."""
    await random_life(seed * 100, ttl=0.002, most=0)


@pytest.mark.anyio
@in_virtual_time
@pytest.mark.parametrize("seed", range(6))
async def test_so_it_is_while_snapshots_are_cached_for_10_ms(seed: int) -> None:
    """C18, D1, D2, D3, D4, D12, D13."""
    await random_life(seed * 100, ttl=0.01, most=0.005)


class Script:
    """A seeded course of events, the same on every back end: bursts of calls, and quiet between them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.received: list[list[str]] = []
        self.stalled: list[tuple[Subscription[Health], list[str]]] = []
        self.all: list[Subscription[Health]] = []

    async def run(self) -> list[list[str]]:
        self.store = store = Catalogue()
        async with (
            open_publisher({HEALTH: store.snapshot}, history=6, epoch="one") as publisher,
            anyio.create_task_group() as self.readers,
        ):
            self.publisher = store.publisher = publisher
            for _ in range(60):
                for _ in range(self.rng.choice([1, 1, 2, 3])):
                    self.rng.choice([self.write, self.write, self.join, self.rejoin, self.look, self.end])()
                await quiet()
            self.readers.cancel_scope.cancel()
        return self.received

    def write(self) -> None:
        for _ in range(self.rng.choice([1, 1, 1, 3, 8])):
            keys = self.rng.choice([["web"], ["db"], ["web", "db"], ["db", "db", "web"]])
            self.store.commit(*((key, self.rng.choice([None, "a", "b"])) for key in keys))

    def join(self) -> None:
        index = self.rng.choice([0, 0, self.store.index, self.store.index // 2, self.store.index + 3])
        self.subscribe(
            SubscribeRequest(
                HEALTH,
                self.rng.choice(["web", "db", ""]),
                token=self.rng.choice("tu"),
                index=index,
                epoch=self.rng.choice([None, "one", "two"]),
            )
        )

    def rejoin(self) -> None:
        if self.all:
            self.subscribe(self.rng.choice(self.all).resume_request())

    def subscribe(self, request: SubscribeRequest[Health]) -> None:
        lag: Literal["close", "reset"] = self.rng.choice(["close", "reset"])
        authorizer = self.rng.choice([None, None, frozenset({"web"})])
        subscription = self.publisher.subscribe(request, authorizer=authorizer, on_lag=lag)
        received: list[str] = []
        self.all.append(subscription)
        self.received.append(received)
        style = self.rng.choice([None, *STYLES])
        if style is None:
            self.stalled.append((subscription, received))
        else:
            self.readers.start_soon(self.read, subscription, style, received)

    async def read(self, subscription: Subscription[Health], style: Style, received: list[str]) -> None:
        try:
            while True:
                received += kinds(await style(subscription))
        except (SubscriptionForceClosed, anyio.ClosedResourceError) as end:
            received.append(repr(end))

    def look(self) -> None:
        if self.stalled:
            subscription, received = self.rng.choice(self.stalled)
            try:
                received += kinds(ready(subscription))
            except (SubscriptionForceClosed, anyio.ClosedResourceError) as end:
                received.append(repr(end))

    def end(self) -> None:
        match self.rng.randrange(8):
            case 0:
                self.publisher.close_subscriptions(["t"])
            case 1:
                self.publisher.refresh(HEALTH)
            case _ if self.all:
                self.rng.choice(self.all).unsubscribe()
            case _:
                pass


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("backend", ASYNCIO)
def test_the_same_script_gives_the_same_on_every_back_end(
    backend: tuple[str, dict[str, Any]], seed: int
) -> None:
    """D17."""
    library, options = backend
    on_trio = anyio.run(Script(seed).run, backend="trio")
    assert anyio.run(Script(seed).run, backend=library, backend_options=options) == on_trio
    assert sum(map(len, on_trio)) > 100
