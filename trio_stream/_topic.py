"""The history of one topic: its newest commits, and the feeds in which they are. Pure, no event loop.

Every subject that has history or readers has a feed, and a blank key has one for each namespace and partition: what
they hold are the same objects.
What more is asked for, prefixes and `ALL` and several interests together, is in `_feeds`.

Two bounds say what is gone.
`dropped` is the index of the newest commit that was here and no longer is: a snapshot below it has a gap.
`floor` is the lowest index that one can resume from; it is also raised by a publisher that starts, or is refreshed, at
some index, and never falls on one timeline.
"""

from bisect import bisect_right
from collections import deque
from operator import itemgetter
from typing import Any, NamedTuple

from ._buffer import Feed
from ._commit import Groups, Pairs, delivery
from ._events import Event, Subject, Topic

class Kept(NamedTuple):
    """A commit that the history keeps."""

    at: int
    """Its index."""
    pairs: Pairs
    events: int
    """How many of them are of this topic."""
    feeds: tuple[Feed, ...]
    """Those of this topic that it was appended to."""


class History:
    """The newest commits of one topic."""

    __slots__ = ("_log", "_most_events", "dropped", "events", "farthest", "feeds", "floor", "limit", "topic")

    def __init__(self, topic: Topic[Any], limit: int, most_events: int, floor: int) -> None:
        """`limit` in commits and in events; the newest commit is kept in any case."""
        self.topic: Topic[Any] = topic
        self.limit: int = limit
        self._most_events: int = most_events
        self.floor: int = floor
        self.dropped: int = 0
        # The greatest index of a snapshot on this timeline; it may be ahead of what is published.
        self.farthest: int = 0
        self.feeds: dict[Subject, Feed] = {}
        # Oldest first, at most `limit`; and how many events they have.
        self._log: deque[Kept] = deque()
        self.events: int = 0

    def __len__(self) -> int:
        return len(self._log)

    @property
    def newest(self) -> int:
        """The index of the newest commit there ever was on this timeline, 0 if there was none."""
        return self._log[-1].at if self._log else self.dropped

    def newer_than(self, index: int) -> int:
        """How many of the commits that are kept have a greater index."""
        return len(self._log) - bisect_right(self._log, index, key=itemgetter(0))

    def kept(self) -> list[Kept]:
        """The commits that are kept, oldest first; a copy."""
        return list(self._log)

    def append(self, index: int, pairs: Pairs, groups: Groups) -> tuple[Feed, ...]:
        """Adds a commit; returns the feeds that got something."""
        feeds = tuple(map(self._feed, groups))
        item: Event[Any] | None = None
        count = 0
        for feed, (subject, events) in zip(feeds, groups.items(), strict=True):
            item = delivery(events, item)
            feed.append(item)
            if not subject.key:
                count += len(events)
        self._log.append(Kept(index, pairs, count, feeds))
        self.events += count
        return feeds

    @property
    def is_full(self) -> bool:
        """Whether the oldest commit is to be dropped."""
        return len(self._log) > self.limit or (self.events > self._most_events and len(self._log) > 1)

    def drop_oldest(self) -> Kept:
        """Forgets the oldest commit, and returns it."""
        commit = self._log.popleft()
        index, _, count, feeds = commit
        for feed in feeds:
            feed.drop_oldest()
            if not feed.readers and feed.start == feed.end:
                self._discard(feed)
        self.events -= count
        self.dropped = index
        if index > self.floor:
            self.floor = index
        return commit

    def enter(self, subject: Subject) -> Feed:
        """The feed of a subject, for one more reader."""
        feed = self._feed(subject)
        feed.readers += 1
        return feed

    def leave(self, feed: Feed) -> None:
        """One reader less; a feed without readers stays only for what history it has."""
        feed.readers -= 1
        if not feed.readers and feed.start == feed.end:
            self._discard(feed)

    def clear(self, floor: int, dropped: int) -> tuple[deque[Kept], dict[Subject, Feed]]:
        """Forgets all commits; who still reads a feed keeps it. Returns them: to free very many takes long."""
        forgotten = self._log, self.feeds
        self._log = deque()
        self.events = 0
        self.feeds = {}
        self.floor = floor
        self.dropped = dropped
        return forgotten

    def _feed(self, subject: Subject) -> Feed:
        feed = self.feeds.get(subject)
        if feed is None:
            feed = self.feeds[subject] = PlainFeed(subject)
        return feed

    def _discard(self, feed: Feed) -> None:
        assert isinstance(feed, PlainFeed)
        if self.feeds.get(feed.subject) is feed:
            del self.feeds[feed.subject]


class PlainFeed(Feed):
    """What one subject, or the blank key of one namespace and partition, has."""

    __slots__ = ("subject",)

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject: Subject = subject
