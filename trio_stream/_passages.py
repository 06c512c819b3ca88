"""What readers pass through before they are live: the snapshots, which they share. Decides, and never waits.

A snapshot is a feed that its handler fills and that ends in the end-of-snapshot event.
It is shared from the moment it is asked for until its time in the cache is over; every reader has a position of
its own in it.

    asked -> filling <-> stalled
                |           |
                v           v
              whole ------> gone
                |           ^
                v           |
              kept ---------'

| state   | seen by       | the handler             | the snapshot is                                                |
|---------|---------------|-------------------------|----------------------------------------------------------------|
| asked   |               | is to be started        | shared                                                         |
| filling | `index`       | appends                 | shared; `index` is the newest commit when the handler started  |
| stalled | `stalled`     | waits for readers       | shared, and ageing                                             |
| whole   | `is_complete` | has returned            | cached or not, and ageing; `index` is what the handler returned|
| kept    | `is_passed`   | has returned            | there for those who keep it, see below                         |
| gone    | `is_gone`     | is cancelled, or failed | empty; who still reads it has fallen off                       |

It is *evicted* from the cache when its time is over, *retired* when nobody reads it any more, and *given up* before its
readers have had it.
One that is being made when what it is of is reopened, or that says that this is finished, is evicted too.
`whole` is the gate where those wait who need to know which of the last three it will be.

*Ageing*: when a history has dropped a commit that is newer than the snapshot, there would be a gap behind it.
Then the snapshot is *passed*: it is emptied there and then, and its readers have fallen off.
One whose handler waits for readers, while the history passes the point at which it was started, goes the same way.
A snapshot of several topics ages by each of them.

A reader that is reset must still make progress, however slow it is.
So it begins a snapshot only when that is whole, and *keeps* it: one that is passed stays for those who keep it, to its
end, and the next one is asked for behind it.
At most two snapshots of the same interests are kept like this; a third takes the oldest from its readers.

The snapshot of several interests is composed of theirs, see `_compose`.
It is shared while it is made, and never cached: its parts are.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Container, Iterator, Mapping, MutableSequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ._buffer import Feed, Finished, Passage
from ._commit import Ending
from ._events import END_OF_SNAPSHOT, Event, Subject, Topic, size
from ._feeds import Feeds, WideFeed, is_wide
from ._interest import Interest
from ._replays import Page, Replays
from ._routes import Interests
from ._statistics import Counts
from ._timeline import Gate, Timeline
from ._topic import History, PlainFeed
from ._wait import PORTION, Lot, Parking, emptying

T = TypeVar("T")

WINDOW: Final = 1024  # deliveries that a handler may be ahead of its fastest reader
MOST_KEPT: Final = (
    2  # snapshots of the same interests, with one that is asked for, that are kept although they are passed
)


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of a snapshot when it was made to its end."""

    index: int
    mark: str = ""
    finished: Collection[Interest] = ()
    """Those of its interests of which nothing will ever come after it."""


class Snapshot(Passage):
    """The state of some interests at one index, perhaps still being made."""

    __slots__ = (
        "cancel",
        "dropped_before",
        "failure",
        "feed",
        "furthest",
        "gate",
        "histories",
        "index",
        "is_cached",
        "is_complete",
        "is_passed",
        "keepers",
        "mark",
        "replays",
        "serial",
        "stalled",
        "urgent",
        "whole",
        "writers",
    )

    def __init__(self, interests: Interests, histories: tuple[History, ...], serial: int) -> None:
        """`histories`: those of the topics of the interests."""
        super().__init__()
        self.interests = interests
        self.histories: tuple[History, ...] = histories
        self.serial: int = serial
        # Whether what comes behind it can be had although the history has passed it.
        self.replays: bool = False
        # The topics' newest commit when the handler was started; when complete, what the handler returned.
        self.index: int = 0
        # The mark of that commit, if the handler said it.
        self.mark: str = ""
        # The newest commit that was dropped when the handler was started: it must have seen at least that.
        self.dropped_before: int = 0
        self.is_complete: bool = False
        # Of its index, if that was ahead and has a mark: knows for good which commit it was.
        self.gate: Gate | None = None
        # Whether it is there only for those who keep it: the history has passed it.
        self.is_passed: bool = False
        self.failure: BaseException | None = None
        # Whether it is kept for new subscribers although nobody may be reading it.
        self.is_cached: bool = False
        # Ends the making of it, or its time in the cache. Written by the maker; None when there is nothing to end.
        self.cancel: Callable[[], object] | None = None
        # A wide feed that it keeps alive as long as it is shared, so that what follows is there for who comes next.
        self.feed: Feed | None = None
        # The greatest position that any reader has reached.
        self.furthest: int = 0
        # How many of its readers keep it.
        self.keepers: int = 0
        # How many of its readers wait for its end besides, so that the handler need not wait for them.
        self.urgent: int = 0
        # Where those wait who take it only as a whole: opens when it is complete, or will not be.
        self.whole: Feed = Feed()
        # The handler's tasks that wait for a reader to come closer, and how many they are.
        self.writers: Lot = Lot()
        self.stalled: int = 0

    @property
    def is_gone(self) -> bool:
        """Whether it was emptied, because of a failure or because the history has passed it."""
        return self.start > 0

    @property
    def is_refuted(self) -> bool:
        """Whether another commit was published in the place of the one that it is of."""
        return self.gate is not None and self.gate.end > 0 and self.gate.mark != self.mark

    @property
    def newest_dropped(self) -> int:
        """The newest commit of its topics that is no longer in their histories."""
        return max([history.dropped for history in self.histories])


class Passages:
    """The snapshots of a publisher."""

    def __init__(
        self,
        feeds: Feeds,
        timeline: Timeline,
        parking: Parking,
        start: Callable[[Snapshot | Page], None],
    ) -> None:
        self.feeds = feeds
        self.timeline = timeline
        self.parking = parking
        self.counts: Counts = Counts()
        self.replays: Replays = Replays(feeds, parking, start)
        # Has the handler make a new snapshot, as soon as the publisher runs.
        self._start = start
        # {interests: what a new subscriber is given}; being made, or cached.
        self.shared: dict[Interests, Snapshot] = {}
        self._serial: int = 0
        # {interests: those that are passed and kept, whole or not, oldest first}; those that are ageing are in
        # `History.ageing`.
        self._kept: dict[Interests, list[Snapshot]] = {}

    def join(self, interests: Interests, *, fresh: bool, keeps: bool) -> Snapshot:
        """The snapshot to share, for one more reader; a new one if there is none.

        A `fresh` one leaves at least half of the history to its reader.
        A reader that has just lagged needs that: behind an old snapshot it would lag again at once.
        `keeps`: the reader waits until it is whole, and reads it to its end.
        """
        snapshot = self.shared.get(interests)
        if snapshot is None or not self._is_current(snapshot, fresh=fresh):
            snapshot = self._create(interests, snapshot)
        else:
            self.counts.snapshots["shared"] += 1
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
        if snapshot.is_passed and not (_is_kept(snapshot) or snapshot.is_gone):
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
        self.counts.snapshots["run"] += 1
        snapshot.index = max([history.newest for history in snapshot.histories])
        snapshot.dropped_before = snapshot.newest_dropped

    def is_void(self, snapshot: Snapshot) -> bool:
        """Whether it is of a state that was replaced, or of a publisher that has stopped."""
        return any(snapshot.serial < history.era for history in snapshot.histories)

    def complete(self, snapshot: Snapshot, made: Made, *, cache: bool) -> None:
        """The handler has returned: end-of-snapshot, unless the history has passed the snapshot already."""
        index, mark = made.index, made.mark
        if index < snapshot.dropped_before and len(snapshot.interests) == 1:
            raise ValueError(
                f"the snapshot's index {index} is older than commit {snapshot.dropped_before}, "
                "which was published before the snapshot was asked for"
            )
        if self.timeline.contradicts(index, mark):
            raise ValueError(
                f"the snapshot is of commit {index} with mark {mark!r}; "
                "the one that was published has another, or none was"
            )
        if snapshot.stalled:  # the handler has left an append behind
            self._forget_age(snapshot)
        is_passed = index < snapshot.newest_dropped
        if self.is_void(snapshot) or snapshot.is_gone or (is_passed and not _is_kept(snapshot)):
            self._give_up(snapshot)
            return
        snapshot.index = index
        snapshot.mark = mark
        snapshot.is_complete = True
        for history in snapshot.histories:
            history.farthest = max(history.farthest, index)
        if mark and index > self.timeline.index:
            snapshot.gate = self.timeline.enter(index)
        marked = self.timeline.mark_at(index) or mark
        snapshot.append(Event(snapshot.interests[0].topic, index, END_OF_SNAPSHOT, mark=marked))
        if made.finished:
            self._finish(snapshot, Finished(index, is_published=False), made.finished)
        if is_passed:
            self._keep(snapshot)
        else:
            self._let_go(snapshot)  # the history had passed the point at which it was started, and no more
            self.feeds.fill_after(snapshot.interests, index)  # a publisher that stops forgets what is older
            self._remember_age(snapshot)
            is_shared = self.shared.get(snapshot.interests) is snapshot
            snapshot.is_cached = cache and is_shared and len(snapshot.interests) == 1
            if not snapshot.is_cached:
                self._unshare(snapshot)
        self._tell(snapshot)

    def give_up(self, snapshot: Snapshot) -> None:
        """It will not be complete: the publisher stops, or a part of it cannot be had."""
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
            self.counts.snapshots["failed"] += 1
            self._give_up(snapshot)

    def evict(self, snapshot: Snapshot) -> None:
        """Takes it out of the cache, if it is still there; those who read it go on."""
        self._unshare(snapshot)
        if snapshot.is_cached:
            snapshot.is_cached = False
            if not snapshot.readers:
                self._retire(snapshot)

    def reopen(self, reopening: Ending, index: int) -> None:
        """Has there be more of these subjects, from this commit on, which is about to be appended.

        Who comes now gets no snapshot, and no page, that may say that they are finished.
        """
        concerned = self.feeds.reopen(reopening, index)
        for interests, over in concerned.items():
            snapshot = self.shared.get(interests)
            if snapshot is not None and not (
                snapshot.is_complete and (snapshot.sequel is None or snapshot.index >= index)
            ):
                self.evict(snapshot)
            self.replays.reopen(interests, 0 if over is None else over[1])
        self.parking.wake([over[0] for over in concerned.values() if over is not None])

    def expire(self, history: History) -> None:
        """Lets go of every snapshot that the history has passed."""
        ageing: list[Snapshot] = history.ageing
        if ageing and ageing[0].index < history.dropped:
            passed = bisect_left(ageing, (history.dropped, 0), key=_age)
            let_go = ageing[:passed]
            del ageing[:passed]
            for snapshot in let_go:
                if len(snapshot.histories) > 1:
                    self._forget_age(snapshot)
            self.parking.in_slices(map(self._pass, let_go), len(let_go))

    def clear(self, floors: Mapping[Topic[Any], tuple[int, int]]) -> None:
        """Forgets everything of these topics, which have now this floor, and this as what was dropped.

        Their state was replaced, and the caller has ended all readers.
        """
        self._forget(floors, unread_only=False)

    def close(self) -> None:
        """Forgets everything, but whole snapshots and what was published stay for those who read them."""
        floors = {topic: (history.floor, 0) for topic, history in self.feeds.histories.items()}
        self._forget(floors, unread_only=True)
        self.feeds.close()

    def reach(self, snapshot: Snapshot, position: int) -> None:
        """A reader has come to `position`; a handler that waits goes on with half of the window before it."""
        if position > snapshot.furthest:
            snapshot.furthest = position
            if snapshot.writers.waiting and snapshot.end - position <= WINDOW // 2:
                self.parking.wake((snapshot.writers,))

    def stall(self, snapshot: Snapshot) -> None:
        """One of the handler's tasks begins to wait for readers."""
        if not snapshot.stalled:
            self._remember_age(snapshot)
        snapshot.stalled += 1

    def unstall(self, snapshot: Snapshot) -> None:
        """One of the handler's tasks no longer waits for readers."""
        snapshot.stalled -= 1
        if not (snapshot.stalled or snapshot.is_complete):
            self._forget_age(snapshot)

    def _is_current(self, snapshot: Snapshot, *, fresh: bool) -> bool:
        """Whether a new reader of it would not fall off at once, or learn that it is of another copy of the store."""
        if not (snapshot.is_complete or snapshot.stalled):
            return True
        if snapshot.index < snapshot.newest_dropped or snapshot.is_refuted:
            return False
        if not (fresh or snapshot.stalled):
            return True
        return all(each.has_room_behind(snapshot.index) for each in snapshot.histories)

    def _create(self, interests: Interests, older: Snapshot | None) -> Snapshot:
        if older is not None:
            self.evict(older)
        self._keep_at_most(interests, MOST_KEPT - 1)
        self._serial += 1
        snapshot = Snapshot(interests, self.feeds.histories_of(interests), self._serial)
        self.shared[interests] = snapshot
        snapshot.replays = len(interests) == 1 and snapshot.histories[0].replay is not None
        if is_wide(interests):
            snapshot.feed = self.feeds.enter(interests)
        self._start(snapshot)
        return snapshot

    def _pass(self, snapshot: Snapshot) -> None:
        """The history has passed it."""
        if snapshot.is_passed:  # it was made to its end since, and is kept already
            return
        if snapshot.is_complete and snapshot.index >= snapshot.newest_dropped:  # the same, and it is newer
            return
        if _is_kept(snapshot) and not snapshot.is_gone:
            if snapshot.is_complete:
                self._keep(snapshot)
                self.parking.wake((snapshot,))
            elif not snapshot.keepers:  # if there are, its handler has just been told to go on
                self._hold(snapshot)
        else:
            self._give_up(snapshot)

    def _finish(self, snapshot: Snapshot, sequel: Finished, finished: Collection[Interest]) -> None:
        """These of its interests are finished."""
        if len(finished) == len(snapshot.interests):
            snapshot.sequel = sequel
        else:
            for feed in [snapshot.feed] if isinstance(snapshot.feed, WideFeed) else []:
                for interest in finished:
                    feed.finish(interest, sequel)

    def _keep(self, snapshot: Snapshot) -> None:
        """It stays for those who keep it, and for nobody else."""
        snapshot.is_passed = True
        snapshot.is_cached = False
        self._unshare(snapshot)
        self._hold(snapshot)

    def _hold(self, snapshot: Snapshot) -> None:
        """It is one of those that the history has passed and that are kept, perhaps before it is whole."""
        kept = self._kept.setdefault(snapshot.interests, [])
        if snapshot not in kept:
            kept.append(snapshot)
        self._keep_at_most(snapshot.interests, MOST_KEPT)

    def _let_go(self, snapshot: Snapshot) -> None:
        """It is none of them."""
        kept = self._kept.get(snapshot.interests, [])
        if snapshot in kept:
            kept.remove(snapshot)
            if not kept:
                del self._kept[snapshot.interests]

    def _keep_at_most(self, interests: Interests, count: int) -> None:
        while len(self._kept.get(interests, ())) > count:
            self._give_up(self._kept[interests][0])

    def _abandon(self, snapshot: Snapshot) -> None:
        self._unshare(snapshot)
        if snapshot.cancel is not None:
            snapshot.cancel()
        self.parking.wake((snapshot.writers,))  # those that are not cancelled with the handler

    def _give_up(self, snapshot: Snapshot) -> None:
        """It ends before its readers have had it."""
        self._let_go(snapshot)
        self._empty(snapshot, and_more=not snapshot.is_complete)
        snapshot.is_cached = False
        self._leave_gate(snapshot)
        self._abandon(snapshot)
        self._tell(snapshot)

    def _retire(self, snapshot: Snapshot) -> None:
        """Nobody reads it, and nobody will."""
        self._forget_age(snapshot)
        self._leave_gate(snapshot)
        self._unshare(snapshot)
        if snapshot.cancel is not None:
            snapshot.cancel()
        self._empty(snapshot, and_more=False)

    def _empty(self, snapshot: Snapshot, *, and_more: bool) -> None:
        self.parking.release(snapshot.drop_all(and_more=and_more), size)
        self.parking.release(snapshot.forget_replaced())

    def _leave_gate(self, snapshot: Snapshot) -> None:
        if snapshot.gate is not None:
            self.timeline.leave(snapshot.index, snapshot.gate)
            snapshot.gate = None

    def _tell(self, snapshot: Snapshot) -> None:
        """It is whole now, or will not be."""
        snapshot.whole.end = 1
        self.parking.wake((snapshot, snapshot.whole))

    def _unshare(self, snapshot: Snapshot) -> None:
        """No new subscriber gets it."""
        if self.shared.get(snapshot.interests) is snapshot:
            del self.shared[snapshot.interests]
        if snapshot.feed is not None:
            feed, snapshot.feed = snapshot.feed, None
            self.feeds.leave(feed)

    def _remember_age(self, snapshot: Snapshot) -> None:
        for history in snapshot.histories:
            insort(history.ageing, snapshot, key=_age)

    def _forget_age(self, snapshot: Snapshot) -> None:
        for history in snapshot.histories:
            ageing = history.ageing
            place = bisect_left(ageing, _age(snapshot), key=_age)
            if ageing[place : place + 1] == [snapshot]:  # if not, it is about to be passed
                del ageing[place]

    def _forget(self, floors: Mapping[Topic[Any], tuple[int, int]], *, unread_only: bool) -> None:
        """`unread_only`: what somebody reads stays for them."""
        self._serial += 1
        self.replays.forget(floors)
        logs: list[MutableSequence[Any]] = []
        feeds: list[dict[Subject, PlainFeed]] = []
        mine: dict[Snapshot, None] = {}
        for topic, (floor, dropped) in floors.items():
            log, replaced, plain, ageing = self.feeds.histories[topic].clear(floor, dropped)
            logs.append(log)
            if not unread_only:
                logs.append(list(replaced.values()))
                replaced.clear()
            feeds.append(plain)
            self.feeds.histories[topic].era = self._serial
            mine.update(dict.fromkeys(ageing))
        for snapshot in mine:
            if len(snapshot.histories) > 1:
                self._forget_age(snapshot)
        mine.update(dict.fromkeys(_taken(self.shared, floors)))
        mine.update(dict.fromkeys(each for kept in _taken(self._kept, floors) for each in kept))
        steps = self._forgetting(list(mine), logs, feeds, unread_only=unread_only)
        count = len(mine) + sum(map(len, feeds)) + sum(map(len, logs)) // PORTION
        self.parking.in_slices(steps, count)

    def _forgetting(
        self,
        snapshots: MutableSequence[Snapshot],
        logs: MutableSequence[MutableSequence[Any]],
        feeds: MutableSequence[dict[Subject, PlainFeed]],
        *,
        unread_only: bool,
    ) -> Iterator[None]:
        while snapshots:
            snapshot = snapshots.pop()
            if not (unread_only and snapshot.readers and snapshot.is_complete) and not snapshot.is_gone:
                self._give_up(snapshot)
            yield
        while logs:
            yield from emptying(logs.pop())
        while feeds:
            of_topic = feeds.pop()
            while of_topic:
                _, feed = of_topic.popitem()
                if not (unread_only and feed.readers):
                    yield from emptying(feed.drop_all(and_more=False), size)
                yield


def _is_kept(snapshot: Snapshot) -> bool:
    """Whether somebody reads it who may do so to its end although the history has passed it."""
    return snapshot.keepers > 0 or (snapshot.replays and snapshot.readers > 0)


def _taken(held: dict[Interests, T], topics: Container[Topic[Any]]) -> list[T]:
    """Takes out what is of one of these topics."""
    taken = [each for each in held if any(interest.topic in topics for interest in each)]
    return [held.pop(interests) for interests in taken]


def _age(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.index, snapshot.serial
