"""Where the state of a prefix, or of every namespace, comes from: a source that knows them, or the blank key's."""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from scenes import Held, opened, quiet

from trio_stream import (
    ALL,
    Cursor,
    Event,
    EventPublisher,
    Interest,
    SnapshotAppender,
    SnapshotFailed,
    Source,
    Subject,
    SubscribeRequest,
    open_publisher,
)

pytestmark = pytest.mark.anyio

WEBS = SubscribeRequest(HEALTH, "we", prefix=True)
EVERYWHERE = SubscribeRequest(HEALTH, namespace=ALL)
ANY_WEB = SubscribeRequest(HEALTH, "web", namespace=ALL)
EVERYTHING = SubscribeRequest(HEALTH, "we", prefix=True, namespace=ALL, partition=ALL)
WIDE = [EVERYWHERE, ANY_WEB, EVERYTHING, SubscribeRequest(HEALTH, partition=ALL)]


class Asked:
    """A source of `store` that remembers what it was asked for."""

    def __init__(self, *, wide: bool) -> None:
        self.store = Catalogue()
        self.requests: list[SubscribeRequest[Health]] = []
        self.source = Source(self, wide=wide)

    async def __call__(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        self.requests.append(request)
        return await self.store.snapshot(request, snapshot)


def fill(store: Catalogue) -> None:
    store.commit(("web", "1"), ("we", "1"), ("Web", "1"), ("db", "1"))
    store.commit(("web", "2"), namespace="team")
    store.commit(("db", "3"), namespace="team")


@pytest.mark.parametrize("wide", [True, False])
async def test_a_prefix_is_made_by_a_source_that_knows_it_or_from_every_key(wide: bool) -> None:
    """D1, D14: its reader gets the same."""
    asked = Asked(wide=wide)
    fill(asked.store)
    async with open_publisher({HEALTH: asked.source}, index=3) as publisher:
        asked.store.publisher = publisher
        subscription = publisher.subscribe(WEBS)
        assert sorted(kinds(await until_live(subscription))) == ["1:we=1", "1:web=1", "eos@3"]
        assert asked.requests == [WEBS if wide else SubscribeRequest(HEALTH)]
        assert asked.requests[0].prefix is wide
        asked.store.commit(("w", "4"), ("we", "4"), ("west", "4"), ("db", "4"))
        asked.store.commit(("web", "5"), namespace="team")
        asked.store.commit(("web", None))
        assert kinds(ready(subscription)) == ["4:we=4+west=4", "6:web=None"]


async def test_a_source_that_is_none_is_not_wide() -> None:
    """D1: a snapshot function alone, which was written before there were prefixes, is right for them."""
    async with opened() as (store, publisher):
        fill(store)
        assert sorted(kinds(await until_live(publisher.subscribe(WEBS)))) == ["1:we=1", "1:web=1", "eos@3"]


async def test_a_blank_prefix_is_every_key() -> None:
    """D14: it shares the snapshot of who asks for every key."""
    asked = Asked(wide=True)
    async with open_publisher({HEALTH: asked.source}) as publisher:
        await until_live(publisher.subscribe(SubscribeRequest(HEALTH, prefix=True)))
        await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))
        assert asked.requests == [SubscribeRequest(HEALTH)]


@pytest.mark.parametrize("request_", WIDE, ids=range(len(WIDE)))
async def test_a_wide_source_is_asked_for_every_namespace_as_the_reader_has_asked(
    request_: SubscribeRequest[Health],
) -> None:
    """D1, D14: and what comes is what the request covers."""
    asked = Asked(wide=True)
    fill(asked.store)
    async with open_publisher({HEALTH: asked.source}, index=3) as publisher:
        asked.store.publisher = publisher
        herd = [publisher.subscribe(request_.after(None)) for _ in range(3)]
        for subscription in herd:
            events = await until_live(subscription)
            rows = {each.payloads[0].subject for each in events if not each.is_framing}
            state = asked.store.states[3][HEALTH]
            assert rows == {subject for subject in state if request_.covers(HEALTH, subject)}
        assert asked.requests == [request_]
        with pytest.raises(ValueError, match="is no subject"):
            _ = asked.requests[0].subject
        fill(asked.store)
        published = [
            (index, subject)
            for index, keys in ((4, ["web", "we", "Web", "db"]), (5, ["web"]), (6, ["db"]))
            for subject in [Subject(key, "default" if index == 4 else "team") for key in keys]
        ]
        for subscription in herd:
            got = [
                (one.index, one.payloads[0].subject) for each in ready(subscription) for one in each.events
            ]
            assert got == [
                (index, subject) for index, subject in published if request_.covers(HEALTH, subject)
            ]


@pytest.mark.parametrize("index", [0, 1, 9])
@pytest.mark.parametrize("request_", [*WIDE, SubscribeRequest(JOBS) | EVERYWHERE], ids=range(len(WIDE) + 1))
async def test_a_source_that_is_not_wide_cannot_be_asked_for_every_namespace(
    request_: SubscribeRequest[Health], index: int
) -> None:
    """D18: at the call, also for a resume, and nothing has changed."""
    asked = Asked(wide=False)
    wide = Source(asked.store.snapshot, wide=True)
    async with open_publisher({HEALTH: asked.source, JOBS: wide}, epoch="e", index=1) as publisher:
        before = publisher.statistics()
        with pytest.raises(ValueError, match="the source of topic 'health' is not wide"):
            publisher.subscribe(request_.after(Cursor(index, "e")))
        await quiet()
        assert publisher.statistics() == before
        assert asked.requests == []


async def test_a_topic_may_be_wide_and_another_not() -> None:
    """D22: each part is asked for as its source knows it."""
    health, jobs = Asked(wide=True), Asked(wide=False)
    jobs.store = health.store
    async with open_publisher({HEALTH: health.source}) as publisher:
        publisher.register_handler(JOBS, jobs.source)
        await until_live(publisher.subscribe(EVERYWHERE | SubscribeRequest(JOBS, "a", prefix=True)))
        assert health.requests == [EVERYWHERE]
        assert jobs.requests == [SubscribeRequest(JOBS)]


@pytest.mark.parametrize("wide", [True, False])
async def test_a_herd_that_asks_for_one_prefix_shares_a_run(wide: bool) -> None:
    """D14."""
    asked = Asked(wide=wide)
    async with open_publisher({HEALTH: asked.source}) as publisher:
        herd = [publisher.subscribe(WEBS) for _ in range(50)]
        received = [await until_live(subscription) for subscription in herd]
        received += [ready(publisher.subscribe(WEBS)) for _ in range(50)]
        assert len({tuple(map(id, events)) for events in received}) == 1
        assert len(asked.requests) == 1


async def test_what_a_wide_source_appends_too_much_is_dropped() -> None:
    """D1: it may append everything there is."""

    async def everything(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        for key in ("web", "we", "w", "db"):
            for namespace in ("default", "team"):
                await snapshot.append(
                    [event(0, key, namespace=namespace), event(0, "x", namespace=namespace)]
                )
        return 0

    async with open_publisher({HEALTH: Source(everything, wide=True)}) as publisher:
        assert kinds(await until_live(publisher.subscribe(WEBS))) == ["0:web=ok", "0:we=ok", "eos@0"]
        events = await until_live(publisher.subscribe(ANY_WEB))
        assert kinds(events) == ["0:web=ok", "0:web=ok", "eos@0"]


async def test_the_feed_of_a_prefix_lives_as_long_as_somebody_needs_it() -> None:
    """D13, D8: its readers, and the cached snapshot behind which who comes later goes on."""
    async with opened(snapshot_cache_ttl=0) as (store, publisher):

        def feeds() -> int:
            return publisher.statistics().topics["health"].feeds

        subscription = publisher.subscribe(WEBS)
        await until_live(subscription)
        assert feeds() == 1
        second = publisher.subscribe(WEBS)
        await until_live(second)
        assert feeds() == 1
        subscription.unsubscribe()
        assert feeds() == 1
        second.unsubscribe()
        assert feeds() == 0
    async with opened() as (store, publisher):
        await until_live(subscription := publisher.subscribe(WEBS))
        subscription.unsubscribe()
        for value in "123":
            store.commit(("web", value))
        late = publisher.subscribe(WEBS)
        assert kinds(ready(late)) == ["eos@0", "1:web=1", "2:web=2", "3:web=3"]
        assert store.runs == 1


async def test_a_prefix_resumes_from_a_history_that_nobody_read_as_such() -> None:
    """D3, D7: the commits of before it came are looked through, whether somebody waits for it or not."""
    async with opened(history=3000) as (store, publisher):
        for index in range(1, 2001):
            publisher.publish([event(index, f"{'web' if index % 10 else 'db'}{index}")])
        cursor = Cursor(5, publisher.epoch)
        first, second = (publisher.subscribe(WEBS.after(cursor)) for _ in range(2))
        third = publisher.subscribe(WEBS.after(Cursor(1500, publisher.epoch)))
        publisher.publish([event(2001, "web")])
        expected = [index for index in range(6, 2002) if index % 10]
        for subscription, since in ((first, 5), (second, 5), (third, 1500)):
            await subscription.wait_ready()
            with anyio.fail_after(10):
                received = [*await subscription.receive_until_current()]
            assert [each.index for each in received] == [index for index in expected if index > since]
        assert store.runs == 0


async def test_who_waits_for_a_history_to_be_looked_through_may_leave() -> None:
    """D12, D13: the others get it."""
    async with opened(history=5000) as (_, publisher):
        for index in range(1, 4001):
            publisher.publish([event(index, "web")])
        subscriptions = [publisher.subscribe(WEBS.after(Cursor(1, publisher.epoch))) for _ in range(3)]
        with anyio.move_on_after(0):
            await subscriptions[0].receive()
        subscriptions[0].unsubscribe()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscriptions[1].receive)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        subscriptions[1].unsubscribe()
        received = await subscriptions[2].receive_until_current()
        assert [each.index for each in received] == list(range(2, 4001))
        subscriptions[2].unsubscribe()
        assert publisher.statistics().topics["health"].feeds == 2


async def test_when_all_leave_who_waited_for_a_history_the_next_one_is_served() -> None:
    """D13, D14: while it is still being looked through."""
    async with opened(history=5000) as (_, publisher):
        for index in range(1, 4001):
            publisher.publish([event(index, "web")])
        for _ in range(3):
            subscription = publisher.subscribe(WEBS.after(Cursor(1, publisher.epoch)))
            await anyio.lowlevel.checkpoint()
            subscription.unsubscribe()
        again = publisher.subscribe(WEBS.after(Cursor(1, publisher.epoch)))
        assert len(await again.receive_until_current()) == 3999


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_history_that_moves_on_while_it_is_looked_through(on_lag: Any) -> None:
    """D6, D11, D21: who is passed meanwhile is told; nothing is left out without a word."""
    async with opened(history=4000) as (store, publisher):
        for index in range(1, 4001):
            publisher.publish([event(index, f"web{index % 7}")])
        subscription = publisher.subscribe(WEBS.after(Cursor(1, publisher.epoch)), on_lag=on_lag)
        store.index = 4000
        store.states[4000] = {}
        for _ in range(100):
            store.commit(("web", "new"))
        if on_lag == "close":
            with pytest.raises(anyio.BrokenResourceError):
                await subscription.receive_until_current()
        else:
            events = await until_live(subscription)
            assert kinds(events)[0] == "marker"
            assert kinds(events)[-1] == "eos@4100"


async def test_stop_ends_who_waits_for_a_history() -> None:
    """D5, D13: what was published before comes first, and nothing hangs."""
    async with opened(history=5000) as (_, publisher):
        for index in range(1, 4001):
            publisher.publish([event(index, "web")])
        subscription = publisher.subscribe(WEBS.after(Cursor(1, publisher.epoch)))
    received: list[Event[Health]] = []
    with anyio.fail_after(10), pytest.raises(anyio.BrokenResourceError):
        while True:
            received.append(await subscription.receive())
    assert [each.index for each in received] == list(range(2, 4001))
    assert subscription.cursor.index == 4000


BAD: dict[str, tuple[Callable[[EventPublisher], object], type[Exception], str]] = {
    "no function": (
        lambda publisher: publisher.register_handler(JOBS, Source(None)),  # type: ignore[arg-type]
        TypeError,
        "the handler of 'jobs' is an async function",
    ),
    "a generator": (
        lambda publisher: publisher.register_handler(JOBS, Source(yielding)),
        TypeError,
        "the handler of 'jobs' yields",
    ),
    "twice": (
        lambda publisher: publisher.register_handler(HEALTH, Source(Catalogue().snapshot)),
        ValueError,
        "has a handler already",
    ),
    "a pair": (
        lambda publisher: publisher.register_handler(JOBS, (Catalogue().snapshot, True)),  # type: ignore[arg-type]
        TypeError,
        "the handler of 'jobs' is an async function",
    ),
    "wide is no flag": (
        lambda publisher: publisher.register_handler(JOBS, Source(Catalogue().snapshot, wide=1)),  # type: ignore[arg-type]
        TypeError,
        "wide is True or False",
    ),
}


async def yielding(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Any:
    yield 0


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD)
async def test_what_is_no_source_is_refused(
    call: Callable[[EventPublisher], object], kind: type[Exception], message: str
) -> None:
    """D18: and the topic is not there."""
    async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
        with pytest.raises(kind, match=message):
            call(publisher)
        assert set(publisher.statistics().topics) == {"health"}
        publisher.register_handler(JOBS, Source(Catalogue().snapshot))
        assert kinds(await until_live(publisher.subscribe(SubscribeRequest(JOBS)))) == ["eos@0"]


async def test_a_failing_source_fails_the_readers_of_a_prefix() -> None:
    """D16."""

    async def failing(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        raise LookupError("not ready")

    async with opened(failing) as (_, publisher):
        with pytest.raises(SnapshotFailed) as caught:
            await until_live(publisher.subscribe(WEBS))
        assert isinstance(caught.value.__cause__, LookupError)


async def test_when_all_readers_of_a_prefix_leave_its_run_is_cancelled() -> None:
    """D13, D14."""
    held = Held()
    async with opened(held) as (_, publisher):
        herd = [publisher.subscribe(WEBS) for _ in range(5)]
        await quiet()
        for subscription in herd:
            subscription.unsubscribe()
        await quiet()
        assert (len(held.requests), held.cancelled) == (1, 1)
        statistics = publisher.statistics().topics["health"]
        assert (statistics.snapshots, statistics.feeds) == (0, 0)


def test_an_interest_is_what_it_says() -> None:
    """D22: the names of its fields are public."""
    assert Interest(HEALTH) == (HEALTH, "", False, "default", "default")
    assert EVERYTHING.interests == (
        Interest(topic=HEALTH, key="we", prefix=True, namespace=ALL, partition=ALL),
    )
