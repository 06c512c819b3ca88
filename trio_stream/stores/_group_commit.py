"""Group commit: tasks that commit at the same time share a transaction.

Commits stand in a line, in the order of their arrival.
A task that finds nobody writing takes all that stand in line, its own among them, writes them in one transaction
in a worker thread, and tells each what became of it.
Nobody waits for company: the first commit is written at once and alone, and those that arrive meanwhile are the next
group.

A commit is in one of three states:

- *waiting* in line: when its task is cancelled it is taken out of the line;
- *taken*: it is being written, and its task waits for the outcome even if it is cancelled;
- *settled*: it has an outcome.

A commit that was taken goes back into the line after a `BusyError`, when another process holds the lock; one whose
task was cancelled meanwhile is settled without an outcome, because it was not made.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel

from ._errors import BusyError, again
from ._orders import Order, Outcome
from ._threads import Once, Threads
from ._values import EpochIndex

_MOST: Final = 256  # commits in one transaction


class _State(Enum):
    WAITING = auto()
    TAKEN = auto()
    SETTLED = auto()


class _Place:
    """A commit, from its entry into the line to its outcome."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.arrival = anyio.current_time()
        self.state = _State.WAITING
        self.outcome: Outcome | None = None
        self.cancellation: BaseException | None = None  # what its task got while it was taken
        self.stir = anyio.Event()  # set when it is settled, or is to look whether it should write

    def settle(self, outcome: Outcome | None) -> None:
        """Tells its task; without an outcome if that was cancelled and need not wait for one."""
        self.state = _State.SETTLED
        self.outcome = outcome
        self.stir.set()


class CommitLine:
    """The line; for the event loop's thread."""

    def __init__(
        self, write: Callable[[Sequence[Order]], Sequence[Outcome]], threads: Threads, *, patience: float
    ) -> None:
        """`write` blocks, and returns an outcome for each order; `patience` in seconds."""
        self._write = write
        self._threads = threads
        self._patience = patience
        self._waiting: deque[_Place] = deque()
        self._is_writing = False
        self._unlocked_at = -math.inf  # when it was last known that no other process held the lock

    async def commit(self, order: Order) -> EpochIndex:
        """The index, once it is durable; raises why it was not made."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        place = _Place(order)
        self._waiting.append(place)
        try:
            await self._until_settled(place)
        finally:
            if place.state is _State.WAITING:
                self._waiting.remove(place)
            self._pass_on()
        match place.outcome:
            case EpochIndex() as index:
                return index
            case Exception() as error:
                raise error
            case None:
                raise AssertionError("a commit was settled without an outcome")

    async def _until_settled(self, place: _Place) -> None:  # noqa: ASYNC910 - it waits at least once
        while place.state is not _State.SETTLED:
            if place.stir.is_set():
                place.stir = anyio.Event()
            try:
                if self._is_writing or place.state is _State.TAKEN:
                    # Whoever writes must know of a cancellation, so that it takes the place no second time.
                    with anyio.CancelScope(shield=place.cancellation is not None):
                        await place.stir.wait()
                else:
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    await self._lead()
            except anyio.get_cancelled_exc_class() as error:
                if place.state is _State.WAITING:
                    raise
                place.cancellation = error
        # If it is done that is what is returned: a scope that was cancelled cancels the next thing its task does.
        # A native cancel of asyncio comes only once.
        if place.cancellation is not None and (
            place.outcome is None or anyio.current_effective_deadline() != -math.inf
        ):
            raise place.cancellation

    async def _lead(self) -> None:
        """Writes for all who wait."""
        group = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
        for place in group:
            place.state = _State.TAKEN
        writing = Once(partial(self._write, [place.order for place in group]))
        self._is_writing = True
        try:
            await self._threads.finish(writing)
        finally:
            self._is_writing = False
            self._tell(group, writing.outcome)

    def _tell(self, group: Sequence[_Place], written: Sequence[Outcome] | Exception | None) -> None:
        match written:
            case None:  # no thread could be had; whoever comes next tries again
                outcomes: Sequence[Outcome | None] = [None] * len(group)
            case Exception() as error:
                outcomes = [again(error) for _ in group]
            case _:
                outcomes = written
        now = anyio.current_time()
        if not all(outcome is None or isinstance(outcome, BusyError) for outcome in outcomes):
            self._unlocked_at = now
        back: list[_Place] = []
        for place, outcome in zip(group, outcomes, strict=True):
            is_to_come = outcome is None or (
                isinstance(outcome, BusyError)
                and now < max(place.arrival, self._unlocked_at) + self._patience
            )
            if is_to_come and place.cancellation is not None:
                place.settle(None)
            elif is_to_come:
                place.state = _State.WAITING
                back.append(place)
            else:
                place.settle(outcome)
        self._waiting.extendleft(reversed(back))

    def _pass_on(self) -> None:
        """Has the first one in line write if nobody does."""
        if self._waiting and not self._is_writing:
            self._waiting[0].stir.set()
