"""Random courses over a store that older copies take the place of: whatever a reader holds was true where it says.

Readers ask for keys, prefixes and unions, leave and resume, are slow, cancelled, closed, reset and conflated.
In half of the courses the store has a log, from which they are replayed.
Commits are published late, the publisher stops and another one begins, and nobody says when the store was replaced.
A course is made by its seed alone, but on trio the order of tasks is by chance.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Health
from conflated import by_subject
from marked import EPOCH, Marked
from unions import Rows, fold, rows_at

from trio_stream import (
    ALL,
    CloseReason,
    Cursor,
    Event,
    EventPublisher,
    Interest,
    SnapshotAppender,
    SnapshotFailed,
    Source,
    StaleCursorError,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    WouldBlock,
    open_publisher,
)

pytestmark = pytest.mark.anyio

TOPICS = [HEALTH, JOBS]
KEYS = ["", "a", "ab", "b"]
NAMES = ["m", "n"]
PLACES: list[Any] = [*NAMES, ALL]


class World:
    """The store, what it has committed and is not published yet, and the present publisher."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.store = Marked()
        self.has_log = self.random.random() < 0.5
        self.log: list[list[Event[Health]]] = []
        self.unpublished: list[list[Event[Health]]] = []
        self.publisher = EventPublisher()
        self.checked = 0

    async def pause(self, most: int) -> None:
        for _ in range(self.random.randrange(most)):
            await anyio.lowlevel.checkpoint()

    def request(self) -> SubscribeRequest[Health]:
        choose = self.random.choice
        return SubscribeRequest(
            interests=[
                Interest(choose(TOPICS), choose(KEYS), choose([True, False]), choose(PLACES))
                for _ in range(choose([1, 1, 2, 3]))
            ],
            token=choose(["", "t"]),
        )

    def commit(self) -> None:
        choose, index = self.random.choice, self.store.index + 1
        value = f"{self.store.copy}{index}"
        events = [
            Event(choose(TOPICS), index, Health(choose(KEYS), choose([None, value]), choose(NAMES)))
            for _ in range(choose([1, 1, 2, 3]))
        ]
        self.store.commit_events(events)
        self.log.append([replace(each, mark=self.store.marks[index]) for each in events])
        self.unpublished.append(events)

    def publish(self) -> None:
        events = self.unpublished.pop(0)
        self.publisher.publish(events, mark=self.store.marks[events[0].index])

    def replace_store(self, index: int) -> None:
        self.unpublished.clear()
        self.store = self.store.as_of(index)
        self.log = [commit for commit in self.log if commit[0].index <= index]

    async def snapshot(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        cursor, rows = self.store.cursor(), rows_at(self.store, self.store.index, request)
        if self.random.random() < 0.05:
            raise LookupError("not ready")
        await self.pause(5)
        for (topic, subject), value in rows.items():
            await snapshot.append([Event(topic, cursor.index, Health(subject.key, value, subject.namespace))])
        await self.pause(5)
        return cursor

    async def replay(
        self, request: SubscribeRequest[Health], cursor: Cursor, page: SnapshotAppender[Health]
    ) -> Cursor:
        await self.pause(5)
        log, store = self.log, self.store
        if cursor.mark not in ("", store.cursor(cursor.index).mark):
            raise StaleCursorError
        reached = cursor.index
        for commit in [commit for commit in log if commit[0].index > cursor.index][
            : self.random.choice([1, 4, 20])
        ]:
            reached = commit[0].index
            await self.pause(3)
            if not await page.append(commit):
                break
        if self.random.random() < 0.05:
            raise LookupError("not ready")
        return store.cursor(reached)

    async def live(self) -> None:
        """Commits, publishes late, and sometimes something worse."""
        for _ in range(self.random.choice([20, 60])):
            if self.random.random() < 0.5:
                self.commit()
            while self.unpublished and self.random.random() < 0.5:
                self.publish()
            match self.random.randrange(40):
                case 0 | 1 | 2:
                    self.replace_store(self.publisher.index)
                case 3:
                    self.publisher.close_subscriptions(["t"])
                case 4:
                    self.publisher.refresh(self.random.choice(TOPICS))
                case _:
                    pass
            await self.pause(6)


class Client:
    """A reader that folds what it gets, and goes on with the next publisher where it was."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked = self.request = world.request()
        self.tasks: anyio.abc.TaskGroup
        self.rows: Rows = {}
        self.is_whole = False

    async def follow(self, tasks: anyio.abc.TaskGroup) -> None:
        """Until the publisher stops."""
        self.tasks = tasks
        reason: CloseReason | None = None
        while reason is not CloseReason.STOPPED:
            try:
                subscription = self.world.publisher.subscribe(
                    self.request, on_lag=self.world.random.choice(["close", "reset", "conflate"])
                )
            except anyio.ClosedResourceError:
                return
            self.is_whole = self.request.index > 0
            if not self.is_whole:
                self.rows = {}
            try:
                await self.read(subscription)
                self.request = self.asked.after(Cursor.parse(str(subscription.cursor)))
            except SubscriptionForceClosed as error:
                if isinstance(error, SnapshotFailed):  # as its function has said, or of a copy that is gone
                    assert isinstance(error.__cause__, LookupError) or "has another" in str(error.__cause__)
                reason = error.reason
                self.request = subscription.resume_request()
            finally:
                subscription.unsubscribe()
            await self.world.pause(4)

    async def read(self, subscription: Subscription[Health]) -> None:
        """Some of it; what is cancelled has received nothing."""
        while self.world.random.random() < 0.97:
            received: Sequence[Event[Health]] = ()
            with anyio.CancelScope() as scope:
                if self.world.random.random() < 0.3:
                    self.tasks.start_soon(self.cancel_soon, scope)
                received = await self.receive(subscription)
            for number, event in enumerate(received):
                fold(self.rows, [event])
                if event.is_new_snapshot_to_follow:
                    self.is_whole = False
                elif event.is_end_of_snapshot:
                    self.is_whole = True
                # What comes in one list may be taken back by a marker in it.
                is_taken_back = any(each.is_new_snapshot_to_follow for each in received[number:])
                if self.is_whole and not is_taken_back and self.is_of_this_copy(event):
                    self.check(event.index)
            cursor = subscription.cursor
            if self.is_whole and cursor.index and cursor == self.world.store.cursor(cursor.index):
                self.check(cursor.index)

    async def cancel_soon(self, scope: anyio.CancelScope) -> None:
        await self.world.pause(5)
        scope.cancel()

    async def receive(self, subscription: Subscription[Health]) -> Sequence[Event[Health]]:
        match self.world.random.randrange(8):
            case 0 | 1 | 2:
                return [await subscription.receive()]
            case 3:
                return await subscription.receive_batch(self.world.random.choice([None, 1, 3]))
            case 4 | 5:
                return await subscription.receive_until_current()
            case 6:
                try:
                    return [subscription.receive_nowait()]
                except WouldBlock:
                    await anyio.lowlevel.checkpoint()
            case _:
                if subscription.state is not SubscriptionState.SNAPSHOT:  # else nobody would receive it
                    await subscription.wait_ready()
        return ()

    def is_of_this_copy(self, event: Event[Health]) -> bool:
        """What was replayed ahead of the publisher is judged later."""
        return event.is_end_of_snapshot or event.mark == self.world.store.cursor(event.index).mark

    def check(self, index: int) -> None:
        """If the commit is published: one that is not may be of a copy that is gone, and is judged later."""
        if index <= self.world.publisher.index:
            self.world.checked += 1
            assert self.rows == rows_at(self.world.store, index, self.asked)


@pytest.mark.parametrize("seed", range(12))
async def test_what_a_reader_holds_was_true_where_it_says(seed: int) -> None:
    """D1, D3, D5, D7, D12, D13, D22, D24: at every end-of-snapshot, after every event and at every cursor."""
    world = World(seed)
    clients = [Client(world) for _ in range(world.random.choice([1, 4, 8]))]
    for _ in range(4):
        replay = world.replay if world.has_log else None
        source = Source(world.snapshot, replay=replay, wide=True, row=by_subject)
        history, ttl = world.random.choice([4, 20, 100]), world.random.choice([0, 10])
        begin = world.store.cursor()
        async with anyio.create_task_group() as tasks:
            async with open_publisher(
                dict.fromkeys(TOPICS, source),
                history=history,
                snapshot_cache_ttl=ttl,
                index=begin.index,
                mark=begin.mark,
                epoch=EPOCH,
            ) as world.publisher:
                for client in clients:
                    tasks.start_soon(client.follow, tasks)
                await world.live()
        statistics = world.publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
        assert {(each.feeds, each.snapshots) for each in statistics.topics.values()} == {(0, 0)}
        world.replace_store(max(0, world.publisher.index - world.random.randrange(6)))
    assert world.checked > 0
