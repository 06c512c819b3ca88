"""Cancels a call at each of its suspensions: alone, and in one tick with what wakes it, in both orders."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

import anyio
import trio
from interruptions import Call, Stepwise, soon
from proof import amount
from scenes import quiet

LATE = amount(1, 4)  # ticks after the wake at which the cancellation may come
WAKES = 8  # at one suspension
TICKS = 10  # between two of them
PATIENCE = 20.0  # seconds after which what should have come will not come any more


async def nothing() -> None:
    pass


@dataclass
class Setting:
    """Where a call is made, and made again after it was cancelled."""

    call: Call
    # Makes a bit more of what the call waits for true; called whenever it has suspended.
    wake: Callable[[], object] = lambda: None
    # D13: nothing is left of the call, which was cancelled or has come to its end.
    left: Callable[[], Awaitable[object]] = nothing
    # D12: the call has come to its end at last, and all is as if it had never been cancelled.
    check: Callable[[], Awaitable[object]] = nothing
    # Waits until what was started has come to rest.
    settle: Callable[[], Awaitable[object]] = quiet
    # Whether its cancellation has to be one that can be held up, as it is for a command.
    by_scope_only: bool = False


Scene: TypeAlias = Callable[[], AbstractAsyncContextManager[Setting]]

# What is done at the chosen suspension, given what cancels and what wakes.
Order: TypeAlias = Callable[[Callable[[], object], Callable[[], object]], object]


def alone(cancel: Callable[[], object], wake: Callable[[], object]) -> None:
    cancel()


def cancel_first(cancel: Callable[[], object], wake: Callable[[], object]) -> None:
    soon(lambda: (cancel(), wake()))


def wake_first(ticks: int) -> Order:
    def order(cancel: Callable[[], object], wake: Callable[[], object]) -> None:
        def wake_and_cancel() -> None:
            wake()
            later(ticks, cancel)

        soon(wake_and_cancel)

    return order


ORDERS = (alone, cancel_first, *map(wake_first, range(LATE)))


async def sweep(scene: Scene, order: Order, *, native: bool) -> int:
    """Cancels the call at its first, second ... suspension, until it has no more; how often it was cancelled."""
    total = 0
    for at in itertools.count():
        with anyio.fail_after(PATIENCE):
            async with scene() as setting:
                if native and setting.by_scope_only:
                    return 0
                making = Making(setting, order, at)
                was_cancelled = await (making.natively() if native else making.by_scope())
                await setting.settle()
                await setting.left()
                if was_cancelled:
                    await Making(setting, alone, -1).by_scope()
                    await setting.settle()
                    await setting.left()
                await setting.check()
        total += was_cancelled
        if making.steps.suspensions <= at:
            return total
    raise AssertionError


class Making:
    """The call is made once, and cancelled at one suspension, which is one too many in the end."""

    def __init__(self, setting: Setting, order: Order, at: int) -> None:
        self.steps = Stepwise(setting.call, self._step)
        self._setting = setting
        self._order = order
        self._at = at
        self._cancel: Callable[[], object]
        self._is_made = False

    async def by_scope(self) -> bool:
        """Whether it was cancelled."""
        with anyio.CancelScope() as scope:
            self._cancel = scope.cancel
            await self._make()
        return scope.cancelled_caught

    async def natively(self) -> bool:
        """The same as asyncio does it, in a task of its own."""
        task = asyncio.create_task(self._make())
        self._cancel = task.cancel
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        return task.cancelled()

    async def _make(self) -> None:
        try:
            await self.steps
        finally:
            self._is_made = True

    def _step(self, number: int) -> None:
        if number == self._at:
            self._order(self._cancel, self._setting.wake)
        else:
            soon(lambda: self._wake(number, WAKES))

    def _wake(self, number: int, more: int) -> None:
        """Again after some ticks, as long as the call stays where it is: that it was woken need not be enough."""
        if more and number == self.steps.suspensions - 1 and not self._is_made:
            self._setting.wake()
            later(TICKS, lambda: self._wake(number, more - 1))


def later(ticks: int, call: Callable[[], object]) -> None:
    if ticks:
        soon(lambda: later(ticks - 1, call))
    else:
        call()


def natives() -> list[bool]:
    """Whether to cancel natively, or by a scope; on this event loop."""
    return [False] if trio.lowlevel.in_trio_run() else [False, True]
