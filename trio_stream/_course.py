"""The course of one reader: where it stands in the shared buffers, how it goes on, and how it has ended. Never waits.

A reader stands in one feed at a time, its *source*, at a position; what that is depends on its phase:

    fresh:   ------------------------> READING -> LIVE
    stale:   MARKED -> marker -------> READING -> LIVE
    resumed: (JUDGED) -> (FILLING) -------------> LIVE
    behind:  REPLAYING -------------------------> LIVE
    reset:   PENDING -> marker ------> READING -> LIVE

| phase   | the source                 | it ends when                     | then                                    |
|---------|----------------------------|----------------------------------|-----------------------------------------|
| JUDGED  | the gate of an index       | the index is published or passed | the mark is right: LIVE; if not: stale  |
| MARKED  | an open gate               |                                  | marker, READING                         |
| PENDING | the gate of a snapshot     | the snapshot is whole, or gone   | whole: marker, READING; gone: fallen off|
| READING | a snapshot                 | its end-of-snapshot was taken    | LIVE; JUDGED if it is ahead, with a mark|
|         |                            | the history has passed it (D6)   | fallen off                              |
| FILLING | the gate of the live feed  | what is older was filled in      | LIVE                                    |
| REPLAYING | pages, see `_replays`    | the history has what is newer    | LIVE; JUDGED as above                   |
|         |                            | a page is broken (R2)            | fallen off; stale, if not judged yet    |
| LIVE    | the live feed              | the history has passed it (D6)   | fallen off                              |

A gate is a feed without items whose end becomes 1 when it is time to look.
Who has *fallen off* a live feed whose topics can be replayed is REPLAYING.
Anybody else ends, as LAGGED; with on_lag="reset" it is PENDING.
Who is *stale* is MARKED; with on_lag="reset" it is PENDING.
In which feed the reader is live depends on its interests, and nothing else here does.

How the reading ended lies beside the buffers and is looked at before anything is taken, so that a force-close
overtakes whatever is queued (D9).
The publisher may write that end into very many readers at once; letting go of what they read from follows later.
When the publisher has stopped, the timeline says so: the reader goes on to the last event, and ends there (D5).

Who reads a subject that is finished, and was reopened since, comes to its end: its feed is a former one.
If its snapshot or its cursor turns out to be from after the reopening, it goes on in the feed of now.
Who is ahead of what is published cannot know whether the subject was reopened before that: it is JUDGED first.
Who resumes at a key of which the history has nothing is REPLAYING first, where a replay says whether it is finished:
that may have been before all that is remembered here.

While the reader is live, `index` is at once the index reached and the bound at or below which nothing may come.
That drops late events which the snapshot had already seen, and those before the index of a resume from the future (D2).
"""

import enum
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, NamedTuple, assert_never

from typing_extensions import TypeVar

from ._buffer import Broken, Feed, Finished, Reached, Sequel
from ._conflation import Conflation
from ._errors import (
    ClosedResourceError,
    CloseReason,
    EndOfSubject,
    SnapshotFailed,
    SubscriptionForceClosed,
    SubscriptionLagged,
)
from ._events import NEW_SNAPSHOT_TO_FOLLOW, Event
from ._passages import Passages, Snapshot
from ._replays import Page
from ._request import Cursor, SubscribeRequest, share
from ._rights import Rights
from ._timeline import Gate, Timeline, Verdict
from ._wait import Slot

P = TypeVar("P", default=Any)

NOWHERE: Final = Feed()  # where a reader stands that has ended
_OPEN: Final = Feed()  # a gate
_OPEN.end = 1


class Phase(enum.Enum):
    """See the table on top."""

    JUDGED = enum.auto()
    MARKED = enum.auto()
    PENDING = enum.auto()
    READING = enum.auto()
    FILLING = enum.auto()
    REPLAYING = enum.auto()
    LIVE = enum.auto()


# Where every event looks.
LIVE: Final = Phase.LIVE
READING: Final = Phase.READING
REPLAYING: Final = Phase.REPLAYING


class Policy(enum.Enum):
    """What a reader gets that has fallen off."""

    CLOSE = enum.auto()
    """`SubscriptionLagged`; commits that it has missed, where its topics can be replayed."""
    RESET = enum.auto()
    """A new snapshot; before that, what CLOSE gets, unless it conflates."""
    PART = enum.auto()
    """`SubscriptionLagged`, in any case: it reads one part of a snapshot that is composed."""


class End(NamedTuple):
    """How the reading ended: `reason` is None if its owner closed it.

    `horizon` is the index up to which the reader had had everything, where that is known to be all there is.
    """

    reason: CloseReason | None
    missed: int = 0
    cause: BaseException | None = None
    horizon: int = 0
    is_finished: bool = False
    """Its subject is, and everything of it was received."""
    is_published: bool = False
    """A commit says so; if not, a snapshot or replay function did, which nobody remembers for long."""


class Place(NamedTuple):
    """A commit on the timeline."""

    at: int
    """Its index."""
    mark: str


class Course(Slot, Generic[P]):
    """What of a reader is not about taking events; `leave` is called once, when it ends."""

    __slots__ = (
        "_awaited",
        "_burst",
        "_conflation",
        "_end",
        "_feed",
        "_index",
        "_is_receiving",
        "_keeps",
        "_known",
        "_leave",
        "_passages",
        "_passed",
        "_peak_lag",
        "_phase",
        "_policy",
        "_position",
        "_rights",
        "_snapshot",
        "_source",
        "_stop",
        "_taken",
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
        passages: Passages,
        leave: "Callable[[Course[P]], None]",
        rights: Rights | None = None,
        policy: Policy = Policy.CLOSE,
        conflation: Conflation | None = None,
    ) -> None:
        super().__init__()
        timeline = passages.timeline
        self.request = request
        self.epoch = timeline.epoch
        self._passages = passages
        self._leave = leave
        self._rights = rights
        self._policy = policy
        self._conflation = conflation
        # All deliveries of its interests go here; it counts as a reader of it until it has ended.
        self._feed = passages.feeds.enter(request.interests)
        if conflation is not None and rights is None:
            passages.feeds.conflate(self._feed)
        # What the position is in, and the phase, see the table on top.
        self._source: Feed = self._feed
        self._phase = LIVE
        # The snapshot that it waits for or reads.
        self._snapshot: Snapshot | None = None
        # Whether it takes the snapshot as a whole, and keeps it to its end although the history has passed it.
        self._keeps = False
        # The commit that it is JUDGED by, or that has to be right before it takes what is replayed; and that behind
        # which it has come live, if that has a mark.
        self._awaited: Place | None = None
        self._known: Place | None = None
        # The feed too, while whatever comes in it is for the reader as it is: no rights to look at, and past the bound.
        self._unchecked: Feed = NOWHERE
        self._position = 0
        # `_position - _passed` is the number of events returned.
        self._passed = 0
        # Up to which position `async for` may go before its next checkpoint, and before it looks what there is in
        # the unchecked feed. Both are 0 after a leap to another position.
        self._burst = self._stop = 0
        self._index = 0
        # The mark of the event by which it has come to that index; "" if it has come otherwise.
        self._taken = ""
        # Whether a task waits for an event, and then `_burst` is 0, or a payload is asked who may read it.
        self._is_receiving: bool | Literal["asking"] = False
        self._end: End | None = None
        self._peak_lag = 0
        # The slots of the tasks that wait until something is published; None as long as there was none.
        self._watchers: dict[Slot, None] | None = None
        self._begin(request, timeline)
        share(request, self._feed.interests)

    def _begin(self, request: SubscribeRequest[P], timeline: Timeline) -> None:
        index = request.index
        if not index:
            # A part must not read a snapshot behind which it might fall off at once.
            self._enter_snapshot(fresh=self._policy is Policy.PART, keeps=False)
            return
        verdict = timeline.judge(index, request.epoch, request.mark)
        if verdict is Verdict.STALE or timeline.revocations.has(request.token, index):
            self._begin_anew()
        elif verdict is Verdict.GOOD and index >= self._floor and not self._may_be_finished():
            self._go_live(index, request.mark)
        elif self._can_replay() and self._passages.feeds.leads_on(self._feed, index):
            self._replay(index, request.mark, is_accepted=False)
        elif verdict is Verdict.AHEAD and index >= self._floor:
            self._wait_for(Place(index, request.mark))
        else:
            self._begin_anew()

    def _may_be_finished(self) -> bool:
        """Whether it must ask if its subject was finished before everything that the publisher knows of it."""
        return self._passages.feeds.may_be_finished(self._feed) and self._can_replay()

    @property
    def _delivered(self) -> int:
        return self._position - self._passed

    @property
    def _floor(self) -> int:
        return self._passages.feeds.floor(self._feed)

    @property
    def _began(self) -> str | None:
        """How it began, of one that was to go on and has read nothing; None if that is not known yet."""
        if self._snapshot is not None or self._end is not None:
            return "stale"
        return None if self._phase in (Phase.JUDGED, REPLAYING) else "resumed"

    @property
    def _uses_map(self) -> bool:
        return self._conflation is not None and self._rights is None

    def _is_ready(self) -> bool:
        return (
            self._position < self._source.end
            or self._end is not None
            or self._passages.timeline.is_stopped
            or (self._source.sequel is not None and self._is_over())
        )

    def _is_over(self) -> bool:
        """Whether there will be no more of its source, which has a sequel, and of which it has had what there is."""
        return self._phase is REPLAYING or self._is_done() or self._is_to_go_on()

    def _is_done(self) -> bool:
        """Whether its subject is finished, and it has had all of it; a part of a snapshot does not end."""
        return self._policy is not Policy.PART and self._is_at_end()

    def _is_at_end(self) -> bool:
        """Whether its subject is finished, as far as it has come, and it has had all of it."""
        sequel, timeline = self._feed.sequel, self._passages.timeline
        return (
            isinstance(sequel, Finished)
            and self._phase is LIVE
            and self._position == self._feed.end
            and sequel.at <= max(self._index, timeline.index)
            and not self._is_to_go_on()
        )

    def _is_to_go_on(self) -> bool:
        """Whether it has had all of a subject that was finished, and does not end there.

        It is behind a reopening, or ahead of what is published, where nobody knows whether there was one.
        """
        sequel = self._feed.sequel
        if not isinstance(sequel, Finished) or self._phase is not LIVE or self._position != self._feed.end:
            return False
        if sequel.reopened:
            return self._index >= sequel.reopened or self._policy is Policy.PART
        return self._index > max(sequel.at, self._passages.timeline.index)

    def _is_past_end(self, index: int) -> bool:
        """Whether who comes from there has had all of a subject that was finished, before it was reopened."""
        sequel = self._feed.sequel
        return isinstance(sequel, Finished) and sequel.at <= index < sequel.reopened

    @property
    def _all_had(self) -> int:
        """The index up to which it has had everything, if it is live and has taken what there is."""
        sequel = self._feed.sequel
        if isinstance(sequel, Finished) and sequel.reopened:
            return max(self._index, sequel.at)
        return max(self._index, self._passages.timeline.index)

    @property
    def _mark(self) -> str:
        """Of the commit that it has come to, if it is remembered; if not, ""."""
        return self._known.mark if self._known is not None and self._known.at == self._index else ""

    def _lag(self) -> int:
        """How many deliveries are there that were not taken; those behind a snapshot count once it is complete."""
        phase, snapshot = self._phase, self._snapshot
        if snapshot is None:
            return self._source.end - self._position if phase is LIVE or phase is REPLAYING else 0
        if phase is not READING and phase is Phase.PENDING and not snapshot.is_complete:
            return 0
        lag = snapshot.end - self._position + (phase is not READING)
        if snapshot.is_complete and not snapshot.is_gone:
            lag += self._feed.end - self._feed.after(snapshot.index)
        return lag

    def _gate(self) -> Feed | None:
        """Where to wait for what it is about to read; None if that is there, or known not to come."""
        if self._phase is LIVE or self._passages.timeline.is_stopped:
            return None
        if self._phase is REPLAYING:
            return None if self._is_ready() else self._source
        gate = self._source if self._snapshot is None else self._snapshot.whole
        return None if gate.end else gate

    def _cursor_at(self, index: int) -> Cursor:
        """With the mark of that commit, if it is known: the index reached, or a newer one up to which all was had."""
        if self._known is not None and self._known.at == index:
            return Cursor(index, self.epoch, self._known.mark)  # also if another commit has that index since
        timeline = self._passages.timeline
        mark = timeline.mark_at(index) if timeline.epoch == self.epoch else None
        source = self._source
        is_among_commits = self._phase is LIVE or self._phase is REPLAYING
        if not mark and is_among_commits and source.start < self._position <= source.end:
            last = source.items[self._position - 1 - source.base]
            mark = last.mark if last.index == index else None
        if not mark and is_among_commits and index == self._index:  # which everybody else has forgotten
            mark = self._taken
        return Cursor(index, self.epoch, mark or "")

    def _leap(self, position: int) -> None:
        """Moves to another position, perhaps of another feed, and delivers nothing."""
        self._passed += position - self._position
        self._position = position
        self._burst = self._stop = 0

    def _look(self) -> Event[P] | None:
        """At a gate: goes on if it is open. The marker, if that is for the reader; otherwise None."""
        if not self._source.end:
            return None
        match self._phase:
            case Phase.MARKED | Phase.PENDING:
                assert self._snapshot is not None
                if self._snapshot.is_gone and self._keeps:
                    return self._fall_off(0)
                self._source = self._snapshot
                self._phase = Phase.READING
                return self._take_marker()
            case Phase.JUDGED:
                assert self._awaited is not None
                index, mark = self._awaited
                gate = self._source
                assert isinstance(gate, Gate)
                self._leave_passage()
                # A resume that the history has passed meanwhile is stale; who has stopped has no floor any more.
                floor = 0 if self._index or self._passages.timeline.is_stopped else self._floor
                is_good = mark in ("", gate.mark) and index >= floor
                if not self._index:
                    self._count_beginning("resumed" if is_good else "stale")
                if is_good:
                    self._go_live(index, mark)
                else:
                    self._begin_anew()
                    if self._end is not None:
                        raise self._error()
            case _:  # FILLING
                self._go_live(self._index, "" if self._known is None else self._known.mark)
        return None

    def _count_beginning(self, how: str) -> None:
        self._passages.counts.opened[how] += 1

    def _begin_anew(self) -> None:
        """The cursor that it came with, or that of its snapshot, is stale."""
        if self._passages.timeline.is_stopped:
            self._finish(End(CloseReason.STOPPED))
            return
        self._index = 0
        self._enter_snapshot(fresh=False, keeps=self._policy is Policy.RESET)
        if self._policy is not Policy.RESET:
            self._phase = Phase.MARKED
            self._source = _OPEN

    def _enter_snapshot(self, *, fresh: bool, keeps: bool) -> None:
        snapshot = self._passages.join(self.request.interests, fresh=fresh, keeps=keeps)
        self._snapshot = snapshot
        self._keeps = keeps
        self._source = snapshot.whole if keeps else snapshot
        self._phase = Phase.PENDING if keeps else Phase.READING
        self._unchecked = NOWHERE
        self._leap(0)

    def _wait_for(self, place: "Place") -> None:
        """Is judged when the index is published, or passed over."""
        self._source = self._passages.timeline.enter(place.at)
        self._phase = Phase.JUDGED
        self._awaited = place
        self._leap(0)

    def _go_live(self, index: int, mark: str) -> None:
        """Everything up to this commit was had."""
        feed = self._feed
        self._known = Place(index, mark) if mark else None
        self._index, self._taken = index, ""
        self._tell_watchers()
        if self._is_past_end(index):
            self._stand_in(feed, feed.end)
            return
        dropped = self._passages.feeds.reach(feed) if index < feed.born else feed.dropped
        if dropped > index and self._can_replay():
            self._replay(index, mark, is_accepted=True)
            return
        if dropped <= index < feed.born:
            self._source = self._passages.feeds.filled(feed)
            self._phase = Phase.FILLING
            self._leap(0)
            if not self._source.end:
                return
        # If the history has passed a snapshot that was kept, the reader stands before what is gone.
        self._stand_in(feed, feed.after(index) - (feed.dropped > index))

    def _stand_in(self, feed: Feed, position: int) -> None:
        """Is live there."""
        self._source = feed
        self._phase = LIVE
        self._leap(position)

    def _change_to(self, feed: Feed) -> None:
        """Reads from now on what comes in this feed, in which it is counted already."""
        feeds, former = self._passages.feeds, self._feed
        if self._uses_map:
            feeds.relax(former)
            feeds.conflate(feed)
        self._feed = feed
        feeds.leave(former)

    def _go_further(self) -> Event[P] | None:
        """At the end of a feed that has a sequel: ends the reading if the subject is finished, or goes on elsewhere."""
        if self._is_done():
            self._finish_subject()
            raise self._error()
        if not self._is_to_go_on():
            return None
        index, passages = self._index, self._passages
        assert isinstance(self._feed.sequel, Finished)
        if not self._feed.sequel.reopened:
            self._wait_for(Place(index, self._mark))
        elif passages.feeds.newest_dropped(self._feed) > index:
            return self._fall_off(1)
        else:
            self._change_to(passages.feeds.enter(self.request.interests))
            self._go_live(index, self._mark)
        return None

    def _can_replay(self) -> bool:
        """Whether commits that the history no longer has can be read from where they are kept."""
        passages = self._passages
        return (
            self._policy is not Policy.PART
            and self._conflation is None
            and passages.feeds.can_replay(self._feed)
        )

    def _replay(self, index: int, mark: str, *, is_accepted: bool) -> None:
        """Reads the commits after this one from where they are kept."""
        cursor = Cursor(index, self.epoch, mark)
        sequel = self._feed.sequel
        until = sequel.at if isinstance(sequel, Finished) and index < sequel.reopened else 0
        self._source = page = self._passages.replays.join(
            self._feed.interests,
            cursor,
            is_judged=is_accepted,
            is_ahead=index > self._passages.timeline.index,
            until=until,
        )
        self._phase = REPLAYING
        self._awaited = None if is_accepted else Place(index, mark)
        self._leap(page.after(index))

    def _accept(self, page: Page, place: Place) -> bool:
        """Whether the cursor that it came with is known to be right, because there is something after it."""
        if not page.end and page.sequel is None:
            return False
        self._awaited = None
        is_good = page.end > 0 or isinstance(page.sequel, Reached)
        if not self._index:
            self._count_beginning("replayed" if is_good else "stale")
        if is_good:
            self._index, self._taken = place.at, ""
            self._known = Place(*place) if place.mark else None
            self._tell_watchers()
        else:
            self._leave_passage()
            self._begin_anew()
        return is_good

    def _look_at_page(self) -> None:
        """Finds out whether the cursor that it came with is right, if it is time to."""
        if self._awaited is not None and isinstance(self._source, Page):
            self._accept(self._source, self._awaited)

    def _leave_page(self, sequel: Sequel) -> Event[P] | None:
        """It has had what there is of a page, and there will be no more: goes on behind it."""
        page = self._source
        assert isinstance(page, Page)
        self._leave_passage()
        if isinstance(sequel, Broken):
            return self._fall_off(0, sequel.cause, may_replay=False)
        assert isinstance(sequel, Reached)
        index, mark, is_finished = sequel
        if is_finished:
            self._learn_of_end(Finished(index, is_published=False))
        self._index, self._taken = index, ""
        self._known = Place(index, mark) if mark else None
        # A cursor that was ahead of the log comes back as it was.
        self._go_on(is_judged=not mark or index > page.cursor.index)
        return None

    def _go_on(self, *, is_judged: bool) -> None:
        """Behind a page: live, if the history has what is newer."""
        timeline, index, mark = self._passages.timeline, self._index, self._mark
        if index < self._floor and not self._is_past_end(index):
            if timeline.is_stopped:
                self._finish(End(CloseReason.STOPPED))
                raise self._error()
            self._replay(index, mark, is_accepted=is_judged)
        elif mark and index > timeline.index:
            self._wait_for(Place(index, mark))
        elif timeline.contradicts(index, mark):
            self._begin_anew()
        elif not is_judged and timeline.judge(index, self.epoch, mark) is Verdict.UNKNOWN:
            self._replay(
                index, mark, is_accepted=False
            )  # what was ahead was passed, and is forgotten already
        else:
            self._go_live(index, mark)

    def _leave_passage(self) -> None:
        """Lets go of the snapshot that it waits for or reads, of the gate of an index, or of a page."""
        if self._snapshot is not None:
            self._passages.leave(self._snapshot, keeps=self._keeps)
            self._snapshot = None
        if self._phase is REPLAYING and isinstance(self._source, Page):
            self._passages.replays.leave(self._source)
            self._source, self._unchecked = NOWHERE, NOWHERE
        elif self._awaited is not None:
            self._passages.timeline.leave(self._awaited.at, self._source)
        self._awaited = None

    def _take_marker(self) -> Event[P]:
        self._index = 0
        self._passed -= 1
        self._burst -= 1
        return Event(self.request.interests[0].topic, 0, NEW_SNAPSHOT_TO_FOLLOW)

    def _fall_off(
        self, missed: int, cause: BaseException | None = None, *, may_replay: bool = True
    ) -> Event[P] | None:
        """What the reader stood before is gone: a replay, the end, or a new snapshot."""
        snapshot = self._snapshot
        if snapshot is not None and snapshot.failure is not None:
            self._finish(End(CloseReason.SNAPSHOT_FAILED, cause=snapshot.failure))
            raise self._error()
        if self._passages.timeline.is_stopped:
            self._finish(End(CloseReason.STOPPED))
            raise self._error()
        if self._phase is LIVE and may_replay and self._can_replay():
            self._replay(self._index, "", is_accepted=True)
            return None
        if self._policy is not Policy.RESET:
            self._finish(End(CloseReason.LAGGED, missed, cause))
            raise self._error()
        self._leave_passage()
        self._enter_snapshot(fresh=True, keeps=True)
        return self._look()

    def _can_conflate(self, feed: Feed) -> bool:
        """Whether what the history has passed is not missing."""
        return self._uses_map and feed.latest is not None and feed.latest.dropped <= self._index

    def _learn_of_end(self, sequel: Finished) -> None:
        """Its snapshot, or a replay, says that the subject is finished."""
        feed, timeline = self._feed, self._passages.timeline
        known = feed.sequel
        assert known is None or isinstance(known, Finished)
        if known is None and sequel.at >= feed.reopened:
            feed.sequel = sequel
            if sequel.at > timeline.index:
                timeline.call(sequel.at, feed)
            else:
                self._passages.parking.wake((feed,))
        elif self._policy is not Policy.PART and (known is None or 0 < known.reopened <= sequel.at):
            # It was reopened since, for those who come now; or it was, and has been finished again.
            sequel = sequel._replace(reopened=0 if known else feed.reopened)
            self._change_to(self._passages.feeds.ended(self.request.interests, sequel))

    def _stop_if_done(self) -> None:
        """The publisher has stopped: ends the reading, if there is nothing more to read and it has not ended yet."""
        if self._end is not None:
            return
        if self._is_done():
            self._finish_subject()
            return
        snapshot = self._snapshot
        if snapshot is not None:
            if snapshot.failure is not None:
                self._finish(End(CloseReason.SNAPSHOT_FAILED, cause=snapshot.failure))
            elif not snapshot.is_complete:
                self._finish(End(CloseReason.STOPPED))
        elif self._phase is Phase.JUDGED:
            if not self._source.end:
                self._finish(End(CloseReason.STOPPED))
        elif self._phase is REPLAYING:
            self._stop_replaying()
        elif self._phase is LIVE and self._position == self._feed.end:
            self._finish(End(CloseReason.STOPPED, horizon=self._all_had))

    def _stop_replaying(self) -> None:
        page = self._source
        assert isinstance(page, Page)
        if self._position == page.end and not isinstance(page.sequel, Reached):
            self._finish(End(CloseReason.STOPPED))

    def _finish_subject(self) -> None:
        """Ends at the commit that says so, which may have had no event: a resume from there is not too old."""
        assert isinstance(self._feed.sequel, Finished)
        at, is_published, _ = self._feed.sequel
        if at > self._index:
            self._index, self._taken = at, ""
        self._finish(End(None, is_finished=True, is_published=is_published))

    def _finish(self, end: End) -> None:
        """Ends the reading for good. Does not wake a reader that waits."""
        if mark := self._cursor_at(self._index).mark:  # which can only be found out here
            self._known = Place(self._index, mark)
        self._end = end
        self._leave(self)
        self._detach()

    def _detach(self) -> None:
        """Lets go of everything, after the end."""
        self._source.waiting.pop(self, None)
        self._leave_passage()
        if self._uses_map:
            self._passages.feeds.relax(self._feed)
        self._passages.feeds.leave(self._feed)
        self._source = self._feed = self._unchecked = NOWHERE
        self._leap(0)
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        if self._watchers:
            self._passages.parking.wake_each(tuple(self._watchers))

    def _error(self) -> Exception:
        """For how it ended; a new one each time, because one that was raised before drags its traceback along."""
        assert self._end is not None
        reason, missed, cause, _, is_finished, _ = self._end
        match reason:
            case None if is_finished:
                return EndOfSubject(self._index, self.epoch)
            case None:
                return ClosedResourceError("this subscription was closed by its owner")
            case CloseReason.LAGGED:
                lagged = SubscriptionLagged(self._index, self.epoch, missed)
                lagged.__cause__ = cause
                return lagged
            case CloseReason.SNAPSHOT_FAILED:
                failed = SnapshotFailed(self._index, self.epoch)
                failed.__cause__ = cause
                return failed
            case CloseReason.TOKEN | CloseReason.REFRESH | CloseReason.STOPPED:
                return SubscriptionForceClosed(reason, self._index, self.epoch)
            case _:
                assert_never(reason)
