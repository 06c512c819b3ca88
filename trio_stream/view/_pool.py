"""Views that are shared by all who ask for the same."""

import sys
from collections.abc import AsyncIterator, Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from itertools import islice
from operator import attrgetter
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, Self

import anyio
import anyio.abc
import anyio.lowlevel
from typing_extensions import TypeVar, override

from trio_stream import ClosedResourceError, Cursor, EndOfSubject, SubscribeRequest, running

from ._connection import Connect
from ._errors import ViewEnded, ViewLimitError
from ._reducer import Key, Reducer, keyed, takes_topic
from ._state import Frozen, Status
from ._view import View, block_of, check_index
from ._waiters import Signal

K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)

_NEVER: Final = sys.maxsize  # the index of what will not come
PORTION: Final = 16  # views closed between two checkpoints; each has some tasks to cancel


class _Entry(Generic[K, V]):
    """A view, its users, and the scope of its task."""

    __slots__ = ("scope", "users", "view")

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

    A view that an error ends takes none of the others with it; the next user of its request gets a new one.
    So does the next one after a view is finished, which no connection tells of rights that were taken away.
    """

    __slots__ = (
        "__weakref__",
        "_became_idle",
        "_block",
        "_connect",
        "_entries",
        "_idle",
        "_idle_ttl",
        "_is_delete",
        "_key",
        "_limit",
        "_reducer",
        "_tasks",
    )

    def __init__(
        self,
        connect: Connect,
        *,
        key: Key[Any, K] | None = None,
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
        if key is not None:
            takes_topic(key)  # raises for one that cannot be called
        self._connect = connect
        self._reducer = reducer
        self._key = key
        self._is_delete = is_delete
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

    def __bool__(self) -> bool:
        return True  # also while there are no views

    @override
    def __reduce__(self) -> NoReturn:
        raise TypeError("a pool of views cannot be pickled or copied")

    @override
    def __repr__(self) -> str:
        return f"<ViewPool of {len(self)} views, at most {self._limit}>"

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise RuntimeError("this pool of views was opened already")
        self._block = self._opened()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        return await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def view(
        self, request: SubscribeRequest[Any], *, raise_on_end: bool = True
    ) -> AsyncIterator[View[K, V]]:
        """The view of this request, shared: kept while the block runs, and for the idle TTL after the last one.

        If an error ends the view, the block is cancelled and leaves as `ViewEnded`; not with `raise_on_end=False`.
        Both are as for `open_view`; so one task leaves such blocks in the reverse order.
        Raises `ViewLimitError`, and `ClosedResourceError` outside of the pool's block.
        """
        entry = self._enter(request)
        try:
            with block_of(entry.view) if raise_on_end else nullcontext():
                yield entry.view
        finally:
            self._leave(request, entry)

    async def get(
        self, request: SubscribeRequest[Any], min_index: int | Cursor = 0, *, epoch: str = ""
    ) -> Frozen[K, V]:
        """The state of the request as soon as there is another than at `min_index`: a blocking query.

        With 0 it returns at once if there is a view that is current; with the `cursor` of the last answer, or with its
        `index` and `epoch`, when there is something new, or another epoch.
        A commit that does not touch what the request asks for is nothing new, also where the view had to be made for
        this query and its snapshot has a greater index.
        Such a view asks `connect` once more, to go on from `min_index`: what it is given then is new.
        If that is not possible, a greater index counts as something new.
        The default epoch is that which the view shows, as soon as it is current.
        For an answer within some time, wait inside `anyio.move_on_after` and then ask with 0.
        If the request is of what is finished, and there will be nothing new, it raises `ViewEnded`.
        Raises `ViewEnded` and `ViewLimitError`.
        """
        if isinstance(min_index, Cursor):
            if epoch:
                raise ValueError("a cursor has an epoch: do not give another")
            index, epoch, mark = min_index.index, min_index.epoch, min_index.mark
        else:
            check_index(min_index)
            index, mark = min_index, ""
        async with self.view(request, raise_on_end=False) as view:
            epoch = epoch or view.epoch
            first = await view.wait_current()
            epoch = epoch or first.epoch
            least = index + 1 if index else 0
            if first.epoch == epoch and first.index >= least > 0:
                after = request.after(Cursor(index, epoch, mark))
                least = await self._first_change(view, first, after)
            return await view.wait_for(lambda state: state.index >= least or state.epoch != epoch)

    async def _first_change(
        self, view: View[K, V], state: Frozen[K, V], request: SubscribeRequest[Any]
    ) -> int:
        """The index of the first change after that of the request, as soon as there is one; 0 if it is not known.

        The state is that of the view, which has a greater index; if it comes from a snapshot, that tells nothing.
        """
        first = 0
        is_found = anyio.CancelScope()

        async def look(*, task_status: anyio.abc.TaskStatus[None]) -> None:  # noqa: ASYNC910 - run as a task
            nonlocal first
            task_status.started()
            try:
                async with self._connect(request) as connection:
                    first = (await connection.receive_batch(1))[0].index  # 0 for the marker
            except EndOfSubject:
                first = _NEVER
            except Exception:  # noqa: BLE001, S110 - then it is not known; the view says what there is
                pass
            is_found.cancel()

        async with running(look):
            with is_found:
                try:
                    await view.wait_for(lambda new: new is not state)
                except ViewEnded:
                    if view.status.status is not Status.FINISHED:
                        raise
                    await anyio.sleep_forever()  # the other connection says whether that was something new
        return first

    def _enter(self, request: SubscribeRequest[Any]) -> _Entry[K, V]:
        if self._tasks is None:
            raise ClosedResourceError("this pool of views is not open")
        entry = self._entries.get(request)
        if entry is None or entry.view.status.status is Status.CLOSED:
            entry = self._open(request, self._tasks)
        self._idle.pop(request, None)
        entry.users += 1
        return entry

    def _open(self, request: SubscribeRequest[Any], tasks: anyio.abc.TaskGroup) -> _Entry[K, V]:
        is_full = len(self._entries) >= self._limit
        if is_full and not self._idle:
            raise ViewLimitError(f"all of {self._limit} views are in use")
        entry: _Entry[K, V] = _Entry(View(self._connect, request, self._new_reducer(request)))
        if is_full:
            self._close(next(iter(self._idle)))
        self._entries[request] = entry
        tasks.start_soon(self._keep, entry)
        return entry

    def _new_reducer(self, request: SubscribeRequest[Any]) -> Reducer[Any, Any, Any]:
        if self._reducer is not None:
            return self._reducer()
        return keyed(request, self._key, self._is_delete)

    def _leave(self, request: SubscribeRequest[Any], entry: _Entry[K, V]) -> None:
        entry.users -= 1
        if entry.users or self._entries.get(request) is not entry:
            return
        self._idle[request] = anyio.current_time() + self._idle_ttl
        self._became_idle.fire()

    async def _keep(self, entry: _Entry[K, V]) -> None:
        request = entry.view.request
        with entry.scope:
            await entry.view.run()
        if self._entries.get(request) is entry:  # it has ended by itself
            del self._entries[request]
            self._idle.pop(request, None)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        async with running(self._run):
            try:
                yield
            finally:
                self._tasks = None
                with anyio.CancelScope(shield=True):
                    await self._close_each(list(self._entries))

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Closes views that have been idle long enough."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await self._expire()

    async def _expire(self) -> None:
        while True:
            if not self._idle:
                await self._became_idle.wait()
                continue
            soonest = next(iter(self._idle.values()))
            if soonest > (now := anyio.current_time()):
                await anyio.sleep_until(soonest)
            else:
                await self._close_each(
                    [request for request, when in islice(self._idle.items(), PORTION) if when <= now]
                )

    async def _close_each(self, requests: Iterable[SubscribeRequest[Any]]) -> None:  # noqa: ASYNC910 - few are closed at once
        """Closes these views, a portion at a time."""
        for count, request in enumerate(requests, 1):
            self._close(request)
            if count % PORTION == 0:
                await anyio.lowlevel.checkpoint()

    def _close(self, request: SubscribeRequest[Any]) -> None:
        self._idle.pop(request, None)
        if entry := self._entries.pop(request, None):
            entry.scope.cancel()
