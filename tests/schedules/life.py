"""The rules of the model, driven by real tasks: writers, readers, and those who upset them."""

# ruff: noqa: SLF001 - the model may know private names of the core

import random
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
from catalogue import HEALTH, JOBS, Health
from model.books import Plan, Reader
from model.timeline import TOPICS
from model.world import World
from schedules.orders import idle

from trio_stream import (
    ClosedResourceError,
    Event,
    Subject,
    SubscribeRequest,
    SubscriptionForceClosed,
    WouldBlock,
)

SUBJECTS = [Subject("web"), Subject("web"), Subject("db"), Subject(), Subject(), Subject("web", "eu")]
RIGHTS = [None, None, None, frozenset({"web"}), frozenset({"web", "db"})]
TOKENS = ["", "t", "u"]
TTLS = [0.0, 0.01, 10.0]


class Life:
    """One random course of events; what is done follows from `seed`, in which order from the event loop."""

    def __init__(self, seed: int, *, readers: int = 4, rounds: int = 12) -> None:
        self.seed = seed
        self.rounds = rounds
        self.readers = readers
        self.is_over = False
        self.world: World

    def rng(self, name: object) -> random.Random:
        return random.Random(f"{self.seed} {name}")

    async def run(self) -> World:
        rng = self.rng("world")
        self.world = world = World(
            anyio.lowlevel.checkpoint,
            anyio.current_time,
            history=rng.randint(1, 6),
            history_events=rng.choice([65_536, 65_536, 5]),
            ttl=rng.choice(TTLS),
            index=rng.choice([0, 0, 5]),
        )
        async with anyio.create_task_group() as outer:
            await outer.start(lambda *, task_status: world.publisher.run(task_status=task_status))
            async with anyio.create_task_group() as reading:
                for number in range(self.readers):
                    reading.start_soon(self.read, self.rng(number))
                async with anyio.create_task_group() as writing:
                    writing.start_soon(self.write, self.rng("writer"))
                    writing.start_soon(self.upset, self.rng("upset"))
                self.is_over = True
                await idle()
                world.check()
                for reader in world.readers:
                    self.drain(reader, self.rng("end"))
                if not world.is_stopped:
                    self.is_settled()
                reading.cancel_scope.cancel()
            for reader in world.readers:
                world.unsubscribe(reader)
            await idle()
            if world.ttl < 1:
                await anyio.sleep(2 * world.ttl)
                await idle()
                assert not world.publisher._passages.shared, "D13"
            world.check()
            assert not any(run.is_running for run in world.runs.values()), "D13: a handler is left"
            assert world.publisher.statistics().waiting == 0, "D13: a waiter is left"
            outer.cancel_scope.cancel()
        return world

    def is_settled(self) -> None:
        for run in self.world.runs.values():
            if run.is_running:
                assert run.readers, "D13: a run that nobody waits for"

    async def pause(self, rng: random.Random) -> None:
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            await anyio.lowlevel.checkpoint()

    async def write(self, rng: random.Random) -> None:
        world = self.world
        for _ in range(self.rounds):
            for _ in range(rng.choice([1, 1, 2, 6])):
                changes = [
                    (rng.choice([HEALTH, HEALTH, JOBS]), rng.choice(SUBJECTS), rng.choice([None, "a", "b"]))
                    for _ in range(rng.choice([1, 1, 2, 4]))
                ]
                world.store.commit(rng.choice([1, 1, 3]), changes)
                if rng.random() < 0.1:
                    await self.pause(rng)
                while world.store.pending and not world.is_stopped and rng.random() < 0.9:
                    world.publish(revoked=[rng.choice(TOKENS)] if rng.random() < 0.05 else ())
                    world.check()
            await self.pause(rng)
        while world.store.pending and not world.is_stopped:
            world.publish()

    async def upset(self, rng: random.Random) -> None:
        world = self.world
        for _ in range(self.rounds):
            await self.pause(rng)
            await self.pause(rng)
            state = [(rng.choice(SUBJECTS), "restored")]
            match rng.randrange(40):
                case 0:
                    world.refresh(rng.choice(TOPICS), state)
                case 1:
                    world.restore(rng.randint(0, 9), state)
                case 2:
                    world.skip(1)
                case 3 | 4 | 5:
                    world.revoke([rng.choice(TOKENS)])
                case number if number > 20:
                    world.plans.append(
                        Plan(
                            rng.choice(["published", "ahead", "behind"]),
                            rng.random() < 0.5,
                            rng.randint(0, 3),
                            rng.choice([None, None, 0, 1]),
                        )
                    )
            world.check()

    async def read(self, rng: random.Random) -> None:
        reader: Reader | None = None
        while not self.is_over:
            comes_back = rng.random() < 0.6
            reader = self.world.resume(reader) if reader and comes_back else self.subscribe(rng)
            self.world.check()
            for _ in range(rng.choice([0, 2, 5, 20])):
                if rng.random() < 0.3:
                    await self.pause(rng)
                if not reader.is_open and rng.random() < 0.7:
                    break
                await self.receive(reader, rng)
            if rng.random() < 0.8:
                self.world.unsubscribe(reader)
                if rng.random() < 0.2:
                    self.drain(reader, rng)
            await anyio.lowlevel.checkpoint()

    def subscribe(self, rng: random.Random) -> Reader:
        store = self.world.store
        subject = rng.choice(SUBJECTS)
        index = rng.choice([0, 0, 0, store.published, store.published + 2, max(0, store.published - 3)])
        epoch = rng.choice([store.epoch, store.epoch, None, "another"])
        request = SubscribeRequest(
            rng.choice([HEALTH, HEALTH, JOBS]),
            subject.key,
            namespace=subject.namespace,
            token=rng.choice(TOKENS),
            index=index,
            epoch=epoch,
        )
        return self.world.subscribe(request, can_see=rng.choice(RIGHTS), resets=rng.random() < 0.5)

    def drain(self, reader: Reader, rng: random.Random) -> None:
        try:
            while True:
                self.world.took(reader, [reader.subscription.receive_nowait()])
        except WouldBlock:
            self.world.blocked(reader)
        except (ClosedResourceError, SubscriptionForceClosed) as error:
            self.world.raised(reader, error)

    async def receive(self, reader: Reader, rng: random.Random) -> None:
        """One call, in one of all ways, cancelled perhaps while it waits; the model sees what it returns at once."""
        subscription = reader.subscription
        most = rng.choice([None, 1, 3])

        async def batch() -> list[Event[Health]]:
            return list(await subscription.receive_batch(most))

        async def iterate() -> list[Event[Health]]:
            return [await anext(subscription)]

        async def one() -> list[Event[Health]]:
            return [await subscription.receive()]

        way: Callable[[], Any] = rng.choice([batch, iterate, one])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.give_up, tasks.cancel_scope, rng.choice([0, 1, 2, 5, 9]))
            try:
                events = await way()
            except (ClosedResourceError, SubscriptionForceClosed) as error:
                self.world.raised(reader, error)
            else:
                self.world.took(reader, events)
            tasks.cancel_scope.cancel()

    async def give_up(self, scope: anyio.CancelScope, checkpoints: int) -> None:
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
