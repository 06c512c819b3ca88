"""Parks tasks and wakes them: the one place where the library waits, and the one seam between the back ends.

A task parks in a `Slot`, of which every subscription is one, and lies meanwhile in the `Lot` of what it waits for.
Whoever changes the state wakes the lot.
Nothing is handed over with a wake: the woken task looks again, in the same synchronous stretch in which it moves its
cursor, so a task that was woken and cancelled in one go has lost nothing.

Large wake-ups would block the loop: beyond a few tasks they are left to `Parking.run`, which wakes in slices.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol, cast

import trio
from typing_extensions import override

AT_ONCE: Final = 16  # tasks that one wake() wakes on the spot; a small fan-out pays no extra hop
SLICE: Final = 256  # tasks woken between two checkpoints; measured at 1-2 us each, far below 5 ms


class Slot:
    """Where one task may be parked."""

    __slots__ = ("_parked",)

    # The trio task or asyncio future that is parked here. Written by the back ends below and by nobody else.
    _parked: trio.lowlevel.Task | asyncio.Future[None] | None

    def __init__(self) -> None:
        self._parked = None

    @property
    def _is_parked(self) -> bool:
        """Whether a task waits here and has not been woken."""
        return self._parked is not None


class Lot:
    """The slots of the tasks that wait for the same thing."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        # {slot: None} in the order of arrival. Whoever parks enters its slot, and takes it out if it gives up;
        # whoever wakes the lot takes the whole dict.
        self.waiting: dict[Slot, None] = {}


class Backend(Protocol):
    """What differs between the event loops."""

    def park(self, slot: Slot, lot: Lot) -> Awaitable[None]:
        """Waits in the lot until `wake` is called on the slot. A checkpoint."""
        ...

    def wake(self, slot: Slot) -> None:
        """Wakes the task parked in the slot, if there is one."""
        ...

    def checkpoint(self) -> Awaitable[None]: ...

    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        """A function by which any thread can have this loop call something soon."""
        ...


class TrioBackend(Backend):
    @override
    async def park(self, slot: Slot, lot: Lot) -> None:
        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            slot._parked = None
            lot.waiting.pop(slot, None)  # it may have been taken out to be woken
            return trio.lowlevel.Abort.SUCCEEDED

        slot._parked = trio.lowlevel.current_task()
        lot.waiting[slot] = None
        await trio.lowlevel.wait_task_rescheduled(abort)

    @override
    def wake(self, slot: Slot) -> None:
        task = slot._parked
        if task is not None:
            slot._parked = None
            trio.lowlevel.reschedule(cast("trio.lowlevel.Task", task))

    @override
    def checkpoint(self) -> Awaitable[None]:
        return trio.lowlevel.checkpoint()

    @override
    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        return trio.lowlevel.current_trio_token().run_sync_soon


class AsyncioBackend(Backend):
    @override
    async def park(self, slot: Slot, lot: Lot) -> None:
        slot._parked = future = asyncio.get_running_loop().create_future()
        lot.waiting[slot] = None
        try:
            await future
        except BaseException:
            slot._parked = None
            lot.waiting.pop(slot, None)
            raise

    @override
    def wake(self, slot: Slot) -> None:
        future = slot._parked
        if future is not None:
            slot._parked = None
            if not (future := cast("asyncio.Future[None]", future)).done():
                future.set_result(None)  # a native cancel reaches the future before it reaches the task

    @override
    def checkpoint(self) -> Awaitable[None]:
        return asyncio.sleep(0)

    @override
    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        return asyncio.get_running_loop().call_soon_threadsafe


class Parking:
    """Where the tasks of one publisher wait; it belongs to the event loop of the first one."""

    def __init__(self) -> None:
        # The thread of the event loop; None until the first task has come here.
        self.thread: int | None = None
        self._backend: Backend | None = None
        # What wake() has taken from the lots and run() has not woken yet.
        self._due: deque[Iterator[Slot]] = deque()
        # Whether run() is there to wake what is due.
        self._is_running = False
        self._runner = Slot()
        self._idle = Lot()

    @property
    def backend(self) -> Backend:
        """The back end of this publisher's event loop, chosen by the first task that asks."""
        if self._backend is None:
            self._backend = TrioBackend() if trio.lowlevel.in_trio_task() else AsyncioBackend()
            self.thread = threading.get_ident()
        return self._backend

    def check_thread(self, call: str) -> None:
        """Raises unless this is the event loop's thread, or there is no event loop yet."""
        if self.thread is not None and self.thread != threading.get_ident():
            raise RuntimeError(
                f"{call}() was called from another thread than that of the publisher's event loop"
            )

    def wake(self, lots: Iterable[Lot]) -> None:
        """Wakes everybody in these lots, a few on the spot and the rest by `run`."""
        at_once = AT_ONCE
        for lot in lots:
            if count := len(lot.waiting):
                waiting, lot.waiting = lot.waiting, {}
                at_once -= count
                if at_once >= 0:
                    self.wake_slots(waiting)
                else:
                    self._wake_later(waiting)

    def wake_slots(self, slots: Iterable[Slot]) -> None:
        """Wakes these tasks on the spot, those of them that are parked."""
        for slot in slots:
            if slot._is_parked:
                self.backend.wake(slot)

    def wake_each(self, slots: Sequence[Slot]) -> None:
        """Wakes these tasks, wherever they wait: on the spot if they are few or nothing runs, otherwise by `run`."""
        if len(slots) <= AT_ONCE:
            self.wake_slots(slots)
        else:
            self._wake_later(slots)

    def _wake_later(self, slots: Iterable[Slot]) -> None:
        self._due.append(iter(slots))
        if self._is_running:
            self.wake_slots((self._runner,))
        else:
            self._wake_all_due()

    def _wake_all_due(self) -> None:
        while self._due:
            self.wake_slots(self._due.popleft())

    async def run(self) -> None:
        """Wakes what is due, in slices, until it is cancelled; then the rest in one go."""
        backend = self.backend
        self._is_running = True
        try:
            while True:
                await self._wake_in_slices(backend)
                await backend.park(self._runner, self._idle)
        finally:
            self._is_running = False
            self._wake_all_due()

    async def _wake_in_slices(self, backend: Backend) -> None:  # noqa: ASYNC910 - run() parks after it
        in_slice = 0
        while self._due:
            for slot in self._due[0]:
                backend.wake(slot)
                in_slice += 1
                if in_slice == SLICE:
                    in_slice = 0
                    await backend.checkpoint()
            self._due.popleft()
