"""Where a script is played: the world, and its actors as tasks of either event loop, or of none."""

# ruff: noqa: SLF001 - the model may know private names of the core

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import anyio.abc
import anyio.lowlevel
import trio
from catalogue import HEALTH, Health
from model.books import Plan, Reader
from model.manual import Cancelled, ManualLoop, Task
from model.world import World
from schedules.orders import Order, idle, run

import trio_stream._handlers
from trio_stream import (
    ClosedResourceError,
    Subject,
    SubscribeRequest,
    SubscriptionForceClosed,
    WouldBlock,
)

WEB = SubscribeRequest(HEALTH, "web", token="t")


class Stage:
    """What the actors of a script use: the world, and what is the same on every event loop."""

    def __init__(
        self, pause: Callable[[], Awaitable[None]], now: Callable[[], float], **options: Any
    ) -> None:
        self.world = World(pause, now, **{"history": 8, "ttl": 10.0, **options})
        self.pause = pause
        # {actor: what cancels it, natively but on trio}
        self.cancels: dict[str, Callable[[], object]] = {}
        self.readers: dict[str, Reader] = {}
        # Actors that have not come to their end.
        self.acting: set[str] = set()

    def commit(self, *values: str | None, key: str = "web") -> None:
        self.world.store.commit(1, [(HEALTH, Subject(key), value) for value in values])
        if not self.world.is_stopped:
            self.world.publish()

    def subscribe(
        self, name: str, request: SubscribeRequest[Health] = WEB, *, resets: bool = False
    ) -> Reader:
        self.readers[name] = reader = self.world.subscribe(request, resets=resets)
        return reader

    async def receive(self, reader: Reader, most: int = 0) -> None:
        """One call; the model judges what it returns, or raises, at once."""
        subscription = reader.subscription
        try:
            events = await subscription.receive_batch(most) if most else [await subscription.receive()]
        except (ClosedResourceError, SubscriptionForceClosed) as error:
            self.world.raised(reader, error)
        else:
            self.world.took(reader, events)

    def stop(self) -> None:
        self.world.stopping()
        self.world.publisher._stop()

    def finish(self) -> None:
        """When everybody waits: the readers get the rest, leave, and leave nothing."""
        self.world.check()
        for reader in self.world.readers:
            try:
                while True:
                    self.world.took(reader, [reader.subscription.receive_nowait()])
            except WouldBlock:
                self.world.blocked(reader)
            except (ClosedResourceError, SubscriptionForceClosed) as error:
                self.world.raised(reader, error)
            self.world.unsubscribe(reader)
        self.world.check()


Actor = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Script:
    """What each actor does, after a first commit; `plans` is how the snapshot function goes, run by run."""

    actors: dict[str, Actor]
    plans: list[Plan] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    # What the reader has asked for before the actors begin; None if it does so itself.
    subscribed: SubscribeRequest[Health] | None = None
    # Whether everybody comes to his end by himself, in every order.
    all_end: bool = True

    def set(self, stage: Stage) -> None:
        stage.world.plans.extend(self.plans)
        stage.commit("a")
        stage.acting.update(self.actors)
        if self.subscribed is not None:
            stage.subscribe("reader", self.subscribed)

    def check_ended(self, stage: Stage) -> None:
        """When nothing can go on."""
        if self.all_end:
            assert not stage.acting, f"D3, D16: they wait for ever: {stage.acting}"


def play(script: Script, backend: str, order: Order) -> None:
    """One script in one order; `order` is asked for as long as the actors are at it."""
    if backend == "manual":
        _play_by_hand(script, order)
    else:
        order.is_asked = False
        run(backend, order, lambda: _play(script, order))


async def _play(script: Script, order: Order) -> None:
    stage = Stage(anyio.lowlevel.checkpoint, anyio.current_time, **script.options)
    native: list[asyncio.Task[None]] = []

    async def act(name: str, actor: Actor) -> None:
        try:
            await actor(stage)
        finally:
            stage.acting.remove(name)

    def start(name: str, actor: Actor) -> None:
        if not trio.lowlevel.in_trio_run():
            native.append(task := asyncio.create_task(act(name, actor)))
            stage.cancels[name] = task.cancel
            return
        scope = anyio.CancelScope()

        async def scoped() -> None:
            with scope:
                await act(name, actor)

        tasks.start_soon(scoped)
        stage.cancels[name] = scope.cancel

    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda *, task_status: stage.world.publisher.run(task_status=task_status))
        script.set(stage)
        await idle()
        order.is_asked = True
        for name, actor in script.actors.items():
            start(name, actor)
        await idle()
        order.is_asked = False
        for task in native:
            if task.done() and not task.cancelled():
                task.result()
        script.check_ended(stage)
        for name in stage.acting:
            stage.cancels[name]()
        await idle()
        stage.finish()
        tasks.cancel_scope.cancel()


def _play_by_hand(script: Script, order: Order) -> None:
    loop = ManualLoop()
    patched: Any = trio_stream._handlers
    real, patched.anyio = patched.anyio, loop
    try:
        stage = Stage(loop.checkpoint, loop.current_time, **script.options)
        stage.world.publisher._parking._backend = loop
        stage.world.publisher._maker.open(cast("Any", loop))
        loop.start_soon(stage.world.publisher._parking.run)
        script.set(stage)
        loop.settle()
        acting = {name: loop.spawn(cast("Any", actor(stage)), name) for name, actor in script.actors.items()}
        for name, task in acting.items():
            stage.cancels[name] = lambda task=task: _cancel(task)  # type: ignore[misc]
        while ready := loop.ready():
            task = ready[order.choose_of(len(ready))]
            loop.step(task)
            if task.error is not None and not isinstance(task.error, Cancelled):
                raise task.error
        stage.acting = {name for name, task in acting.items() if not task.is_done}
        script.check_ended(stage)
        for name in stage.acting:
            _cancel(acting[name])
        loop.settle()
        stage.finish()
        loop.close()
    finally:
        patched.anyio = real


def _cancel(task: Task) -> None:
    task.is_cancelled = not task.is_done
