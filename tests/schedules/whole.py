"""Scripts for readers with rights, of what ends, that conflate and that are replayed, judged by the whole model."""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from catalogue import HEALTH, JOBS, Health
from model.everything import EVERYTHING, Everything, Reader, Rights
from schedules.stage import Actor, Script, Stage
from typing_extensions import override

from trio_stream import (
    ClosedResourceError,
    Cursor,
    EndOfSubject,
    Subject,
    SubscribeRequest,
    SubscriptionForceClosed,
    SubscriptionState,
    Topic,
)

WEB = SubscribeRequest(HEALTH, "web", token="t")
AFTER_A = WEB.after(Cursor(1, "e0"))
BOTH = (WEB | SubscribeRequest(JOBS, "web", token="t")).after(Cursor(1, "e0"))
SOME = Rights("r", "w")


class WholeStage(Stage):
    """With the whole model for a world. `before`: values that are committed before the actors begin."""

    def __init__(
        self,
        pause: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        *,
        before: Sequence[str] = (),
        way: str = "close",
        rights: Rights = EVERYTHING,
        size: int = 1,
        history: int = 8,
        ttl: float = 0.0,
        **options: Any,
    ) -> None:
        world = Everything(pause, random.Random(0), history=history, snapshot_cache_ttl=ttl, **options)
        world.pauses, world.sizes = (1,), (size,)
        self.world: Any = cast("Any", world)
        self.world.plans = []
        self.pause = pause
        self.cancels = {}
        self.readers: Any = {}
        self.end_publisher = lambda: None
        self.acting = set()
        self._before = before
        self._way, self._rights = way, rights

    @override
    def commit(
        self,
        *values: str | None,
        key: str = "web",
        topic: Topic[Health] = HEALTH,
        finish: bool = False,
    ) -> None:
        before, self._before = self._before, ()
        for each in (values, *[(value,) for value in before]):
            row = topic, Subject(key)
            self.world.commit([(row, value) for value in each], finish=[row] if finish else [])
            if not self.world.is_stopped:
                self.world.publish()

    @override
    def subscribe(self, name: str, request: SubscribeRequest[Health] = AFTER_A, **_: Any) -> Any:
        state = self.world.store.state_at(request.index) if request.index else {}
        rows = {
            key: value for key, value in state.items() if request.covers(*key) and self._rights.show(value)
        }
        self.readers[name] = reader = self.world.subscribe(
            request, way=self._way, rights=self._rights, rows=rows
        )
        return reader

    @override
    async def receive(self, reader: Any, most: int = 0) -> None:
        subscription = reader.subscription
        try:
            events = await subscription.receive_batch(most) if most else [await subscription.receive()]
        except (ClosedResourceError, SubscriptionForceClosed, EndOfSubject) as error:
            self.world.raised(reader, error)
        else:
            self.world.took(reader, events)

    @override
    def stop(self) -> None:
        self.world.stop()

    @override
    def finish(self) -> None:
        for _ in range(3):
            for reader in self.world.readers:
                self.world.drain(reader)
        for reader in self.world.readers:
            self.world.leave(reader)


def reads(
    count: int, request: SubscribeRequest[Health] = AFTER_A, *, most: int = 0, name: str = "reader"
) -> Actor:
    """Receives so often."""

    async def read(stage: Stage) -> None:
        if stage.world.is_stopped:
            return
        reader = stage.readers.get(name) or stage.subscribe(name, request)
        for _ in range(count):
            await stage.receive(reader, most)

    return read


def reads_on(upto: int, request: SubscribeRequest[Health] = AFTER_A, *, name: str = "reader") -> Actor:
    """Receives up to an index, or its end."""

    async def read(stage: Stage) -> None:
        if stage.world.is_stopped:
            return
        reader: Any = stage.readers.get(name) or stage.subscribe(name, request)
        while reader.end is None and (reader.index < upto or not reader.is_whole):
            await stage.receive(reader)

    return read


def publishes(*values: str | None, finish: bool = False) -> Actor:
    """Commits a value after each pause; the last one may finish the subject."""

    async def publish(stage: Any) -> None:
        for number, value in enumerate(values, 1):
            await stage.pause()
            stage.commit(value, finish=finish and number == len(values))

    return publish


async def finishes_both(stage: Any) -> None:
    for topic in (HEALTH, JOBS):
        await stage.pause()
        stage.commit("end", topic=topic, finish=True)


async def cancels(stage: Stage) -> None:
    await stage.pause()
    stage.cancels["reader"]()


async def leaves(stage: Any) -> None:
    await stage.pause()
    if (reader := stage.readers.get("reader")) is not None:
        stage.world.leave(reader)


async def revokes(stage: Any) -> None:
    await stage.pause()
    stage.world.revoke("t")


async def refreshes(stage: Any) -> None:
    await stage.pause()
    stage.world.refresh(HEALTH)


async def stops(stage: Any) -> None:
    await stage.pause()
    stage.stop()


async def stops_and_ends(stage: Any) -> None:
    """With the tasks of the publisher, as its `run` does."""
    await stage.pause()
    stage.stop()
    stage.end_publisher()


async def comes_back(stage: Any) -> None:
    """Goes on where it stood when it was first told something, whatever was revoked since."""
    reader: Reader = stage.subscribe("reader")
    await stage.receive(reader)
    request = stage.world.subscribe(AFTER_A, rights=reader.rights).request
    stage.world.leave(reader)
    await stage.receive(stage.subscribe("reader", request))


async def waits_until_ready(stage: Any) -> None:
    reader = stage.readers["reader"]
    try:
        await reader.subscription.wait_ready()
    except (ClosedResourceError, SubscriptionForceClosed):
        assert reader.subscription.state in (SubscriptionState.CLOSED, SubscriptionState.FORCE_CLOSED)
    else:
        assert reader.subscription.state is SubscriptionState.LIVE


def script(
    actors: dict[str, Actor],
    *,
    subscribed: SubscribeRequest[Health] | None = AFTER_A,
    all_end: bool = True,
    **options: Any,
) -> Script:
    return Script(actors, [], options, subscribed, all_end, WholeStage)


BEHIND: dict[str, Any] = {"before": ("rw2", "rw3", "rw4"), "history": 1, "has_log": True}
ENDS = publishes("b", "c", finish=True)

SMALL = {
    "finish, receive": script({"reader": reads(3), "writer": ENDS}),
    "finish, receive a batch": script({"reader": reads(2, most=8), "writer": ENDS}),
    "finish, cancel": script({"reader": reads(3), "writer": ENDS, "canceller": cancels}),
    "finish, leave": script({"reader": reads(3), "writer": ENDS, "leaver": leaves}),
    "finish, revoke": script({"reader": reads(3), "writer": ENDS, "revoker": revokes}),
    "finish, refresh": script(
        {"reader": reads(3), "writer": publishes("b", finish=True), "other": refreshes}
    ),
    "finish both of a union": script({"reader": reads(3, BOTH), "writer": finishes_both}, subscribed=BOTH),
    "withdraw, receive": script(
        {"reader": reads(2), "writer": publishes("r-2", "rw3", "w-4")}, rights=SOME, before=("rw2",)
    ),
    "withdraw, cancel": script(
        {"reader": reads(2), "writer": publishes("rw2", "w3"), "canceller": cancels}, rights=SOME
    ),
    "withdraw, revoke": script(
        {"reader": reads(2), "writer": publishes("rw2", "w3"), "revoker": revokes}, rights=SOME
    ),
    "conflate, receive": script({"reader": reads_on(4), "writer": publishes("b", "c", None)}, way="conflate"),
    "conflate, receive below the history": script(
        {"reader": reads_on(4), "writer": publishes("b", "c", "d")}, way="conflate", history=1
    ),
    "conflate, cancel": script(
        {"reader": reads_on(3), "writer": publishes("b", "c"), "canceller": cancels}, way="conflate"
    ),
    "conflate, finish": script({"reader": reads_on(9), "writer": ENDS}, way="conflate"),
    "conflate what some may see": script(
        {"reader": reads_on(4), "writer": publishes("rw2", "r3", "rw4")}, way="conflate", rights=SOME
    ),
}

LONG = {
    "finish, stop": script({"reader": reads(3), "writer": ENDS, "stopper": stops}),
    "come back, revoke": script(
        {"reader": comes_back, "writer": publishes("b"), "revoker": revokes}, subscribed=None, all_end=False
    ),
    "replay, publish": script({"reader": reads_on(6), "writer": publishes("b", "c")}, **BEHIND),
    "replay what some may see": script(
        {"reader": reads_on(6), "writer": publishes("w5", "rw6")}, rights=SOME, **BEHIND
    ),
    "replay, fall off": script(
        {"reader": reads_on(4), "writer": publishes("b", "c", "d")}, history=1, has_log=True
    ),
    "replay, reset": script({"reader": reads_on(6), "writer": publishes("b", "c")}, way="reset", **BEHIND),
    "replay, cancel": script({"reader": reads_on(4), "canceller": cancels}, **BEHIND),
    "replay, leave": script({"reader": reads_on(4), "leaver": leaves}, **BEHIND),
    "replay, revoke": script({"reader": reads_on(4), "revoker": revokes}, **BEHIND),
    "replay, refresh": script({"reader": reads_on(4), "other": refreshes}, **BEHIND),
    "replay, stop": script({"reader": reads_on(4), "stopper": stops_and_ends}, **BEHIND),
    "replay, finish": script(
        {"reader": reads_on(9), "writer": publishes("b", finish=True)}, finishes=True, **BEHIND
    ),
    "replay for two": script(
        {"reader": reads_on(4), "other": reads_on(4, name="other"), "leaver": leaves}, **BEHIND
    ),
    "replay a union, publish": script(
        {"reader": reads_on(5, BOTH), "writer": publishes("b")}, subscribed=BOTH, **BEHIND
    ),
    "judge by a replay, wait until ready": script(
        {"waiter": waits_until_ready, "reader": reads_on(4)},
        subscribed=WEB.after(Cursor(1, "e0", "e0-1")),
        has_marks=True,
        **BEHIND,
    ),
    "begin at what ends": script(
        {"reader": reads_on(9, WEB), "writer": ENDS}, subscribed=None, finishes=True
    ),
    "begin what ends, conflate": script(
        {"reader": reads_on(9, WEB), "writer": ENDS}, subscribed=None, way="conflate"
    ),
}
