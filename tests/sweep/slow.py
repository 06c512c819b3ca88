"""Readers with rights, of what ends, that conflate or are replayed: cancelled wherever they wait, beside a twin.

The twin asks for the same at the same time and is never cancelled: both must get the same.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from catalogue import JOBS, Health, kinds
from conflated import EVERY, by_row
from logged import Logged, after, filled, logged
from replaced import Asked, Replacing, replacing
from scenes import WEB, quiet
from sweep.driver import Scene, Setting
from unions import BOTH, Rows, fold

from trio_stream import (
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    WouldBlock,
)

Take = Callable[[Subscription[Health]], Awaitable[Iterable[Event[Health]]]]
VALUES = ("rw", "r", "rw", "w", None, "rw", "r")  # of which a reader may have some


@dataclass
class Twins:
    """Two readers who have asked for the same, what they got, and what makes more of it come."""

    mine: Subscription[Health]
    other: Subscription[Health]
    more: Callable[[], object]
    publisher: EventPublisher

    def __post_init__(self) -> None:
        self.got: list[Event[Health]] = []
        self.reference: list[Event[Health]] = []
        self.ends: list[str] = []

    async def rest(self) -> None:
        """Both get what is ready, until nothing comes any more."""
        for _ in range(60):
            before = len(self.got), len(self.reference)
            for subscription, events in ((self.mine, self.got), (self.other, self.reference)):
                self.take(subscription, events)
            await quiet()
            if (len(self.got), len(self.reference)) == before and self.mine.horizon == self.other.horizon:
                return

    def take(self, subscription: Subscription[Health], events: list[Event[Health]]) -> None:
        try:
            while True:
                events.append(subscription.receive_nowait())
        except (WouldBlock, EndOfSubject):
            pass

    async def nobody_waits(self) -> None:
        assert self.publisher.statistics().waiting == 0

    def has_all(self) -> None:
        assert kinds(self.got) == kinds(self.reference)
        assert self.mine.state is self.other.state
        assert self.mine.cursor == self.other.cursor
        self.counts_agree()

    def has_the_same_state(self) -> None:
        rows: list[Rows] = [fold({}, self.got), fold({}, self.reference)]
        assert rows[0] == rows[1]
        assert self.mine.horizon == self.other.horizon == self.publisher.index

    def have_begun_anew(self) -> None:
        for events in (self.got, self.reference):
            assert [each.index for each in events[:6]] == [4, 5, 6, 7, 8, 9]
            assert [each.is_new_snapshot_to_follow for each in events].index(True) == 6
        self.has_the_same_state()

    def counts_agree(self) -> None:
        mine, other = self.mine.statistics(), self.other.statistics()
        assert (mine.delivered, mine.hidden, mine.withdrawn) == (
            other.delivered,
            other.hidden,
            other.withdrawn,
        )

    def leave(self) -> None:
        self.mine.unsubscribe()
        self.other.unsubscribe()


def reading(
    twins: Callable[[], Any], take: Take, *, upto: int, agree: Callable[[Twins], None] = Twins.has_all
) -> Scene:
    """Receives up to an index, or the end of the subject."""

    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with twins() as pair:

            async def call() -> None:
                try:
                    while pair.mine.horizon < upto:
                        pair.got.extend(await take(pair.mine))
                except (EndOfSubject, StopAsyncIteration):
                    pass

            async def check() -> None:
                pair.more()
                await pair.rest()
                agree(pair)
                assert pair.mine.horizon >= upto
                pair.leave()
                await quiet()
                assert pair.publisher.statistics().subscriptions == 0

            yield Setting(call, pair.more, pair.nobody_waits, check)

    return scene


@asynccontextmanager
async def seeing_some(request: SubscribeRequest[Health] = WEB) -> AsyncIterator[Twins]:
    """An authorizer and a filter; what they replace is known."""
    async with replacing(snapshot_cache_ttl=0) as (store, publisher):
        store.commit(("web", "rw0"))

        def subscribe() -> Subscription[Health]:
            asked = Asked()
            return publisher.subscribe(request, authorizer=asked, where=asked.where)

        def more() -> None:
            value = VALUES[store.index % len(VALUES)]
            if value is None:
                store.commit(("web", None), ("we", "rw"))
            else:
                store.commit(("web", f"{value}{store.index}"))

        yield Twins(subscribe(), subscribe(), more, publisher)


@asynccontextmanager
async def coming_to_an_end(request: SubscribeRequest[Health] = WEB) -> AsyncIterator[Twins]:
    """The third commit finishes the subject, the fourth the other one."""
    async with replacing(snapshot_cache_ttl=0) as (store, publisher):
        store.commit(("web", "1"))

        def more() -> None:
            match store.index:
                case 1 | 4:
                    store.commit(("another", f"{store.index}"))
                case 2:
                    store.commit(("web", "3"), finish=["web"])
                case 3:
                    store.commit(("", "4"), topic=JOBS, finish=["job"])
                case _:
                    pass

        yield Twins(publisher.subscribe(request), publisher.subscribe(request), more, publisher)


@asynccontextmanager
async def conflating(**rights: Any) -> AsyncIterator[Twins]:
    """Three commits come at once."""
    async with by_row(snapshot_cache_ttl=0) as (_, publisher):
        store = Replacing()
        store.publisher = publisher

        def subscribe() -> Subscription[Health]:
            return publisher.subscribe(EVERY, on_lag="conflate", **rights)

        def more() -> None:
            for key in ("a", "b", "a"):
                value = VALUES[store.index % len(VALUES)]
                store.commit((key, None if value is None else f"{value}{store.index}"))

        mine, other = subscribe(), subscribe()
        yield Twins(mine, other, more, publisher)


def replayed(
    store: Callable[[], Logged],
    *,
    begin: int,
    on_lag: Any = "close",
    request: SubscribeRequest[Health] = EVERY,
) -> Callable[[], Any]:
    """Both resume far below what the history has; the function waits here and there."""

    @asynccontextmanager
    async def twins() -> AsyncIterator[Twins]:
        log = store()
        gates = [log.hold(at) for at in (0, begin + 2, begin + 5)]
        async with logged(log, history=2, snapshot_cache_ttl=0) as (_, publisher):

            def more() -> None:
                if gates:
                    gates.pop(0).set()
                else:
                    log.fill(1)

            def subscribe() -> Subscription[Health]:
                return publisher.subscribe(after(log, begin, request), on_lag=on_lag)

            yield Twins(subscribe(), subscribe(), more, publisher)

    return twins


class Failing(Logged):
    """Its function fails when it is asked for the third page."""

    async def replay(
        self, request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        if cursor.index >= 9:
            raise RuntimeError("the log cannot be read")
        return await super().replay(request, cursor, appender)


def failing() -> Logged:
    log = Failing(copy="a")
    log.fill(20)
    return log


def unmarked() -> Logged:
    return filled(20)


def with_marks() -> Logged:
    return filled(20, copy="a")


async def receive(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await subscription.receive()]


async def iterate(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await anext(subscription)]


async def receive_batch(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_batch(2))


async def receive_until_current(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_until_current())


async def wait_and_receive(subscription: Subscription[Health]) -> list[Event[Health]]:
    await subscription.wait_ready()
    return [await subscription.receive()]


WAYS: dict[str, Take] = {
    "receive": receive,
    "__anext__": iterate,
    "receive_batch": receive_batch,
    "receive_until_current": receive_until_current,
}


def each_way(name: str, twins: Callable[[], Any], *, upto: int, **more: Any) -> dict[str, Scene]:
    return {
        f"Subscription.{way}, each step of {name}": reading(twins, take, upto=upto, **more)
        for way, take in WAYS.items()
    }


SLOW: dict[str, Scene] = {
    **each_way("what some may see", seeing_some, upto=8),
    **each_way("a subject that ends", coming_to_an_end, upto=3),
    **each_way(
        "two subjects that end",
        lambda: coming_to_an_end(WEB | SubscribeRequest(JOBS, "job")),
        upto=4,
    ),
    **each_way("conflation", conflating, upto=6, agree=Twins.has_the_same_state),
    **each_way(
        "conflation of what some may see",
        lambda: conflating(authorizer=(asked := Asked()), where=asked.where),
        upto=6,
        agree=Twins.has_the_same_state,
    ),
    **each_way("a replay", replayed(unmarked, begin=9), upto=20),
    **each_way("a replay of two topics", replayed(unmarked, begin=12, request=BOTH), upto=20),
    **each_way(
        "a replay that fails",
        replayed(failing, begin=3, on_lag="reset"),
        upto=20,
        agree=Twins.have_begun_anew,
    ),
    "Subscription.wait_ready, each step of a cursor that a replay judges": reading(
        replayed(with_marks, begin=9), wait_and_receive, upto=20
    ),
}
