"""What one reader takes from where it stands. Decides, and never waits.

How it gets there, and from there on, is its course, see `_course`.
It moves only in a synchronous stretch that ends with the event returned: a call that is cancelled, wherever it waits,
has consumed nothing (D12).

There is one walk for each kind of source:

| the source                  | one by one         | several at once     |
|-----------------------------|--------------------|---------------------|
| the live feed, a page       | `_take_live`       | `_slice`            |
| a snapshot                  | `_take_of_snapshot`| `_slice`            |
| where it has to be asked    | `_take_shown`      | `_take_checked`     |
| what it is behind with      | `_take_conflated`  |                     |
| a gate                      | `Course._look`     |                     |

In an ordered source, a feed or a page, what is at or below the bound comes first and is leapt over.
"""

from typing import Any, Final

from typing_extensions import TypeVar

from ._buffer import Feed, Finished
from ._conflation import MOST_FOLDED, Conflation
from ._course import LIVE, READING, REPLAYING, Course, Place
from ._events import END_OF_SNAPSHOT, Event, PayloadEvents, size
from ._passages import Snapshot
from ._replays import Page
from ._rights import Rights

P = TypeVar("P", default=Any)

SCAN: Final = 256  # hidden events that are passed over before the loop has its turn
MOST_CHECKED: Final = 4096  # deliveries that one call looks at where each is checked for its reader
MOST_AT_ONCE: Final = 65_536  # events in one batch

_WITH_EVENTS: Final = (LIVE, READING, REPLAYING)


class Reader(Course[P]):
    """The loop-free part of a subscription."""

    __slots__ = ()

    def _pass_late(self) -> None:
        """Passes over late events that come next, also those that are gone."""
        feed = self._feed
        if self._phase is LIVE and self._position < feed.end and feed.dropped <= self._index:
            self._leap(max(self._position, feed.after(self._index)))

    def _take(self) -> Event[P] | None:
        """Moves to behind the next event that the reader may see, and returns it.

        None if nothing is ready, or if so many in a row were hidden that the loop should have its turn.
        """
        if self._end is not None:
            raise self._error()
        if self._passages.timeline.is_stopped:
            self._stop_if_done()
            if self._end is not None:
                raise self._error()
        if self._phase is LIVE:
            return self._take_live(self._feed, self._position)
        if self._phase is READING:
            assert self._snapshot is not None
            return self._take_of_snapshot(self._snapshot)
        if self._phase is REPLAYING:
            assert isinstance(self._source, Page)
            return self._take_replayed(self._source)
        return self._look()

    def _take_live(self, feed: Feed, position: int) -> Event[P] | None:
        lag = feed.end - position
        if lag > self._peak_lag:
            self._peak_lag = lag
        if position < feed.start:
            if feed.dropped > self._index and not self._can_conflate(feed):
                return self._fall_off(feed.start - position)
            self._leap(position := feed.start)  # what was dropped was at or below the bound, or is conflated
        if position < feed.end and feed.items[position - feed.base].index <= self._index:
            self._leap(position := feed.after(self._index))  # late events
        if self._conflation is not None and (feed.end - position > 1 or feed.dropped > self._index):
            return self._take_conflated(feed, self._conflation)
        if position == feed.end:
            if feed.sequel is None:
                return None
            event = self._go_further()
            return event if self._feed is feed else self._take()
        if self._rights is not None:
            return self._take_shown(feed, self._rights)
        return self._take_next(feed, position)

    def _take_replayed(self, page: Page) -> Event[P] | None:
        if self._awaited is not None and not self._accept(page, self._awaited):
            return None
        if self._position == page.end:
            return None if page.sequel is None else self._leave_page(page.sequel)
        if self._rights is not None:
            return self._take_shown(page, self._rights)
        return self._take_next(page, self._position)

    def _take_next(self, feed: Feed, position: int) -> Event[P]:
        """The next event of an ordered feed, which is there and past the bound."""
        event = feed.items[position - feed.base]
        self._index = event.index
        self._taken = event.mark
        self._position = position + 1
        if self._conflation is None:
            self._unchecked = feed
            self._stop = min(feed.end, self._burst)
        return event

    def _take_shown(  # noqa: C901 - in calls of its own it takes a third more time
        self,
        feed: Feed,
        rights: Rights,
        events: list[Event[P]] | None = None,
        limit: int = 1,
        scan: int = SCAN,
    ) -> Event[P] | None:
        """The next event that the reader may see; None if none of the next ones is.

        With a list, up to `limit` of them are put there, until `scan` more were looked at; what is there when somebody
        who is asked raises is taken.
        """
        position = self._position
        scanned = position + scan
        if scanned > feed.end:
            scanned = feed.end
        where, replaced = rights.where, feed.replaced
        hidden = 0
        shown: Event[P] | None = None
        was_receiving, self._is_receiving = self._is_receiving, "asking"
        try:
            while feed.start <= position < scanned:  # who is asked may publish, and what is next be dropped
                event = feed.items[position - feed.base]
                payload: Any = event.payload
                if (
                    rights.asks_one
                    and type(payload) is not PayloadEvents
                    and not (replaced and id(event) in replaced)
                ):
                    # The same as below, without the calls.
                    answer: object = (
                        payload.has_read_permission(rights.authorizer) if where is None else where(payload)
                    )
                    if type(answer) is not bool:
                        answer = rights.is_yes(payload, answer)
                    if self._end is not None:
                        raise self._error()
                    if answer:
                        shown = event
                    else:
                        shown = None
                        rights.hidden += 1
                else:
                    shown = self._shown(event, rights)
                    if shown is not event:
                        rights.count(event, shown)
                position += 1
                self._index = event.index
                self._taken = event.mark
                if shown is None:
                    hidden += 1
                elif events is None:
                    break
                else:
                    events.append(shown)
                    if len(events) >= limit:
                        break
        finally:
            self._is_receiving = was_receiving
            is_open = self._end is None
            self._passed += is_open * hidden
            self._position = position if is_open else self._position
        return shown

    def _take_conflated(self, feed: Feed, conflation: Conflation) -> Event[P] | None:
        """One event in the place of all that are ready, or None if nothing of them is left."""
        position, rights, latest = feed.end, self._rights, feed.latest
        if latest is not None and rights is None and latest.dropped <= self._index:
            events = latest.newer_than(self._index)
            index, mark = events[-1].index, events[-1].mark
        else:
            folded, count = [], 0
            begin = self._position - feed.base
            for item in feed.items[begin : begin + MOST_FOLDED]:
                folded.append(item)
                count += size(item)
                if count >= MOST_FOLDED:
                    break
            position = self._position + len(folded)
            index, mark = folded[-1].index, folded[-1].mark
            events = self._folded(folded, conflation)
        self._passed += position - self._position - bool(events)
        self._position = position
        self._index = index
        self._taken = mark
        if not events:
            return None
        conflation.conflated += 1
        return Event(events[0].topic, index, PayloadEvents(events, is_conflated=True), mark=mark)

    def _folded(self, items: list[Event[P]], conflation: Conflation) -> list[Event[P]]:
        was_receiving, self._is_receiving = self._is_receiving, "asking"
        try:
            singles = [event for item in items for event in item.events]
            events = conflation.folded(singles, self._rights, self._feed.replaced)
        finally:
            self._is_receiving = was_receiving
        if self._end is not None:  # as in _shown()
            raise self._error()
        return events

    def _shown(self, event: Event[P], rights: Rights) -> Event[P] | None:
        """What the reader may see of an event of its source."""
        was_receiving, self._is_receiving = self._is_receiving, "asking"
        try:
            shown = rights.shown(event, self._source.replaced)
        finally:
            self._is_receiving = was_receiving
        if self._end is not None:  # a payload, the authorizer or the filter has just closed this subscription
            raise self._error()
        return shown

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
                    is_shown = self._rights is None or self._shown(event, self._rights) is not None
                except Exception:  # noqa: BLE001 - who receives it is told
                    return
                if is_shown:
                    return
                assert self._rights is not None
                self._rights.count(event, None)
                self._index = event.index
                self._taken = event.mark
            self._position += 1
            self._passed += 1

    def _take_of_snapshot(self, snapshot: Snapshot) -> Event[P] | None:
        if (lag := self._lag()) > self._peak_lag:
            self._peak_lag = lag
        scanned = self._position + SCAN
        while self._position < snapshot.end and self._position < scanned and not self._has_lost(snapshot):
            event = snapshot.items[self._position]
            shown = event if self._rights is None else self._shown(event, self._rights)
            if self._rights is not None and shown is not event:
                self._rights.count(event, shown)
            if not self._move_in_snapshot(snapshot, 1, event):
                self._passed += 1
                return None
            if shown is not None:
                return shown
            self._passed += 1
        if self._snapshot is snapshot and self._has_lost(snapshot):
            return self._fall_off(max(1, snapshot.end - self._position))
        return None

    def _move_in_snapshot(self, snapshot: Snapshot, count: int, last: Event[Any]) -> bool:
        """False if the last one is not to be returned: it is the end of a snapshot that is of another copy."""
        self._position += count
        self._passages.reach(snapshot, self._position)
        if last.payload is END_OF_SNAPSHOT:
            index, mark, sequel = snapshot.index, snapshot.mark, snapshot.sequel
            gate, is_refuted = snapshot.gate, snapshot.is_refuted
            self._leave_passage()
            if is_refuted:
                self._begin_anew()
                return False
            if isinstance(sequel, Finished):
                self._learn_of_end(sequel)
            if gate is not None and not gate.end:
                self._known = place = Place(index, mark)
                self._index = index
                self._wait_for(place)
                self._tell_watchers()
            else:
                self._go_live(index, last.mark)
        return True

    def _has_lost(self, snapshot: Snapshot) -> bool:
        if self._position < snapshot.start:
            return True
        if self._keeps or snapshot.replays or not snapshot.is_complete:
            return False
        histories = snapshot.histories
        dropped = histories[0].dropped if len(histories) == 1 else snapshot.newest_dropped
        return snapshot.index < dropped

    def _take_batch(self, most: int | None) -> list[Event[P]]:
        """Moves to behind all that is ready, at most `most` events, and returns it; empty like None of `_take`."""
        if self._rights is not None or self._conflation is not None:
            return self._take_checked(MOST_CHECKED if most is None else min(most, MOST_CHECKED))
        limit = MOST_AT_ONCE if most is None else min(most, MOST_AT_ONCE)
        events: list[Event[P]] = []
        if self._is_delicate():
            if (event := self._take()) is None:
                return events
            events.append(event)
        while len(events) < limit and self._stands_before_events():
            more = self._slice(limit - len(events))
            events = events + more if events else more
        return events

    def _take_checked(self, limit: int) -> list[Event[P]]:
        events: list[Event[P]] = []
        index, taken, delivered = self._index, self._taken, self._delivered
        checked = 0
        while len(events) < limit and checked < MOST_CHECKED and self._is_ready():
            position = self._position
            # An end that comes next, or a gap, is for the next call.
            if events and not (self._source.start <= position < self._source.end):
                break
            event: Event[P] | None = None
            most = SCAN if self._conflation is None else MOST_FOLDED
            try:
                if events and self._rights is not None and self._phase is LIVE and self._conflation is None:
                    most = MOST_CHECKED
                    self._take_shown(self._feed, self._rights, events, limit, MOST_CHECKED - checked)
                else:
                    event = self._take()
            except BaseException as error:
                # Raised by a payload that was asked who may read it: the reader stands before it, and the next call
                # raises it again. But if that has closed this subscription nothing may be returned any more.
                if self._end is not None:
                    if not self._end.is_finished:  # which nobody can do while there is something to return
                        self._index, self._taken = index, taken
                        self._passed = self._position - delivered
                    end = self._error()
                    raise end from (end.__cause__ if isinstance(error, type(end)) else error)
                if events:
                    break
                raise
            # A leap to the live feed may go either way.
            checked += max(1, min(self._position - position, most))
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
        if self._phase is not READING and first.index <= self._index:
            self._leap(source.after(self._index))
        begin = self._position - source.base
        events = source.items[begin : begin + limit]
        if self._snapshot is not None:
            if not self._move_in_snapshot(self._snapshot, len(events), events[-1]):
                events.pop()
                self._passed += 1
        elif events:
            self._position += len(events)
            self._index = events[-1].index
            self._taken = events[-1].mark
        return events

    def _stands_before_events(self) -> bool:
        """Whether there are events, and none that is gone, where it stands."""
        source = self._source
        is_at_gate = self._phase not in _WITH_EVENTS or self._awaited is not None
        return source.start <= self._position < source.end and not is_at_gate

    def _is_delicate(self) -> bool:
        """Whether there is more to look at than the events that are ready, or at most one of these; so at a gate."""
        source, snapshot = self._source, self._snapshot
        if self._end is not None or not source.start <= self._position < source.end - 1:
            return True
        if self._awaited is not None:
            return True
        if snapshot is None:
            return False
        return self._passages.timeline.is_stopped or self._has_lost(snapshot)
