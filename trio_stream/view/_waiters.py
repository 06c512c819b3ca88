"""Waits of many tasks for one thing: that something happens, or that an index is reached.

Tasks are never woken all at once, because ten thousand of them would hold the event loop for long.
Whoever has news for them only marks it, in constant time; the view's own task then wakes them in slices.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from operator import attrgetter
from typing import Final, Generic, TypeVar

import anyio
import anyio.lowlevel

S = TypeVar("S")

SLICE: Final = 256  # tasks woken between two checkpoints

_INDEX: Final = attrgetter("index")


class Signal:
    """Something that happens again and again, for a single task that waits for it."""

    def __init__(self) -> None:
        # What the next time sets and cancels; there may be nobody there.
        self._event: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    def fire(self) -> None:
        if self._event is not None:
            self._event.set()
        if self._scope is not None:
            self._scope.cancel()

    async def wait(self) -> None:
        self._event = anyio.Event()
        await self._event.wait()

    @contextmanager
    def interrupts(self) -> Iterator[anyio.CancelScope]:
        """A block that the next time cancels."""
        with anyio.CancelScope() as scope:
            self._scope = scope
            try:
                yield scope
            finally:
                self._scope = None


class Wakeups:
    """What is to be called so that tasks wake: the setting of an event, or the cancelling of a scope, for each."""

    def __init__(self) -> None:
        self._due: deque[Iterator[Callable[[], object]]] = deque()

    def add(self, calls: Iterator[Callable[[], object]]) -> None:
        """These are to be called, in slices, after all that were added before."""
        self._due.append(calls)

    async def wake(self) -> None:  # noqa: ASYNC910 - a view that wakes few goes on at once
        """Wakes everybody, with a checkpoint after each full slice; none if there is only a part of one."""
        while self._wake(SLICE) == SLICE:
            await anyio.lowlevel.checkpoint()

    def wake_all(self) -> None:
        """Wakes everybody in one go: for a view whose task may not wait any more."""
        while self._wake(SLICE):
            pass

    def _wake(self, most: int) -> int:
        woken = 0
        while self._due and woken < most:
            for call in islice(self._due[0], most - woken):
                call()
                woken += 1
            if woken < most:
                self._due.popleft()
        return woken


class Crowd:
    """Tasks that wait for something to happen; whoever comes later waits for the next time."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        # {event: None} in the order of arrival. Each task removes its own.
        self._waiting: dict[anyio.Event, None] = {}

    def fire(self) -> None:
        """It has happened: everybody who waits is to be woken."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            self._wakeups.add(event.set for event in waiting)

    async def wait(self, event: anyio.Event) -> None:
        """Waits until it happens, or until somebody sets this new event."""
        self._waiting[event] = None
        try:
            await event.wait()
        finally:
            self._waiting.pop(event, None)


class _Wait(Generic[S]):
    """The tasks that wait for one index, and the state with which it was reached."""

    __slots__ = ("events", "index", "state")

    def __init__(self, index: int) -> None:
        self.index = index
        # One for each task, which removes its own. Whoever wakes them takes the whole dict.
        self.events: dict[anyio.Event, None] = {}
        # Written right before they are woken.
        self.state: S | None = None


class IndexWaiters(Generic[S]):
    """Who waits for which index; only those whose index has come are woken."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        # Lowest index first; no index twice.
        self._waits: list[_Wait[S]] = []
        # Fires when somebody waits for a lower index than everybody before, and after a snapshot.
        self.arrived: Signal = Signal()

    def __len__(self) -> int:
        return sum(len(wait.events) for wait in self._waits)

    def __bool__(self) -> bool:
        return bool(self._waits)

    def lowest_from(self, index: int) -> int | None:
        """The lowest index not below this one that somebody waits for."""
        at = bisect_left(self._waits, index, key=_INDEX)
        return self._waits[at].index if at < len(self._waits) else None

    async def wait(self, index: int) -> S | None:
        """Returns what `release` is called with for this index, None after `release_all`."""
        at = bisect_left(self._waits, index, key=_INDEX)
        if at == len(self._waits) or self._waits[at].index != index:
            self._waits.insert(at, _Wait(index))
            if at == 0:
                self.arrived.fire()
        wait = self._waits[at]
        event = anyio.Event()
        wait.events[event] = None
        try:
            await event.wait()
        finally:
            wait.events.pop(event, None)
            if not wait.events:
                self._forget(wait)
        return wait.state

    def release(self, reached: int, state: S) -> None:
        """Those who wait for an index up to `reached` are to be woken, and get the state."""
        if self._waits and self._waits[0].index <= reached:
            self._release(bisect_right(self._waits, reached, key=_INDEX), state)

    def release_all(self) -> None:
        """Everybody is to be woken, with nothing."""
        self._release(len(self._waits), None)

    def _release(self, count: int, state: S | None) -> None:
        waits = self._waits[:count]
        del self._waits[:count]
        self._wakeups.add(_released(waits, state))

    def _forget(self, wait: _Wait[S]) -> None:
        at = bisect_left(self._waits, wait.index, key=_INDEX)
        if at < len(self._waits) and self._waits[at] is wait:
            del self._waits[at]


def _released(waits: list[_Wait[S]], state: S | None) -> Iterator[Callable[[], object]]:
    for wait in waits:
        wait.state = state
        events, wait.events = wait.events, {}
        for event in events:
            yield event.set
