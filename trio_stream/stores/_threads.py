"""Blocking work in worker threads, under a limiter of the store's own.

An application that keeps all its threads busy does not hold a store up.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import anyio
import anyio.to_thread

from ._errors import BusyError

T = TypeVar("T")

_THREADS: Final = 8  # at once for one store; commits take one, the others are for readers


class Once(Generic[T]):
    """Work that is done once, however many threads are told to do it; the later ones wait for the first."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.outcome: T | Exception | None = None
        """What it returned or raised; None as long as it is not done."""
        self._work = work
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            if self.outcome is None:
                try:
                    self.outcome = self._work()
                except Exception as error:  # noqa: BLE001 - for whoever looks at the outcome
                    self.outcome = error


class Threads:
    """The threads of one store."""

    def __init__(self, busy_timeout: float) -> None:
        self._busy_timeout = busy_timeout
        self._limiter = anyio.CapacityLimiter(_THREADS)
        self._closing = anyio.CapacityLimiter(_THREADS)  # all of the others may wait for what is to be closed

    async def run(self, work: Callable[[], T]) -> T:
        """Does it; after a `BusyError` again and again, until the time is over."""
        deadline = anyio.current_time() + self._busy_timeout
        while True:
            try:
                return await anyio.to_thread.run_sync(work, limiter=self._limiter)
            except BusyError:
                if anyio.current_time() >= deadline:
                    raise

    async def ask(self, work: Callable[[threading.Event], T], /) -> T:
        """Does it; when cancelled it is left to itself, and told so by the event."""
        stop = threading.Event()
        try:
            return await anyio.to_thread.run_sync(work, stop, abandon_on_cancel=True, limiter=self._limiter)
        finally:
            stop.set()

    async def finish(self, *works: Callable[[], object]) -> None:  # noqa: ASYNC910 - there is something to do
        """Does them all, one after the other; a work may be called again while a first thread is still at it.

        A native cancellation, which no shield keeps out, is raised afterwards.
        """
        await self._finish(works, self._limiter)

    async def close(self, *works: Callable[[], object]) -> None:
        """The same for what closes something, which does not wait for a place among the other threads."""
        await self._finish(works, self._closing)

    async def _finish(  # noqa: ASYNC910 - there is something to do
        self, works: Sequence[Callable[[], object]], limiter: anyio.CapacityLimiter
    ) -> None:
        left = list(works)
        cancellation: BaseException | None = None
        with anyio.CancelScope(shield=True):
            while left:
                try:
                    await anyio.to_thread.run_sync(left[0], limiter=limiter)
                except anyio.get_cancelled_exc_class() as error:
                    cancellation = error
                except RuntimeError:
                    if cancellation is None:
                        raise
                    # There are no threads left, and the first one may still be at it: nothing may be told before.
                    left.pop(0)()
                else:
                    del left[0]
        if cancellation is not None:
            raise cancellation
