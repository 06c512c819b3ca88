"""Drives a call from suspension to suspension, to cancel it at a chosen one, and says on which back ends."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from importlib.util import find_spec
from typing import Any

import anyio
import pytest
import trio
from evidence import count

on_trio = pytest.mark.parametrize("anyio_backend", ["trio"])
on_asyncio = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(
            ("asyncio", {"use_uvloop": True}),
            id="asyncio+uvloop",
            marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed"),
        ),
    ],
)

Step = Callable[[int], object]
Call = Callable[[], Awaitable[Any]]
Interrupt = Callable[[Call, int, Step], Awaitable[bool]]


class Stepwise:
    """Awaits something, and at each of its suspensions, counted from 0, first calls `step`."""

    def __init__(self, call: Call, step: Step = lambda _: None) -> None:
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


async def by_scope(call: Call, at: int, otherwise: Step) -> bool:
    """Cancels the call at one suspension by an anyio scope; whether it was cancelled."""
    with anyio.CancelScope() as scope:
        await Stepwise(call, lambda number: scope.cancel() if number == at else otherwise(number))
    count("cancelled", "by scope", scope.cancelled_caught)
    return scope.cancelled_caught


async def natively(call: Call, at: int, otherwise: Step) -> bool:
    """Cancels the call at one suspension as asyncio does it, in a task of its own."""

    async def main() -> None:
        await Stepwise(call, lambda number: task.cancel() if number == at else otherwise(number))

    task = asyncio.create_task(main())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    count("cancelled", "natively", task.cancelled())
    return task.cancelled()


def ways() -> list[Interrupt]:
    """How a task can be cancelled on this event loop."""
    return [by_scope] if trio.lowlevel.in_trio_run() else [by_scope, natively]


def soon(call: Callable[[], object]) -> None:
    """Has the event loop call something when the current task has suspended."""
    if trio.lowlevel.in_trio_run():
        trio.lowlevel.current_trio_token().run_sync_soon(call)
    else:
        asyncio.get_running_loop().call_soon(call)
