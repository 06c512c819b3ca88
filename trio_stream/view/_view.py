"""A view: the state of a subscription as a mapping that is always right."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from operator import attrgetter
from typing import Any, Generic, NoReturn

import anyio
import anyio.abc
import anyio.lowlevel
from typing_extensions import TypeVar, override

from trio_stream import ALL, Interest, SubscribeRequest, running

from ._changes import Changes
from ._connection import Connect
from ._errors import EpochChanged
from ._fold import Fold
from ._keep import Keeper
from ._reducer import Key, Reducer, keyed
from ._shown import Shown
from ._state import Frozen, ViewStatistics, ViewStatus

P = TypeVar("P", default=Any)
K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)


class View(Mapping[K, V], Generic[K, V]):
    """A read-only mapping that follows a subscription; made by `open_view`.

    Reading never waits, and shows the newest whole state.
    It changes only while the reading task waits for something; `frozen` keeps one state for longer.
    It belongs to its event loop; what `frozen` gives may be read by any thread, pickled and copied.
    It is true, also while it is empty.
    """

    __slots__ = ("__weakref__", "_fold", "_keeper", "_request", "_shown")

    def __init__(self, connect: Connect, request: SubscribeRequest[Any], reducer: Reducer[Any, K, V]) -> None:
        if not callable(connect):
            raise TypeError(f"connect is called with a request, as `publisher.subscribe` is; not {connect!r}")
        _check_request(request)
        if request.index:
            raise ValueError(f"a view begins with a snapshot, and not after index {request.index}")
        self._request: SubscribeRequest[Any] = request
        self._shown: Shown[K, V] = Shown()
        self._fold: Fold[K, V] = Fold(reducer, self._shown)
        self._keeper: Keeper[K, V] = Keeper(connect, request, self._shown, self._fold)

    @property
    def request(self) -> SubscribeRequest[Any]:
        """What the view follows."""
        return self._request

    @property
    def index(self) -> int:
        """The index of what is shown, 0 before the first snapshot; never lower than before within an epoch."""
        return self._shown.state.index

    @property
    def epoch(self) -> str:
        """The timeline that `index` belongs to; empty before the first snapshot."""
        return self._shown.state.epoch

    @property
    def status(self) -> ViewStatus:
        """Whether what is shown is current, and if not, why."""
        return self._shown.status

    @override
    def __getitem__(self, key: K) -> V:
        return self._shown.state.mapping[key]

    @override
    def __contains__(self, key: object) -> bool:
        return key in self._shown.state.mapping

    @override
    def __len__(self) -> int:
        return len(self._shown.state.mapping)

    @override
    def __iter__(self) -> Iterator[K]:
        return iter(self._shown.state.mapping)

    def __bool__(self) -> bool:
        return True  # `if view:` asks whether there is a view

    @override
    def __reduce__(self) -> NoReturn:
        raise TypeError("a view cannot be pickled or copied; what frozen() returns can")

    @override
    def __repr__(self) -> str:
        followed = " | ".join(map(_described, self._request.interests))
        return f"<View of {followed}, {self.status.status.value} at {self.index}>"

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keeps the view until it is cancelled or has ended; `open_view` and `ViewPool` do this, once."""
        await self._keeper.run(task_status=task_status)

    def frozen(self) -> Frozen[K, V]:
        """What is shown now, which will not change. O(1): it is the state itself."""
        return self._shown.state

    def statistics(self) -> ViewStatistics:
        """Figures for introspection; taking them changes nothing."""
        return ViewStatistics(
            keys=len(self),
            events=self._fold.events,
            snapshots=self._fold.snapshots,
            connections=self._keeper.connections,
            waiting=len(self._shown.waiters),
            changes=self._shown.readers,
        )

    async def wait_current(self) -> Frozen[K, V]:
        """Waits until the view is current or finished, and returns what it shows. Raises `ViewEnded`. A checkpoint."""
        return await self.wait_for(lambda _: True)

    async def wait_for(self, predicate: Callable[[Frozen[K, V]], object]) -> Frozen[K, V]:
        """Waits until the view is current or finished and `predicate` is true of what it shows, and returns that.

        The predicate is called in this task, about the newest state whenever there is one; a state that was
        replaced before this task had its turn is not asked about.
        Raises `ViewEnded`, also if the view is finished and the predicate is not true of what it shows; what the
        predicate raises; and `TypeError` if the predicate is async.
        A checkpoint.
        """
        _check_predicate(predicate)
        shown = self._shown
        await anyio.lowlevel.checkpoint()
        while not (shown.is_current() and _is_so(predicate, shown.state)):
            shown.check_goes_on()
            await shown.changed.wait(anyio.Event())
        return shown.state

    async def wait_index(self, index: int) -> Frozen[K, V]:
        """Waits until the view has everything up to `index`, and returns what it shows then.

        For reading your own writes: `index` is that of a commit, whether or not it touched what the view follows.
        It belongs to the epoch that the view follows when the wait begins.
        A view that is finished has everything up to any index.
        Raises `ViewEnded`, and `EpochChanged` when the view comes to another epoch first.
        A checkpoint.
        """
        check_index(index)
        shown = self._shown
        epoch = shown.epoch
        await anyio.lowlevel.checkpoint()
        while True:
            if epoch and shown.epoch != epoch:
                raise EpochChanged(epoch, shown.epoch)
            if shown.has_reached(index):
                return shown.state
            shown.check_goes_on()
            state = await shown.waiters.wait(index)
            if state is not None:
                return state
            epoch = epoch or shown.epoch

    def state_at(self, index: int) -> Frozen[K, V] | None:
        """The state at an index of the present epoch; None if it is not known.

        That is so if the view has not reached it, if more than 1,024 keys have changed since, or if it lies in the
        middle of commits that came all at once.
        """
        return self._shown.state_at(index) if self._shown.has_reached(index) else None

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[Changes[K, V]]:
        """Tells what changes from now on: `async with view.changes() as changes: async for change in changes`.

        What `frozen` returns at the beginning of the block is what the first change is a change of.
        A reader that falls behind gets one `Change` for each key, from what it was told last to the newest.
        When what the view follows is finished, and all was told, the loop stops.
        When the view has ended, and all was told, it raises `ViewEnded`.
        """
        reader: Changes[K, V] = Changes(self._shown)
        try:
            yield reader
        finally:
            reader.close()


def _described(interest: Interest) -> str:
    topic, key, prefix, namespace, partition = interest
    partition, namespace = ("*" if each is ALL else each for each in (partition, namespace))
    subject = f"{partition}/{namespace}/{key}{'*' if prefix else ''}"
    return f"{topic.name!r} {subject!r}"


def block_of(view: View[Any, Any]) -> AbstractContextManager[None]:
    """A block that an error which ends the view cancels, and that is left as `ViewEnded` then."""
    shown = view._shown  # noqa: SLF001 - of this module
    return shown.block(shown.new_block())


def _check_request(request: object) -> None:
    if not isinstance(request, SubscribeRequest):
        raise TypeError(f"a request is a SubscribeRequest, not {request!r}")


def check_index(index: int) -> None:
    """Raises unless `index` is a whole number."""
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"an index is an integer, not {index!r}")


def _check_predicate(predicate: object) -> None:
    if not callable(predicate):
        raise TypeError(f"a predicate is called with a state; {predicate!r} cannot be")
    if inspect.iscoroutinefunction(predicate):
        raise TypeError(f"a predicate is not async, as {predicate!r} is: it would always be true")


def _is_so(predicate: Callable[[Frozen[K, V]], object], state: Frozen[K, V]) -> bool:
    answer = predicate(state)
    if isinstance(answer, Awaitable):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(f"a predicate is not async, but {predicate!r} has returned {answer!r}")
    return bool(answer)


@asynccontextmanager
async def open_view(
    connect: Connect,
    request: SubscribeRequest[Any],
    *,
    key: Key[Any, K] | None = None,
    is_delete: Callable[[Any], bool] = attrgetter("is_delete"),
    reducer: Reducer[Any, K, V] | None = None,
    raise_on_end: bool = True,
) -> AsyncIterator[View[K, V]]:
    """A view that is kept while the block runs; `connect` is `EventPublisher.subscribe` or has its shape.

    `key` tells the key of a payload, `is_delete` whether the payload removes that key; the defaults are the
    payload's attributes of these names.
    If the request is of several topics or namespaces, or of `ALL`, the default key is a tuple of the topic, the
    namespace of the payload's subject, and the payload's `key`; with several partitions, of the topic, partition,
    namespace and `key`.
    A `key` that cannot be called with one argument, but with two, is given the topic and the payload.
    A `reducer` takes the place of both, for another fold.

    The view connects by itself and again when it must: by its index first, from the beginning after a force-close
    that says so, at once and then within 0.2 s, 0.4 s ... 60 s, evenly random.
    What was shown stays until there is something newer that is whole.
    As soon as a connection is lost, `View.status` says so and why, until the view is current again.
    The logger `trio_stream.view` warns of it, at most ten times a minute, without keys, values or tokens.

    These errors are temporary; another connection may do better:

    - while it receives: `SubscriptionForceClosed`, `OSError`, and the ``BrokenResourceError``, ``EndOfStream``
      and ``EndOfChannel`` of anyio and trio, except `EndOfSubject`;
    - while it connects: any but `UnknownTopicError`, `PublisherDisabledError`, `ClosedResourceError`,
      `PermissionError`, and what stands for a mistake in the program: `ArithmeticError`, `AssertionError`,
      `AttributeError`, `BufferError`, `ImportError`, `LookupError` (`KeyError`), `MemoryError`, `NameError`,
      `ReferenceError`, `RuntimeError`, `StopIteration`, `StopAsyncIteration`, `SyntaxError`, `SystemError`,
      `TypeError`, `ValueError`, `Warning`, and the classes derived from these.

    In an exception group, all errors have to be temporary.
    `EndOfSubject` is no error: what the request asks for is finished.
    Then the view is finished too: it keeps what it shows, does not connect again, and the block goes on.

    Any other error ends the view, and so does whatever the reducer, `key` or `is_delete` raises.
    Then the block is cancelled, and leaves as `ViewEnded` with that error as its cause, not in an exception group.
    With `raise_on_end=False` the block goes on: the view is closed, what it holds stays readable, the error is the
    reason of `View.status`, and whoever waits for the view gets the `ViewEnded`.

    An exception of the block leaves it as it is, not in an exception group.
    """
    _check_request(request)
    fold: Reducer[Any, Any, Any] = keyed(request, key, is_delete) if reducer is None else reducer
    view: View[K, V] = View(connect, request, fold)
    block = block_of(view) if raise_on_end else nullcontext()
    async with running(view.run):
        with block:
            yield view
