"""D7, D12, D15: `SnapshotAppender.extend` is many calls of `append`, with fewer checkpoints between them."""

from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Health, event, ready
from interruptions import Stepwise
from logged import Logged, after, logged, until
from scenes import ALL, opened, quiet
from typing_extensions import override

from trio_stream import (
    ClosedResourceError,
    Cursor,
    Event,
    InvalidCommitError,
    SnapshotAppender,
    SubscribeRequest,
)

pytestmark = pytest.mark.anyio

Appender = SnapshotAppender[Health]


class Extending(Logged):
    """Its replay function appends all that the log has behind the cursor by one call, counted in suspensions."""

    def __init__(self, commits: int, keys: str = "abc") -> None:
        super().__init__()
        self.fill(commits, keys)
        self.taken: list[int] = []
        self.suspensions: list[int] = []
        self.appenders: list[Appender] = []

    @override
    async def replay(self, request: SubscribeRequest[Health], cursor: Cursor, appender: Appender) -> Cursor:
        self.appenders.append(appender)
        counted = Stepwise(lambda: appender.extend(self.log[cursor.index :]))
        self.taken.append(await counted)
        self.suspensions.append(counted.suspensions)
        return self.cursor(cursor.index + self.taken[-1])


async def test_every_commit_comes_once_and_a_page_takes_no_more_than_it_holds() -> None:
    """Its answer is how many commits are in the page."""
    store = Extending(3_000)
    async with logged(store) as (_, publisher):
        got = await until(publisher.subscribe(after(store, 1)), 3_000)
    assert [each.index for each in got] == [*range(2, 3_001)]
    assert store.taken == [1_024, 1_024, 951]


async def test_what_the_request_does_not_cover_is_taken_and_dropped() -> None:
    store = Extending(90)
    async with logged(store) as (_, publisher):
        got = await until(publisher.subscribe(after(store, 1, SubscribeRequest(HEALTH, "a"))), 90)
    assert [each.index for each in got] == [*range(3, 91, 3)]
    assert store.taken == [89]


@pytest.mark.parametrize(
    ("commits", "events", "checkpoints"),
    [(1, 1, 1), (64, 1, 1), (65, 1, 2), (640, 1, 10), (3, 200, 4), (6, 32, 3)],
)
async def test_it_gives_way_once_and_then_every_64_events(
    commits: int, events: int, checkpoints: int
) -> None:
    """A commit is never divided."""
    store = Extending(0)
    store.commit(("before", "x"))
    for number in range(commits):
        store.commit(*((f"{key}", f"{number}") for key in range(events)))
    async with logged(store) as (_, publisher):
        await until(publisher.subscribe(after(store, 1)), 1 + commits)
    assert store.suspensions[0] == checkpoints


@pytest.mark.parametrize("is_replay", [True, False])
async def test_of_nothing_it_is_a_checkpoint(is_replay: bool) -> None:
    counts: list[tuple[int, int]] = []

    async def nothing(appender: Appender) -> None:
        counted = Stepwise(lambda: appender.extend([]))
        counts.append((await counted, counted.suspensions))

    class Idle(Logged):
        @override
        async def replay(self, request: Any, cursor: Cursor, appender: Appender) -> Cursor:
            await nothing(appender)
            return await super().replay(request, cursor, appender)

        @override
        async def snapshot(self, request: Any, snapshot: Appender) -> Any:
            await nothing(snapshot)
            return await super().snapshot(request, snapshot)

    store = Idle()
    store.fill(20)
    async with logged(store) as (_, publisher):
        await until(publisher.subscribe(after(store, 15) if is_replay else ALL), 20)
    assert set(counts) == {(0, 1)}


async def test_what_came_before_a_wrong_commit_is_appended() -> None:
    """And the error is raised to the function."""
    errors: list[InvalidCommitError] = []

    class Wrong(Extending):
        def commits(self, after_: int) -> Iterator[Sequence[Event[Health]]]:
            yield from self.log[after_ : after_ + 2]
            yield [event(after_ + 3, "w", "1", topic=JOBS)]
            raise AssertionError("nobody asks for more")

        @override
        async def replay(self, request: Any, cursor: Cursor, appender: Appender) -> Cursor:
            try:
                await appender.extend(self.commits(cursor.index))
            except InvalidCommitError as error:
                errors.append(error)
            await appender.append(self.log[cursor.index + 2])
            return self.cursor(cursor.index + 3)

    store = Wrong(20)
    async with logged(store) as (_, publisher):
        got = await until(publisher.subscribe(after(store, 4)), 13)
    assert [each.index for each in got] == [*range(5, 14)]
    assert len(errors) == 3


async def test_commits_out_of_order_are_refused() -> None:
    errors: list[InvalidCommitError] = []

    class Again(Extending):
        @override
        async def replay(self, request: Any, cursor: Cursor, appender: Appender) -> Cursor:
            if cursor.index > 4:
                return await super().replay(request, cursor, appender)
            with pytest.raises(InvalidCommitError, match="after 6") as raised:
                await appender.extend([self.log[4], self.log[5], self.log[5]])
            errors.append(raised.value)
            return self.cursor(6)

    store = Again(20)
    async with logged(store) as (_, publisher):
        got = await until(publisher.subscribe(after(store, 4)), 20)
    assert [each.index for each in got] == [*range(5, 21)]
    assert len(errors) == 1


async def test_when_the_function_has_returned_it_is_refused() -> None:
    store = Extending(20)
    async with logged(store) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3))
        await until(subscription, 20)
        with pytest.raises(ClosedResourceError):
            await store.appenders[0].extend([[event(21, "a", "x")]])
        assert ready(subscription) == []


@pytest.mark.parametrize("at", range(4))
async def test_where_it_is_cancelled_nothing_is_lost_or_comes_twice(at: int) -> None:
    """D12: the function that is called again goes on behind what is in the page."""

    class Cancelled(Extending):
        @override
        async def replay(self, request: Any, cursor: Cursor, appender: Appender) -> Cursor:
            reached = cursor.index

            def counted() -> Iterator[Sequence[Event[Health]]]:
                nonlocal reached
                for commit in self.log[cursor.index :]:
                    yield commit
                    reached = commit[0].index  # asked for the next one: it was taken

            with anyio.CancelScope() as scope:
                await Stepwise(
                    lambda: appender.extend(counted()),
                    lambda number: scope.cancel() if number == at else None,
                )
                reached = self.index
            if reached == cursor.index:
                await appender.extend(counted())
                reached = self.index
            return self.cursor(reached)

    store = Cancelled(200)
    async with logged(store) as (_, publisher):
        got = await until(publisher.subscribe(after(store, 4)), 200)
    assert [each.index for each in got] == [*range(5, 201)]


async def test_in_a_snapshot_it_waits_for_the_readers_as_append_does() -> None:
    """D4: and gives the whole state."""
    appended = 0

    async def handler(request: SubscribeRequest[Health], snapshot: Appender) -> int:
        def rows() -> Iterator[list[Event[Health]]]:
            nonlocal appended
            for appended in range(1, 5_001):
                yield [event(1, f"{appended:04}", "x")]

        assert await snapshot.extend(rows()) == 5_000
        return 1

    async with opened(handler) as (_, publisher):
        subscription = publisher.subscribe(ALL)
        await subscription.receive()
        await quiet()
        assert appended < 2_000
        got = [await subscription.receive()]
        while not got[-1].is_end_of_snapshot:
            got.append(await subscription.receive())
    assert len(got) == 5_000  # one was received before, and the last is the end


async def test_in_a_snapshot_that_nobody_reads_any_more_it_stops_after_the_first() -> None:
    """The function is cancelled then; this one hears of it later."""
    taken: list[int] = []
    begun, left = anyio.Event(), anyio.Event()

    async def handler(request: SubscribeRequest[Health], snapshot: Appender) -> int:
        with anyio.CancelScope(shield=True):
            begun.set()
            await left.wait()
            taken.append(await snapshot.extend([[event(1, key, "x")] for key in "abc"]))
        return 1

    async with opened(handler) as (_, publisher):
        subscription = publisher.subscribe(ALL)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscription.receive)
            await begun.wait()
            tasks.cancel_scope.cancel()
        await subscription.aclose()
        left.set()
        await quiet()
    assert taken == [1]
