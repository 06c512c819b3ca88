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
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel
from typing_extensions import TypeVar, override

from ._arguments import check_events, check_index
from ._buffer import Broken, Reached
from ._commit import check_event, check_one_index, delivery, is_ordinary, plain_subject_of, without_previous
from ._conflation import RowFunc
from ._errors import FATAL, ClosedResourceError, InvalidCommitError, StaleCursorError
from ._events import Event, Topic
from ._interest import is_single
from ._passages import WINDOW, Made, Passages, Snapshot
from ._replays import Page
from ._request import Cursor, SubscribeRequest, covered
from ._rights import Replacement
from ._routes import Interests
from ._wait import SLICE, Parking, Slot
from ._warn import Warner, named

P = TypeVar("P", default=Any)
_warner: Final = Warner("trio_stream.replay")

P_contra = TypeVar("P_contra", contravariant=True, default=Any)


class SnapshotAppender(Protocol[P_contra]):
    """Where a snapshot function puts the state, and a replay function the commits."""

    async def append(self, events: Iterable[Event[P_contra]], /) -> bool:
        """Adds the events of one commit; they arrive together, as one event. Returns whether more is wanted.

        A checkpoint.
        In a snapshot it waits while every reader is far behind, and what it returns may be ignored.
        In a replay it never waits; it returns False when the page is full, with these events, or nobody reads it.
        When the last reader has left, the function is cancelled; anything it still appends is dropped.
        So is an event that the request does not cover, as one of another key or namespace.

        Raises `InvalidCommitError` for events of another topic, of different indexes or that are not state, and in a
        replay for a commit that does not come after the one before; `ClosedResourceError` once the function has
        returned.
        """
        ...

    async def extend(self, commits: Iterable[Iterable[Event[P_contra]]], /) -> int:
        """Appends the events of each commit, in order; returns the number of commits that it took.

        It stops after the commit for which `append` would return False.
        In a replay it is faster than one `append` for each commit: it has a checkpoint at least every 64 events, or
        after one larger commit, and not after each commit.
        A checkpoint. Raises what `append` raises; the commits before the wrong one stay appended.
        """
        await anyio.lowlevel.checkpoint()
        count = 0
        for events in commits:
            count += 1
            if not await self.append(events):
                break
        return count

    def finish(self) -> None:
        """Says that the subject that is asked for is finished: nothing will ever come after what is appended.

        Its readers return what there is, and then end with `EndOfSubject`.
        `RuntimeError` unless exactly one key is asked for, and the `Source` says that it `finishes`;
        `ClosedResourceError` once the function has returned.
        """
        raise RuntimeError("nothing can be finished here")


SnapshotFunc: TypeAlias = Callable[[SubscribeRequest[P], SnapshotAppender[P]], Awaitable[int | Cursor]]
"""Makes a snapshot: appends the state that the request asks for and returns the index of that state.

The index is at least that of every commit published before the call, and 0 if nothing was committed yet.
Where commits have marks it returns a `Cursor`, with the mark of that commit.
One run serves every subscriber of the same interest, so the request has one interest, and no token, index or epoch.
A store that is not ready must raise: an empty snapshot says that there is nothing.
"""


ReplayFunc: TypeAlias = Callable[[SubscribeRequest[P], Cursor, SnapshotAppender[P]], Awaitable[int | Cursor]]
"""Reads one page of the commits after the cursor from where they are kept.

It appends what the request covers of each commit, by one call of `append` for each, in the order of their indexes.
It stops when `append` returns False, which is at 1,024 events; it may stop sooner, for example if they are large.
It returns how far it came: the index of the last commit that it has looked at, of whatever topic, or a `Cursor` with
that index and its mark.
That is further than the cursor, if there is anything after it; the function is called again from there until the
history has the rest.

A cursor without a mark is known to be right.
The function raises `StaleCursorError` if one with a mark does not lie on the log, or if what comes after the cursor is
gone.
The request has no token, index or epoch, and several interests where all their topics have this function.
"""


class Source(NamedTuple):
    """Where the state of a topic comes from. Name the fields."""

    snapshot: SnapshotFunc[Any]
    """Makes its snapshots."""
    replay: ReplayFunc[Any] | None = None
    """Reads commits that the history in memory no longer has, for readers who resume or are slow."""
    wide: bool = False
    """Whether it knows what a request with `prefix` or `ALL` asks for.

    If not, the state of a prefix is made from that of all keys, and `ALL` cannot be asked for.
    """
    row: RowFunc | None = None
    """Says which row of the state a payload is, for readers with on_lag="conflate".

    Each payload has to be the whole state of its row.
    A row is hashable, and the function is not async.
    It is asked while a commit is published, if somebody conflates; its errors are raised to those readers only.
    """
    finishes: bool = False
    """Whether its functions say, by `SnapshotAppender.finish`, that a subject is finished."""


SnapshotHandlers: TypeAlias = Mapping[Topic[Any], SnapshotFunc[Any] | Source]
"""A snapshot function, or a `Source`, for each topic."""

Compose: TypeAlias = Callable[
    [Interests, Callable[[Sequence[Event[Any]], Sequence[Replacement]], Awaitable[None]]],
    Awaitable[Made | None],
]
"""Puts the snapshots of several interests together; None if the history passed one of them."""


_Checked: TypeAlias = tuple[Sequence[Event[Any]], list[Event[Any]], Sequence[Replacement]]
_BURST: Final = 64  # events in a replay between two checkpoints

_NOT_FINISHED: Final = "only a source that finishes can say so, and of one key"


def of_one_commit(
    events: Iterable[Event[Any]], interests: Interests
) -> tuple[tuple[Event[Any], ...], list[Event[Any]]]:
    """What was appended, and those of it that are asked for; raises unless they are of one commit."""
    check_events("append", events)
    group = tuple(events)
    asked: list[Event[Any]] = []
    first = interests[0].topic
    for event in group:
        if not is_ordinary(event):
            check_event(event)
        topic = event.topic
        if topic is not first and topic not in [each.topic for each in interests]:
            raise InvalidCommitError(
                f"an event of topic {str(topic)!r} where {str(interests[0].topic)!r} is asked for"
            )
        if covered(interests, topic, plain_subject_of(event.payload)):
            asked.append(event)
    if len(group) > 1:
        check_one_index(group)
    return group, asked


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
        _, asked = of_one_commit(events, self._snapshot.interests)
        asked, replacements = without_previous(asked)
        await self._passages.parking.backend.checkpoint()
        while self._has_to_wait():
            await self._wait_for_readers()
        return self._put((delivery(asked),) if asked else (), replacements)

    async def put(self, deliveries: Sequence[Event[Any]], replacements: Sequence[Replacement]) -> None:
        """Adds what is as it is to be delivered, and not too much at once; the rest is as in `append`."""
        await self._passages.parking.backend.checkpoint()
        while self._has_to_wait():
            await self._wait_for_readers()
        self._put(deliveries, replacements)

    def _put(self, deliveries: Sequence[Event[Any]], replacements: Sequence[Replacement]) -> bool:
        if self._is_closed:
            raise ClosedResourceError("the snapshot function of this appender has returned")
        snapshot = self._snapshot
        if not snapshot.readers or snapshot.is_gone:
            return False
        if replacements:
            snapshot.replace(replacements)
        for each in deliveries:
            snapshot.append(each)
        if deliveries and snapshot.waiting:
            self._passages.parking.wake((snapshot,))
        return True

    @override
    def finish(self) -> None:
        if self._is_closed:
            raise ClosedResourceError("the snapshot function of this appender has returned")
        if not self._finishes:
            raise RuntimeError(_NOT_FINISHED)
        self.is_finished = True

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


class PageAppender(SnapshotAppender[Any]):
    """The appender of one run of a replay function."""

    __slots__ = ("_finishes", "_is_closed", "_page", "_passages", "cut", "is_finished", "is_over")

    def __init__(self, passages: Passages, page: Page, *, finishes: bool) -> None:
        """`finishes`: the function may say that the subject is finished."""
        self._passages = passages
        self._page = page
        self._finishes = finishes
        self._is_closed = False
        self.is_finished: bool = False
        # The last commit that there was room for, once something came behind it.
        self.cut: Event[Any] | None = None
        # Whether something came that its readers do not want any more.
        self.is_over: bool = False

    @override
    async def append(self, events: Iterable[Event[Any]], /) -> bool:
        commit = self._checked(events)
        await self._passages.parking.backend.checkpoint()
        return self._put(*commit)

    @override
    async def extend(self, commits: Iterable[Iterable[Event[Any]]], /) -> int:
        await self._passages.parking.backend.checkpoint()
        count = burst = 0
        for events in commits:
            group, kept, replacements = self._checked(events)
            burst += len(group)
            if burst > _BURST:
                await self._passages.parking.backend.checkpoint()
                burst = len(group)
            count += 1
            if not self._put(group, kept, replacements):
                break
        return count

    def _checked(self, events: Iterable[Event[Any]]) -> _Checked:
        """What was appended, and as its readers may have it; raises unless it is a commit after the last."""
        page = self._page
        group, kept = of_one_commit(events, page.interests)
        if group and group[0].index <= page.last:
            raise InvalidCommitError(f"commit {group[0].index} was appended to a replay after {page.last}")
        return group, *without_previous(kept)

    def _put(
        self, group: Sequence[Event[Any]], kept: list[Event[Any]], replacements: Sequence[Replacement]
    ) -> bool:
        if self._is_closed:
            raise ClosedResourceError("the replay function of this appender has returned")
        page = self._page
        index = group[0].index if group else page.last
        if group and page.is_full and self.cut is None:
            self.cut = page.items[-1] if page.items else Event(group[0].topic, page.cursor.index, None)
        if self.cut is None and 0 < page.until < index:
            self.is_over = True
        elif self.cut is None:
            page.last = index
            page.replace(replacements)
            if kept:
                self._passages.replays.append(page, delivery(kept))
        return not (page.is_full or self.is_over)

    @override
    def finish(self) -> None:
        if self._is_closed:
            raise ClosedResourceError("the replay function of this appender has returned")
        if not self._finishes:
            raise RuntimeError(_NOT_FINISHED)
        self.is_finished = True

    def close(self) -> None:
        """The replay function has returned, or raised."""
        self._is_closed = True


class SnapshotMaker:
    """Runs the snapshot and replay functions of a publisher.

    `ttl` is how long a snapshot stays in the cache, in seconds.
    """

    def __init__(self, parking: Parking, ttl: float) -> None:
        self.sources: dict[Topic[Any], Source] = {}
        self._parking = parking
        self._ttl = ttl
        # What was asked for and is not started yet, and what is being made.
        self._asked: dict[Snapshot | Page, None] = {}
        self._making: dict[Snapshot | Page, None] = {}
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

    def start(self, passage: Snapshot | Page) -> None:
        """Has the topic's function fill a snapshot, or a page."""
        self._asked[passage] = None
        passage.cancel = partial(self._asked.pop, passage, None)
        self._parking.wake_each((self._starter,))

    def close(self) -> None:
        """Forgets what is left; the task group ends the handlers."""
        unfinished = [*self._asked, *self._making]
        self._parking.in_slices(map(self._give_up, unfinished), len(unfinished))
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
        for passage in some:
            del self._asked[passage]
        self._making.update(some)
        for passage in some:
            tasks.start_soon(self._make, passage)

    async def _make(self, passage: Snapshot | Page) -> None:  # noqa: ASYNC910 - a task, not awaited
        try:
            with anyio.CancelScope() as scope:
                if isinstance(passage, Page):
                    await self._replay(passage, scope)
                else:
                    await self._make_snapshot(passage, scope)
            if scope.cancel_called and isinstance(passage, Snapshot):
                self._passages.counts.snapshots["cancelled"] += 1
        except BaseException as error:
            if _find(error, FATAL):
                raise
            if _is_cancelled() and (cancelled := _find(error, anyio.get_cancelled_exc_class())):
                raise cancelled from None
            self._fail(passage, error)  # it belongs to those who wait for it
        finally:
            if not (isinstance(passage, Snapshot) and passage.is_cached):
                passage.cancel = None
            del self._making[passage]

    async def _make_snapshot(self, snapshot: Snapshot, scope: anyio.CancelScope) -> None:
        passages = self._passages
        if not snapshot.readers or passages.is_void(snapshot):  # nobody waits for it any more
            return  # noqa: ASYNC910 - a task, not awaited
        snapshot.cancel = scope.cancel
        passages.begin(snapshot)
        made = await self._fill(snapshot)
        if scope.cancel_called:
            return
        if made is None:
            passages.give_up(snapshot)
        else:
            self._complete(snapshot, made)

    async def _replay(self, page: Page, scope: anyio.CancelScope) -> None:
        if not page.readers:  # as above
            return  # noqa: ASYNC910 - as above
        page.cancel = scope.cancel
        interests = page.interests
        source = self.sources[interests[0].topic]
        assert source.replay is not None
        finishes = source.finishes and len(interests) == 1 and is_single(interests[0])
        appender = PageAppender(self._passages, page, finishes=finishes)
        try:
            returned = source.replay(SubscribeRequest(interests=interests), page.cursor, appender)
            if not isinstance(returned, Awaitable):
                raise TypeError(
                    f"the replay of {str(interests[0].topic)!r} is not async: it returned {type(returned).__name__}"
                )
            index, mark = self._reached(await returned, "replay")
        finally:
            appender.close()
        if scope.cancel_called:
            return
        if index < page.last:
            raise ValueError(f"the replay has come to {index}, and appended commit {page.last}")
        if index == page.cursor.index < self._passages.feeds.floor_of(interests):
            raise ValueError(f"the replay stands still at {index}")
        if appender.is_over or (appender.cut is None and 0 < page.until < index):
            index, mark = max(page.until, page.last), ""
        elif appender.cut is not None:  # what came behind it was not taken
            index, mark = page.last, appender.cut.mark if appender.cut.index == page.last else ""
        is_finished = appender.is_finished and appender.cut is None and not page.until
        self._passages.replays.end(page, Reached(index, mark, is_finished))

    def _give_up(self, passage: Snapshot | Page) -> None:
        """The publisher stops."""
        if isinstance(passage, Page):
            self._passages.replays.end(passage, Broken(None))
        else:
            self._passages.give_up(passage)

    def _fail(self, passage: Snapshot | Page, error: BaseException) -> None:
        if isinstance(passage, Page):
            if passage.readers and not (passage.is_void or isinstance(error, StaleCursorError)):
                _warner.warn("a replay of topic %s has failed: %s", passage.interests[0].topic, named(error))
            self._passages.replays.end(passage, Broken(error))
        else:
            self._passages.fail(passage, error)

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
            index, mark = self._reached(await returned, "snapshot")
            return Made(index, mark, interests if appender.is_finished else ())
        finally:
            appender.close()

    def _reached(self, returned: int | Cursor, what: str) -> tuple[int, str]:
        """The index and mark that a function has returned."""
        if not isinstance(returned, Cursor):
            check_index(returned)
            return returned, ""
        if returned.epoch != self._passages.timeline.epoch:
            raise ValueError(
                f"the {what} is of epoch {returned.epoch!r}, and this is {self._passages.timeline.epoch!r}"
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
