"""Parks tasks and wakes them: the one place where the library waits, and the one seam between the back ends.

A task parks in a `Slot`, of which every subscription is one, and lies meanwhile in the `Lot` of what it waits for.
Whoever changes the state wakes the lot.
Nothing is handed over with a wake: the woken task looks again, in the same synchronous stretch in which it moves its
cursor, so a task that was woken and cancelled in one go has lost nothing.

Nothing here may hold the event loop for long.
A large wake-up, and anything else that has many small steps, is left to `Parking.run`, which takes a slice of it
between two checkpoints.
"""

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableSequence, Sequence
from contextvars import Context
from itertools import chain, islice
from threading import get_ident
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
STEPS: Final = 128  # steps of other work between two checkpoints; measured at 2-15 us each
PORTION: Final = 32  # items that one step lets go of


def _one(_: object) -> int:
    return 1


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
    """What differs between the event loops.

    `park` and `checkpoint` raise what `check` raises.
    """

    def check(self) -> None:
        """Raises `RuntimeError` unless the caller is a task of this event loop."""
        ...

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

_ELSEWHERE: Final = "this belongs to another event loop than the one of the caller"


class TrioBackend(Backend):
    def __init__(self) -> None:
        # Only one trio run can be in a thread.
        self._thread = get_ident()

    @override
    def check(self) -> None:
        current_task()  # raises in what is not a task of trio, such as the host of a guest run
        if get_ident() != self._thread:
            raise RuntimeError(_ELSEWHERE)

    @override
    def park(self, slot: Slot) -> Awaitable[None]:
        task = current_task()
        if get_ident() != self._thread:  # as in check()
            raise RuntimeError(_ELSEWHERE)
        slot._parked = task
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
        current_task()
        if get_ident() != self._thread:  # as in check()
            raise RuntimeError(_ELSEWHERE)
        return trio.lowlevel.checkpoint()

    @override
    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        return trio.lowlevel.current_trio_token().run_sync_soon


class AsyncioBackend(Backend):
    def __init__(self) -> None:
        import asyncio  # it runs already; on trio it would take a third of the time of importing this package

        self._running_loop = asyncio.get_running_loop
        self._current_task = asyncio.current_task
        self._loop = asyncio.get_running_loop()
        self._sleep = asyncio.sleep
        self._is_done = asyncio.InvalidStateError

    @override
    def check(self) -> None:
        loop = self._running_loop()
        if self._loop.is_closed():  # a publisher that does not run may serve one event loop after the other
            self._loop = loop
        # Under trio as a guest, a task of trio runs inside the asyncio loop too, but not as a task of it.
        if loop is not self._loop or self._current_task() is None:
            raise RuntimeError(_ELSEWHERE)

    @override
    def park(self, slot: Slot) -> Awaitable[None]:
        loop = self._running_loop()
        if loop is not self._loop or self._current_task(loop) is None:
            self.check()
        future: Awaitable[None]
        slot._parked = future = loop.create_future()
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
        self._loop.call_soon(self._take, iter(steps), self._loop)

    def _take(self, steps: "Iterator[_Step]", loop: "AbstractEventLoop") -> None:
        # If one of them ends the program, or runs the loop itself, the others go on here.
        rest = loop.call_soon(self._take, steps, loop)
        for callback, context, future in steps:
            context.run(callback, future)
        rest.cancel()

    @override
    def checkpoint(self) -> Awaitable[None]:
        loop = self._running_loop()
        if loop is not self._loop or self._current_task(loop) is None:
            self.check()
        return self._sleep(0)

    @override
    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        return self._loop.call_soon_threadsafe


class _Closed(Backend):
    """Stands in for a back end when nobody will wake anybody any more: to park is only a checkpoint."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @override
    def check(self) -> None:
        self._backend.check()

    @override
    def park(self, slot: Slot) -> Awaitable[None]:
        return self._backend.checkpoint()

    @override
    def wake(self, slots: Iterable[Slot]) -> None:
        self._backend.wake(slots)

    @override
    def checkpoint(self) -> Awaitable[None]:
        return self._backend.checkpoint()

    @override
    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        return self._backend.call_from_thread()


class Parking:
    """Where the tasks of one publisher wait; it belongs to the event loop of the first one."""

    def __init__(self) -> None:
        # The thread of the event loop; None until the first task has come here.
        self.thread: int | None = None
        self._backend: Backend | None = None
        # What wake() has taken from the lots and run() has not woken yet.
        self._due: deque[Iterator[Slot]] = deque()
        # What is left of work in small steps, one after the other.
        self._work: deque[Iterator[object]] = deque()
        self._is_closed = False
        # Whether run(), and after it finish(), does what is due.
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
        if self.thread is not None and self.thread != get_ident():
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
        rest: list[Iterable[Slot]] = []
        for lot in lots:
            if count := len(lot.waiting):
                waiting, lot.waiting = lot.waiting, {}
                at_once -= count
                if at_once >= 0:
                    self._wake(waiting, at_once=True)
                else:
                    rest.append(waiting)
        if rest:
            self._wake(chain.from_iterable(rest), at_once=False)

    def wake_each(self, slots: Sequence[Slot]) -> None:
        """Wakes these tasks, wherever they wait: on the spot if they are few, otherwise by `run`."""
        self._wake(slots, at_once=len(slots) <= AT_ONCE)

    def wake_one(self, slot: Slot) -> None:
        """Wakes this task, wherever it waits."""
        self._wake((slot,), at_once=True)

    def in_slices(self, steps: Iterator[object], count: int) -> None:
        """Takes these steps, which are small: on the spot if they are few, otherwise all of them by `run`.

        `count`: how many they are; if there are more, the rest is left to `run`.
        Work that was given before is done before.
        After `close` nothing is done on the spot: very much may come together.
        """
        is_little = count <= STEPS and not (self._work or self._is_closed)
        if not is_little or len(list(islice(steps, STEPS + 1))) > STEPS:
            self._later(steps)

    def release(self, items: MutableSequence[Any], size: Callable[[Any], int] = _one) -> None:
        """Lets go of the content of a container that nobody else uses; to free all of a large one takes long.

        `size`: how much there is in one of its items.
        Nothing of it is freed on the spot: many may be released in one stretch.
        """
        if sum(map(size, islice(items, PORTION + 1))) > PORTION:
            self._later(emptying(items, size))

    async def run(self) -> None:
        """Wakes who is due, and works, in slices, until it is cancelled; `finish` does the rest."""
        backend = self.backend
        self._is_running = True
        while True:
            while self._due or self._work:
                self._do_some(backend)
                await backend.checkpoint()
            await backend.park(self._runner)

    def close(self) -> None:
        """Nobody is woken from now on but those who wait already; to park is only a checkpoint."""
        self._is_closed = True
        self._backend = _Closed(self.backend)

    async def finish(self) -> None:  # noqa: ASYNC910 - there may be nothing left to do
        """After `run`: does what is left, in slices; in one go if it is cancelled meanwhile."""
        backend = self.backend
        try:
            while self._due or self._work:
                await backend.checkpoint()
                self._do_some(backend)
        finally:
            self._is_running = False
            while self._due or self._work:
                self._do_some(backend)

    def _later(self, steps: Iterator[object]) -> None:
        """Takes these steps after those that are to be taken already; without `run` there is no later."""
        if self._is_running:
            self._work.append(steps)
            self._wake_runner()
        else:
            for _ in steps:
                pass

    def _wake(self, slots: Iterable[Slot], *, at_once: bool) -> None:
        if self._backend is None:  # then nobody has ever waited
            return
        if at_once or not self._is_running:
            self._backend.wake(slots)
        else:
            self._due.append(iter(slots))
            self._wake_runner()

    def _wake_runner(self) -> None:
        self.backend.wake((self._runner,))

    def _do_some(self, backend: Backend) -> None:
        if slots := self._next_slice():
            backend.wake_slice(slots)
        left = STEPS
        while self._work and left > 0:
            left -= len(list(islice(self._work[0], left))) + 1
            if left >= 0:
                self._work.popleft()

    def _next_slice(self) -> list[Slot]:
        slots: list[Slot] = []
        while self._due and len(slots) < SLICE:
            slots += islice(self._due[0], SLICE - len(slots))
            if len(slots) < SLICE:
                self._due.popleft()
        return slots


def emptying(items: MutableSequence[Any], size: Callable[[Any], int] = _one) -> Iterator[None]:
    """Empties a container, a portion at each step; after an item that is larger it pauses for some steps."""
    taken = 0
    while items:
        taken += size(items.pop())
        while taken >= PORTION:
            taken -= PORTION
            yield
