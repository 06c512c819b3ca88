"""Makes snapshots, one for everybody who asks for the same, and keeps them while they can be used.

A snapshot is a feed that its handler fills and that ends in the end-of-snapshot event.
It is shared from the moment it is asked for until its time in the cache is over; every reader has its own position.
When the history has dropped a commit that is newer than the snapshot, what comes after the snapshot is no longer
complete: it is emptied there and then, whoever still reads it.

A handler runs ahead of its fastest reader by a window only.
One that waits for readers while the history passes the point at which it was started is given up like a complete one.
"""

from bisect import bisect_left, insort
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import anyio
from typing_extensions import TypeVar, override

from ._buffer import Feed, History
from ._errors import ClosedResourceError, InvalidCommitError
from ._events import (
    END_OF_SNAPSHOT,
    CloseSubscriptions,
    Event,
    Framing,
    PayloadEvents,
    Subject,
    SubscribeRequest,
    Topic,
    check_index,
)
from ._wait import Lot, Parking, Slot

P = TypeVar("P", default=Any)
P_contra = TypeVar("P_contra", contravariant=True, default=Any)

WINDOW: Final = 1024  # deliveries that a handler may be ahead of its fastest reader


class SnapshotAppender(Protocol[P_contra]):
    """Where a snapshot function puts the state."""

    async def append(self, events: Iterable[Event[P_contra]], /) -> None:
        """Adds the events of one commit; they arrive together, as one event.

        A checkpoint.
        Waits while every reader of the snapshot is far behind, and is cancelled when there is no reader left.

        Raises `InvalidCommitError` for events of another topic, of different indexes or that are not state, and
        `ClosedResourceError` once the snapshot function has returned.
        """
        ...


SnapshotFunc: TypeAlias = Callable[[SubscribeRequest[P], SnapshotAppender[P]], Awaitable[int]]
"""Makes a snapshot: appends the state that the request asks for and returns the index of that state.

The index must be at least that of every commit published before the call, and 0 if nothing was committed yet.
One run serves every subscriber of the topic and subject, so the request has no token, index or epoch.
A store that is not ready must raise: an empty snapshot says that there is nothing.
"""
SnapshotHandlers: TypeAlias = Mapping[Topic[Any], SnapshotFunc[Any]]


class Snapshot(Feed):
    """The state of one subject at one index, perhaps still being made."""

    __slots__ = (
        "cached",
        "dropped_before",
        "failure",
        "furthest",
        "index",
        "is_complete",
        "scope",
        "serial",
        "stalled",
        "writers",
    )

    def __init__(self, subject: Subject, serial: int) -> None:
        super().__init__(subject)
        self.serial = serial
        # While it is being made, the publisher's index at the start; when complete, what the handler returned.
        self.index = 0
        # History.dropped at the start: the handler must have seen at least that commit.
        self.dropped_before = 0
        self.is_complete = False
        self.failure: BaseException | None = None
        # Whether it may be handed to new subscribers although nobody reads it.
        self.cached = False
        # Of its handler; None before that runs.
        self.scope: anyio.CancelScope | None = None
        # The greatest position that any reader has reached. Written by the readers.
        self.furthest = 0
        # The handler's tasks that wait for a reader to come closer, and how many they are.
        self.writers = Lot()
        self.stalled = 0

    @property
    def is_gone(self) -> bool:
        """Whether it was emptied, because of a failure or because the history has passed it."""
        return self.start > 0

    def empty(self) -> None:
        """Lets go of all items; every reader finds that it has fallen off, also one that has had them all."""
        self.items = []
        self.end += 1
        self.start = self.base = self.end


class Snapshots:
    """The snapshots of one topic."""

    __slots__ = ("_ageing", "_serial", "_start", "history", "parking", "shared", "topic")

    def __init__(
        self,
        topic: Topic[Any],
        history: History,
        parking: Parking,
        start: "Callable[[Snapshots, Snapshot], None]",
    ) -> None:
        self.topic = topic
        self.history = history
        self.parking = parking
        # Has the handler run for a new snapshot, as soon as the publisher runs.
        self._start = start
        self._serial = 0
        # {subject: the snapshot that a new subscriber is given}; being made, or cached.
        self.shared: dict[Subject, Snapshot] = {}
        # What dies when the history passes its index, lowest first: the complete ones that are cached or read, and
        # those whose handler waits for readers.
        self._ageing: list[Snapshot] = []

    def join(self, subject: Subject, *, fresh: bool = False) -> Snapshot:
        """The snapshot to share, for one more reader; a new one if there is none.

        A `fresh` one leaves at least half of the history to the reader: a reader that has just lagged would fall off
        again at once behind an old one.
        """
        snapshot = self.shared.get(subject)
        if snapshot is None or (fresh and not self._is_fresh(snapshot)):
            snapshot = self._create(subject, snapshot)
        snapshot.readers += 1
        return snapshot

    def _is_fresh(self, snapshot: Snapshot) -> bool:
        return (
            not snapshot.is_complete
            or self.history.newer_than(snapshot.index) * 2 <= self.history.limit
        )

    def _create(self, subject: Subject, older: Snapshot | None) -> Snapshot:
        if older is not None:
            self.evict(older)
        self._serial += 1
        snapshot = self.shared[subject] = Snapshot(subject, self._serial)
        self._start(self, snapshot)
        return snapshot

    def begin(self, snapshot: Snapshot, index: int) -> None:
        """The handler starts now, with `index` published."""
        snapshot.index = index
        snapshot.dropped_before = self.history.dropped

    def complete(self, snapshot: Snapshot, index: int, *, cache: bool) -> None:
        """The handler has returned: end-of-snapshot, unless the history has passed the snapshot already."""
        if index < snapshot.dropped_before:
            raise ValueError(
                f"the snapshot's index {index} is older than commit {snapshot.dropped_before}, "
                "which was published before the snapshot was asked for"
            )
        snapshot.index = index
        snapshot.is_complete = True
        if index < self.history.dropped:
            self._give_up(snapshot)
            return
        snapshot.append(Event(self.topic, index, END_OF_SNAPSHOT))
        self.parking.wake((snapshot,))
        snapshot.cached = cache
        if not cache:
            self._unshare(snapshot)
        insort(self._ageing, snapshot, key=_age)

    def fail(self, snapshot: Snapshot, cause: BaseException) -> None:
        """The handler has failed: its readers are told, nobody else gets it."""
        snapshot.failure = cause
        self._give_up(snapshot)

    def leave(self, snapshot: Snapshot) -> None:
        """One reader less; without readers a snapshot lives only in the cache, and a handler has no reason to go on."""
        snapshot.readers -= 1
        if snapshot.readers or snapshot.is_gone:
            return
        if not snapshot.is_complete:
            self.abandon(snapshot)
        elif not snapshot.cached:
            self._forget_age(snapshot)

    def abandon(self, snapshot: Snapshot) -> None:
        """Cancels the handler, if it is still at it."""
        self._unshare(snapshot)
        if snapshot.scope is not None:
            snapshot.scope.cancel()

    def evict(self, snapshot: Snapshot) -> None:
        """Takes it out of the cache; those who read it go on."""
        self._unshare(snapshot)
        snapshot.cached = False
        if snapshot.is_complete and not snapshot.readers and not snapshot.is_gone:
            self._forget_age(snapshot)

    def expire(self) -> None:
        """Empties every snapshot that the history has passed."""
        passed = bisect_left(self._ageing, (self.history.dropped, 0), key=_age)
        for snapshot in self._ageing[:passed]:
            self._give_up(snapshot)
        del self._ageing[:passed]

    def clear(self) -> None:
        """Forgets all snapshots; the caller has ended all readers, and with them the handlers."""
        for snapshot in list(self.shared.values()):
            self.evict(snapshot)

    def reach(self, snapshot: Snapshot, position: int) -> None:
        """A reader has come to `position`; the handler may go on if it waited for that."""
        if position > snapshot.furthest:
            snapshot.furthest = position
            if snapshot.writers.waiting and snapshot.end - position <= WINDOW // 2:
                self.parking.wake((snapshot.writers,))

    async def wait_for_readers(self, snapshot: Snapshot) -> None:
        """Waits while the fastest reader is more than a window behind. A checkpoint."""
        await self.parking.backend.checkpoint()
        while snapshot.end - snapshot.furthest > WINDOW and not snapshot.is_gone:
            if not snapshot.stalled:
                insort(self._ageing, snapshot, key=_age)
            snapshot.stalled += 1
            try:
                await self._park_writer(snapshot.writers)
            finally:
                snapshot.stalled -= 1
                if not snapshot.stalled and not snapshot.is_gone:
                    self._forget_age(snapshot)

    async def _park_writer(self, writers: Lot) -> None:
        slot = Slot()
        writers.waiting[slot] = None
        try:
            await self.parking.backend.park(slot)
        finally:
            writers.waiting.pop(slot, None)

    def _give_up(self, snapshot: Snapshot) -> None:
        snapshot.empty()
        snapshot.cached = False
        if not snapshot.is_complete:
            self.abandon(snapshot)
        self._unshare(snapshot)
        self.parking.wake((snapshot,))

    def _unshare(self, snapshot: Snapshot) -> None:
        if self.shared.get(snapshot.subject) is snapshot:
            del self.shared[snapshot.subject]

    def _forget_age(self, snapshot: Snapshot) -> None:
        del self._ageing[bisect_left(self._ageing, _age(snapshot), key=_age)]


def _age(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.index, snapshot.serial


class Appender(SnapshotAppender[Any]):
    """The `SnapshotAppender` that a handler is given."""

    __slots__ = ("_snapshot", "_snapshots")

    def __init__(self, snapshots: Snapshots, snapshot: Snapshot) -> None:
        self._snapshots = snapshots
        self._snapshot = snapshot

    @override
    async def append(self, events: Iterable[Event[Any]], /) -> None:
        snapshot = self._snapshot
        if snapshot.is_complete or snapshot.failure is not None:
            raise ClosedResourceError("the snapshot function of this appender has returned")
        group = tuple(events)
        if group and not snapshot.is_gone:
            snapshot.append(as_delivery(group, self._snapshots.topic))
            self._snapshots.parking.wake((snapshot,))
        await self._snapshots.wait_for_readers(snapshot)


def as_delivery(group: tuple[Event[Any], ...], topic: Topic[Any]) -> Event[Any]:
    """What readers get of one append; raises `InvalidCommitError` unless it is one commit of this topic."""
    first = group[0]
    for event in group:
        check_event(event)
        if event.topic != topic:
            raise InvalidCommitError(f"an event of topic {str(event.topic)!r} in a snapshot of {str(topic)!r}")
        if event.index != first.index:
            raise InvalidCommitError(f"events of different indexes in one append: {first.index}, {event.index}")
    return first if len(group) == 1 else Event(topic, first.index, PayloadEvents(group))


def check_event(event: Event[Any]) -> None:
    """Raises unless this is an event about the state: no framing, no batch, a proper index."""
    if not isinstance(event, Event):
        raise InvalidCommitError(f"not an event: {event!r}")
    if isinstance(event.payload, Framing | PayloadEvents | CloseSubscriptions):
        raise InvalidCommitError(f"a {type(event.payload).__name__} payload cannot be published or appended")
    try:
        check_index(event.index)
    except (TypeError, ValueError) as error:
        raise InvalidCommitError(str(error)) from None
