"""Drives a call from suspension to suspension, to cancel it at a chosen one, and says on which back ends."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

import anyio
import pytest
import trio
from backends import ASYNCIO, TRIO
from evidence import count

on_trio = pytest.mark.parametrize("anyio_backend", TRIO)
on_asyncio = pytest.mark.parametrize("anyio_backend", ASYNCIO)

Call = Callable[[], Awaitable[Any]]
Cancel = Callable[[], object]
# Called at each suspension, with its number, from 0, and what cancels the call.
Step = Callable[[int, Cancel], object]
# Makes a call, with a step at each of its suspensions; whether it was cancelled.
Drive = Callable[[Call, Step], Awaitable[bool]]
# The same, and the call is cancelled at the suspension with this number; at the others something else is done.
Interrupt = Callable[[Call, int, Callable[[int], object]], Awaitable[bool]]


class Stepwise:
    """Awaits something, and at each of its suspensions, counted from 0, first calls `step`."""

    def __init__(self, call: Call, step: Callable[[int], object] = lambda _: None) -> None:
        self.suspensions = 0
        self._call = call
        self._step = step

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._call().__await__()
        resume: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                trap = resume()
            except StopIteration as done:
                return done.value
            self.suspensions += 1
            self._step(self.suspensions - 1)
            try:
                resume = partial(steps.send, (yield trap))
            except BaseException as error:  # noqa: BLE001
                resume = partial(steps.throw, error)


async def in_scope(call: Call, step: Step) -> bool:
    """What cancels it is an anyio scope."""
    with anyio.CancelScope() as scope:
        await Stepwise(call, lambda number: step(number, scope.cancel))
    return scope.cancelled_caught


async def in_task(call: Call, step: Step) -> bool:
    """What cancels it is asyncio's own, so that it has a task of its own."""

    async def main() -> None:
        # An eager task gets here before `create_task` returns.
        this = asyncio.current_task()
        assert this is not None
        await Stepwise(call, lambda number: step(number, this.cancel))

    task = asyncio.create_task(main())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


def after(ticks: int) -> Step:
    """Cancels the call so many turns of the loop after its first suspension; it may have ended by then."""
    return lambda number, cancel: later(ticks, cancel) if number == 0 else None


def drives() -> list[Drive]:
    """How a task can be cancelled on this event loop."""
    return [in_scope] if trio.lowlevel.in_trio_run() else [in_scope, in_task]


async def by_scope(call: Call, at: int, otherwise: Callable[[int], object]) -> bool:
    was_cancelled = await in_scope(call, only(at, otherwise))
    count("cancelled", "by scope", was_cancelled)
    return was_cancelled


async def natively(call: Call, at: int, otherwise: Callable[[int], object]) -> bool:
    was_cancelled = await in_task(call, only(at, otherwise))
    count("cancelled", "natively", was_cancelled)
    return was_cancelled


def only(at: int, otherwise: Callable[[int], object]) -> Step:
    return lambda number, cancel: cancel() if number == at else otherwise(number)


def ways() -> list[Interrupt]:
    """How a call can be cancelled at one suspension on this event loop."""
    return [by_scope] if trio.lowlevel.in_trio_run() else [by_scope, natively]


def soon(call: Callable[[], object]) -> None:
    """Has the event loop call something when the current task has suspended."""
    if trio.lowlevel.in_trio_run():
        trio.lowlevel.current_trio_token().run_sync_soon(call)
    else:
        asyncio.get_running_loop().call_soon(call)


def later(ticks: int, call: Callable[[], object]) -> None:
    """The same after so many turns of the loop more; 0 is at once."""
    if ticks:
        soon(lambda: later(ticks - 1, call))
    else:
        call()
