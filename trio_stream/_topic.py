"""All that is kept of one topic: its history, and the snapshots that can be shared. Decides, and never waits.

A snapshot is a feed that its handler fills and that ends in the end-of-snapshot event.
It is shared from the moment it is asked for until its time in the cache is over; every reader has a position of
its own in it.

When the history has dropped a commit that is newer than the snapshot, what would follow it is incomplete: the
snapshot is emptied there and then, whoever still reads it.
One whose handler waits for readers, while the history passes the point at which it was started, goes the same way.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Any, Final

from ._buffer import Feed, History
from ._events import END_OF_SNAPSHOT, Event, Subject, Topic
from ._wait import Lot, Parking

WINDOW: Final = 1024  # deliveries that a handler may be ahead of its fastest reader


class Snapshot(Feed):
    """The state of one subject at one index, perhaps still being made."""

    __slots__ = (
        "cancel",
        "dropped_before",
        "failure",
        "furthest",
        "index",
        "is_cached",
        "is_complete",
        "serial",
        "stalled",
        "writers",
    )

    def __init__(self, subject: Subject, serial: int) -> None:
        super().__init__(subject)
        self.serial: int = serial
        # The topic's newest commit when the handler was started; when complete, what the handler returned.
        self.index: int = 0
        # History.dropped when the handler was started: it must have seen at least that commit.
        self.dropped_before: int = 0
        self.is_complete: bool = False
        self.failure: BaseException | None = None
        # Whether it is kept for new subscribers although nobody may be reading it.
        self.is_cached: bool = False
        # Ends the making of it. Written by the maker; None when there is nothing to end.
        self.cancel: Callable[[], object] | None = None
        # The greatest position that any reader has reached.
        self.furthest: int = 0
        # The handler's tasks that wait for a reader to come closer, and how many they are.
        self.writers: Lot = Lot()
        self.stalled: int = 0

    @property
    def is_gone(self) -> bool:
        """Whether it was emptied, because of a failure or because the history has passed it."""
        return self.start > 0


class Timeline:
    """How far the publisher has come; shared by all of its topics."""

    __slots__ = ("epoch", "index", "watchers")

    def __init__(self, index: int, epoch: str) -> None:
        # Written by the publisher.
        self.index: int = index
        self.epoch: str = epoch
        # Who waits for an index whatever topic it is of. Woken by every publish and whenever a subscription ends.
        self.watchers: Lot = Lot()


class TopicState:
    """The history and the snapshots of one topic."""

    __slots__ = (
        "_ageing",
        "_serial",
        "_start",
        "farthest",
        "history",
        "parking",
        "snapshots",
        "timeline",
        "topic",
    )

    def __init__(
        self,
        topic: Topic[Any],
        history: History,
        timeline: Timeline,
        parking: Parking,
        start: "Callable[[TopicState, Snapshot], None]",
    ) -> None:
        self.topic: Topic[Any] = topic
        self.history: History = history
        self.timeline: Timeline = timeline
        self.parking: Parking = parking
        # Has the handler make a new snapshot, as soon as the publisher runs.
        self._start = start
        # {subject: what a new subscriber is given}; being made, or cached.
        self.snapshots: dict[Subject, Snapshot] = {}
        self._serial: int = 0
        # The greatest index of a snapshot on this timeline; it may be ahead of what is published.
        self.farthest: int = 0
        # What dies when the history passes its index, lowest first: the complete ones that are cached or read,
        # and those whose handler waits for readers.
        self._ageing: list[Snapshot] = []

    def join(self, subject: Subject, *, fresh: bool) -> Snapshot:
        """The snapshot to share, for one more reader; a new one if there is none.

        A `fresh` one leaves at least half of the history to its reader: one that has just lagged would fall off
        again at once behind an old snapshot.
        """
        snapshot = self.snapshots.get(subject)
        if snapshot is None or ((fresh or snapshot.stalled) and not self._is_fresh(snapshot)):
            snapshot = self._create(subject, snapshot)
        snapshot.readers += 1
        return snapshot

    def leave(self, snapshot: Snapshot) -> None:
        """One reader less; without one a snapshot lives in the cache only, and its handler has nothing to do."""
        snapshot.readers -= 1
        if snapshot.readers or snapshot.is_gone or snapshot.is_cached:
            return
        if snapshot.is_complete:
            self._retire(snapshot)
        else:
            self._abandon(snapshot)

    def begin(self, snapshot: Snapshot) -> None:
        """The handler starts now."""
        snapshot.index = self.history.newest
        snapshot.dropped_before = self.history.dropped

    def complete(self, snapshot: Snapshot, index: int, *, cache: bool) -> None:
        """The handler has returned: end-of-snapshot, unless the history has passed the snapshot already."""
        if index < snapshot.dropped_before:
            raise ValueError(
                f"the snapshot's index {index} is older than commit {snapshot.dropped_before}, "
                "which was published before the snapshot was asked for"
            )
        if snapshot.stalled:  # the handler has left an append behind
            self._forget_age(snapshot)
        if index < self.history.dropped:
            self._give_up(snapshot)
            return
        snapshot.index = index
        snapshot.is_complete = True
        self.farthest = max(self.farthest, index)
        snapshot.append(Event(self.topic, index, END_OF_SNAPSHOT))
        insort(self._ageing, snapshot, key=_age)
        snapshot.is_cached = cache
        if not cache:
            self._unshare(snapshot)
        self.parking.wake((snapshot,))

    def fail(self, snapshot: Snapshot, cause: BaseException) -> None:
        """The handler has failed: its readers are told, nobody else gets it.

        What goes wrong while it is cancelled concerns nobody.
        """
        if not snapshot.is_gone:
            if snapshot.stalled:  # the handler has left an append behind
                self._forget_age(snapshot)
            snapshot.failure = cause
            self._give_up(snapshot)

    def evict(self, snapshot: Snapshot) -> None:
        """Takes it out of the cache, if it is still there; those who read it go on."""
        self._unshare(snapshot)
        if snapshot.is_cached:
            snapshot.is_cached = False
            if not snapshot.readers:
                self._retire(snapshot)

    def expire(self) -> None:
        """Empties every snapshot that the history has passed."""
        passed = bisect_left(self._ageing, (self.history.dropped, 0), key=_age)
        given_up = self._ageing[:passed]
        del self._ageing[:passed]
        for snapshot in given_up:
            self._give_up(snapshot)

    def clear(self, floor: int, dropped: int) -> None:
        """Forgets everything; the caller has ended all readers, and with them the handlers."""
        for snapshot in list(self.snapshots.values()):
            self.evict(snapshot)
        self.history.clear(floor, dropped)

    def reach(self, snapshot: Snapshot, position: int) -> None:
        """A reader has come to `position`; a handler that waits goes on with half of the window before it."""
        if position > snapshot.furthest:
            snapshot.furthest = position
            if snapshot.writers.waiting and snapshot.end - position <= WINDOW // 2:
                self.parking.wake((snapshot.writers,))

    def stall(self, snapshot: Snapshot) -> None:
        """One of the handler's tasks begins to wait for readers."""
        if not snapshot.stalled:
            insort(self._ageing, snapshot, key=_age)
        snapshot.stalled += 1

    def unstall(self, snapshot: Snapshot) -> None:
        """One of the handler's tasks no longer waits for readers."""
        snapshot.stalled -= 1
        if not (snapshot.stalled or snapshot.is_gone or snapshot.is_complete):
            self._forget_age(snapshot)

    def _is_fresh(self, snapshot: Snapshot) -> bool:
        newer = self.history.newer_than(snapshot.index)
        return not (snapshot.is_complete or snapshot.stalled) or newer * 2 <= self.history.limit

    def _create(self, subject: Subject, older: Snapshot | None) -> Snapshot:
        if older is not None:
            self.evict(older)
        self._serial += 1
        snapshot = self.snapshots[subject] = Snapshot(subject, self._serial)
        self._start(self, snapshot)
        return snapshot

    def _abandon(self, snapshot: Snapshot) -> None:
        self._unshare(snapshot)
        if snapshot.cancel is not None:
            snapshot.cancel()
        self.parking.wake((snapshot.writers,))  # those that are not cancelled with the handler

    def _give_up(self, snapshot: Snapshot) -> None:
        snapshot.drop_all(and_more=not snapshot.is_complete)
        snapshot.is_cached = False
        self._abandon(snapshot)
        self.parking.wake((snapshot,))

    def _retire(self, snapshot: Snapshot) -> None:
        self._forget_age(snapshot)
        snapshot.drop_all(and_more=False)  # the clock of the cache may hold it for long

    def _unshare(self, snapshot: Snapshot) -> None:
        if self.snapshots.get(snapshot.subject) is snapshot:
            del self.snapshots[snapshot.subject]

    def _forget_age(self, snapshot: Snapshot) -> None:
        del self._ageing[bisect_left(self._ageing, _age(snapshot), key=_age)]


def _age(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.index, snapshot.serial
