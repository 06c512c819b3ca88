"""Views that are shared by all who ask for the same."""

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from operator import attrgetter
from types import TracebackType
from typing import Any, Generic, Self

import anyio
import anyio.abc
from typing_extensions import TypeVar

from trio_stream import ClosedResourceError, SubscribeRequest, running

from ._connection import Connect
from ._errors import ViewLimitError
from ._reducer import KeyedReducer, Reducer
from ._state import Frozen
from ._view import View
from ._waiters import Signal

K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)


class _Entry(Generic[K, V]):
    """A view, its users, and the scope of its task."""

    def __init__(self, view: View[K, V]) -> None:
        self.view = view
        self.users = 0
        self.scope = anyio.CancelScope()


class ViewPool(Generic[K, V]):
    """One view for any number of users of the same request, its token included: `async with ViewPool(...) as pool`.

    `connect`, `key`, `is_delete`: as for `open_view`.
    `reducer`: makes the reducer of a new view, in the place of the keyed one.
    `idle_ttl`: seconds that a view is kept after its last user has left.
    `limit`: how many views there may be; the one that has been idle longest makes room for another.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        key: Callable[[Any], K] = attrgetter("key"),
        is_delete: Callable[[Any], bool] = attrgetter("is_delete"),
        reducer: Callable[[], Reducer[Any, K, V]] | None = None,
        idle_ttl: float = 20 * 60.0,
        limit: int = 1024,
    ) -> None:
        if not idle_ttl >= 0:
            raise ValueError(f"idle_ttl is a number of seconds from 0, not {idle_ttl}")
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit is a number of views, not {limit!r}")
        if limit < 1:
            raise ValueError(f"limit is at least one view, not {limit}")
        self._connect = connect
        self._reducer: Callable[[], Reducer[Any, Any, Any]] = reducer or (
            lambda: KeyedReducer(key, is_delete)
        )
        self._idle_ttl = idle_ttl
        self._limit = limit
        self._entries: dict[SubscribeRequest[Any], _Entry[K, V]] = {}
        # {request: when it is closed, in the event loop's seconds} of those without users, soonest first.
        self._idle: dict[SubscribeRequest[Any], float] = {}
        self._became_idle = Signal()
        self._block: AbstractAsyncContextManager[None] | None = None
        # Present while the block of the pool runs.
        self._tasks: anyio.abc.TaskGroup | None = None

    def __len__(self) -> int:
        """How many views there are."""
        return len(self._entries)

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise RuntimeError("this pool of views was opened already")
        self._block = running(self._run)
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        return await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def view(self, request: SubscribeRequest[Any]) -> AsyncIterator[View[K, V]]:
        """The view of this request, shared: kept while the block runs, and for the idle TTL after the last one.

        One that has ended is replaced.
        Raises `ViewLimitError`, and `ClosedResourceError` outside of the pool's block.
        """
        entry = self._enter(request)
        try:
            yield entry.view
        finally:
            self._leave(request, entry)

    async def get(
        self, request: SubscribeRequest[Any], min_index: int = 0, *, epoch: str = ""
    ) -> Frozen[K, V]:
        """The state of the request as soon as its index is greater than `min_index`: a blocking query.

        With 0 it returns at once if there is a view that is current; with the `index` and `epoch` of the last answer,
        when there is something new, or another epoch.
        The default epoch is that which the view shows, if it shows something.
        For an answer within some time, wait inside `anyio.move_on_after` and then ask with 0.
        Raises `ViewEnded` and `ViewLimitError`.
        """
        async with self.view(request) as view:
            known = epoch or view.epoch
            return await view.wait_for(
                lambda state: (
                    not min_index or state.index > min_index or state.epoch != (known or state.epoch)
                )
            )

    def _enter(self, request: SubscribeRequest[Any]) -> _Entry[K, V]:
        if self._tasks is None:
            raise ClosedResourceError("this pool of views is not open")
        entry = self._entries.get(request)
        if entry is None:
            entry = self._open(request, self._tasks)
        self._idle.pop(request, None)
        entry.users += 1
        return entry

    def _open(self, request: SubscribeRequest[Any], tasks: anyio.abc.TaskGroup) -> _Entry[K, V]:
        is_full = len(self._entries) >= self._limit
        if is_full and not self._idle:
            raise ViewLimitError(f"all of {self._limit} views are in use")
        entry: _Entry[K, V] = _Entry(View(self._connect, request, self._reducer()))
        if is_full:
            self._close(next(iter(self._idle)))
        self._entries[request] = entry
        tasks.start_soon(self._keep, entry)
        return entry

    def _leave(self, request: SubscribeRequest[Any], entry: _Entry[K, V]) -> None:
        entry.users -= 1
        if entry.users or self._entries.get(request) is not entry:
            return
        self._idle[request] = anyio.current_time() + self._idle_ttl
        self._became_idle.fire()

    def _close(self, request: SubscribeRequest[Any]) -> None:
        self._idle.pop(request)
        self._entries.pop(request).scope.cancel()

    async def _keep(self, entry: _Entry[K, V]) -> None:
        request = entry.view.request
        with entry.scope:
            await entry.view.run()
            if self._entries.get(request) is entry:  # it has ended by itself
                del self._entries[request]
                self._idle.pop(request, None)

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Closes views that have been idle long enough; all of them in the end."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            try:
                await self._expire()
            finally:
                self._tasks = None
                self._entries.clear()
                self._idle.clear()
                tasks.cancel_scope.cancel()

    async def _expire(self) -> None:
        while True:
            if not self._idle:
                await self._became_idle.wait()
                continue
            request, when = next(iter(self._idle.items()))
            if when > anyio.current_time():
                await anyio.sleep_until(when)
            else:
                self._close(request)
