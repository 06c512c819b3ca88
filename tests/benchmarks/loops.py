"""What the benchmark needs of an event loop, with nothing in between that would be measured too."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeAlias, TypeVar

import trio

T = TypeVar("T")

Spawn: TypeAlias = Callable[..., object]
"""Starts a task: an async function and its arguments."""


class Gate(Protocol):
    """Lets one task wait until another opens it; closed again behind it."""

    def open(self) -> None: ...
    async def wait(self) -> None: ...


class Loop(Protocol):
    """One event loop, by its own means."""

    name: str

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T: ...
    def tasks(self) -> AbstractAsyncContextManager[Spawn]:
        """Where tasks run that are cancelled when the block ends."""
        ...

    def gate(self) -> Gate: ...
    def checkpoint(self) -> Awaitable[None]: ...


class TrioGate:
    def __init__(self) -> None:
        self._is_open = False
        self._task: trio.lowlevel.Task | None = None

    def open(self) -> None:
        self._is_open = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> None:
        if not self._is_open:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)
        self._is_open = False


class AsyncioGate:
    def __init__(self) -> None:
        self._is_open = False
        self._future: asyncio.Future[None] | None = None

    def open(self) -> None:
        self._is_open = True
        if self._future is not None:
            self._future.set_result(None)
            self._future = None

    async def wait(self) -> None:
        if not self._is_open:
            self._future = asyncio.get_running_loop().create_future()
            await self._future
        self._is_open = False


class TrioLoop:
    name = "trio"

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return trio.run(main)

    @asynccontextmanager
    async def tasks(self) -> AsyncIterator[Spawn]:
        async with trio.open_nursery() as nursery:
            yield nursery.start_soon
            nursery.cancel_scope.cancel()

    def gate(self) -> Gate:
        return TrioGate()

    def checkpoint(self) -> Awaitable[None]:
        return trio.lowlevel.checkpoint()  # noqa: ASYNC105 - handed on


class AsyncioLoop:
    name = "asyncio"

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run(main())

    @asynccontextmanager
    async def tasks(self) -> AsyncIterator[Spawn]:
        running: list[asyncio.Task[None]] = []

        def spawn(function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
            running.append(asyncio.create_task(function(*args)))

        try:
            yield spawn
        finally:
            for task in running:
                task.cancel()
            for ended in await asyncio.gather(*running, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended

    def gate(self) -> Gate:
        return AsyncioGate()

    def checkpoint(self) -> Awaitable[None]:
        return asyncio.sleep(0)


TRIO = TrioLoop()
ASYNCIO = AsyncioLoop()
