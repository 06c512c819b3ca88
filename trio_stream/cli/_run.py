"""Running a command on a back end until it is done or a signal ends it."""

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias, TypeVar

import anyio
import anyio.abc

T = TypeVar("T")

Backend: TypeAlias = Literal["trio", "asyncio"]


class SignalError(Exception):
    """A signal ended the command, which has cleaned up."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def run_async(main: Callable[[], Awaitable[T]], *, backend: Backend = "trio") -> T:
    """What `main` returns; SIGINT and SIGTERM cancel it, which is `SignalError` unless it was done all the same.

    A second signal does what it would do to any other program.
    """
    return anyio.run(_run, main, backend=backend)


async def _run(main: Callable[[], Awaitable[T]]) -> T:
    signums: list[int] = []
    results: list[T] = []
    async with open_tasks() as tasks:
        await tasks.start(_cancel_on_signal, tasks.cancel_scope, signums)
        results.append(await main())
    if not results:
        raise SignalError(signums[0])
    return results[0]


async def _cancel_on_signal(
    scope: anyio.CancelScope, signums: list[int], *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    if sys.platform == "win32":  # asyncio cannot do it there; the signal is a KeyboardInterrupt then
        task_status.started()
        await anyio.sleep_forever()
    signals = [signal.SIGTERM]
    # Shells have it ignored for what runs in the background.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signals.append(signal.SIGINT)
    with anyio.open_signal_receiver(*signals) as received:
        task_status.started()
        signums.append(await anext(received))
    scope.cancel()


@asynccontextmanager
async def open_tasks() -> AsyncIterator[anyio.abc.TaskGroup]:
    """Tasks that end with the block. An error that is the only one leaves as it is, not in a group."""
    error: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        (error,) = group.exceptions
    if error is not None:
        raise error
