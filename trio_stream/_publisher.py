"""The publisher: takes commits, hands out subscriptions, and runs what has to run.

Every public method here but `run` is synchronous and atomic: it has no checkpoint, so that nobody sees half of it and
no lock is needed.
It first finds out all that may be wrong and then changes something.
"""

import concurrent.futures
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import anyio
import anyio.abc
from trio.lowlevel import enable_ki_protection
from typing_extensions import TypeVar

from ._buffer import Groups, History, by_subject
from ._errors import ClosedResourceError, CloseReason, InvalidCommitError, UnknownTopicError
from ._events import CloseSubscriptions, Event, Subject, SubscribeRequest, Topic, check_index, token_set
from ._snapshot import Appender, Snapshot, SnapshotFunc, SnapshotHandlers, Snapshots, check_event
from ._subscription import Registry, Subscription
from ._wait import SLICE, Lot, Parking, Slot

P = TypeVar("P", default=Any)

_NO_HANDLERS: Final[SnapshotHandlers] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TopicStatistics:
    """What a publisher holds for one topic; all but `floor` are counts."""

    commits: int
    """Commits in the history."""
    floor: int
    """The lowest index that one can resume from."""
    feeds: int
    """Subjects that have history or readers, and one for the blank key of each of their namespaces."""
    snapshots: int
    """Snapshots that a new subscriber would share, in the making or cached."""


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """What a publisher holds; all but `index` and `epoch` are counts."""

    index: int
    epoch: str
    subscriptions: int
    """Subscriptions that have not ended."""
    waiting: int
    """Those of them whose reader is waiting."""
    tokens: int
    """Different tokens among them."""
    topics: dict[str, TopicStatistics]
    """By the name of the topic."""


class _TopicState(NamedTuple):
    handler: SnapshotFunc[Any]
    snapshots: Snapshots

    @property
    def history(self) -> History:
        return self.snapshots.history


class _Foreign(NamedTuple):
    """A commit of another thread, which waits for the result."""

    events: tuple[Event[Any], ...]
    result: concurrent.futures.Future[None]


class EventPublisher:
    """Takes the commits of a state store and keeps any number of subscribers current.

    `handlers`: a snapshot function for each topic; `register_handler` adds more.
    `snapshot_cache_ttl`: seconds that a complete snapshot is kept for others who ask for the same.
    `history`: commits kept for each topic, for those who resume or are slow.
    `index`: that of the last commit before this publisher; it expects greater ones.
    `epoch`: names the timeline of the indexes; None makes a random one, so that an index of another publisher is never
    misread.

    A publisher belongs to the event loop that runs it: `await nursery.start(publisher.run)`, or `open_publisher`.
    `publish` and `subscribe` work before that; snapshots wait for it.
    After it has stopped every call raises `ClosedResourceError`.
    """

    def __init__(
        self,
        handlers: SnapshotHandlers = _NO_HANDLERS,
        *,
        snapshot_cache_ttl: float = 10.0,
        history: int = 4096,
        index: int = 0,
        epoch: str | None = None,
    ) -> None:
        if not snapshot_cache_ttl >= 0:
            raise ValueError(f"snapshot_cache_ttl is a number of seconds from 0, not {snapshot_cache_ttl}")
        if isinstance(history, bool) or not isinstance(history, int):
            raise TypeError(f"history is a number of commits, not {history!r}")
        if history < 1:
            raise ValueError(f"history is at least one commit, not {history}")
        check_index(index)
        self._ttl = snapshot_cache_ttl
        self._limit = history
        self._index = index
        self._epoch = _new_epoch(epoch)
        self._topics: dict[Topic[Any], _TopicState] = {}
        self._registry = Registry()
        self._parking = Parking()
        self._is_stopped = False
        # Set by run(): where snapshots are made, and how other threads call in.
        self._tasks: anyio.abc.TaskGroup | None = None
        self._call_soon: Callable[[Callable[[], object]], object] | None = None
        # Snapshots that were asked for before run().
        self._not_started: list[tuple[Snapshots, Snapshot]] = []
        # (when, where, what) leaves the cache, soonest first: the time to live is the same for all.
        self._expiries: deque[tuple[float, Snapshots, Snapshot]] = deque()
        self._expirer = Slot()
        # Commits of other threads, in their order. Any thread appends; only the event loop takes.
        self._foreign: deque[_Foreign] = deque()
        for topic, handler in handlers.items():
            self.register_handler(topic, handler)

    @property
    def index(self) -> int:
        """The index of the newest commit published."""
        return self._index

    @property
    def epoch(self) -> str:
        """The name of the present timeline."""
        return self._epoch

    def register_handler(self, topic: Topic[P], handler: SnapshotFunc[P]) -> None:
        """Adds a topic; `ValueError` if it has a handler already."""
        self._check("register_handler")
        if not isinstance(topic, Topic):
            raise TypeError(f"a topic is a Topic, not {topic!r}")
        if not callable(handler):
            raise TypeError(f"the handler of {str(topic)!r} is an async function, not {handler!r}")
        if topic in self._topics:
            raise ValueError(f"topic {str(topic)!r} has a handler already")
        history = History(self._limit, self._index)
        self._topics[topic] = _TopicState(handler, Snapshots(topic, history, self._parking, self._start))

    @enable_ki_protection
    def publish(self, events: Iterable[Event[Any]]) -> None:
        """Publishes one commit: all its events, over one or more topics and subjects, with one index.

        Call it after the store has committed, in the order of the indexes and in the event loop's thread.
        Never waits.
        Without events nothing happens; close events take no index and are handled first.

        Raises, and changes nothing: `InvalidCommitError` if this is not one commit with a greater index than the last,
        `UnknownTopicError`, `RuntimeError` in another thread, `ClosedResourceError` after the publisher has stopped.
        """
        self._check("publish")
        closing: set[str] = set()
        commit: list[Event[Any]] = []
        for event in events:
            if isinstance(event, Event) and isinstance(event.payload, CloseSubscriptions):
                closing |= event.payload.token_secret_ids
            else:
                check_event(event)
                commit.append(event)
        parts = [(self._state(topic).snapshots, groups) for topic, groups in _split(commit).items()]
        if commit:
            self._check_index(commit)
        if closing:
            self.close_subscriptions(closing)
        if commit:
            self._index = commit[0].index
            self._append(parts)

    def publish_from_thread(self, events: Iterable[Event[Any]]) -> None:
        """`publish` for any thread: returns when it is done, raises what it raises, keeps each caller's order."""
        commit = tuple(events)
        if self._parking.is_here():
            self.publish(commit)
            return
        if self._call_soon is None:
            raise RuntimeError("publish_from_thread() needs a publisher that runs")
        foreign = _Foreign(commit, concurrent.futures.Future())
        self._foreign.append(foreign)
        if self._is_stopped:  # looked at after the append, as _stop() looks at the queue after it has set this
            self._take_foreign()
        else:
            self._call_soon(self._take_foreign)
        foreign.result.result()

    @enable_ki_protection
    def subscribe(
        self, request: SubscribeRequest[P], *, authorizer: Any = None, on_lag: Literal["close", "reset"] = "close"
    ) -> Subscription[P]:
        """A new subscription, which must be ended: use it as `async with`, or call `unsubscribe`.

        `authorizer`: what a payload's `has_read_permission` is asked about; None shows everything.
        `on_lag`: what a reader gets that the history has passed, a `SubscriptionLagged` or a new snapshot.

        Raises `UnknownTopicError`, `RuntimeError` in another thread, `ClosedResourceError` after the publisher has
        stopped.
        """
        self._check("subscribe")
        if not isinstance(request, SubscribeRequest):
            raise TypeError(f"a request is a SubscribeRequest, not {request!r}")
        if on_lag not in ("close", "reset"):
            raise ValueError(f"on_lag is 'close' or 'reset', not {on_lag!r}")
        state = self._state(request.topic)
        resume = self._can_resume(request, state.history)
        return Subscription(
            request,
            state.snapshots,
            self._registry,
            self._epoch,
            resume=resume,
            authorizer=authorizer,
            on_lag=on_lag,
        )

    @enable_ki_protection
    def close_subscriptions(self, token_secret_ids: Iterable[str]) -> int:
        """Force-closes every subscription made with one of these tokens; returns how many they were.

        When it has returned, none of them returns another event.
        """
        self._check("close_subscriptions")
        closed: list[Slot] = []
        for token in token_set(token_secret_ids):
            closed += self._force_close(self._registry.with_token(token), CloseReason.TOKEN)
        self._parking.wake_each(closed)
        return len(closed)

    @enable_ki_protection
    def refresh(
        self, topic: Topic[Any] | None = None, *, index: int | None = None, epoch: str | None = None
    ) -> None:
        """Says that the state has changed other than by commits; subscribers must start again.

        With a topic: its history and snapshots are dropped and its subscriptions force-closed; the epoch stays.
        Without: the store was restored or replaced.
        That holds for all topics and begins a new epoch, a random one if none is given, at `index`, or at 0.
        """
        self._check("refresh")
        if topic is not None:
            if index is not None or epoch is not None:
                raise ValueError("one topic cannot have an index or an epoch of its own")
            state = self._state(topic)
            open_ = [s for s in self._registry.all() if s.request.topic == topic]
            self._restart([state], open_, floor=self._index, dropped=state.history.newest)
            return
        check_index(start := 0 if index is None else index)
        if epoch == self._epoch:
            raise ValueError(f"{epoch!r} is the epoch that ends here; a new timeline has another name")
        self._epoch = _new_epoch(epoch)
        self._index = start
        self._restart(self._topics.values(), self._registry.all(), floor=start, dropped=0)

    def statistics(self) -> PublisherStatistics:
        """Figures for introspection; taking them changes nothing and takes time with the number of subscriptions."""
        subscriptions = self._registry.all()
        return PublisherStatistics(
            index=self._index,
            epoch=self._epoch,
            subscriptions=len(subscriptions),
            waiting=sum(subscription.is_parked for subscription in subscriptions),
            tokens=self._registry.tokens,
            topics={
                topic.name: TopicStatistics(
                    commits=len(state.history),
                    floor=state.history.floor,
                    feeds=len(state.history.feeds),
                    snapshots=len(state.snapshots.shared),
                )
                for topic, state in self._topics.items()
            },
        )

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Runs the publisher until it is cancelled: `await nursery.start(publisher.run)`.

        Snapshot functions run inside it, and end with it.
        Then all subscriptions end with `CloseReason.STOPPED`.
        """
        self._check("run")
        if self._tasks is not None:
            raise RuntimeError("this publisher runs already")
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._call_soon = self._parking.backend.call_from_thread()
            for snapshots, snapshot in self._not_started:
                self._start(snapshots, snapshot)
            self._not_started.clear()
            tasks.start_soon(self._expire)
            task_status.started()
            try:
                await self._parking.run()
            finally:
                self._stop()

    def _check(self, call: str) -> None:
        if self._is_stopped:
            raise ClosedResourceError("this publisher has stopped")
        self._parking.check_thread(call)

    def _check_index(self, commit: list[Event[Any]]) -> None:
        index = commit[0].index
        for event in commit:
            if event.index != index:
                raise InvalidCommitError(f"events of different indexes in one commit: {index} and {event.index}")
        if index <= self._index:
            raise InvalidCommitError(f"commit {index} is not after {self._index}, the last one published")

    def _state(self, topic: Topic[Any]) -> _TopicState:
        state = self._topics.get(topic)
        if state is None:
            raise UnknownTopicError(f"no handler is registered for topic {str(topic)!r}")
        return state

    def _can_resume(self, request: SubscribeRequest[Any], history: History) -> bool:
        if request.index == 0 or request.epoch not in (None, self._epoch):
            return False
        if request.index > self._index:
            return request.epoch is not None
        return request.index >= history.floor

    def _append(self, parts: "list[tuple[Snapshots, Groups]]") -> None:
        lots: list[Lot] = []
        for snapshots, groups in parts:
            lots += snapshots.history.append(self._index, groups)
            snapshots.expire()
        self._parking.wake(lots)

    def _force_close(self, subscriptions: list[Subscription[Any]], reason: CloseReason) -> list[Subscription[Any]]:
        for subscription in subscriptions:
            subscription._force_close(reason)
        return subscriptions

    def _restart(
        self, states: Iterable[_TopicState], subscriptions: list[Subscription[Any]], *, floor: int, dropped: int
    ) -> None:
        closed = self._force_close(subscriptions, CloseReason.REFRESH)
        for state in states:
            state.snapshots.clear()
            state.history.clear(floor, dropped)
        self._parking.wake_each([*closed])

    def _take_foreign(self) -> None:
        while self._foreign:
            events, result = self._foreign.popleft()
            try:
                self.publish(events)
            except Exception as error:  # whatever it is, it belongs to the thread that waits
                result.set_exception(error)
            else:
                result.set_result(None)

    def _start(self, snapshots: Snapshots, snapshot: Snapshot) -> None:
        if self._tasks is None:
            self._not_started.append((snapshots, snapshot))
        else:
            self._tasks.start_soon(self._make, snapshots, snapshot)

    async def _make(self, snapshots: Snapshots, snapshot: Snapshot) -> None:
        """Has the handler make one snapshot; whatever the handler does, only those who wait for it are concerned."""
        try:
            with anyio.CancelScope() as snapshot.scope:
                if not snapshot.readers:
                    return
                snapshots.begin(snapshot, self._index)
                index = await self._call_handler(snapshots, snapshot)
                if not snapshot.scope.cancel_called:
                    self._complete(snapshots, snapshot, index)
        except Exception as error:
            snapshots.fail(snapshot, error)
        except anyio.get_cancelled_exc_class() as error:
            if self._parking.backend.is_cancelled():
                raise
            snapshots.fail(snapshot, error)  # the handler made this up, or let it out of a task of its own

    def _call_handler(self, snapshots: Snapshots, snapshot: Snapshot) -> Awaitable[int]:
        topic = snapshots.topic
        key, namespace, partition = snapshot.subject
        request = SubscribeRequest(topic, key, namespace=namespace, partition=partition)
        return self._topics[topic].handler(request, Appender(snapshots, snapshot))

    def _complete(self, snapshots: Snapshots, snapshot: Snapshot, index: int) -> None:
        check_index(index)
        snapshots.complete(snapshot, index, cache=self._ttl > 0)
        if snapshot.cached:
            self._expiries.append((anyio.current_time() + self._ttl, snapshots, snapshot))
            self._parking.wake_slots((self._expirer,))

    async def _expire(self) -> None:
        """Takes snapshots out of the cache when their time has come; waits on the clock only while there are some."""
        evicted = 0
        while True:
            if not self._expiries:
                await self._parking.backend.park(self._expirer)
                continue
            when, snapshots, snapshot = self._expiries[0]
            if when > anyio.current_time():
                await anyio.sleep_until(when)
                continue
            self._expiries.popleft()
            snapshots.evict(snapshot)
            evicted += 1
            if evicted % SLICE == 0:
                await self._parking.backend.checkpoint()

    def _stop(self) -> None:
        closed = self._force_close(self._registry.all(), CloseReason.STOPPED)
        self._is_stopped = True
        self._not_started.clear()
        self._expiries.clear()
        for state in self._topics.values():
            state.snapshots.clear()
            state.history.clear(self._index, 0)
        self._parking.wake_slots(closed)
        self._take_foreign()


def _new_epoch(epoch: str | None) -> str:
    if epoch is None:
        return secrets.token_hex(8)
    if not isinstance(epoch, str):
        raise TypeError(f"an epoch is a string, not {epoch!r}")
    if not epoch:
        raise ValueError("an epoch must not be empty")
    return epoch


def _split(commit: list[Event[Any]]) -> dict[Topic[Any], Groups]:
    """The events of a commit by topic and by the feeds that they touch."""
    by_topic: dict[Topic[Any], list[tuple[Subject, Event[Any]]]] = {}
    for event in commit:
        subject = event.payload.subject
        if isinstance(subject, str):
            subject = Subject(subject)
        elif not isinstance(subject, Subject):
            raise InvalidCommitError(f"the subject of {event.payload!r} is a Subject or a string, not {subject!r}")
        by_topic.setdefault(event.topic, []).append((subject, event))
    return {topic: by_subject(events) for topic, events in by_topic.items()}


@asynccontextmanager
async def open_publisher(
    handlers: SnapshotHandlers = _NO_HANDLERS,
    *,
    snapshot_cache_ttl: float = 10.0,
    history: int = 4096,
    index: int = 0,
    epoch: str | None = None,
) -> AsyncIterator[EventPublisher]:
    """A running `EventPublisher`, stopped when the block ends; the options are those of the class.

    An exception of the block leaves it as it is, not in an exception group.
    """
    publisher = EventPublisher(
        handlers, snapshot_cache_ttl=snapshot_cache_ttl, history=history, index=index, epoch=epoch
    )
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        await tasks.start(publisher.run)
        try:
            yield publisher
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
