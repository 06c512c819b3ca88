"""Parks tasks and wakes them: the one place where the library waits, and the one seam between the back ends.

A task parks in a `Slot`, of which every subscription is one, and lies meanwhile in the `Lot` of what it waits for.
Whoever changes the state wakes the lot.
Nothing is handed over with a wake: the woken task looks again, in the same synchronous stretch in which it moves its
cursor, so a task that was woken and cancelled in one go has lost nothing.

Large wake-ups would block the loop: beyond a few tasks they are left to `Parking.run`, which wakes in slices.
"""

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

import trio
from trio.lowlevel import current_task, reschedule, wait_task_rescheduled
from typing_extensions import override

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from outcome import Outcome

    _Step: TypeAlias = tuple[Callable[[object], object], Context, object]

AT_ONCE: Final = 16  # tasks that one wake() wakes on the spot; a small fan-out pays no extra hop
SLICE: Final = 256  # tasks woken between two checkpoints; measured at 1-2 us each, far below 5 ms


class Slot:
    """Where one task may be parked."""

    __slots__ = ("_parked",)

    # The trio task or asyncio future that is parked here, or None. Written by the back ends below and by nobody else.
    _parked: Any

    def __init__(self) -> None:
        self._parked = None

    def _give_up(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        """What trio calls when the parked task is cancelled."""
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED


class Lot:
    """The slots of the tasks that wait for the same thing."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        # {slot: None} in the order of arrival. Whoever parks enters its slot; whoever wakes the lot takes the whole
        # dict. One that has given up may still be here, and is passed over.
        self.waiting: dict[Slot, None] = {}


class Backend(Protocol):
    """What differs between the event loops."""

    def park(self, slot: Slot) -> Awaitable[None]:
        """Waits until the slot is woken; awaited at once. A checkpoint."""
        ...

    def wake(self, slots: Iterable[Slot]) -> None:
        """Wakes the tasks parked in these slots; those in which none is parked are passed over."""
        ...

    def wake_slice(self, slots: Iterable[Slot]) -> None:
        """The same for many, whose steps follow each other without any other between them."""
        self.wake(slots)

    def checkpoint(self) -> Awaitable[None]: ...

    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        """A function by which any thread can have this loop call something soon."""
        ...


class _Woken:
    """What trio hands to a task that was woken: an outcome without a value, which can be unwrapped any number of times.

    The `outcome.Value` that trio would make for each task takes a fifth of the time of a wake, and serves once.
    """

    __slots__ = ()

    def unwrap(self) -> None:
        pass


_WOKEN: Final = cast("Outcome[None]", _Woken())  # trio does nothing with it but unwrap it


class TrioBackend(Backend):
    @override
    def park(self, slot: Slot) -> Awaitable[None]:
        slot._parked = current_task()
        return wait_task_rescheduled(slot._give_up)

    @override
    def wake(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            task = slot._parked
            if task is not None:
                slot._parked = None
                reschedule(task, _WOKEN)

    @override
    def checkpoint(self) -> Awaitable[None]:
        return trio.lowlevel.checkpoint()

    @override
    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        return trio.lowlevel.current_trio_token().run_sync_soon


class AsyncioBackend(Backend):
    def __init__(self) -> None:
        import asyncio  # it runs already; on trio it would take a third of the time of importing this package

        self._running_loop = asyncio.get_running_loop
        self._sleep = asyncio.sleep
        self._is_done = asyncio.InvalidStateError

    @override
    def park(self, slot: Slot) -> Awaitable[None]:
        future: Awaitable[None]
        slot._parked = future = self._running_loop().create_future()
        return future

    @override
    def wake(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            future = slot._parked
            if future is not None:
                slot._parked = None
                if not future.done():  # a cancelled one is
                    future.set_result(None)

    @override
    def wake_slice(self, slots: Iterable[Slot]) -> None:
        # Each future would have the loop make and run a handle for its task: a third of the price of a wake.
        # `_callbacks` is what its repr shows; a future of another kind, without it, is woken in the usual way.
        steps: list[_Step] = []
        for slot in slots:
            future = slot._parked
            if future is not None:
                slot._parked = None
                for callback, context in getattr(future, "_callbacks", None) or ():
                    future.remove_done_callback(callback)
                    steps.append((callback, context, future))
                try:  # noqa: SIM105 - suppress() would take a sixth of the time of a wake
                    future.set_result(None)
                except self._is_done:  # it was cancelled, perhaps by a signal between these lines
                    pass
        loop = self._running_loop()
        loop.call_soon(self._take, iter(steps), loop)

    def _take(self, steps: "Iterator[_Step]", loop: "AbstractEventLoop") -> None:
        # If one of them ends the program, or runs the loop itself, the others go on here.
        rest = loop.call_soon(self._take, steps, loop)
        for callback, context, future in steps:
            context.run(callback, future)
        rest.cancel()

    @override
    def checkpoint(self) -> Awaitable[None]:
        return self._sleep(0)

    @override
    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        return self._running_loop().call_soon_threadsafe


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

    async def wait_in(self, lot: Lot) -> None:
        """Waits in the lot until it is woken. A checkpoint."""
        slot = Slot()
        lot.waiting[slot] = None
        try:
            await self.backend.park(slot)
        finally:
            lot.waiting.pop(slot, None)

    def wake(self, lots: Iterable[Lot]) -> None:
        """Wakes everybody in these lots, a few on the spot and the rest by `run`."""
        at_once = AT_ONCE
        for lot in lots:
            if count := len(lot.waiting):
                waiting, lot.waiting = lot.waiting, {}
                at_once -= count
                self._wake(waiting, at_once=at_once >= 0)

    def wake_each(self, slots: Sequence[Slot]) -> None:
        """Wakes these tasks, wherever they wait: on the spot if they are few, otherwise by `run`."""
        self._wake(slots, at_once=len(slots) <= AT_ONCE)

    def _wake(self, slots: Iterable[Slot], *, at_once: bool) -> None:
        if self._backend is None:  # then nobody has ever waited
            return
        if at_once or not self._is_running:
            self._backend.wake(slots)
        else:
            self._due.append(iter(slots))
            self._backend.wake((self._runner,))

    async def run(self) -> None:
        """Wakes what is due, in slices, until it is cancelled; then the rest in one go."""
        backend = self.backend
        self._is_running = True
        try:
            while True:
                while slots := self._next_slice():
                    backend.wake_slice(slots)
                    await backend.checkpoint()
                await backend.park(self._runner)
        finally:
            self._is_running = False
            for rest in self._due:
                backend.wake(rest)
            self._due.clear()

    def _next_slice(self) -> list[Slot]:
        slots: list[Slot] = []
        while self._due and len(slots) < SLICE:
            slots += islice(self._due[0], SLICE - len(slots))
            if len(slots) < SLICE:
                self._due.popleft()
        return slots
