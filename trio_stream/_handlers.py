"""Runs the snapshot functions, each in a task and cancel scope of its own, and the clock of their cache.

A subscriber only notes that it needs a snapshot.
A task of the publisher starts the handler, so the handler runs in the publisher's context, not in that of the
subscriber who asked first.

The snapshot of several interests is composed of theirs, by the composer that the publisher gives.

A handler fills a snapshot while it is read, but runs ahead of its fastest reader by a window only, unless a reader
waits for the whole of it.
Whatever it does, only those who wait for its snapshot are concerned.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeAlias

import anyio
import anyio.abc
from typing_extensions import TypeVar, override

from ._arguments import check_events, check_index
from ._commit import check_event, check_one_index, delivery, is_ordinary, plain_subject_of, without_previous
from ._conflation import RowFunc
from ._errors import FATAL, ClosedResourceError, InvalidCommitError
from ._events import Event, Topic
from ._interest import is_single
from ._passages import WINDOW, Made, Passages, Snapshot
from ._request import Cursor, SubscribeRequest
from ._rights import Replacement
from ._routes import Interests
from ._wait import SLICE, Parking, Slot

P = TypeVar("P", default=Any)
P_contra = TypeVar("P_contra", contravariant=True, default=Any)


class SnapshotAppender(Protocol[P_contra]):
    """Where a snapshot function puts the state."""

    async def append(self, events: Iterable[Event[P_contra]], /) -> bool:
        """Adds the events of one commit; they arrive together, as one event. Returns whether more is wanted.

        A checkpoint.
        Waits while every reader of the snapshot is far behind.
        When there is no reader left, the snapshot function is cancelled, and what it appends all the same is dropped.
        So is an event that the request does not cover, as one of another key or namespace.

        Raises `InvalidCommitError` for events of another topic, of different indexes or that are not state, and
        `ClosedResourceError` once the snapshot function has returned.
        """
        ...

    def finish(self) -> None:
        """Says that the subject which is asked for is finished: nothing will ever come after what is appended.

        `RuntimeError` unless one key is asked for, of a topic whose `Source` says that it `finishes`.
        """
        raise RuntimeError("nothing can be finished here")


SnapshotFunc: TypeAlias = Callable[[SubscribeRequest[P], SnapshotAppender[P]], Awaitable[int | Cursor]]
"""Makes a snapshot: appends the state that the request asks for and returns the index of that state.

The index is at least that of every commit published before the call, and 0 if nothing was committed yet.
Where commits have marks it returns a `Cursor`, with the mark of that commit.
One run serves every subscriber of the same interest, so the request has one interest, and no token, index or epoch.
A store that is not ready must raise: an empty snapshot says that there is nothing.
"""


class Source(NamedTuple):
    """Where the state of a topic comes from. Name the fields: others may come between them."""

    snapshot: SnapshotFunc[Any]
    """Makes its snapshots."""
    wide: bool = False
    """Whether it knows what a request with `prefix` or `ALL` asks for.

    If not, the state of a prefix is made from that of all keys, and `ALL` cannot be asked for.
    """
    row: RowFunc | None = None
    """Says which row of the state a payload is, for readers with on_lag="conflate".

    A payload has to be the whole state of its row.
    A row is hashable; its function is asked when a commit is published, and not async.
    """
    finishes: bool = False
    """Whether it says by `SnapshotAppender.finish` that a subject is finished."""


SnapshotHandlers: TypeAlias = Mapping[Topic[Any], SnapshotFunc[Any] | Source]
"""A snapshot function, or a `Source`, for each topic."""

Compose: TypeAlias = Callable[
    [Interests, Callable[[Sequence[Event[Any]], Sequence[Replacement]], Awaitable[None]]],
    Awaitable[Made | None],
]
"""Puts the snapshots of several interests together; None if the history passed one of them."""


class Appender(SnapshotAppender[Any]):
    """The `SnapshotAppender` of one run."""

    __slots__ = ("_finishes", "_is_closed", "_passages", "_snapshot", "is_finished")

    def __init__(self, passages: Passages, snapshot: Snapshot, *, finishes: bool) -> None:
        """`finishes`: the function may say that the subject is finished."""
        self._passages = passages
        self._snapshot = snapshot
        self._finishes = finishes
        self._is_closed = False
        # Whether it has said so.
        self.is_finished: bool = False

    @override
    async def append(self, events: Iterable[Event[Any]], /) -> bool:
        check_events("append", events)
        group = tuple(events)
        (interest,) = self._snapshot.interests
        topic = interest.topic
        covered: list[Event[Any]] = []
        for event in group:
            if not is_ordinary(event):
                check_event(event)
            if event.topic is not topic and event.topic != topic:
                raise InvalidCommitError(
                    f"an event of topic {str(event.topic)!r} in a snapshot of {str(topic)!r}"
                )
            if interest.covers(topic, plain_subject_of(event.payload)):
                covered.append(event)
        if len(group) > 1:
            check_one_index(group)
        covered, replacements = without_previous(covered)
        await self.put([delivery(covered)] if covered else (), replacements)
        return self._snapshot.readers > 0 and not self._snapshot.is_gone

    async def put(self, deliveries: Sequence[Event[Any]], replacements: Iterable[Replacement]) -> None:
        """Adds what is as it is to be delivered, and not too much at once; the rest is as in `append`."""
        await self._passages.parking.backend.checkpoint()
        while self._has_to_wait():
            await self._wait_for_readers()
        self._snapshot.replace(replacements)
        for each in deliveries:
            self._put(each)
        if not deliveries:
            self._put(None)

    @override
    def finish(self) -> None:
        if self._is_closed:
            raise ClosedResourceError("the snapshot function of this appender has returned")
        if not self._finishes:
            raise RuntimeError("only a source that finishes can say so, and of one key")
        self.is_finished = True

    def _put(self, delivered: Event[Any] | None) -> None:
        snapshot = self._snapshot
        if self._is_closed:
            raise ClosedResourceError("the snapshot function of this appender has returned")
        if delivered is not None and snapshot.readers and not snapshot.is_gone:
            snapshot.append(delivered)
            if snapshot.waiting:
                self._passages.parking.wake((snapshot,))

    def close(self) -> None:
        """The snapshot function has returned, or raised."""
        self._is_closed = True
        self._passages.parking.wake((self._snapshot.writers,))

    def _has_to_wait(self) -> bool:
        snapshot = self._snapshot
        if self._is_closed or snapshot.is_gone or not snapshot.readers or snapshot.keepers or snapshot.urgent:
            return False
        return snapshot.end - snapshot.furthest >= WINDOW

    async def _wait_for_readers(self) -> None:
        self._passages.stall(self._snapshot)
        try:
            await self._passages.parking.wait_in(self._snapshot.writers)
        finally:
            self._passages.unstall(self._snapshot)


class SnapshotMaker:
    """Runs the snapshot functions of a publisher; `ttl` is how long a snapshot stays in the cache, in seconds."""

    def __init__(self, parking: Parking, ttl: float) -> None:
        self.sources: dict[Topic[Any], Source] = {}
        self._parking = parking
        self._ttl = ttl
        # What was asked for and is not started yet, and what is being made.
        self._asked: dict[Snapshot, None] = {}
        self._making: dict[Snapshot, None] = {}
        self._starter = Slot()
        # {what is cached: when it leaves the cache in the event loop's seconds}, soonest first: all stay equally long.
        self._expiries: dict[Snapshot, float] = {}
        self._expirer = Slot()

    def connect(self, passages: Passages, compose: Compose) -> None:
        """What it makes belongs there; before anything is asked for."""
        self._passages = passages
        self._compose = compose

    def open(self, tasks: anyio.abc.TaskGroup) -> None:
        """Runs from now on, in the publisher's task group, also what was asked for before."""
        tasks.start_soon(self._start_all, tasks)
        tasks.start_soon(self._expire)

    def start(self, snapshot: Snapshot) -> None:
        """Has the topic's handler fill a snapshot."""
        self._asked[snapshot] = None
        snapshot.cancel = partial(self._asked.pop, snapshot, None)
        self._parking.wake_each((self._starter,))

    def close(self) -> None:
        """Forgets what is left; the task group ends the handlers."""
        unfinished = [*self._asked, *self._making]
        self._parking.in_slices(map(self._passages.give_up, unfinished), len(unfinished))
        expiries, self._expiries = self._expiries, {}
        self._parking.release(list(expiries.items()))

    async def _start_all(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            self._start_some(tasks)
            if self._asked:
                await self._parking.backend.checkpoint()
            else:
                await self._parking.backend.park(self._starter)

    def _start_some(self, tasks: anyio.abc.TaskGroup) -> None:
        some = dict.fromkeys(islice(self._asked, SLICE))
        for snapshot in some:
            del self._asked[snapshot]
        self._making.update(some)
        for snapshot in some:
            tasks.start_soon(self._make, snapshot)

    async def _make(self, snapshot: Snapshot) -> None:  # noqa: ASYNC910 - a task, not awaited
        passages = self._passages
        try:
            with anyio.CancelScope() as scope:
                if not snapshot.readers or passages.is_void(snapshot):  # nobody waits for it any more
                    return  # noqa: ASYNC910 - as above
                snapshot.cancel = scope.cancel
                passages.begin(snapshot)
                made = await self._fill(snapshot)
                if scope.cancel_called:
                    passages.counts.snapshots["cancelled"] += 1
                    return  # noqa: ASYNC910 - as above
                if made is None:
                    passages.give_up(snapshot)
                else:
                    self._complete(snapshot, made)
        except BaseException as error:
            if _find(error, FATAL):
                raise
            if _is_cancelled() and (cancelled := _find(error, anyio.get_cancelled_exc_class())):
                raise cancelled from None
            passages.fail(snapshot, error)  # it belongs to those who wait for the snapshot
        finally:
            if not snapshot.is_cached:
                snapshot.cancel = None
            del self._making[snapshot]

    async def _fill(self, snapshot: Snapshot) -> Made | None:
        """What the handler says of it; None if it is composed of others, and they were passed."""
        interests = snapshot.interests
        source = self.sources[interests[0].topic]
        finishes = source.finishes and len(interests) == 1 and is_single(interests[0])
        appender = Appender(self._passages, snapshot, finishes=finishes)
        try:
            if len(interests) > 1:
                return await self._compose(interests, appender.put)
            (interest,) = interests
            if interest.prefix and not source.wide:  # the appender keeps what begins with it
                interest = interest._replace(key="", prefix=False)
            returned = source.snapshot(SubscribeRequest(interests=(interest,)), appender)
            if not isinstance(returned, Awaitable):
                raise TypeError(
                    f"the handler of {str(interest.topic)!r} is not async: it returned {type(returned).__name__}"
                )
            index, mark = self._reached(await returned)
            return Made(index, mark, interests if appender.is_finished else ())
        finally:
            appender.close()

    def _reached(self, returned: int | Cursor) -> tuple[int, str]:
        """The index and mark that a handler has returned."""
        if not isinstance(returned, Cursor):
            check_index(returned)
            return returned, ""
        if returned.epoch != self._passages.timeline.epoch:
            raise ValueError(
                f"the snapshot is of epoch {returned.epoch!r}, and this is {self._passages.timeline.epoch!r}"
            )
        return returned.index, returned.mark

    def _complete(self, snapshot: Snapshot, made: Made) -> None:
        snapshot.cancel = None
        self._passages.complete(snapshot, made, cache=self._ttl > 0)
        if snapshot.is_cached and self._ttl < math.inf:
            self._expiries[snapshot] = anyio.current_time() + self._ttl
            snapshot.cancel = partial(self._expiries.pop, snapshot, None)
            self._parking.wake_each((self._expirer,))

    async def _expire(self) -> None:
        """Evicts what has been in the cache long enough; looks at the clock only while there is something."""
        while True:
            if not self._expiries:
                await self._parking.backend.park(self._expirer)
            elif (when := self._next_expiry()) > anyio.current_time():
                await anyio.sleep_until(when)
            else:
                self._evict_some()
                await self._parking.backend.checkpoint()

    def _next_expiry(self) -> float:
        return next(iter(self._expiries.values()))

    def _evict_some(self) -> None:
        for snapshot in list(islice(self._expiries, SLICE)):
            if self._expiries[snapshot] > anyio.current_time():
                return
            del self._expiries[snapshot]
            self._passages.evict(snapshot)


def _is_cancelled() -> bool:
    return anyio.current_effective_deadline() == -math.inf


def _find(
    error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]
) -> BaseException | None:
    """The error if it is of these kinds, or the first one in it if it is a group."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _find(each, kinds))), None)
    return error if isinstance(error, kinds) else None
