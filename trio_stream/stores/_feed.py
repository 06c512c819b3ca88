"""A publisher that is fed by a store.

The feed goes on whatever an engine does.
No round of it is without a wait: after a round that published something the next one may begin at the next turn of
the event loop, after any other only in a while that grows.

`Store.head` and `HistoryLostError` may not agree, where an engine asks in several places.
`head` decides which timeline it is; the higher one of the two floors counts.

A commit that cannot be read concerns some topics, or all.
Their subscriptions are closed, and nobody resumes there from before that commit: the state has what it did.
"""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from operator import attrgetter
from typing import Any, Final, NoReturn, assert_never

import anyio
import anyio.abc
import anyio.lowlevel
from typing_extensions import override

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFunc,
    Source,
    Subject,
    SubscribeRequest,
    Topic,
    running,
)
from trio_stream._warn import Warner

from ._errors import HistoryLostError, StoreError, UnreadableCommitError
from ._store import Store
from ._topic_log import TopicLog
from ._values import Commit, Delete, Head, Operation, Put, Record, topic
from ._wide import WideStore

# Seconds until the next attempt after an error of the store: evenly random below a bound that doubles each
# time, so that the processes of a store that comes back do not all come at once ("full jitter": Marc Brooker,
# "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
_FIRST_BOUND: Final = 0.1
_LAST_BOUND: Final = 5.0

_BURST: Final = 64  # events between two checkpoints, unless one commit has more
_HISTORY: Final = 4096  # commits that are kept

# How much of the log a publisher begins with, at most.
_MOST_CHARACTERS: Final = 4 << 20  # of JSON, where the log can be read by topic
_MOST_EVENTS: Final = 65_536  # where not

_warner: Final = Warner("trio_stream.stores")


class _StorePublisher(EventPublisher):
    """A publisher that only its feed feeds."""

    @override
    def publish(
        self,
        events: Iterable[Event[Any]],
        *,
        index: int | None = None,
        mark: str = "",
        finish: Iterable[tuple[Topic[Any], Subject | str]] = (),
        reopen: Iterable[tuple[Topic[Any], Subject | str]] = (),
    ) -> NoReturn:
        _refuse("publish")

    @override
    def publish_from_thread(
        self,
        events: Iterable[Event[Any]],
        *,
        index: int | None = None,
        mark: str = "",
        finish: Iterable[tuple[Topic[Any], Subject | str]] = (),
        reopen: Iterable[tuple[Topic[Any], Subject | str]] = (),
    ) -> NoReturn:
        _refuse("publish_from_thread")

    @override
    def register_handler(self, topic: Topic[Any], handler: SnapshotFunc[Any] | Source) -> NoReturn:
        _refuse("register_handler")

    @override
    def refresh(
        self,
        topic: Topic[Any] | None = None,
        *,
        index: int | None = None,
        epoch: str | None = None,
        mark: str = "",
    ) -> NoReturn:
        _refuse("refresh")

    @override
    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> NoReturn:
        raise RuntimeError("this publisher runs already: open_store_publisher runs it")


def _refuse(call: str) -> NoReturn:
    raise RuntimeError(f"{call} is refused: a store feeds this publisher. Commit to the store instead")


class _Feed:
    """Publishes the commits of a store."""

    def __init__(
        self, store: Store, publisher: EventPublisher, topics: Mapping[str, Topic[Record]], history: int
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._topics = topics
        self._history = history
        # All that was there at the beginning is published.
        self._is_started = False
        # The present round has begun again.
        self._has_restarted = False
        # It has published a commit without having begun again, or passed one over.
        self._is_moving = False
        # What the last round has told of the store's floor.
        self._lost: HistoryLostError | None = None
        # Events since the last checkpoint, and those that were loaded before the start.
        self._burst = 0
        self._loaded = 0
        is_wide = isinstance(store, WideStore) and store.is_wide
        source = Source(self._snapshot, wide=is_wide, row=attrgetter("namespace", "key"))
        for each in topics.values():
            EventPublisher.register_handler(publisher, each, source)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until it is cancelled; started when the commits that the store had at the beginning are published.

        An error of the store before that is raised; later ones are waited out.
        """
        bound = _FIRST_BOUND
        while True:
            since = anyio.current_time()
            self._has_restarted = self._is_moving = False
            error = await self._round(task_status)
            if self._is_moving or anyio.current_time() - since > _LAST_BOUND:
                bound = _FIRST_BOUND
            if isinstance(error, _Ended | HistoryLostError | UnreadableCommitError) and self._is_moving:
                if isinstance(error, HistoryLostError):
                    _warner.warn("subscribers must start again: %s", error)
                await anyio.lowlevel.checkpoint()
                continue
            # Lost history is no error of the beginning, unless it stays lost.
            if not self._is_started and (bound == _LAST_BOUND or not isinstance(error, HistoryLostError)):
                raise error
            delay = random.uniform(0, bound)  # noqa: S311 - no secret
            bound = min(bound * 2, _LAST_BOUND)
            _warner.warn("trying again in %.2f s: %s", delay, error)
            await anyio.sleep(delay)

    async def _round(self, task_status: anyio.abc.TaskStatus[None]) -> StoreError:
        """Publishes what is committed until that ends; returns how it did."""
        error: StoreError
        try:
            await self._follow(task_status)
        except (StoreError, BaseExceptionGroup) as raised:
            error = _error_of(raised)
        else:
            error = _Ended(f"the changes of the store have ended after commit {self._publisher.index}")
        self._lost = error if isinstance(error, HistoryLostError) else None
        if isinstance(error, UnreadableCommitError) and error.index > self._publisher.index:
            await self._pass_over(error)
        return error  # noqa: ASYNC910 - the caller waits

    async def _follow(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        head = await self._store.head()
        if self._lost is not None and self._lost.epoch == head.epoch:
            floor = max(self._lost.floor, head.floor)
            head = Head(max(floor, head.index), floor, head.epoch)
        if head.epoch != self._publisher.epoch or head.floor > self._publisher.index:
            await self._restart(head)
        async with self._changes() as commits:
            now = await self._store.head()
            if now.epoch != self._publisher.epoch:  # and these commits may be of either timeline
                raise HistoryLostError(self._publisher.index, now.floor, now.epoch)
            self._tell_whether_started(head, task_status)
            async for commit in commits:
                await self._publish(commit.index, commit.operations)
                self._tell_whether_started(head, task_status)

    def _changes(self) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        if isinstance(self._store, TopicLog):
            return self._store.changes_of(frozenset(self._topics), self._publisher.index)
        return self._store.changes(self._publisher.index)

    def _tell_whether_started(self, head: Head, task_status: anyio.abc.TaskStatus[None]) -> None:
        if not self._is_started and self._publisher.index >= head.index:
            self._is_started = True
            task_status.started()

    async def _restart(self, head: Head) -> None:
        """Ends all subscriptions, and begins again at the oldest commit that is there and to be kept."""
        index = await _beginning(self._store, self._topics, head, self._history)
        if head.epoch == self._publisher.epoch:
            index = max(index, self._publisher.index)
        self._has_restarted = True
        self._loaded = 0
        EventPublisher.refresh(self._publisher, index=index, epoch=head.epoch)

    async def _publish(self, index: int, operations: Sequence[Operation]) -> None:
        if index <= self._publisher.index:
            raise StoreError(f"the store's commit {index} came after {self._publisher.index}")
        events = await self._events(index, operations)
        await self._take_turn(max(1, len(events)))
        if not (self._is_started or isinstance(self._store, TopicLog)):
            self._loaded += len(events)
            if self._loaded > _MOST_EVENTS:  # nobody has subscribed yet: forget those before this commit
                self._loaded = len(events)
                EventPublisher.refresh(
                    self._publisher, index=self._publisher.index, epoch=self._publisher.epoch
                )
        EventPublisher.publish(self._publisher, events, index=index)
        self._is_moving = not self._has_restarted

    async def _pass_over(self, error: UnreadableCommitError) -> None:  # noqa: ASYNC910 - the caller waits
        """Publishes nothing of the topics concerned; who reads them must start again, from the state."""
        concerned = self._topics.keys() if error.topics is None else self._topics.keys() & error.topics
        events = await self._events(
            error.index, [each for each in error.operations if each.topic not in concerned]
        )
        if concerned:
            _warner.warn("subscribers must start again: %s", error)
        # Between what is before it and its own index: then that is the lowest one to resume from.
        if concerned and self._publisher.index < error.index - 1:
            EventPublisher.publish(self._publisher, (), index=error.index - 1)
        for name in concerned:
            EventPublisher.refresh(self._publisher, self._topics[name])
        EventPublisher.publish(self._publisher, events, index=error.index)
        self._is_moving = True

    async def _events(self, index: int, operations: Sequence[Operation]) -> list[Event[Record]]:
        events: list[Event[Record]] = []
        for start in range(0, len(operations), _BURST):
            portion = operations[start : start + _BURST]
            await self._take_turn(len(portion))
            events += [
                Event(self._topics[operation.topic], index, _record(operation))
                for operation in portion
                if operation.topic in self._topics
            ]
        return events  # noqa: ASYNC910 - `_take_turn` sees to it

    async def _take_turn(self, events: int) -> None:  # noqa: ASYNC910 - every _BURST events there is one
        """A checkpoint, unless so many fit into this stretch of the loop."""
        if self._burst + events > _BURST:
            await anyio.lowlevel.checkpoint()
            self._burst = 0
        self._burst += events

    async def _snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
        """The store's, unless that has a timeline already of which the publisher does not know."""
        epoch, published = self._publisher.epoch, self._publisher.index
        index = await self._store.snapshot(request, snapshot)
        head = await self._store.head()
        if head.epoch != epoch:
            raise StoreError(f"the store was replaced (epoch {epoch!r} by {head.epoch!r}): ask again")
        if index < published:
            raise StoreError(f"the store's snapshot of {index} is behind commit {published}: ask again")
        return index


class _Ended(StoreError):
    """The changes of the store have come to an end, which they should not."""


def _error_of(raised: StoreError | BaseExceptionGroup) -> StoreError:
    """The store's error, taken out of its groups; raises what else is in them."""
    if isinstance(raised, StoreError):
        return raised
    _, others = raised.split(StoreError)
    if others is not None:
        raise others
    # The first that tells more than that there was an error.
    return min(_leaves(raised), key=lambda each: type(each) is StoreError)


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[StoreError]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            assert isinstance(each, StoreError)
            yield each


def _record(operation: Operation) -> Record:
    match operation:
        case Put():
            return Record(operation.key, operation.value, "put", operation.namespace)
        case Delete():
            return Record(operation.key, None, "delete", operation.namespace)
        case _:
            assert_never(operation)


async def _beginning(store: Store, topics: Iterable[str], head: Head, history: int) -> int:
    """The index behind which a publisher begins."""
    index = max(head.floor, head.index - history)
    if index < head.index and isinstance(store, TopicLog):
        return await store.reach(frozenset(topics), after=index, upto=head.index, characters=_MOST_CHARACTERS)
    return index  # noqa: ASYNC910 - the head was asked for before


@asynccontextmanager
async def open_store_publisher(
    store: Store, topics: Iterable[str], *, snapshot_cache_ttl: float = 0.0, history: int = 4096
) -> AsyncIterator[EventPublisher]:
    """A running publisher of everything that is committed to these topics of the store, by whomever.

    It has the store's epoch and starts with the last `history` commits of the store's log, so that clients
    resume by index after a restart of this process, and at any other process of the same store.
    It starts with fewer where those of its topics have more than about 4 MiB of JSON (with more than 16 topics, the
    commits of all topics count); with a store other than SQLite's, more than 65,536 events.
    A client with an older index gets a new snapshot.
    With 0 it starts at once, with none of them, and keeps up to 4,096 of those that come.
    A commit is published after it is durable; of those about other topics only the index is, and not of each.

    Prefixes can be asked for with any store, but are made from all keys with a store other than SQLite's; `ALL` is a
    `ValueError` there.
    A subscription can have `on_lag="conflate"`: one row is a namespace and a key.
    Events do not say what they replace: with rights or a filter that look at the value, a reader keeps what it had.

    The feed publishes: `publish`, `publish_from_thread`, `register_handler`, `refresh` and `run` are refused with a
    `RuntimeError`, and change nothing. Commit to the store.

    Subscribers share a snapshot while it is made, but it is not kept: another process may have committed since,
    and who comes here may have seen that there.
    `snapshot_cache_ttl` keeps it for so many seconds all the same, where the load matters more.

    When commits that it needs were compacted, or the store was restored or replaced, subscribers are closed
    with `CloseReason.REFRESH` and start again.
    So are those of the topics of a commit that cannot be read, which is passed over; the others go on.
    When the store fails, that is tried again within 0.1 s, then twice as much, up to 5 s; subscribers wait, and new
    snapshots fail.
    The logger `trio_stream.stores` warns of it with the text of the `StoreError`, about ten times a minute at most.
    When it fails at the beginning, the `StoreError` is raised.

    An exception of the block leaves it as it is, not in an exception group, unless the feed has failed, too.
    """
    if isinstance(topics, str):
        raise TypeError(f"topics are several names, not the one string {topics!r}")
    if isinstance(history, bool) or not isinstance(history, int):
        raise TypeError(f"history is a number of commits, not {history!r}")
    if history < 0:
        raise ValueError(f"history is a number of commits from 0, not {history}")
    published = {name: topic(name) for name in topics}
    head = await store.head()
    publisher = _StorePublisher(
        snapshot_cache_ttl=snapshot_cache_ttl,
        history=history or _HISTORY,
        index=await _beginning(store, published, head, history),
        epoch=head.epoch,
    )
    async with running(partial(EventPublisher.run, publisher)):
        feed = _Feed(store, publisher, published, history)
        async with running(feed.run):
            yield publisher
