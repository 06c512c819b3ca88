"""What other threads publish, on its way to the event loop.

A thread puts a call in and waits; a task of the publisher makes the calls, in their order and a few at a time, so that
however many threads publish, the event loop has its turn in between.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from ._errors import FATAL, ClosedResourceError
from ._wait import Parking, Slot

PORTION: Final = 16  # calls between two checkpoints


class Inbox:
    """Any thread puts a call in and waits; the event loop makes them, in their order.

    After `close` nobody waits: whoever looks at the queue last, the thread or the loop, finds the other's part done.
    """

    def __init__(self, parking: Parking) -> None:
        self._parking = parking
        # Any thread appends; the event loop takes, and after the end whoever comes.
        self._waiting: deque[tuple[Callable[[], None], Future[None]]] = deque()
        # How a thread has the event loop call something; None before open().
        self._call_soon: Callable[[Callable[[], object]], object] | None = None
        self._runner = Slot()
        self._is_closed = False

    def open(self, call_soon: Callable[[Callable[[], object]], object]) -> None:
        """Threads may put calls in from now on; `run` makes them."""
        self._call_soon = call_soon

    async def run(self) -> None:
        """Makes the calls, until it is cancelled."""
        backend = self._parking.backend
        while True:
            for _ in range(PORTION):
                self._take()
            if self._waiting:
                await backend.checkpoint()
            else:
                await backend.park(self._runner)

    def close(self) -> None:
        """Refuses everything that waits, and all that comes."""
        self._is_closed = True
        self._refuse()

    def put(self, publish: Callable[[], None]) -> None:
        """For another thread: returns when the call was made, or raises what that raised."""
        if self._call_soon is None:
            raise RuntimeError("publish_from_thread() needs a publisher that runs")
        result = Future[None]()
        self._waiting.append((publish, result))
        if self._is_closed:
            self._refuse()
        else:
            try:
                self._call_soon(self._wake)
            except RuntimeError:  # the event loop has just ended
                self._refuse()
        result.result()

    def _wake(self) -> None:
        self._parking.wake_each((self._runner,))

    def _take(self) -> None:
        if next_ := self._pop():
            publish, result = next_
            try:
                publish()
            except BaseException as error:
                result.set_exception(error)  # it belongs to the thread that waits for it
                if isinstance(error, FATAL):
                    raise
            else:
                result.set_result(None)

    def _refuse(self) -> None:
        while next_ := self._pop():
            next_[1].set_exception(ClosedResourceError("this publisher has stopped"))

    def _pop(self) -> tuple[Callable[[], None], Future[None]] | None:
        try:
            return self._waiting.popleft()
        except IndexError:  # in the end several threads may look at the same time
            return None
