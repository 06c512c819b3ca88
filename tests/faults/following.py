"""What tests of faults share: a subscription that is followed to the end, and checked against the store's log."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from stores.storehouse import ALL_JOBS, JOBS, PATIENCE

from trio_stream import CloseReason, Event, EventPublisher, SubscribeRequest, SubscriptionForceClosed
from trio_stream.stores import Commit, Put, Record, Store
from trio_stream.testing import Model, State, check_trace, collect


def apply(state: State, event: Event[Record]) -> None:
    match event.payload:
        case Record(key, value, "put"):
            state[key] = value
        case Record(key):
            state.pop(key, None)
        case _:
            raise AssertionError(event)


def published(commit: Commit) -> list[Event[Record]]:
    """What the feed makes of a commit."""
    return [
        Event(
            JOBS,
            commit.index,
            Record(op.key, op.value, "put", op.namespace)
            if isinstance(op, Put)
            else Record(op.key, None, "delete", op.namespace),
        )
        for op in commit.operations
    ]


async def commits_of(store: Store) -> list[Commit]:
    """All commits of the store, which must have them all."""
    head = await store.head()
    assert head.floor == 0
    found: list[Commit] = []
    async with store.changes(0) as commits:
        while not found or found[-1].index < head.index:
            found.append(await anext(commits))
    return found


async def log(store: Store) -> list[list[Event[Record]]]:
    """The same as events."""
    return [published(commit) for commit in await commits_of(store)]


@dataclass
class Reader:
    """Follows a publisher through every end; one trace for each subscription."""

    publisher: EventPublisher
    request: SubscribeRequest[Record] = ALL_JOBS
    # Of each subscription: what it asked for, its epoch, what it returned.
    traces: list[tuple[SubscribeRequest[Record], str, list[Event[Record]]]] = field(default_factory=list)
    ends: list[CloseReason] = field(default_factory=list)
    # Set, and replaced by a new one, whenever something has been received or a subscription has ended.
    _stir: anyio.Event = field(default_factory=anyio.Event)

    async def run(self) -> None:
        """Until it is cancelled."""
        request = self.request
        while True:
            subscription = self.publisher.subscribe(request)
            events: list[Event[Record]] = []
            self.traces.append((request, subscription.epoch, events))
            try:
                async with subscription:
                    while True:
                        events.append(await subscription.receive())
                        self._wake()
            except SubscriptionForceClosed as end:
                self.ends.append(end.reason)
                request = subscription.resume_request()
                self._wake()

    def _wake(self) -> None:
        stir, self._stir = self._stir, anyio.Event()
        stir.set()

    @property
    def index(self) -> int:
        """That of the newest event of the present subscription."""
        events = self.traces[-1][2] if self.traces else []
        return events[-1].index if events else 0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until this is so after something was received or has ended."""
        with anyio.fail_after(PATIENCE):
            while not condition():
                await self._stir.wait()

    def check(self, commits: dict[str, list[list[Event[Record]]]]) -> None:
        """Every trace is right, by the commits of each epoch."""
        for request, epoch, events in self.traces:
            check_trace(events, Model(request=request, commits=commits[epoch], apply=apply))


@asynccontextmanager
async def reading(publisher: EventPublisher) -> AsyncIterator[Reader]:
    """A reader beside the block."""
    reader = Reader(publisher)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.run)
        yield reader
        tasks.cancel_scope.cancel()


async def caught_up(publisher: EventPublisher, store: Store) -> int:
    """Waits until the publisher has all that the store has; its index."""
    head = await store.head()
    model = Model(request=ALL_JOBS, commits=await log(store), apply=apply)
    with anyio.fail_after(PATIENCE):
        async with publisher.subscribe(ALL_JOBS) as subscription:
            check_trace(await collect(subscription, upto=head.index), model, upto=head.index)
    return head.index
