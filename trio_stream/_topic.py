"""All that is kept of one topic: its history, and the snapshots that can be shared. Decides, and never waits.

A snapshot is a feed that its handler fills and that ends in the end-of-snapshot event.
It is shared from the moment it is asked for until its time in the cache is over; every reader has a position of
its own in it.

When the history has dropped a commit that is newer than the snapshot, there would be a gap behind it.
Then the snapshot is *passed*: it is emptied there and then, and its readers have fallen off.
One whose handler waits for readers, while the history passes the point at which it was started, goes the same way.

A reader that is reset must still make progress, however slow it is.
So it begins a snapshot only when that is whole, and *keeps* it: one that is passed stays for those who keep it, to its
end, and the next one is asked for behind it.
At most two snapshots of a subject are kept like this; a third takes the oldest from its readers.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from typing import Any, Final

from ._buffer import Feed, History
from ._events import END_OF_SNAPSHOT, Event, Subject, Topic, size
from ._wait import PORTION, Lot, Parking, Slot, emptying

WINDOW: Final = 1024  # deliveries that a handler may be ahead of its fastest reader
MOST_KEPT: Final = (
    2  # snapshots of one subject, with one that is asked for, that are kept although they are passed
)


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
        "is_passed",
        "keepers",
        "serial",
        "stalled",
        "urgent",
        "whole",
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
        # Whether it is there only for those who keep it: the history has passed it.
        self.is_passed: bool = False
        self.failure: BaseException | None = None
        # Whether it is kept for new subscribers although nobody may be reading it.
        self.is_cached: bool = False
        # Ends the making of it, or its time in the cache. Written by the maker; None when there is nothing to end.
        self.cancel: Callable[[], object] | None = None
        # The greatest position that any reader has reached.
        self.furthest: int = 0
        # How many of its readers keep it.
        self.keepers: int = 0
        # How many of its readers wait for its end besides, so that the handler need not wait for them.
        self.urgent: int = 0
        # Where those wait who take it only as a whole: comes to 1 when it is complete, or will not be.
        self.whole: Feed = Feed(subject)
        # The handler's tasks that wait for a reader to come closer, and how many they are.
        self.writers: Lot = Lot()
        self.stalled: int = 0

    @property
    def is_gone(self) -> bool:
        """Whether it was emptied, because of a failure or because the history has passed it."""
        return self.start > 0


class Timeline:
    """How far the publisher has come; shared by all of its topics."""

    __slots__ = ("_awaited", "_order", "epoch", "index", "is_stopped")

    def __init__(self, index: int, epoch: str) -> None:
        # Written by the publisher.
        self.index: int = index
        self.epoch: str = epoch
        # Nothing will be published any more.
        self.is_stopped: bool = False
        # {index: who waits for it, whatever topic it is of}; and these indexes, lowest first.
        self._awaited: dict[int, Lot] = {}
        self._order: list[int] = []

    def enter(self, index: int, slot: Slot) -> None:
        """The task of this slot waits for the index."""
        lot = self._awaited.get(index)
        if lot is None:
            lot = self._awaited[index] = Lot()
            insort(self._order, index)
        lot.waiting[slot] = None

    def leave(self, index: int, slot: Slot) -> None:
        """It does not wait any more."""
        lot = self._awaited.get(index)
        if lot is not None and slot in lot.waiting:
            del lot.waiting[slot]
            if not lot.waiting:
                del self._awaited[index]
                del self._order[bisect_left(self._order, index)]

    def reached(self) -> list[Lot]:
        """Those who have waited for an index that is published now."""
        order = self._order
        if not order or order[0] > self.index:
            return []
        count = bisect_left(order, self.index + 1)
        passed, self._order = order[:count], order[count:]
        return [self._awaited.pop(index) for index in passed]

    def everybody(self) -> list[Slot]:
        """All who wait; they are forgotten."""
        lots, self._awaited, self._order = self._awaited, {}, []
        return [slot for lot in lots.values() for slot in lot.waiting]


class TopicState:
    """The history and the snapshots of one topic."""

    __slots__ = (
        "_ageing",
        "_kept",
        "_oldest",
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
        # The serial of the oldest snapshot that is of the present state.
        self._oldest: int = 0
        # The greatest index of a snapshot on this timeline; it may be ahead of what is published.
        self.farthest: int = 0
        # What dies when the history passes its index, lowest first: the complete ones that are cached or read,
        # and those whose handler waits for readers.
        self._ageing: list[Snapshot] = []
        # {subject: those that are passed and kept, oldest first}
        self._kept: dict[Subject, list[Snapshot]] = {}

    def join(self, subject: Subject, *, fresh: bool, keeps: bool) -> Snapshot:
        """The snapshot to share, for one more reader; a new one if there is none.

        A `fresh` one leaves at least half of the history to its reader: one that has just lagged would fall off
        again at once behind an old snapshot.
        `keeps`: the reader waits until it is whole, and reads it to its end.
        """
        snapshot = self.snapshots.get(subject)
        if snapshot is None or not self._is_current(snapshot, fresh=fresh):
            snapshot = self._create(subject, snapshot)
        self.enter(snapshot, keeps=keeps)
        return snapshot

    def enter(self, snapshot: Snapshot, *, keeps: bool) -> None:
        """One reader more."""
        snapshot.readers += 1
        if keeps:
            snapshot.keepers += 1
            self.parking.wake((snapshot.writers,))

    def leave(self, snapshot: Snapshot, *, keeps: bool) -> None:
        """One reader less; without one a snapshot lives in the cache only, and its handler has nothing to do."""
        snapshot.readers -= 1
        snapshot.keepers -= keeps
        if snapshot.is_passed and not (snapshot.keepers or snapshot.is_gone):
            self._give_up(snapshot)
        elif snapshot.readers or snapshot.is_gone or snapshot.is_cached:
            return
        elif snapshot.is_complete:
            self._retire(snapshot)
        else:
            self._give_up(snapshot)

    def hurry(self, snapshot: Snapshot) -> None:
        """One of its readers waits for its end."""
        snapshot.urgent += 1
        self.parking.wake((snapshot.writers,))

    def begin(self, snapshot: Snapshot) -> None:
        """The handler starts now."""
        snapshot.index = self.history.newest
        snapshot.dropped_before = self.history.dropped

    def is_void(self, snapshot: Snapshot) -> bool:
        """Whether it is of a state that was replaced, or of a publisher that has stopped."""
        return snapshot.serial < self._oldest

    def complete(self, snapshot: Snapshot, index: int, *, cache: bool) -> None:
        """The handler has returned: end-of-snapshot, unless the history has passed the snapshot already."""
        if index < snapshot.dropped_before:
            raise ValueError(
                f"the snapshot's index {index} is older than commit {snapshot.dropped_before}, "
                "which was published before the snapshot was asked for"
            )
        if snapshot.stalled:  # the handler has left an append behind
            self._forget_age(snapshot)
        is_passed = index < self.history.dropped
        if self.is_void(snapshot) or snapshot.is_gone or (is_passed and not snapshot.keepers):
            self._give_up(snapshot)
            return
        snapshot.index = index
        snapshot.is_complete = True
        self.farthest = max(self.farthest, index)
        snapshot.append(Event(self.topic, index, END_OF_SNAPSHOT))
        if is_passed:
            self._keep(snapshot)
        else:
            insort(self._ageing, snapshot, key=_age)
            snapshot.is_cached = cache
            if not cache:
                self._unshare(snapshot)
        self._tell(snapshot)

    def give_up(self, snapshot: Snapshot) -> None:
        """It will not be complete: the publisher stops."""
        if not (snapshot.is_complete or snapshot.is_gone):
            self._give_up(snapshot)

    def fail(self, snapshot: Snapshot, cause: BaseException) -> None:
        """The handler has failed: its readers are told, nobody else gets it.

        An error of a handler that is cancelled is dropped: nobody waits for its snapshot.
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
        """Lets go of every snapshot that the history has passed."""
        if self._ageing and self._ageing[0].index < self.history.dropped:
            passed = bisect_left(self._ageing, (self.history.dropped, 0), key=_age)
            let_go = self._ageing[:passed]
            del self._ageing[:passed]
            self.parking.in_slices(map(self._pass, let_go), len(let_go))

    def clear(self, floor: int, dropped: int) -> None:
        """Forgets everything: the state was replaced, and the caller has ended all readers."""
        self._forget(*self.history.clear(floor, dropped), unread_only=False)

    def close(self) -> None:
        """Forgets everything, but whole snapshots and what was published stay for those who read them."""
        self._forget(*self.history.clear(self.timeline.index, 0), unread_only=True)

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
        if not (snapshot.stalled or snapshot.is_complete):
            self._forget_age(snapshot)

    def _is_current(self, snapshot: Snapshot, *, fresh: bool) -> bool:
        """Whether a new reader of it would not fall off at once."""
        if not (snapshot.is_complete or snapshot.stalled):
            return True
        if snapshot.index < self.history.dropped:
            return False
        if not (fresh or snapshot.stalled):
            return True
        return self.history.newer_than(snapshot.index) * 2 <= self.history.limit

    def _create(self, subject: Subject, older: Snapshot | None) -> Snapshot:
        if older is not None:
            self.evict(older)
        self._keep_at_most(subject, MOST_KEPT - 1)
        self._serial += 1
        snapshot = self.snapshots[subject] = Snapshot(subject, self._serial)
        self._start(self, snapshot)
        return snapshot

    def _pass(self, snapshot: Snapshot) -> None:
        """The history has passed it."""
        if snapshot.is_passed:  # it was made to its end since, and is kept already
            return
        if snapshot.keepers and not snapshot.is_gone:
            if snapshot.is_complete:  # if not, its handler has just been told to go on
                self._keep(snapshot)
                self.parking.wake((snapshot,))
        else:
            self._give_up(snapshot)

    def _keep(self, snapshot: Snapshot) -> None:
        """It stays for those who keep it, and for nobody else."""
        snapshot.is_passed = True
        snapshot.is_cached = False
        self._unshare(snapshot)
        self._kept.setdefault(snapshot.subject, []).append(snapshot)
        self._keep_at_most(snapshot.subject, MOST_KEPT)

    def _keep_at_most(self, subject: Subject, count: int) -> None:
        while len(self._kept.get(subject, ())) > count:
            self._give_up(self._kept[subject][0])

    def _abandon(self, snapshot: Snapshot) -> None:
        self._unshare(snapshot)
        if snapshot.cancel is not None:
            snapshot.cancel()
        self.parking.wake((snapshot.writers,))  # those that are not cancelled with the handler

    def _give_up(self, snapshot: Snapshot) -> None:
        """It ends before its readers have had it."""
        kept = self._kept.get(snapshot.subject, [])
        if snapshot in kept:
            kept.remove(snapshot)
            if not kept:
                del self._kept[snapshot.subject]
        self.parking.release(snapshot.drop_all(and_more=not snapshot.is_complete), size)
        snapshot.is_cached = False
        self._abandon(snapshot)
        self._tell(snapshot)

    def _retire(self, snapshot: Snapshot) -> None:
        """Nobody reads it, and nobody will."""
        self._forget_age(snapshot)
        if snapshot.cancel is not None:
            snapshot.cancel()
        self.parking.release(snapshot.drop_all(and_more=False), size)

    def _tell(self, snapshot: Snapshot) -> None:
        """It is whole now, or will not be."""
        snapshot.whole.end = 1
        self.parking.wake((snapshot, snapshot.whole))

    def _unshare(self, snapshot: Snapshot) -> None:
        if self.snapshots.get(snapshot.subject) is snapshot:
            del self.snapshots[snapshot.subject]

    def _forget_age(self, snapshot: Snapshot) -> None:
        place = bisect_left(self._ageing, _age(snapshot), key=_age)
        if self._ageing[place : place + 1] == [snapshot]:  # if not, it is about to be passed
            del self._ageing[place]

    def _forget(
        self, log: MutableSequence[Any], feeds: MutableMapping[Subject, Feed], *, unread_only: bool
    ) -> None:
        """`unread_only`: what somebody reads stays for them."""
        snapshots, self.snapshots = self.snapshots, {}
        ageing, self._ageing = self._ageing, []
        kept, self._kept = self._kept, {}
        self._serial += 1
        self._oldest = self._serial
        every = [*snapshots.values(), *ageing, *(each for several in kept.values() for each in several)]
        steps = self._forgetting(every, log, feeds, unread_only=unread_only)
        self.parking.in_slices(steps, len(every) + len(feeds) + len(log) // PORTION)

    def _forgetting(
        self,
        snapshots: MutableSequence[Snapshot],
        log: MutableSequence[Any],
        feeds: MutableMapping[Subject, Feed],
        *,
        unread_only: bool,
    ) -> Iterator[None]:
        while snapshots:
            snapshot = snapshots.pop()
            if not (unread_only and snapshot.readers and snapshot.is_complete) and not snapshot.is_gone:
                self._give_up(snapshot)
            yield
        yield from emptying(log)
        while feeds:
            _, feed = feeds.popitem()
            if not (unread_only and feed.readers):
                yield from emptying(feed.drop_all(and_more=False), size)
            yield


def _age(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.index, snapshot.serial
