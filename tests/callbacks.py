"""Places that are no task: the plain callbacks of each event loop, and those of an asyncio loop that hosts trio."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeAlias, TypeVar

import anyio
import pytest
import trio
from backends import ASYNCIO, TRIO
from typing_extensions import override

T = TypeVar("T")
# Has something called there, soon or at once.
Place: TypeAlias = Callable[[Callable[[], object]], Awaitable[object]]


async def call_soon(call: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_soon(call)


async def a_timer(call: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_later(0, call)


async def a_done_callback(call: Callable[[], object]) -> None:
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: call())
    future.set_result(None)


async def call_soon_threadsafe(call: Callable[[], object]) -> None:
    await asyncio.to_thread(asyncio.get_running_loop().call_soon_threadsafe, call)


async def connection_made(call: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    is_lost = asyncio.Event()

    class Caller(asyncio.Protocol):
        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            call()
            transport.close()

        @override
        def connection_lost(self, exc: Exception | None) -> None:
            is_lost.set()

    server = await loop.create_server(Caller, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()):
        await is_lost.wait()
    server.close()
    await server.wait_closed()


async def run_sync_soon(call: Callable[[], object]) -> None:
    trio.lowlevel.current_trio_token().run_sync_soon(call)


async def from_thread(call: Callable[[], object]) -> None:
    await trio.to_thread.run_sync(trio.from_thread.run_sync, call)


OF_ASYNCIO: list[Place] = [call_soon, a_timer, a_done_callback, call_soon_threadsafe, connection_made]
OF_TRIO: list[Place] = [run_sync_soon, from_thread]

of_asyncio = pytest.mark.parametrize("place", OF_ASYNCIO, ids=lambda place: place.__name__)
# Each place on each back end that has it.
in_callbacks = pytest.mark.parametrize(
    ("anyio_backend", "place"),
    [
        pytest.param(*backend.values, place, id=f"{backend.id}-{place.__name__}", marks=backend.marks)
        for backends, places in ((TRIO, OF_TRIO), (ASYNCIO, OF_ASYNCIO))
        for backend in backends
        for place in places
    ],
)


class Called(Future[T]):
    """Calls something once; `finished` is set when its result or its exception is there."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__()
        self.finished = anyio.Event()
        self._call = call

    def __call__(self) -> None:
        try:
            self.set_result(self._call())
        except BaseException as error:  # noqa: BLE001 - the place would log it: the test gets it
            self.set_exception(error)
        self.finished.set()


async def called(place: Place, call: Callable[[], T]) -> T:
    """What comes of calling something there."""
    outcome = Called(call)
    await place(outcome)
    await outcome.finished.wait()
    return outcome.result()


async def called_by_host(place: Place, call: Callable[[], T]) -> T:
    """The same from a trio run that is a guest, in a callback of its host."""
    outcome = Called(call)
    await awaited_by_host(place(outcome))
    await outcome.finished.wait()
    return outcome.result()


async def awaited_by_host(awaitable: Awaitable[T]) -> T:
    """What comes of it in a task of the host."""
    finished = anyio.Event()
    task: asyncio.Task[T] = asyncio.get_running_loop().create_task(result_of(awaitable))
    task.add_done_callback(lambda _: finished.set())
    await finished.wait()
    return task.result()


async def result_of(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def host(main: Callable[[], Awaitable[T]]) -> T:
    """Runs an async function on trio, as the guest of the asyncio loop that runs this."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    trio.lowlevel.start_guest_run(
        main,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=ended.set_result,
        host_uses_signal_set_wakeup_fd=True,
    )
    result: T = (await ended).unwrap()
    return result
