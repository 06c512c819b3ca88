"""One reader's place in the shared buffers, and how its reading has ended. Decides, and never waits.

The cursor stands in a snapshot first and then in the live feed of its subject, or in the feed from the start:

    (marker) -> snapshot ... end-of-snapshot -> live ...
       ^-------------- on_lag="reset" -------------'

It moves only in a synchronous stretch that ends with the event returned: a call that is cancelled, wherever it
waits, has consumed nothing.
How the reading ended lies beside the buffers and is looked at first in that stretch, so that a force-close
overtakes whatever is queued.

While the cursor is live, `index` is at once the index reached and the bound at or below which nothing may come.
That drops late events which the snapshot had already seen, and those before the index of a resume from the future.
"""

import sys
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
MOST_CHECKED: Final = 4096  # deliveries in one batch where each is checked for its reader

_NOWHERE: Final = Feed(Subject())  # where a cursor stands that has ended


class End(NamedTuple):
    """How the reading ended: `reason` is None if its owner closed it."""

    reason: CloseReason | None
    missed: int = 0
    cause: BaseException | None = None


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
        # What the position is in: the snapshot if there is one, otherwise the feed.
        self._source: Feed = self._feed
        self._snapshot: Snapshot | None = None
        # The feed too, while whatever comes in it is for the reader as it is: no authorizer, and past the bound.
        self._unchecked: Feed = _NOWHERE
        self._position = 0
        # How many positions were passed without a delivery; less what was delivered without one.
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
        if resume:
            self._index = request.index
            self._leap(self._feed.after(request.index))
        else:
            self._enter_snapshot(fresh=False)
            self._is_marker_due = request.index > 0

    @property
    def _delivered(self) -> int:
        return self._position - self._passed

    def _leap(self, position: int) -> None:
        """Moves to another position, perhaps of another feed, and delivers nothing."""
        self._passed += position - self._position
        self._position = position
        self._burst = self._stop = 0

    def _is_ready(self) -> bool:
        return self._position < self._source.end or self._is_marker_due or self._end is not None

    def _lag(self) -> int:
        """How many deliveries are there that were not taken; those behind a snapshot count once it is complete."""
        lag = self._source.end - self._position + self._is_marker_due
        snapshot = self._snapshot
        if snapshot is not None and snapshot.is_complete and not snapshot.is_gone:
            lag += self._feed.end - self._feed.after(snapshot.index)
        return lag

    def _take(self) -> Event[P] | None:
        """Moves to behind the next event that the reader may see, and returns it.

        None if nothing is ready, or if so many in a row were hidden that the loop should have its turn.
        """
        if self._end is not None:
            raise self._error()
        if self._is_marker_due:
            return self._take_marker()
        if self._snapshot is not None:
            return self._take_of_snapshot(self._snapshot)
        return self._take_live(self._feed, self._position)

    def _take_live(self, feed: Feed, position: int) -> Event[P] | None:
        lag = feed.end - position
        self._peak_lag = max(self._peak_lag, lag)
        if position < feed.start:
            if feed.dropped > self._index:
                return self._fall_off(feed.start - position)
            self._leap(position := feed.start)  # what was dropped was at or below the bound
        scanned = feed.end if lag <= SCAN else position + SCAN
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
        feed = self._feed
        while feed.start <= self._position < feed.end and self._is_receiving != "asking":
            event = feed.items[self._position - feed.base]
            if event.index > self._index:
                if self._authorizer is None or self._readable(event) is not None:
                    return
                self._index = event.index
            self._position += 1
            self._passed += 1

    def _take_of_snapshot(self, snapshot: Snapshot) -> Event[P] | None:
        self._peak_lag = max(self._peak_lag, self._lag())
        if self._position < snapshot.start:
            return self._fall_off(snapshot.start - self._position)
        for _ in range(min(snapshot.end - self._position, SCAN)):
            if self._position < snapshot.start:
                break
            event = snapshot.items[self._position]
            shown = event if self._authorizer is None else self._readable(event)
            self._move_in_snapshot(snapshot, 1, event)
            if shown is not None:
                return shown
            self._passed += 1
        return None

    def _take_marker(self) -> Event[P]:
        self._is_marker_due = False
        self._passed -= 1
        self._burst -= 1
        return Event(self.request.topic, 0, NEW_SNAPSHOT_TO_FOLLOW)

    def _take_batch(self, most: int | None) -> list[Event[P]]:
        """Moves to behind all that is ready, at most `most` events, and returns it; empty like None of `_take`."""
        if self._authorizer is not None:
            return self._take_checked(MOST_CHECKED if most is None else min(most, MOST_CHECKED))
        limit = sys.maxsize if most is None else most
        events: list[Event[P]] = []
        if (
            self._source.end - self._position == 1
            or self._is_marker_due
            or self._end is not None
            or self._position < self._source.start
        ):
            if (event := self._take()) is None:
                return events
            events.append(event)
        while len(events) < limit and self._source.start <= self._position < self._source.end:
            more = self._slice(limit - len(events))
            events = events + more if events else more
        return events

    def _take_checked(self, limit: int) -> list[Event[P]]:
        events: list[Event[P]] = []
        index, delivered = self._index, self._delivered
        checked = 0
        while len(events) < limit and checked < MOST_CHECKED and self._is_ready():
            position = self._position
            if events and position < self._source.start:
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

    def _enter_snapshot(self, *, fresh: bool) -> None:
        self._source = self._snapshot = self._state.join(self.request.subject, fresh=fresh)
        self._unchecked = _NOWHERE
        self._index = 0
        self._leap(0)

    def _move_in_snapshot(self, snapshot: Snapshot, count: int, last: Event[Any]) -> None:
        self._position += count
        self._state.reach(snapshot, self._position)
        if last.payload is END_OF_SNAPSHOT:
            self._index = snapshot.index
            self._source = self._feed
            self._leap(self._feed.after(snapshot.index))
            self._snapshot = None
            self._state.leave(snapshot)

    def _fall_off(self, missed: int) -> Event[P]:
        """What the cursor stood before is gone: the end, or a new snapshot."""
        snapshot = self._snapshot
        if snapshot is not None and snapshot.failure is not None:
            self._finish(End(CloseReason.SNAPSHOT_FAILED, cause=snapshot.failure))
            raise self._error()
        if not self._resets:
            self._finish(End(CloseReason.LAGGED, missed))
            raise self._error()
        if snapshot is not None:
            self._state.leave(snapshot)
        self._enter_snapshot(fresh=True)
        return self._take_marker()

    def _finish(self, end: End) -> None:
        """Ends the reading for good. Does not wake a reader that waits."""
        self._end = end
        self._leave(self)
        self._source.waiting.pop(self, None)
        self._state.history.leave(self._feed)
        if self._snapshot is not None:
            self._state.leave(self._snapshot)
        self._snapshot = None
        self._source = self._feed = self._unchecked = _NOWHERE
        self._leap(0)
        if self._state.timeline.watchers.waiting:
            self._state.parking.wake((self._state.timeline.watchers,))

    def _error(self) -> Exception:
        """For how it ended; a new one each time, because one that was raised before drags its traceback along."""
        assert self._end is not None
        reason, missed, cause = self._end
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
