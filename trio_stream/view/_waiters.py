"""Waits of many tasks for one thing: that something happens, or that an index is reached."""

from bisect import bisect_left, bisect_right, insort
from typing import Generic, TypeVar

import anyio

S = TypeVar("S")


class Signal:
    """Something that happens again and again; who waits is woken by the next time."""

    def __init__(self) -> None:
        # None while nobody waits.
        self._event: anyio.Event | None = None

    def fire(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class _Wait(Generic[S]):
    """The tasks that wait for one index, and the state with which it was reached."""

    __slots__ = ("event", "state", "tasks")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.state: S | None = None
        self.tasks = 0


class IndexWaiters(Generic[S]):
    """Who waits for which index; only those whose index has come are woken."""

    def __init__(self) -> None:
        self._waits: dict[int, _Wait[S]] = {}
        # The keys of _waits, lowest first.
        self._order: list[int] = []
        # Fires when there is something to wait for again.
        self.arrived: Signal = Signal()

    def __len__(self) -> int:
        return sum(wait.tasks for wait in self._waits.values())

    def __bool__(self) -> bool:
        return bool(self._order)

    def below(self, index: int) -> list[int]:
        """The indexes below this one that somebody waits for, lowest first."""
        return self._order[: bisect_left(self._order, index)]

    async def wait(self, index: int) -> S | None:
        """Returns what `release` is called with for this index, None after `release_all`."""
        wait = self._waits.get(index)
        if wait is None:
            wait = self._waits[index] = _Wait()
            insort(self._order, index)
            self.arrived.fire()
        wait.tasks += 1
        try:
            await wait.event.wait()
        finally:
            wait.tasks -= 1
            if not wait.tasks and self._waits.get(index) is wait:
                del self._waits[index]
                del self._order[bisect_left(self._order, index)]
        return wait.state

    def release(self, reached: int, state: S) -> None:
        """Wakes those who wait for an index up to `reached`, and gives them the state."""
        passed = bisect_right(self._order, reached)
        for index in self._order[:passed]:
            wait = self._waits.pop(index)
            wait.state = state
            wait.event.set()
        del self._order[:passed]

    def release_all(self) -> None:
        """Wakes everybody, with nothing."""
        for wait in self._waits.values():
            wait.event.set()
        self._waits.clear()
        self._order.clear()
