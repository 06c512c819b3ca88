"""One reader's place in the shared buffers, and how its reading has ended. Decides, and never waits.

The cursor stands in a snapshot first and then in the live feed of its subject, or in the feed from the start:

    (marker) -> snapshot ... end-of-snapshot -> live ...
       ^--- until the snapshot is whole <---------'      with on_lag="reset"

A reader that is reset waits until its new snapshot is whole: its source is `Snapshot.whole` meanwhile, an empty feed
that gets an end when it is time to look.

It moves only in a synchronous stretch that ends with the event returned: a call that is cancelled, wherever it
waits, has consumed nothing.
How the reading ended lies beside the buffers and is looked at first in that stretch, so that a force-close
overtakes whatever is queued.
The publisher may write that end into very many cursors at once; letting go of what they read from follows later.
When the publisher has stopped, the timeline says so: the cursor goes on to the last event, and ends there.

While the cursor is live, `index` is at once the index reached and the bound at or below which nothing may come.
That drops late events which the snapshot had already seen, and those before the index of a resume from the future.
"""

from collections.abc import Callable
from typing import Any, Final, Generic, Literal, NamedTuple, assert_never

from typing_extensions import TypeVar

from ._buffer import Feed
from ._errors import (
    ClosedResourceError,
    CloseReason,
    SnapshotFailed,
    SubscriptionForceClosed,
    SubscriptionLagged,
)
from ._events import END_OF_SNAPSHOT, NEW_SNAPSHOT_TO_FOLLOW, Event, Subject, SubscribeRequest, readable
from ._topic import Snapshot, TopicState
from ._wait import Slot

P = TypeVar("P", default=Any)

SCAN: Final = 256  # hidden events that are passed over before the loop has its turn
MOST_CHECKED: Final = 4096  # deliveries that one call looks at where each is checked for its reader
MOST_AT_ONCE: Final = 65_536  # events in one batch

_NOWHERE: Final = Feed(Subject())  # where a cursor stands that has ended


class End(NamedTuple):
    """How the reading ended: `reason` is None if its owner closed it.

    `horizon` is the index up to which the reader had had everything, where that is known to be all there is.
    """

    reason: CloseReason | None
    missed: int = 0
    cause: BaseException | None = None
    horizon: int = 0


class Cursor(Slot, Generic[P]):
    """The loop-free part of a subscription; `leave` is called once, when it ends."""

    __slots__ = (
        "_authorizer",
        "_burst",
        "_end",
        "_feed",
        "_index",
        "_is_marker_due",
        "_is_receiving",
        "_keeps",
        "_leave",
        "_passed",
        "_peak_lag",
        "_position",
        "_resets",
        "_snapshot",
        "_source",
        "_state",
        "_stop",
        "_unchecked",
        "_watchers",
        "epoch",
        "request",
    )

    request: SubscribeRequest[P]
    """What was asked for."""
    epoch: str
    """The timeline that `index` belongs to."""

    def __init__(
        self,
        request: SubscribeRequest[P],
        state: TopicState,
        leave: "Callable[[Cursor[P]], None]",
        *,
        resume: bool,
        authorizer: Any,
        resets: bool,
    ) -> None:
        super().__init__()
        self.request = request
        self.epoch = state.timeline.epoch
        self._state = state
        self._leave = leave
        self._authorizer = authorizer
        self._resets = resets
        # All deliveries of the subject go here; the cursor counts as a reader of it until it has ended.
        self._feed = state.history.enter(request.subject)
        # What the position is in: the snapshot if there is one, otherwise the feed; `Snapshot.whole` while it waits.
        self._source: Feed = self._feed
        self._snapshot: Snapshot | None = None
        # Whether it takes the snapshot as a whole, and keeps it to its end although the history has passed it.
        self._keeps = False
        # The feed too, while whatever comes in it is for the reader as it is: no authorizer, and past the bound.
        self._unchecked: Feed = _NOWHERE
        self._position = 0
        # `_position - _passed` is the number of events returned.
        self._passed = 0
        # Up to which position `async for` may go before its next checkpoint, and before it looks what there is in
        # the unchecked feed. Both are 0 after a leap to another position.
        self._burst = self._stop = 0
        self._index = 0
        self._is_marker_due = False
        # Whether a task waits for an event, and then `_burst` is 0, or a payload is asked who may read it.
        self._is_receiving: bool | Literal["asking"] = False
        self._end: End | None = None
        self._peak_lag = 0
        # The slots of the tasks that wait until something is published; None as long as there was none.
        self._watchers: dict[Slot, None] | None = None
        if resume:
            self._index = request.index
            self._leap(self._feed.after(request.index))
        else:
            is_stale = request.index > 0
            self._enter_snapshot(fresh=False, keeps=is_stale and resets)
            self._is_marker_due = is_stale and not resets

    @property
    def _delivered(self) -> int:
        return self._position - self._passed

    def _leap(self, position: int) -> None:
        """Moves to another position, perhaps of another feed, and delivers nothing."""
        self._passed += position - self._position
        self._position = position
        self._burst = self._stop = 0

    def _is_ready(self) -> bool:
        return (
            self._position < self._source.end
            or self._is_marker_due
            or self._end is not None
            or self._state.timeline.is_stopped
        )

    def _lag(self) -> int:
        """How many deliveries are there that were not taken; those behind a snapshot count once it is complete."""
        snapshot = self._snapshot
        if snapshot is None:
            return self._source.end - self._position + self._is_marker_due
        if self._source is not snapshot and not snapshot.is_complete:
            return 0
        lag = snapshot.end - self._position + (self._is_marker_due or self._source is not snapshot)
        if snapshot.is_complete and not snapshot.is_gone:
            lag += self._feed.end - self._feed.after(snapshot.index)
        return lag

    def _take(self) -> Event[P] | None:
        """Moves to behind the next event that the reader may see, and returns it.

        None if nothing is ready, or if so many in a row were hidden that the loop should have its turn.
        """
        if self._end is not None:
            raise self._error()
        if self._state.timeline.is_stopped:
            self._stop_if_done()
            if self._end is not None:
                raise self._error()
        if self._is_marker_due:
            return self._take_marker()
        snapshot = self._snapshot
        if snapshot is None:
            return self._take_live(self._feed, self._position)
        if self._source is not snapshot:
            return self._take_whole(snapshot)
        return self._take_of_snapshot(snapshot)

    def _take_live(self, feed: Feed, position: int) -> Event[P] | None:
        lag = feed.end - position
        if lag > self._peak_lag:
            self._peak_lag = lag
        if position < feed.start:
            if feed.dropped > self._index:
                return self._fall_off(feed.start - position)
            self._leap(position := feed.start)  # what was dropped was at or below the bound
        scanned = position + SCAN
        if scanned > feed.end:
            scanned = feed.end
        while feed.start <= position < scanned:  # the authorizer may publish, and what comes next be dropped
            event = feed.items[position - feed.base]
            shown = None
            if event.index > self._index:
                shown = event if self._authorizer is None else self._readable(event)
                self._index = event.index
            position += 1
            self._position = position
            if shown is not None:
                if self._authorizer is None:
                    self._unchecked = feed
                    self._stop = min(feed.end, self._burst)
                return shown
            self._passed += 1
        return None

    def _pass_hidden(self) -> None:
        """Passes over what is hidden and comes next, but not over very much; stands before what raises."""
        if self._is_receiving == "asking":
            return
        feed = self._feed
        for _ in range(min(feed.end - self._position, MOST_CHECKED)):
            if not feed.start <= self._position < feed.end:
                return
            event = feed.items[self._position - feed.base]
            if event.index > self._index:
                try:
                    is_shown = self._authorizer is None or self._readable(event) is not None
                except Exception:  # noqa: BLE001 - who receives it is told
                    return
                if is_shown:
                    return
                self._index = event.index
            self._position += 1
            self._passed += 1

    def _take_whole(self, snapshot: Snapshot) -> Event[P] | None:
        """The marker, once the snapshot behind it is whole."""
        if not snapshot.whole.end:
            return None
        if snapshot.is_gone:
            return self._fall_off(0)
        self._source = snapshot
        return self._take_marker()

    def _take_of_snapshot(self, snapshot: Snapshot) -> Event[P] | None:
        if (lag := self._lag()) > self._peak_lag:
            self._peak_lag = lag
        scanned = self._position + SCAN
        while self._position < snapshot.end and self._position < scanned and not self._has_lost(snapshot):
            event = snapshot.items[self._position]
            shown = event if self._authorizer is None else self._readable(event)
            self._move_in_snapshot(snapshot, 1, event)
            if shown is not None:
                return shown
            self._passed += 1
        if self._snapshot is snapshot and self._has_lost(snapshot):
            return self._fall_off(max(1, snapshot.end - self._position))
        return None

    def _has_lost(self, snapshot: Snapshot) -> bool:
        if self._position < snapshot.start:
            return True
        return not self._keeps and snapshot.is_complete and snapshot.index < self._state.history.dropped

    def _take_marker(self) -> Event[P]:
        self._is_marker_due = False
        self._index = 0
        self._passed -= 1
        self._burst -= 1
        return Event(self.request.topic, 0, NEW_SNAPSHOT_TO_FOLLOW)

    def _take_batch(self, most: int | None) -> list[Event[P]]:
        """Moves to behind all that is ready, at most `most` events, and returns it; empty like None of `_take`."""
        if self._authorizer is not None:
            return self._take_checked(MOST_CHECKED if most is None else min(most, MOST_CHECKED))
        limit = MOST_AT_ONCE if most is None else min(most, MOST_AT_ONCE)
        events: list[Event[P]] = []
        if self._is_delicate():
            if (event := self._take()) is None:
                return events
            events.append(event)
        while len(events) < limit and self._source.start <= self._position < self._source.end:
            more = self._slice(limit - len(events))
            events = events + more if events else more
        return events

    def _is_delicate(self) -> bool:
        """Whether there is more to look at than the events that are ready, or at most one of these.

        `Snapshot.whole`, where a reader waits, never has more than one.
        """
        source, snapshot = self._source, self._snapshot
        if (
            self._is_marker_due
            or self._end is not None
            or not source.start <= self._position < source.end - 1
        ):
            return True
        if snapshot is None:
            return False
        return self._state.timeline.is_stopped or self._has_lost(snapshot)

    def _take_checked(self, limit: int) -> list[Event[P]]:
        events: list[Event[P]] = []
        index, delivered = self._index, self._delivered
        checked = 0
        while len(events) < limit and checked < MOST_CHECKED and self._is_ready():
            position = self._position
            # An end that comes next, or a gap, is for the next call.
            if events and not (self._source.start <= position < self._source.end):
                break
            try:
                event = self._take()
            except BaseException as error:
                # Raised by a payload that was asked who may read it: the cursor stands before it, and the next call
                # raises it again. But if that has closed this subscription nothing may be returned any more.
                if self._end is not None:
                    self._index, self._passed = index, self._position - delivered
                    end = self._error()
                    raise end from (end.__cause__ if isinstance(error, type(end)) else error)
                if events:
                    break
                raise
            # A leap to the live feed may go either way.
            checked += max(1, min(self._position - position, SCAN))
            if event is not None:
                events.append(event)
            elif not events:  # the loop has its turn before more is looked for
                break
        return events

    def _slice(self, limit: int) -> list[Event[P]]:
        """What comes next in the source, which has something, as one list."""
        source = self._source
        self._peak_lag = max(self._peak_lag, self._lag())
        first = source.items[self._position - source.base]
        if self._snapshot is None and first.index <= self._index:
            self._leap(source.after(self._index))
        begin = self._position - source.base
        events = source.items[begin : begin + limit]
        if self._snapshot is not None:
            self._move_in_snapshot(self._snapshot, len(events), events[-1])
        elif events:
            self._position += len(events)
            self._index = events[-1].index
        return events

    def _readable(self, event: Event[P]) -> Event[P] | None:
        was_receiving, self._is_receiving = self._is_receiving, "asking"
        try:
            shown = readable(event, self._authorizer)
        finally:
            self._is_receiving = was_receiving
        if self._end is not None:  # the payload, or its authorizer, has just closed this subscription
            raise self._error()
        return shown

    def _enter_snapshot(self, *, fresh: bool, keeps: bool) -> None:
        snapshot = self._state.join(self.request.subject, fresh=fresh, keeps=keeps)
        self._snapshot = snapshot
        self._keeps = keeps
        self._source = snapshot.whole if keeps else snapshot

    def _move_in_snapshot(self, snapshot: Snapshot, count: int, last: Event[Any]) -> None:
        self._position += count
        self._state.reach(snapshot, self._position)
        if last.payload is END_OF_SNAPSHOT:
            feed = self._feed
            self._index = snapshot.index
            self._source = feed
            # If the history has passed a snapshot that was kept, the cursor stands before what is gone.
            self._leap(feed.after(snapshot.index) - (feed.dropped > snapshot.index))
            self._snapshot = None
            self._state.leave(snapshot, keeps=self._keeps)

    def _fall_off(self, missed: int) -> Event[P] | None:
        """What the cursor stood before is gone: the end, or a new snapshot."""
        snapshot = self._snapshot
        if snapshot is not None and snapshot.failure is not None:
            self._finish(End(CloseReason.SNAPSHOT_FAILED, cause=snapshot.failure))
            raise self._error()
        if self._state.timeline.is_stopped:
            self._finish(End(CloseReason.STOPPED))
            raise self._error()
        if not self._resets:
            self._finish(End(CloseReason.LAGGED, missed))
            raise self._error()
        if snapshot is not None:
            self._state.leave(snapshot, keeps=self._keeps)
        self._enter_snapshot(fresh=True, keeps=True)
        self._unchecked = _NOWHERE
        self._leap(0)
        assert self._snapshot is not None
        return self._take_whole(self._snapshot)

    def _stop_if_done(self) -> None:
        """The publisher has stopped: ends the reading, if there is nothing more to read and it has not ended yet."""
        if self._end is not None:
            return
        snapshot = self._snapshot
        if snapshot is not None:
            if snapshot.failure is not None:
                self._finish(End(CloseReason.SNAPSHOT_FAILED, cause=snapshot.failure))
            elif not snapshot.is_complete:
                self._finish(End(CloseReason.STOPPED))
        elif self._position == self._feed.end:
            horizon = max(self._index, self._state.timeline.index)
            self._finish(End(CloseReason.STOPPED, horizon=horizon))

    def _finish(self, end: End) -> None:
        """Ends the reading for good. Does not wake a reader that waits."""
        self._end = end
        self._leave(self)
        self._detach()

    def _detach(self) -> None:
        """Lets go of everything, after the end."""
        self._source.waiting.pop(self, None)
        self._state.history.leave(self._feed)
        if self._snapshot is not None:
            self._state.leave(self._snapshot, keeps=self._keeps)
        self._snapshot = None
        self._source = self._feed = self._unchecked = _NOWHERE
        self._is_marker_due = False
        self._leap(0)
        if self._watchers:
            self._state.parking.wake_each(tuple(self._watchers))

    def _scout(self) -> "Cursor[P]":
        """A second cursor in the same place, which reads ahead; nobody else knows of it."""
        scout: Cursor[P] = Cursor.__new__(Cursor)
        for name in Cursor.__slots__:
            setattr(scout, name, getattr(self, name))
        scout._parked = None
        scout._leave = _no_leave
        scout._watchers = None
        scout._is_receiving = False
        scout._feed.readers += 1
        if scout._snapshot is not None:
            self._state.enter(scout._snapshot, keeps=scout._keeps)
        return scout

    def _unfinished(self) -> Snapshot | None:
        """The snapshot that it reads, if that is not known to be whole or not."""
        snapshot = self._snapshot
        if snapshot is None or snapshot.whole.end or self._state.timeline.is_stopped:
            return None
        return snapshot

    def _has_all(self, index: int) -> bool:
        """Whether it has everything up to an index that is published."""
        return self._snapshot is None and (self._index >= index or self._position == self._feed.end)

    def _retire(self) -> None:
        """Leaves, if it is a scout that has neither ended nor been followed."""
        if self._end is None and self._feed is not _NOWHERE:
            self._detach()

    def _follow(self, scout: "Cursor[P]") -> None:
        """Moves to where the scout stands, which leaves."""
        if self._snapshot is not None:
            self._state.leave(self._snapshot, keeps=self._keeps)
        for name in ("_source", "_snapshot", "_keeps", "_is_marker_due", "_position", "_passed", "_index"):
            setattr(self, name, getattr(scout, name))
        self._unchecked = _NOWHERE
        self._burst = self._stop = 0
        self._peak_lag = max(self._peak_lag, scout._peak_lag)
        self._feed.readers -= 1
        scout._feed = _NOWHERE  # its places are those of this cursor now

    def _error(self) -> Exception:
        """For how it ended; a new one each time, because one that was raised before drags its traceback along."""
        assert self._end is not None
        reason, missed, cause, _ = self._end
        match reason:
            case None:
                return ClosedResourceError("this subscription was closed by its owner")
            case CloseReason.LAGGED:
                return SubscriptionLagged(self._index, self.epoch, missed)
            case CloseReason.SNAPSHOT_FAILED:
                failed = SnapshotFailed(self._index, self.epoch)
                failed.__cause__ = cause
                return failed
            case CloseReason.TOKEN | CloseReason.REFRESH | CloseReason.STOPPED:
                return SubscriptionForceClosed(reason, self._index, self.epoch)
            case _:
                assert_never(reason)


def _no_leave(_: Cursor[Any]) -> None:
    """A scout is no subscription."""
