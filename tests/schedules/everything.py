"""Random lives with everything at once: readers that are cancelled anywhere, a writer, and somebody who upsets them.

What is done follows from the seed, in which order from the event loop.
"""

import random
from collections.abc import Sequence

import anyio
import anyio.lowlevel
from catalogue import HEALTH, JOBS, Health
from model.everything import TOPICS, Everything, Key, Reader, Rights
from schedules.orders import idle

from trio_stream import (
    ClosedResourceError,
    EndOfSubject,
    Event,
    Subject,
    SubscribeRequest,
    SubscriptionForceClosed,
)

TOKENS = ("", "t", "u")
WAYS = ("close", "reset", "conflate")
NAMES = ("a", "ab", "b")
RIGHTS = (Rights(), Rights(), Rights("r"), Rights(wants="w"), Rights("r", "w"))
LETTERS = ("", "r", "w", "rw", "rw")


class WholeLife:
    """One random course of events with a store of which everything is used."""

    def __init__(self, seed: int, *, readers: int = 4, rounds: int = 30) -> None:
        self.seed = seed
        self.rounds = rounds
        self.count = readers
        self.names = list(NAMES)
        self.is_over = False
        rng = self.rng("world")
        self.ttl = rng.choice([0.0, 0.01, 10.0])
        self.world = Everything(
            anyio.lowlevel.checkpoint,
            self.rng("functions"),
            has_marks=rng.random() < 0.4,
            has_log=rng.random() < 0.7,
            finishes=rng.random() < 0.5,
            is_troubled=rng.random() < 0.3,
            history=rng.randint(1, 6),
            history_events=rng.choice([3, 8, 65_536]),
            snapshot_cache_ttl=self.ttl,
        )

    def rng(self, name: object) -> random.Random:
        return random.Random(f"{self.seed} {name}")

    async def run(self) -> Everything:
        world = self.world
        async with anyio.create_task_group() as outer:
            await outer.start(lambda *, task_status: world.publisher.run(task_status=task_status))
            async with anyio.create_task_group() as reading:
                for number in range(self.count):
                    reading.start_soon(self.read, self.rng(number))
                async with anyio.create_task_group() as writing:
                    writing.start_soon(self.write, self.rng("writer"))
                    writing.start_soon(self.upset, self.rng("upset"))
                self.is_over = True
                await idle()
                await self.settle()
                reading.cancel_scope.cancel()
            for reader in world.readers:
                world.leave(reader)
            await idle()
            if 0 < self.ttl < 1:
                await anyio.sleep(2 * self.ttl)
                await idle()
            world.is_empty(has_cache=self.ttl > 1)
            outer.cancel_scope.cancel()
        return world

    async def settle(self) -> None:
        """Everybody has everything."""
        world = self.world
        patience = 5
        while patience:
            before = world.events, world.seen["pages"]
            for reader in world.readers:
                world.drain(reader)
            await idle()
            patience = patience - 1 if (world.events, world.seen["pages"]) == before else 5
            assert sum(before) < 100_000, "D21: it never ends"
        world.all_are_current()

    async def pause(self, rng: random.Random) -> None:
        for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
            await anyio.lowlevel.checkpoint()

    # The writers:

    def commit(self, rng: random.Random) -> None:
        world, store = self.world, self.world.store
        index = store.index + (step := rng.choice([1, 1, 1, 3]))
        keys = [
            (topic, Subject(name))
            for topic in TOPICS
            for name in self.names
            if (topic, Subject(name)) not in store.finished
        ]
        rows = dict(store.rows)
        changes: list[tuple[Key, str | None]] = []
        for number in range(rng.choice([0, 1, 1, 1, 2, 5])):
            key = rng.choice(keys)
            if rng.random() < 0.2 and key in rows:
                changes.append((key, None))
                del rows[key]
            else:
                rows[key] = f"{rng.choice(LETTERS)}{index}.{number}"
                changes.append((key, rows[key]))
        finish = [rng.choice(keys)] if rng.random() < 0.08 else []
        self.names += [f"{rng.choice(NAMES)}{index}" for _ in finish]
        revoked = [rng.choice(TOKENS)] if rng.random() < 0.03 else []
        world.commit(changes, finish=finish, revoked=revoked, step=step)

    async def write(self, rng: random.Random) -> None:
        world = self.world
        for _ in range(self.rounds):
            for _ in range(rng.choice([1, 1, 2, 6])):
                self.commit(rng)
                if rng.random() < 0.1:
                    await self.pause(rng)
                while world.store.pending and rng.random() < 0.9:
                    world.publish()
            await self.pause(rng)
        while world.store.pending:
            world.publish()

    async def upset(self, rng: random.Random) -> None:
        world = self.world
        for _ in range(self.rounds):
            await self.pause(rng)
            await self.pause(rng)
            match rng.randrange(40):
                case 0 | 1:
                    world.refresh(rng.choice(TOPICS))
                case 2:
                    world.restore(rng.choice([0, max(0, world.store.published - 3)]))
                case 3:
                    world.lose()
                case 4 | 5 | 6:
                    world.revoke(rng.choice(TOKENS))
                case _:
                    pass

    # The readers:

    async def read(self, rng: random.Random) -> None:
        world = self.world
        while not self.is_over:
            reader = self.begin(rng)
            for _ in range(rng.choice([0, 2, 5, 20, 50])):
                if rng.random() < 0.3:
                    await self.pause(rng)
                if reader.end is not None and rng.random() < 0.7:
                    break
                await self.receive(reader, rng)
                if rng.random() < 0.2 and reader.is_whole and reader.end is None:
                    world.save(reader)
            if rng.random() < 0.8:
                world.leave(reader)
            await self.pause(rng)
            await anyio.lowlevel.checkpoint()

    def request(self, rng: random.Random) -> SubscribeRequest[Health]:
        def one() -> SubscribeRequest[Health]:
            topic = rng.choice([HEALTH, HEALTH, JOBS])
            match rng.randrange(6):
                case 0:
                    return SubscribeRequest(topic)
                case 1:
                    return SubscribeRequest(topic, rng.choice(["a", "b"]), prefix=True)
                case _:
                    return SubscribeRequest(topic, rng.choice(self.names))

        request = one()
        for _ in range(rng.choice([0, 0, 1, 2])):
            request |= one()
        return SubscribeRequest(interests=request.interests, token=rng.choice(TOKENS))

    def begin(self, rng: random.Random) -> Reader:
        saved, way = self.world.saved, rng.choice(WAYS)
        if saved and rng.random() < 0.6:
            request, rights, rows = rng.choice(saved)
            return self.world.subscribe(request, way=way, rights=rights, rows=rows)
        return self.world.subscribe(self.request(rng), way=way, rights=rng.choice(RIGHTS))

    async def receive(self, reader: Reader, rng: random.Random) -> None:
        """One call, in one of all ways, cancelled perhaps while it waits; the model sees what it returns at once."""
        subscription = reader.subscription
        most = rng.choice([None, 1, 3])

        async def batch() -> Sequence[Event[Health]]:
            return await subscription.receive_batch(most)

        async def iterate() -> Sequence[Event[Health]]:
            return [await anext(subscription)]

        async def one() -> Sequence[Event[Health]]:
            return [await subscription.receive()]

        async def current() -> Sequence[Event[Health]]:
            return await subscription.receive_until_current()

        async def wait() -> Sequence[Event[Health]]:
            await subscription.wait_ready()
            return ()

        way = rng.choice([batch, batch, iterate, one, current, wait])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.give_up, tasks.cancel_scope, rng.choice([0, 1, 2, 5, 9, 30, 100, 100]))
            try:
                events = await way()
            except StopAsyncIteration:
                self.world.raised(reader, EndOfSubject(subscription.index, subscription.epoch))
            except (ClosedResourceError, SubscriptionForceClosed, EndOfSubject) as error:
                self.world.raised(reader, error)
            else:
                self.world.took(reader, events)
            tasks.cancel_scope.cancel()

    async def give_up(self, scope: anyio.CancelScope, checkpoints: int) -> None:
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
