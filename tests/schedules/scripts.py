"""Small scripts, of at most three tasks of at most six steps, that are run in every order there is."""

# ruff: noqa: SLF001 - the model may know private names of the core

from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import anyio.lowlevel
from catalogue import HEALTH, Health
from model.books import Plan, Reader
from model.checker import Phase
from model.manual import Cancelled, ManualLoop, Task
from model.world import World
from schedules.orders import Order, run

import trio_stream._snapshot
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
        self.cancels: dict[str, Callable[[], object]] = {}
        self.readers: dict[str, Reader] = {}

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
Actors = dict[str, Actor]


async def read_three(stage: Stage) -> None:
    reader = stage.subscribe("reader")
    for _ in range(3):
        await stage.receive(reader)


async def read_in_batches(stage: Stage) -> None:
    reader = stage.subscribe("other")
    while reader.is_open and reader.trace.phase is not Phase.LIVE:
        await stage.receive(reader, 2)
    stage.world.unsubscribe(reader)


async def publish_three(stage: Stage) -> None:
    for value in ("b", None, "c"):
        await stage.pause()
        stage.commit(value)


async def revoke(stage: Stage) -> None:
    await stage.pause()
    await stage.pause()
    stage.world.revoke(["t"])


async def leave(stage: Stage) -> None:
    await stage.pause()
    if (reader := stage.readers.get("reader")) is not None:
        stage.world.unsubscribe(reader)


async def cancel_reader(stage: Stage) -> None:
    await stage.pause()
    await stage.pause()
    stage.cancels["reader"]()


async def read_and_come_back(stage: Stage) -> None:
    reader = stage.subscribe("reader")
    await stage.receive(reader)
    await stage.receive(reader)
    stage.world.unsubscribe(reader)
    reader = stage.world.resume(reader)
    await stage.receive(reader)


async def lag(stage: Stage) -> None:
    reader = stage.subscribe("reader", resets=True)
    for _ in range(3):
        await stage.receive(reader)


async def refresh(stage: Stage) -> None:
    await stage.pause()
    await stage.pause()
    stage.world.refresh(HEALTH, [(Subject("web"), "another")])


async def plan_slow(stage: Stage) -> None:
    stage.world.plans.append(Plan("ahead", is_late=True, pauses=1))


SCRIPTS: dict[str, tuple[Actors, dict[str, Any], list[Plan]]] = {
    "publish while a snapshot is made": (
        {"reader": read_three, "writer": publish_three},
        {},
        [Plan(is_late=True, pauses=1)],
    ),
    "publish while a snapshot behind it is made": (
        {"reader": read_three, "writer": publish_three},
        {},
        [Plan("behind", pauses=2)],
    ),
    "two share a snapshot and one leaves": (
        {"reader": read_three, "other": read_in_batches, "leaver": leave},
        {"ttl": 0.0},
        [Plan(pauses=2)],
    ),
    "a snapshot fails for two": (
        {"reader": read_three, "other": read_in_batches, "writer": publish_three},
        {},
        [Plan(pauses=1, fails_after=1)],
    ),
    "revoke while a reader waits": (
        {"reader": read_three, "writer": publish_three, "revoker": revoke},
        {},
        [],
    ),
    "refresh while a reader waits": (
        {"reader": read_three, "writer": publish_three, "refresher": refresh},
        {},
        [],
    ),
    "cancel while a reader is woken": (
        {"reader": read_three, "writer": publish_three, "canceller": cancel_reader},
        {},
        [],
    ),
    "come back while it is published": ({"reader": read_and_come_back, "writer": publish_three}, {}, []),
    "lag and go on": ({"reader": lag, "writer": publish_three}, {"history": 1}, [Plan(), Plan(pauses=1)]),
    "resume beside a fresh one": (
        {"reader": read_and_come_back, "other": read_in_batches, "writer": publish_three},
        {"ttl": 0.0, "history": 2},
        [],
    ),
}


def play(name: str, backend: str, order: Order) -> None:
    """One script in one order; `order` is asked for as long as the actors are at it."""
    actors, options, plans = SCRIPTS[name]
    if backend == "manual":
        _play_by_hand(actors, options, plans, order)
    else:
        order.is_asked = False
        run(backend, order, lambda: _play(actors, options, plans, order))


def _set(stage: Stage, plans: list[Plan]) -> None:
    stage.world.plans.extend(plans)
    stage.commit("a")


async def _play(actors: Actors, options: dict[str, Any], plans: list[Plan], order: Order) -> None:
    stage = Stage(anyio.lowlevel.checkpoint, anyio.current_time, **options)

    async def act(name: str, actor: Actor) -> None:
        with anyio.CancelScope() as scope:
            stage.cancels[name] = scope.cancel
            await actor(stage)

    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda *, task_status: stage.world.publisher.run(task_status=task_status))
        _set(stage, plans)
        await anyio.wait_all_tasks_blocked()
        order.is_asked = True
        for name, actor in actors.items():
            stage.cancels[name] = lambda: None
            tasks.start_soon(act, name, actor)
        for _ in range(30):
            await anyio.lowlevel.checkpoint()
        order.is_asked = False
        for cancel in stage.cancels.values():
            cancel()
        await anyio.wait_all_tasks_blocked()
        stage.finish()
        tasks.cancel_scope.cancel()


def _play_by_hand(actors: Actors, options: dict[str, Any], plans: list[Plan], order: Order) -> None:
    loop = ManualLoop()
    patched: Any = trio_stream._snapshot
    real, patched.anyio = patched.anyio, loop
    try:
        stage = Stage(loop.checkpoint, loop.current_time, **options)
        stage.world.publisher._parking._backend = loop
        stage.world.publisher._maker.open(cast("Any", loop))
        loop.start_soon(stage.world.publisher._parking.run)
        _set(stage, plans)
        loop.settle()
        acting = {name: loop.spawn(cast("Any", actor(stage)), name) for name, actor in actors.items()}
        for name, task in acting.items():
            stage.cancels[name] = lambda task=task: _cancel(task)  # type: ignore[misc]
        while ready := loop.ready():
            task = ready[order.choose_of(len(ready))]
            loop.step(task)
            if task.error is not None and not isinstance(task.error, Cancelled):
                raise task.error
        for task in acting.values():
            if not task.is_done:
                _cancel(task)
        loop.settle()
        stage.finish()
        loop.close()
    finally:
        patched.anyio = real


def _cancel(task: Task) -> None:
    task.is_cancelled = not task.is_done
