"""Scripts for readers of prefixes and of several topics: resumed, composed, and with marks."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from catalogue import HEALTH, JOBS, Health
from model.books import Plan
from model.checker import Phase
from model.interests import InterestsWorld, Watcher, wish_of
from model.timeline import TOPICS
from schedules.stage import Actor, Script, Stage
from typing_extensions import override

from trio_stream import (
    ClosedResourceError,
    Cursor,
    Subject,
    SubscribeRequest,
    SubscriptionForceClosed,
    SubscriptionState,
    Topic,
)

BOTH = SubscribeRequest(HEALTH, "web", token="t") | SubscribeRequest(JOBS, token="t")
PREFIX = SubscribeRequest(HEALTH, "we", prefix=True, token="t")
AFTER_A = Cursor(1, "e0")


class WideStage(Stage):
    """With the model of interests for a world."""

    def __init__(
        self,
        pause: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        *,
        history: int = 8,
        ttl: float = 10.0,
        has_marks: bool = False,
    ) -> None:
        super().__init__(pause, now)
        self.world: Any = InterestsWorld(
            pause,
            now,
            history=history,
            history_events=65_536,
            ttl=ttl,
            index=0,
            has_marks=has_marks,
            wide=TOPICS,
        )

    @override
    def commit(self, *values: str | None, key: str = "web", topic: Topic[Health] = HEALTH) -> None:
        self.world.commit(1, [(topic, Subject(key), value) for value in values])
        if not self.world.is_stopped:
            self.world.publish()

    @override
    def subscribe(self, name: str, request: SubscribeRequest[Health] = BOTH, *, resets: bool = False) -> Any:
        wishes = [wish_of(interest) for interest in request.interests]
        reader = self.world.ask(wishes, request, resets=resets)
        if reader.begins in ("resume", "judged"):
            reader.held = None  # whatever it is
        self.readers[name] = reader
        return reader


def reads(request: SubscribeRequest[Health], count: int, *, most: int = 0, resets: bool = False) -> Actor:
    """Receives so often."""

    async def read(stage: Stage) -> None:
        reader = stage.readers.get("reader") or stage.subscribe("reader", request, resets=resets)
        for _ in range(count):
            await stage.receive(reader, most)

    return read


def begins(
    request: SubscribeRequest[Health] = BOTH, *, name: str = "reader", upto: int = 0, resets: bool = False
) -> Actor:
    """Receives its snapshot, and everything up to an index."""

    async def begin(stage: Stage) -> None:
        if stage.world.is_stopped:
            return
        reader = cast("Watcher", stage.subscribe(name, request, resets=resets))
        while reader.is_open and (reader.phase is not Phase.LIVE or reader.index < upto):
            await stage.receive(cast("Any", reader))

    return begin


def publishes(*values: str) -> Actor:
    """Commits to the one topic and to the other in turn."""

    async def publish(stage: Stage) -> None:
        for number, value in enumerate(values):
            await stage.pause()
            cast("WideStage", stage).commit(value, topic=TOPICS[number % 2])

    return publish


async def waits_until_ready(stage: Stage) -> None:
    reader = stage.readers["reader"]
    with suppress(ClosedResourceError, SubscriptionForceClosed):
        await reader.subscription.wait_ready()
        assert reader.subscription.state is SubscriptionState.LIVE


async def leaves(stage: Stage) -> None:
    await stage.pause()
    if (reader := stage.readers.get("reader")) is not None:
        stage.world.unsubscribe(reader)


async def cancels(stage: Stage) -> None:
    await stage.pause()
    stage.cancels["reader"]()


async def revokes(stage: Stage) -> None:
    await stage.pause()
    stage.world.revoke(["t"])


async def refreshes(stage: Stage) -> None:
    await stage.pause()
    stage.world.refresh(JOBS, [(Subject("web"), "another")])


async def stops(stage: Stage) -> None:
    await stage.pause()
    stage.stop()


async def stops_and_ends(stage: Stage) -> None:
    await stage.pause()
    stage.stop()
    stage.end_publisher()


async def comes_back(stage: Stage) -> None:
    reader = stage.subscribe("reader", BOTH.after(AFTER_A))
    await stage.receive(reader)
    stage.world.unsubscribe(reader)
    await stage.receive(stage.world.resume(reader))


def script(actors: dict[str, Actor], *plans: Plan, **more: Any) -> Script:
    subscribed = more.pop("subscribed", None)
    all_end = more.pop("all_end", True)
    return Script(actors, list(plans), more, subscribed, all_end, WideStage)


RESUMED = BOTH.after(AFTER_A)
AHEAD = PREFIX.after(Cursor(2, "e0", "e0-2"))

SMALL = {
    "publish, receive of a union": script({"reader": reads(RESUMED, 2), "writer": publishes("b", "c")}),
    "publish, receive a batch of a union": script(
        {"reader": reads(RESUMED, 1, most=8), "writer": publishes("b", "c", "d")}
    ),
    "publish, receive of a prefix": script(
        {"reader": reads(PREFIX.after(AFTER_A), 1), "writer": publishes("b", "c")}
    ),
    "wake, cancel one of a union": script(
        {"reader": reads(RESUMED, 3), "writer": publishes("b", "c"), "canceller": cancels}
    ),
    "wake, leave a union": script(
        {"reader": reads(RESUMED, 3), "writer": publishes("b", "c"), "leaver": leaves}, subscribed=RESUMED
    ),
    "wake, revoke a union": script(
        {"reader": reads(RESUMED, 3), "writer": publishes("b", "c"), "revoker": revokes}, subscribed=RESUMED
    ),
    "wake, refresh one topic of a union": script(
        {"reader": reads(RESUMED, 3), "writer": publishes("b", "c"), "refresher": refreshes},
        subscribed=RESUMED,
    ),
    "wake, stop a union": script(
        {"reader": reads(RESUMED, 3), "writer": publishes("b", "c"), "stopper": stops}, subscribed=RESUMED
    ),
    "judge, publish, wait until ready": script(
        {"waiter": waits_until_ready, "reader": reads(AHEAD, 1), "writer": publishes("b", "c", "d")},
        subscribed=AHEAD,
        has_marks=True,
    ),
    "judge, stop, wait until ready": script(
        {"waiter": waits_until_ready, "stopper": stops, "writer": publishes("b", "c")},
        subscribed=AHEAD,
        has_marks=True,
    ),
    "lag of a union, begin anew": script(
        {"reader": reads(RESUMED, 2, resets=True), "writer": publishes("b", "c")}, history=1, all_end=False
    ),
    "leave a union and come back, publish": script({"reader": comes_back, "writer": publishes("b", "c")}),
}

LONG = {
    "publish, compose": script({"reader": begins(upto=2), "writer": publishes("b", "c")}, Plan(is_late=True)),
    "publish, compose what is behind": script(
        {"reader": begins(upto=3), "writer": publishes("b", "c")},
        Plan("behind", pauses=1),
        Plan(is_late=True),
    ),
    "publish, compose what is ahead": script(
        {"reader": begins(upto=3), "writer": publishes("b", "c")}, Plan("ahead", pauses=1), has_marks=True
    ),
    "publish, compose what is ahead of another copy": script(
        {"reader": begins(resets=True, upto=3), "writer": publishes("b", "c")},
        Plan("ahead", pauses=1, says="false mark"),
        has_marks=True,
    ),
    "compose, leave": script({"reader": begins(), "leaver": leaves}, Plan(pauses=1), ttl=0.0),
    "compose, cancel": script({"reader": begins(), "canceller": cancels}, Plan(pauses=1), ttl=0.0),
    "compose, stop": script({"reader": begins(), "stopper": stops_and_ends}, Plan(pauses=1)),
    "compose, revoke": script({"reader": begins(), "revoker": revokes}, Plan(pauses=1)),
    "compose, refresh one topic": script({"reader": begins(), "refresher": refreshes}, Plan(pauses=1)),
    "compose for two": script(
        {"reader": begins(upto=2), "other": begins(name="other", upto=2), "writer": publishes("b")}
    ),
    "compose beside a part": script(
        {
            "reader": begins(upto=2),
            "other": begins(SubscribeRequest(JOBS), name="other"),
            "writer": publishes("b"),
        },
        ttl=0.0,
    ),
    "compose, a part fails": script(
        {"reader": begins(), "other": begins(name="other")}, Plan(pauses=1), Plan(pauses=1, fails_after=0)
    ),
    "compose, lag": script(
        {"reader": begins(), "writer": publishes("b", "c", "d")}, Plan(pauses=1), history=1
    ),
    "compose, lag and begin anew": script(
        {"reader": begins(resets=True, upto=4), "writer": publishes("b", "c", "d")}, Plan(pauses=1), history=1
    ),
}
