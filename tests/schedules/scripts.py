"""Small scripts, of at most three tasks of at most six steps, and longer ones.

Of the small ones every order is tried, and in every order everybody comes to his end.
"""

from catalogue import HEALTH
from model.books import Plan
from model.checker import Phase
from schedules.stage import WEB, Actor, Script, Stage

from trio_stream import Subject, SubscribeRequest

AFTER_A = SubscribeRequest(HEALTH, "web", token="t", index=1)


def reads(count: int, *, most: int = 0, resets: bool = False, name: str = "reader") -> Actor:
    """Resumes after the first commit, and receives so often."""

    async def read(stage: Stage) -> None:
        reader = stage.readers.get(name) or stage.subscribe(name, AFTER_A, resets=resets)
        for _ in range(count):
            await stage.receive(reader, most)

    return read


def begins(*, name: str = "reader", upto: int = 0) -> Actor:
    """Receives its snapshot, and everything up to an index."""

    async def begin(stage: Stage) -> None:
        reader = stage.readers.get(name) or stage.subscribe(name)
        while reader.is_open and (reader.trace.phase is not Phase.LIVE or reader.trace.index < upto):
            await stage.receive(reader)

    return begin


def publishes(*values: str | None, pauses: int = 1) -> Actor:
    """Commits a value after each pause."""

    async def publish(stage: Stage) -> None:
        for value in values:
            for _ in range(pauses):
                await stage.pause()
            stage.commit(value)

    return publish


def leaves(name: str = "reader") -> Actor:
    """Has a reader unsubscribe."""

    async def leave(stage: Stage) -> None:
        await stage.pause()
        if (reader := stage.readers.get(name)) is not None:
            stage.world.unsubscribe(reader)

    return leave


def cancels(name: str = "reader") -> Actor:
    """Cancels a reader wherever it is; natively on asyncio."""

    async def cancel(stage: Stage) -> None:
        await stage.pause()
        stage.cancels[name]()

    return cancel


async def revokes(stage: Stage) -> None:
    await stage.pause()
    stage.world.revoke(["t"])


async def refreshes(stage: Stage) -> None:
    await stage.pause()
    stage.world.refresh(HEALTH, [(Subject("web"), "another")])


async def stops(stage: Stage) -> None:
    await stage.pause()
    stage.stop()


async def reads_and_comes_back(stage: Stage) -> None:
    reader = stage.subscribe("reader", AFTER_A)
    await stage.receive(reader)
    stage.world.unsubscribe(reader)
    await stage.receive(stage.world.resume(reader))


async def begins_and_comes_back(stage: Stage) -> None:
    reader = stage.subscribe("reader")
    await stage.receive(reader)
    await stage.receive(reader)
    stage.world.unsubscribe(reader)
    await stage.receive(stage.world.resume(reader))


async def begins_and_leaves(stage: Stage) -> None:
    reader = stage.subscribe("other")
    while reader.is_open and reader.trace.phase is not Phase.LIVE:
        await stage.receive(reader, 2)
    stage.world.unsubscribe(reader)


async def reads_slowly(stage: Stage) -> None:
    reader = stage.subscribe("reader", AFTER_A)
    for _ in range(2):
        await stage.pause()
        await stage.receive(reader)


SMALL = {
    "publish, receive": Script({"reader": reads(2), "writer": publishes("b", None)}),
    "publish, receive a batch": Script({"reader": reads(1, most=8), "writer": publishes("b", "c", "d")}),
    "publish, two receive": Script(
        {"reader": reads(2), "other": reads(2, name="other"), "writer": publishes("b", "c")}
    ),
    "publish, make a snapshot": Script(
        {"reader": begins(upto=2), "writer": publishes("b")}, [Plan(is_late=True)]
    ),
    "publish, make a snapshot that is behind": Script(
        {"reader": begins(upto=3), "writer": publishes("b", "c")}, [Plan("behind", pauses=1)]
    ),
    "publish, make a snapshot that is ahead": Script(
        {"reader": begins(upto=2), "writer": publishes("b")}, [Plan("ahead", pauses=1)]
    ),
    "wake, cancel": Script({"reader": reads(3), "writer": publishes("b", "c"), "canceller": cancels()}),
    "wake, leave": Script(
        {"reader": reads(3), "writer": publishes("b", "c"), "leaver": leaves()}, subscribed=AFTER_A
    ),
    "wake, revoke": Script(
        {"reader": reads(3), "writer": publishes("b", "c"), "revoker": revokes}, subscribed=AFTER_A
    ),
    "wake, refresh": Script(
        {"reader": reads(3), "writer": publishes("b", "c"), "refresher": refreshes}, subscribed=AFTER_A
    ),
    "wake, stop": Script(
        {"reader": reads(3), "writer": publishes("b", "c"), "stopper": stops}, subscribed=AFTER_A
    ),
    "cancel, leave": Script(
        {"reader": reads(1), "canceller": cancels(), "leaver": leaves()}, subscribed=AFTER_A
    ),
    "lag, read": Script({"reader": reads_slowly, "writer": publishes("b", "c")}, options={"history": 1}),
    "lag, begin anew": Script(
        {"reader": reads(2, resets=True), "writer": publishes("b", "c")}, options={"history": 1}
    ),
    "complete a snapshot, leave": Script(
        {"reader": begins(), "leaver": leaves()}, [Plan(pauses=1)], {"ttl": 0.0}
    ),
    "complete a snapshot, cancel one of two": Script(
        {"reader": begins(), "other": begins_and_leaves, "canceller": cancels()}, [Plan()], {"ttl": 0.0}
    ),
    "fail a snapshot, join it": Script(
        {"reader": begins(), "other": begins_and_leaves}, [Plan(pauses=1, fails_after=1)]
    ),
    "leave and come back, publish": Script({"reader": reads_and_comes_back, "writer": publishes("b", "c")}),
}

LONG = {
    "publish while a snapshot is made": Script(
        {"reader": begins(upto=4), "writer": publishes("b", None, "c")}, [Plan(is_late=True, pauses=1)]
    ),
    "two share a snapshot and one leaves": Script(
        {"reader": begins(), "other": begins_and_leaves, "leaver": leaves()}, [Plan(pauses=2)], {"ttl": 0.0}
    ),
    "a snapshot fails for two": Script(
        {"reader": begins(), "other": begins_and_leaves, "writer": publishes("b", None, "c")},
        [Plan(pauses=1, fails_after=1)],
    ),
    "revoke behind a snapshot": Script(
        {"reader": begins(upto=5), "writer": publishes("b", None, "c"), "revoker": revokes}, subscribed=WEB
    ),
    "refresh behind a snapshot": Script(
        {"reader": begins(upto=5), "writer": publishes("b", None, "c"), "refresher": refreshes},
        subscribed=WEB,
    ),
    "cancel behind a snapshot": Script(
        {"reader": begins(upto=5), "writer": publishes("b", None, "c"), "canceller": cancels()}
    ),
    "come back while it is published": Script(
        {"reader": begins_and_comes_back, "writer": publishes("b", None, "c")}, all_end=False
    ),
    "lag and go on": Script(
        {"reader": reads(3, resets=True), "writer": publishes("b", None, "c")},
        [Plan(), Plan(pauses=1)],
        {"history": 1},
    ),
    "resume beside a fresh one": Script(
        {"reader": begins_and_comes_back, "other": begins_and_leaves, "writer": publishes("b", None, "c")},
        options={"ttl": 0.0, "history": 2},
        all_end=False,
    ),
}
