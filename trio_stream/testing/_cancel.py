"""Cancels an async function at each of its checkpoints in turn.

The function's own suspensions are counted, from 0.
At the chosen one the cancellation is there before the function sleeps, so that it arrives at just this checkpoint
unless the function is shielded there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Final

import anyio
import trio

from ._broken import PromiseBroken

_MOST: Final = 100_000  # checkpoints, after which it must be the runs that grow


class _Suspensions:
    """Awaits something and calls `step` with the number of each suspension, before it."""

    def __init__(self, call: Callable[[], Awaitable[object]], step: Callable[[int], object]) -> None:
        self.count = 0
        self._call = call
        self._step = step

    def __await__(self) -> Generator[Any, Any, None]:
        awaitable: object = self._call()
        if not isinstance(awaitable, Awaitable):
            raise TypeError(f"async_fn is not async: it returned {type(awaitable).__name__}")
        steps = awaitable.__await__()
        resume: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                trap = resume()
            except StopIteration:
                return
            self._step(self.count)
            self.count += 1
            try:
                resume = partial(steps.send, (yield trap))
            except BaseException as error:  # noqa: BLE001 - all of it belongs to what is awaited
                resume = partial(steps.throw, error)


async def cancel_at_every_checkpoint(
    async_fn: Callable[[], Awaitable[object]],
    *,
    native: bool = False,
    after_each: Callable[[bool], Awaitable[object]] | None = None,
) -> int:
    """Runs `async_fn` again and again, cancelled at its checkpoint 0, 1, 2, ... until one run gets to its end.

    Returns how many checkpoints it has: those of the task that runs it, in its last run.
    The tasks that it starts go on while it waits; their own checkpoints are not chosen.

    `native`: by `Task.cancel()` of asyncio, in a task of its own, instead of by a cancel scope of anyio.
    `after_each`: called after each run, and told whether that was cancelled: check there that nothing is lost, torn
    or leaked. A run that was to be cancelled may have ended all the same, where it is shielded.

    Raises `PromiseBroken` if a cancelled run ends with neither, and whatever the function and `after_each` raise.
    """
    if native and trio.lowlevel.in_trio_run():
        raise ValueError("trio has no native cancellation of tasks: leave `native` out")
    run = _natively if native else _by_scope
    for number in range(_MOST):
        was_cancelled, checkpoints = await run(async_fn, number)
        if after_each is not None:
            await after_each(was_cancelled)
        if checkpoints <= number:
            return checkpoints
    raise PromiseBroken("cancellation", None, f"after {_MOST} runs there still were more checkpoints")


async def _by_scope(async_fn: Callable[[], Awaitable[object]], number: int) -> tuple[bool, int]:
    with anyio.CancelScope() as scope:
        steps = _Suspensions(async_fn, lambda at: scope.cancel() if at == number else None)
        await steps
    return scope.cancelled_caught, steps.count


async def _natively(async_fn: Callable[[], Awaitable[object]], number: int) -> tuple[bool, int]:
    async def main() -> None:
        await steps

    def cancel_at_number(at: int) -> None:
        if at == number:
            this = asyncio.current_task()  # an eager one gets here before `create_task` has returned it
            assert this is not None
            this.cancel()

    steps = _Suspensions(async_fn, cancel_at_number)
    task = asyncio.create_task(main())
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
    if not task.cancelled():
        task.result()
    return task.cancelled(), steps.count
