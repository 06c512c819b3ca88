"""A publisher that is fed by a store."""

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final, assert_never

import anyio
import anyio.abc

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Topic,
    open_publisher,
    running,
)
from trio_stream._warn import Warner

from ._errors import HistoryLostError, StoreError
from ._store import Store
from ._values import Commit, Delete, Head, Operation, Put, Record, topic

# Seconds until the next attempt after an error of the store: evenly random below a bound that doubles each
# time, so that the processes of a store that comes back do not all come at once ("full jitter": Marc Brooker,
# "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
_FIRST_BOUND: Final = 0.1
_LAST_BOUND: Final = 5.0

_warner: Final = Warner("trio_stream.stores")


class _Feed:
    """Publishes the commits of a store."""

    def __init__(self, store: Store, publisher: EventPublisher, topics: Iterable[str], history: int) -> None:
        self._store = store
        self._publisher = publisher
        self._topics: dict[str, Topic[Record]] = {name: topic(name) for name in topics}
        self._history = history
        self._is_started = False
        for each in self._topics.values():
            publisher.register_handler(each, self._snapshot)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until it is cancelled; started when the commits that the store had at the beginning are published.

        An error of the store before that is raised; later ones are waited out.
        """
        bound = _FIRST_BOUND
        while True:
            since = anyio.current_time()
            try:
                await self._follow(task_status)
            except HistoryLostError as error:
                _warner.warn("subscribers must start again: %s", error)
            except StoreError as error:
                if not self._is_started:
                    raise
                if anyio.current_time() - since > _LAST_BOUND:
                    bound = _FIRST_BOUND
                delay = random.uniform(0, bound)  # noqa: S311 - no secret
                bound = min(bound * 2, _LAST_BOUND)
                _warner.warn("trying again in %.2f s: %s", delay, error)
                await anyio.sleep(delay)

    async def _follow(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Publishes what is committed; returns, or raises `HistoryLostError`, when it must begin again."""
        head = await self._store.head()
        if head.epoch != self._publisher.epoch or head.floor > self._publisher.index:
            self._restart(head)
        async with self._store.changes(self._publisher.index) as commits:
            if (await self._store.head()).epoch != self._publisher.epoch:
                return  # replaced in between, and these commits may be of either timeline
            while self._publisher.index < head.index:
                self._publish(await anext(commits))
            if not self._is_started:
                self._is_started = True
                task_status.started()
            async for commit in commits:
                self._publish(commit)

    def _restart(self, head: Head) -> None:
        """Ends all subscriptions, and begins again at the oldest commit that is there and to be kept."""
        self._publisher.refresh(index=_first_index(head, self._history), epoch=head.epoch)

    def _publish(self, commit: Commit) -> None:
        events = [
            Event(self._topics[operation.topic], commit.index, _record(operation))
            for operation in commit.operations
            if operation.topic in self._topics
        ]
        self._publisher.publish(events, index=commit.index)

    async def _snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
        """The store's, unless that has a timeline already of which the publisher does not know."""
        epoch, published = self._publisher.epoch, self._publisher.index
        index = await self._store.snapshot(request, snapshot)
        head = await self._store.head()
        if head.epoch != epoch or index < published:
            raise StoreError(f"the store was replaced (epoch {epoch!r} by {head.epoch!r}): ask again")
        return index


def _record(operation: Operation) -> Record:
    match operation:
        case Put():
            return Record(operation.key, operation.value, "put", operation.namespace)
        case Delete():
            return Record(operation.key, None, "delete", operation.namespace)
        case _:
            assert_never(operation)


def _first_index(head: Head, history: int) -> int:
    return max(head.floor, head.index - history)


@asynccontextmanager
async def open_store_publisher(
    store: Store, topics: Iterable[str], *, snapshot_cache_ttl: float = 0.0, history: int = 4096
) -> AsyncIterator[EventPublisher]:
    """A running publisher of everything that is committed to these topics of the store, by whomever.

    It has the store's epoch and starts with the last `history` commits of the store's log, so that clients
    resume by index after a restart of this process, and at any other process of the same store.
    A commit is published after it is durable; of those about other topics only the index is.
    The feed publishes: do not call `publish` yourself, commit to the store.

    Subscribers share a snapshot while it is made, but it is not kept: another process may have committed since,
    and who comes here may have seen that there.
    `snapshot_cache_ttl` keeps it for so many seconds all the same, where the load matters more.

    When commits that it needs were compacted, or the store was restored or replaced, subscribers are closed
    with `CloseReason.REFRESH` and start again.
    When the store fails, that is tried again within 0.1 s, then twice as much, up to 5 s; subscribers wait, and new
    snapshots fail.
    The logger `trio_stream.stores` warns of it with the text of the `StoreError`, about ten times a minute at most.
    When it fails at the beginning, the `StoreError` is raised.

    An exception of the block leaves it as it is, not in an exception group.
    """
    if isinstance(topics, str):
        raise TypeError(f"topics are several names, not the one string {topics!r}")
    head = await store.head()
    async with open_publisher(
        snapshot_cache_ttl=snapshot_cache_ttl,
        history=history,
        index=_first_index(head, history),
        epoch=head.epoch,
    ) as publisher:
        feed = _Feed(store, publisher, topics, history)
        async with running(feed.run):
            yield publisher
