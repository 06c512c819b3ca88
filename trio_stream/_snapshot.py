"""Runs the snapshot functions, each in a task and cancel scope of its own, and the clock of their cache.

A subscriber only notes that it needs a snapshot.
A task of the publisher starts the handler, so the handler runs in the publisher's context, not in that of the
subscriber who asked first.

A handler fills a snapshot while it is read, but runs ahead of its fastest reader by a window only, unless a reader
waits for the whole of it.
Whatever it does, only those who wait for its snapshot are concerned.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from itertools import islice, starmap
from typing import Any, Protocol, TypeAlias

import anyio
import anyio.abc
from typing_extensions import TypeVar, override

from ._arguments import check_events, check_index
from ._commit import check_event, check_one_index, delivery, subject_in
from ._errors import FATAL, ClosedResourceError, InvalidCommitError
from ._events import Event, SubscribeRequest, Topic
from ._topic import WINDOW, Snapshot, TopicState
from ._wait import SLICE, Parking, Slot

P = TypeVar("P", default=Any)
P_contra = TypeVar("P_contra", contravariant=True, default=Any)


class SnapshotAppender(Protocol[P_contra]):
    """Where a snapshot function puts the state."""

    async def append(self, events: Iterable[Event[P_contra]], /) -> None:
        """Adds the events of one commit; they arrive together, as one event.

        A checkpoint.
        Waits while every reader of the snapshot is far behind.
        When there is no reader left, the snapshot function is cancelled, and what it appends all the same is dropped.
        So is an event that the request does not cover, as one of another key or namespace.

        Raises `InvalidCommitError` for events of another topic, of different indexes or that are not state, and
        `ClosedResourceError` once the snapshot function has returned.
        """
        ...


SnapshotFunc: TypeAlias = Callable[[SubscribeRequest[P], SnapshotAppender[P]], Awaitable[int]]
"""Makes a snapshot: appends the state that the request asks for and returns the index of that state.

The index is at least that of every commit published before the call, and 0 if nothing was committed yet.
One run serves every subscriber of the topic and subject, so the request has no token, index or epoch.
A store that is not ready must raise: an empty snapshot says that there is nothing.
"""
SnapshotHandlers: TypeAlias = Mapping[Topic[Any], SnapshotFunc[Any]]
"""A snapshot function for each topic."""


class Appender(SnapshotAppender[Any]):
    """The `SnapshotAppender` of one run."""

    __slots__ = ("_is_closed", "_request", "_snapshot", "_state")

    def __init__(self, state: TopicState, snapshot: Snapshot, request: SubscribeRequest[Any]) -> None:
        self._state = state
        self._snapshot = snapshot
        self._request = request
        self._is_closed = False

    @override
    async def append(self, events: Iterable[Event[Any]], /) -> None:
        state, snapshot = self._state, self._snapshot
        check_events("append", events)
        group = tuple(events)
        covers = self._request._covers
        covered: list[Event[Any]] = []
        for event in group:
            check_event(event)
            if event.topic is not state.topic and event.topic != state.topic:
                raise InvalidCommitError(
                    f"an event of topic {str(event.topic)!r} in a snapshot of {str(state.topic)!r}"
                )
            if covers(subject_in(event)):
                covered.append(event)
        if len(group) > 1:
            check_one_index(group)
        await state.parking.backend.checkpoint()
        while self._has_to_wait():
            await self._wait_for_readers()
        if self._is_closed:
            raise ClosedResourceError("the snapshot function of this appender has returned")
        if covered and snapshot.readers and not snapshot.is_gone:
            snapshot.append(delivery(covered))
            if snapshot.waiting:
                state.parking.wake((snapshot,))

    def close(self) -> None:
        """The snapshot function has returned, or raised."""
        self._is_closed = True
        self._state.parking.wake((self._snapshot.writers,))

    def _has_to_wait(self) -> bool:
        snapshot = self._snapshot
        if self._is_closed or snapshot.is_gone or not snapshot.readers or snapshot.keepers or snapshot.urgent:
            return False
        return snapshot.end - snapshot.furthest >= WINDOW

    async def _wait_for_readers(self) -> None:
        self._state.stall(self._snapshot)
        try:
            await self._state.parking.wait_in(self._snapshot.writers)
        finally:
            self._state.unstall(self._snapshot)


class SnapshotMaker:
    """Runs the snapshot functions of a publisher; `ttl` is how long a snapshot stays in the cache, in seconds."""

    def __init__(self, parking: Parking, ttl: float) -> None:
        self.handlers: dict[Topic[Any], SnapshotFunc[Any]] = {}
        self._parking = parking
        self._ttl = ttl
        # What was asked for and is not started yet, and what is being made; and where.
        self._asked: dict[Snapshot, TopicState] = {}
        self._making: dict[Snapshot, TopicState] = {}
        self._starter = Slot()
        # {what is cached: when it leaves the cache in the event loop's seconds, and where}, soonest first: all stay
        # equally long.
        self._expiries: dict[Snapshot, tuple[float, TopicState]] = {}
        self._expirer = Slot()

    def open(self, tasks: anyio.abc.TaskGroup) -> None:
        """Runs from now on, in the publisher's task group, also what was asked for before."""
        tasks.start_soon(self._start_all, tasks)
        tasks.start_soon(self._expire)

    def start(self, state: TopicState, snapshot: Snapshot) -> None:
        """Has the topic's handler fill a snapshot."""
        self._asked[snapshot] = state
        snapshot.cancel = partial(self._asked.pop, snapshot, None)
        self._parking.wake_each((self._starter,))

    def close(self) -> None:
        """Forgets what is left; the task group ends the handlers."""
        unfinished = [*self._asked.items(), *self._making.items()]
        steps = starmap(TopicState.give_up, ((state, each) for each, state in unfinished))
        self._parking.in_slices(steps, len(unfinished))
        expiries, self._expiries = self._expiries, {}
        self._parking.release(list(expiries.items()))

    async def _start_all(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            self._start_some(tasks)
            if self._asked:
                await self._parking.backend.checkpoint()
            else:
                await self._parking.backend.park(self._starter)

    def _start_some(self, tasks: anyio.abc.TaskGroup) -> None:
        some = dict(islice(self._asked.items(), SLICE))
        for snapshot in some:
            del self._asked[snapshot]
        self._making.update(some)
        for snapshot, state in some.items():
            tasks.start_soon(self._make, state, snapshot)

    async def _make(self, state: TopicState, snapshot: Snapshot) -> None:  # noqa: ASYNC910 - a task, not awaited
        try:
            with anyio.CancelScope() as scope:
                if not snapshot.readers or state.is_void(snapshot):  # nobody waits for it any more
                    return  # noqa: ASYNC910 - as above
                snapshot.cancel = scope.cancel
                state.begin(snapshot)
                index = await self._call_handler(state, snapshot)
                check_index(index)
                if not scope.cancel_called:
                    self._complete(state, snapshot, index)
        except BaseException as error:
            if _find(error, FATAL):
                raise
            if _is_cancelled() and (cancelled := _find(error, anyio.get_cancelled_exc_class())):
                raise cancelled from None
            state.fail(snapshot, error)  # it belongs to those who wait for the snapshot
        finally:
            if not snapshot.is_cached:
                snapshot.cancel = None
            del self._making[snapshot]

    async def _call_handler(self, state: TopicState, snapshot: Snapshot) -> int:
        key, namespace, partition = snapshot.subject
        request = SubscribeRequest(state.topic, key, namespace=namespace, partition=partition)
        appender = Appender(state, snapshot, request)
        try:
            returned = self.handlers[state.topic](request, appender)
            if not isinstance(returned, Awaitable):
                raise TypeError(
                    f"the handler of {str(state.topic)!r} is not async: it returned {type(returned).__name__}"
                )
            return await returned
        finally:
            appender.close()

    def _complete(self, state: TopicState, snapshot: Snapshot, index: int) -> None:
        snapshot.cancel = None
        state.complete(snapshot, index, cache=self._ttl > 0)
        if snapshot.is_cached and self._ttl < math.inf:
            self._expiries[snapshot] = anyio.current_time() + self._ttl, state
            snapshot.cancel = partial(self._expiries.pop, snapshot, None)
            self._parking.wake_each((self._expirer,))

    async def _expire(self) -> None:
        """Evicts what has been in the cache long enough; looks at the clock only while there is something."""
        while True:
            if not self._expiries:
                await self._parking.backend.park(self._expirer)
            elif (when := self._next_expiry()) > anyio.current_time():
                await anyio.sleep_until(when)
            else:
                self._evict_some()
                await self._parking.backend.checkpoint()

    def _next_expiry(self) -> float:
        return next(iter(self._expiries.values()))[0]

    def _evict_some(self) -> None:
        for snapshot in list(islice(self._expiries, SLICE)):
            when, state = self._expiries[snapshot]
            if when > anyio.current_time():
                return
            del self._expiries[snapshot]
            state.evict(snapshot)


def _is_cancelled() -> bool:
    return anyio.current_effective_deadline() == -math.inf


def _find(
    error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]
) -> BaseException | None:
    """The error if it is of these kinds, or the first one in it if it is a group."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _find(each, kinds))), None)
    return error if isinstance(error, kinds) else None
