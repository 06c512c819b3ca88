"""Runs the snapshot functions, each in a task and cancel scope of its own, and the clock of their cache.

A handler fills a snapshot while it is read, but runs ahead of its fastest reader by a window only.
Whatever it does, only those who wait for its snapshot are concerned.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

import anyio
import anyio.abc
from typing_extensions import TypeVar, override

from ._commit import check_event, check_one_index, delivery
from ._errors import ClosedResourceError, InvalidCommitError
from ._events import Event, SubscribeRequest, Topic, check_index
from ._topic import WINDOW, Snapshot, TopicState
from ._wait import SLICE, Lot, Parking, Slot

P = TypeVar("P", default=Any)
P_contra = TypeVar("P_contra", contravariant=True, default=Any)


class SnapshotAppender(Protocol[P_contra]):
    """Where a snapshot function puts the state."""

    async def append(self, events: Iterable[Event[P_contra]], /) -> None:
        """Adds the events of one commit; they arrive together, as one event.

        A checkpoint.
        Waits while every reader of the snapshot is far behind, and is cancelled when there is no reader left.

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

    __slots__ = ("_snapshot", "_state")

    def __init__(self, state: TopicState, snapshot: Snapshot) -> None:
        self._state = state
        self._snapshot = snapshot

    @override
    async def append(self, events: Iterable[Event[Any]], /) -> None:
        state, snapshot = self._state, self._snapshot
        if snapshot.is_complete or snapshot.failure is not None:
            raise ClosedResourceError("the snapshot function of this appender has returned")
        group = tuple(events)
        for event in group:
            check_event(event)
            if event.topic != state.topic:  # so too for close events
                raise InvalidCommitError(
                    f"an event of topic {str(event.topic)!r} in a snapshot of {str(state.topic)!r}"
                )
        if group and not snapshot.is_gone:
            check_one_index(group)
            snapshot.append(delivery(group))
            state.parking.wake((snapshot,))
        await state.parking.backend.checkpoint()
        while snapshot.end - snapshot.furthest > WINDOW and not snapshot.is_gone:
            await self._wait_for_readers()

    async def _wait_for_readers(self) -> None:
        self._state.stall(self._snapshot)
        try:
            await self._state.parking.backend.park(Slot(), self._snapshot.writers)
        finally:
            self._state.unstall(self._snapshot)


class SnapshotMaker:
    """Runs the snapshot functions of a publisher; `ttl` is how long a snapshot stays in the cache, in seconds."""

    def __init__(self, parking: Parking, ttl: float) -> None:
        self.handlers: dict[Topic[Any], SnapshotFunc[Any]] = {}
        self._parking = parking
        self._ttl = ttl
        # The publisher's; None before it runs.
        self._tasks: anyio.abc.TaskGroup | None = None
        # What was asked for before that.
        self._not_started: list[tuple[TopicState, Snapshot]] = []
        # (when, where, what) leaves the cache, soonest first: all stay equally long.
        self._expiries: deque[tuple[float, TopicState, Snapshot]] = deque()
        self._expirer = Slot()
        self._idle = Lot()

    def open(self, tasks: anyio.abc.TaskGroup) -> None:
        """Runs from now on, in the publisher's task group, also what was asked for before."""
        self._tasks = tasks
        tasks.start_soon(self._expire)
        for state, snapshot in self._not_started:
            tasks.start_soon(self._make, state, snapshot)
        self._not_started.clear()

    def start(self, state: TopicState, snapshot: Snapshot) -> None:
        """Has the topic's handler fill a snapshot."""
        if self._tasks is None:
            self._not_started.append((state, snapshot))
        else:
            self._tasks.start_soon(self._make, state, snapshot)

    def close(self) -> None:
        """Forgets what is left; the task group ends the handlers."""
        self._expiries.clear()

    async def _make(self, state: TopicState, snapshot: Snapshot) -> None:
        try:
            with anyio.CancelScope() as scope:
                if not snapshot.readers:  # they have all left before it could begin
                    return
                snapshot.scope = scope
                state.begin(snapshot)
                index = await self._call_handler(state, snapshot)
                check_index(index)
                if not scope.cancel_called:
                    self._complete(state, snapshot, index)
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait for the snapshot
            state.fail(snapshot, error)
        except anyio.get_cancelled_exc_class() as error:
            if self._parking.backend.is_cancelled():
                raise
            state.fail(snapshot, error)  # nobody has cancelled this task: the handler let out another's
        finally:
            snapshot.scope = None

    def _call_handler(self, state: TopicState, snapshot: Snapshot) -> Awaitable[int]:
        key, namespace, partition = snapshot.subject
        request = SubscribeRequest(state.topic, key, namespace=namespace, partition=partition)
        return self.handlers[state.topic](request, Appender(state, snapshot))

    def _complete(self, state: TopicState, snapshot: Snapshot, index: int) -> None:
        state.complete(snapshot, index, cache=self._ttl > 0)
        if snapshot.is_cached and self._ttl < math.inf:
            self._expiries.append((anyio.current_time() + self._ttl, state, snapshot))
            self._parking.wake_slots((self._expirer,))

    async def _expire(self) -> None:
        """Evicts what has been in the cache long enough; looks at the clock only while there is something."""
        evicted = 0
        while True:
            if not self._expiries:
                await self._parking.backend.park(self._expirer, self._idle)
                continue
            when, state, snapshot = self._expiries[0]
            if when > anyio.current_time():
                await anyio.sleep_until(when)
                continue
            self._expiries.popleft()
            state.evict(snapshot)
            evicted += 1
            if evicted % SLICE == 0:
                await self._parking.backend.checkpoint()
