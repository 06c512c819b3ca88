"""The buffers that all subscribers share: feeds, positions and the history of a topic. Pure, no event loop.

A history keeps the newest commits of a topic in order.
A feed is the list of those that touch one subject; a blank key has a feed of its own for each namespace.
What is appended is shared by all readers; nothing is copied for any of them.

A position is an absolute number, not a pointer.
The lag of a reader is a subtraction, a batch is a slice, a resume is a bisection, and having fallen off the
history is a comparison, so a reader that does nothing costs nothing and pins nothing.
"""

from bisect import bisect_right
from collections import deque
from operator import attrgetter, itemgetter
from typing import Any, Final

from ._commit import Groups, delivery
from ._events import END_OF_SNAPSHOT, Event, Subject, Topic
from ._wait import Lot

_DROPPED: Final = Event[Any](Topic("dropped"), 0, END_OF_SNAPSHOT)  # in the place of an event that is gone
_INDEX: Final = attrgetter("index")
_COMPACT_FROM: Final = 64  # places of dropped items; below, moving the rest is not worth the call


class Feed(Lot):
    """The deliveries for one subject, oldest first; readers that have had them all wait in it."""

    __slots__ = ("base", "dropped", "end", "items", "readers", "start", "subject")

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject: Subject = subject
        self.items: list[Event[Any]] = []
        # Positions: of items[0], of the oldest item kept, of the next item to come. base <= start <= end.
        self.base: int = 0
        self.start: int = 0
        self.end: int = 0
        # The index of the newest item that was dropped.
        self.dropped: int = 0
        # How many subscriptions read from here; each counts itself in and out.
        self.readers: int = 0

    def append(self, event: Event[Any]) -> None:
        self.items.append(event)
        self.end += 1

    def drop_oldest(self) -> None:
        """Forgets the oldest item; the list is shifted once for many of them."""
        gone = self.start - self.base
        self.dropped = self.items[gone].index
        self.items[gone] = _DROPPED
        self.start += 1
        gone += 1
        if gone >= _COMPACT_FROM and gone * 2 > len(self.items):
            del self.items[:gone]
            self.base = self.start

    def drop_all(self, *, and_more: bool) -> list[Event[Any]]:
        """Forgets all items, and perhaps that more was to come, so that a reader who had them all has fallen off.

        Returns them: to free very many takes long.
        """
        items, self.items = self.items, []
        self.end += and_more
        self.start = self.base = self.end
        return items

    def after(self, index: int) -> int:
        """The position of the first kept item with a greater index; the end if there is none."""
        kept = max(0, self.start - self.base)  # below 0 for a moment, seen from another thread
        return self.base + bisect_right(self.items, index, lo=kept, key=_INDEX)


class History:
    """The newest commits of one topic, and its feeds.

    Two bounds say what is gone.
    `dropped` is the index of the newest commit that was here and no longer is: a snapshot below it has a gap.
    `floor` is the lowest index that one can resume from; it is also raised by a publisher that starts, or is
    refreshed, at some index, and never falls on one timeline.
    """

    __slots__ = ("_log", "dropped", "feeds", "floor", "limit")

    def __init__(self, limit: int, floor: int) -> None:
        self.limit: int = limit
        self.floor: int = floor
        self.dropped: int = 0
        self.feeds: dict[Subject, Feed] = {}
        # (index, the feeds it was appended to), oldest first, at most `limit`.
        self._log: deque[tuple[int, tuple[Feed, ...]]] = deque()

    def __len__(self) -> int:
        return len(self._log)

    @property
    def newest(self) -> int:
        """The index of the newest commit there ever was on this timeline, 0 if there was none."""
        return self._log[-1][0] if self._log else self.dropped

    def newer_than(self, index: int) -> int:
        """How many of the commits that are kept have a greater index."""
        return len(self._log) - bisect_right(self._log, index, key=itemgetter(0))

    def append(self, index: int, groups: Groups) -> tuple[Feed, ...]:
        """Adds a commit and drops what is now too old; returns the feeds that got something."""
        feeds = tuple(map(self._feed, groups))
        item: Event[Any] | None = None
        for feed, events in zip(feeds, groups.values(), strict=True):
            item = delivery(events, item)
            feed.append(item)
        self._log.append((index, feeds))
        if len(self._log) > self.limit:
            self._drop_oldest()
        return feeds

    def enter(self, subject: Subject) -> Feed:
        """The feed of a subject, for one more reader."""
        feed = self._feed(subject)
        feed.readers += 1
        return feed

    def leave(self, feed: Feed) -> None:
        """One reader less; a feed without readers stays only for what history it has."""
        feed.readers -= 1
        self._discard_if_unused(feed)

    def clear(self, floor: int, dropped: int) -> tuple[deque[Any], dict[Subject, Feed]]:
        """Forgets all commits; who still reads a feed keeps it. Returns them: to free very many takes long."""
        forgotten = self._log, self.feeds
        self._log = deque()
        self.feeds = {}
        self.floor = floor
        self.dropped = dropped
        return forgotten

    def _feed(self, subject: Subject) -> Feed:
        feed = self.feeds.get(subject)
        if feed is None:
            feed = self.feeds[subject] = Feed(subject)
        return feed

    def _drop_oldest(self) -> None:
        index, feeds = self._log.popleft()
        for feed in feeds:
            feed.drop_oldest()
            self._discard_if_unused(feed)
        self.dropped = index
        self.floor = max(self.floor, index)

    def _discard_if_unused(self, feed: Feed) -> None:
        if not feed.readers and feed.start == feed.end and self.feeds.get(feed.subject) is feed:
            del self.feeds[feed.subject]
