"""Cancels a call at each of its suspensions: alone, and in one tick with what wakes it, in both orders."""

import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

import anyio
from interruptions import Call, Cancel, Drive, in_scope, in_task, later, soon
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
Order: TypeAlias = Callable[[Cancel, Callable[[], object]], object]


def alone(cancel: Cancel, wake: Callable[[], object]) -> None:
    cancel()


def cancel_first(cancel: Cancel, wake: Callable[[], object]) -> None:
    soon(lambda: (cancel(), wake()))


def wake_first(ticks: int) -> Order:
    def order(cancel: Cancel, wake: Callable[[], object]) -> None:
        def wake_and_cancel() -> None:
            wake()
            later(ticks, cancel)

        soon(wake_and_cancel)

    return order


ORDERS = (alone, cancel_first, *map(wake_first, range(LATE)))


async def sweep(scene: Scene, order: Order, drive: Drive) -> int:
    """Cancels the call at its first, second ... suspension, until it has no more; how often it was cancelled."""
    total = 0
    for at in itertools.count():
        with anyio.fail_after(PATIENCE):
            async with scene() as setting:
                if drive is in_task and setting.by_scope_only:
                    return 0
                making = Making(setting, order, at)
                was_cancelled = await making.run(drive)
                await setting.settle()
                await setting.left()
                if was_cancelled:
                    await Making(setting, alone, -1).run(in_scope)
                    await setting.settle()
                    await setting.left()
                await setting.check()
        total += was_cancelled
        if making.suspensions <= at:
            return total
    raise AssertionError


class Making:
    """The call is made once, and cancelled at one suspension, which is one too many in the end."""

    def __init__(self, setting: Setting, order: Order, at: int) -> None:
        self.suspensions = 0
        self._setting = setting
        self._order = order
        self._at = at
        self._is_made = False

    async def run(self, drive: Drive) -> bool:
        """Whether it was cancelled."""
        return await drive(self._make, self._step)

    async def _make(self) -> None:
        try:
            await self._setting.call()
        finally:
            self._is_made = True

    def _step(self, number: int, cancel: Cancel) -> None:
        self.suspensions += 1
        if number == self._at:
            self._order(cancel, self._setting.wake)
        else:
            soon(lambda: self._wake(number, WAKES))

    def _wake(self, number: int, more: int) -> None:
        """Again after some ticks, as long as the call stays where it is: that it was woken need not be enough."""
        if more and number == self.suspensions - 1 and not self._is_made:
            self._setting.wake()
            later(TICKS, lambda: self._wake(number, more - 1))
