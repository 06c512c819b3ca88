"""The history of one topic: its newest commits, and the feeds in which they are. Pure, no event loop.

Every subject that has history or readers has a feed, and a blank key has one for each namespace and partition: what
they hold are the same objects.
A feed knows that of its blank key, which stays as long as it does, so that a commit finds both by one look.
What more is asked for, prefixes and `ALL` and several interests together, is in `_feeds`.

Two bounds say what is gone.
`dropped` is the index of the newest commit that was here and no longer is: a snapshot below it has a gap.
`floor` is the lowest index that one can resume from; it is also raised by a publisher that starts, or is refreshed, at
some index, and never falls on one timeline.

A subject that is finished and then *reopened* has a new feed.
It begins with the same items, and the log lists it in the place of the old one, which stays with its readers.

Most commits have one event.
They are kept without a list around it, and take half of the time.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from operator import itemgetter
from typing import Any, TypeAlias

from ._buffer import Feed, Finished
from ._commit import Groups, Pairs, delivery
from ._errors import InvalidCommitError
from ._events import Event, Subject, Topic
from ._rights import Replaced, Replacement
from ._routes import Routes


class PlainFeed(Feed):
    """What one subject, or the blank key of one namespace and partition, has."""

    __slots__ = ("blank", "history", "is_ending", "keys", "subject")

    def __init__(self, history: "History", subject: Subject, blank: "PlainFeed | None") -> None:
        super().__init__()
        self.replaced: Replaced = history.replaced
        self.history: History = history
        self.subject: Subject = subject
        # The feed of the blank key; None if this is it. And of how many feeds it is that.
        self.blank: PlainFeed | None = blank
        self.keys: int = 0
        # Whether the history keeps the commit that finishes it.
        self.is_ending: bool = False

    @property
    def is_final(self) -> bool:
        """Whether a commit has finished it."""
        return isinstance(self.sequel, Finished) and self.sequel.is_published

    def check_open(self) -> None:
        """Raises `InvalidCommitError` if it is finished by a commit."""
        if isinstance(self.sequel, Finished) and self.sequel.is_published:
            raise InvalidCommitError(
                f"subject {str(self.subject)!r} of topic {str(self.history.topic)!r} "
                f"is finished since commit {self.sequel.at}"
            )


Single: TypeAlias = tuple[int, Event[Any], PlainFeed]
"""A commit of one event: its index, and the feed of its subject."""
Several: TypeAlias = tuple[int, Pairs, tuple[PlainFeed, ...], Sequence[int] | None, tuple[PlainFeed, ...]]
"""Any other, as far as it is of this topic: its index, its events, the feeds that have it, the places of its events in
the whole commit, which is None if that has no other topic, and the feeds that it finishes.

What it has of other topics is not here: their histories may have dropped it.
"""
Kept: TypeAlias = Single | Several
Forgotten: TypeAlias = tuple[deque[Kept], dict[int, Replacement], dict[Subject, PlainFeed], list[Any]]
"""The commits, what they replaced, the feeds and the ageing snapshots of a topic; to free very many takes long."""


class History:
    """The newest commits of one topic."""

    __slots__ = (
        "_blanks",
        "_log",
        "_more",
        "_most_events",
        "ageing",
        "dropped",
        "era",
        "farthest",
        "feeds",
        "finals",
        "finishes",
        "floor",
        "folds",
        "limit",
        "refreshed",
        "replaced",
        "replay",
        "routes",
        "topic",
    )

    def __init__(
        self,
        topic: Topic[Any],
        limit: int,
        most_events: int,
        floor: int,
        *,
        replay: Callable[..., Any] | None = None,
        finishes: bool = False,
    ) -> None:
        """`limit` in commits, `most_events` in events; the newest commit is kept in any case.

        `replay` reads older commits from where they are kept; `finishes`: it says, too, when a subject is finished.
        """
        self.topic: Topic[Any] = topic
        self.limit: int = limit
        self._most_events: int = most_events
        self.replay: Callable[..., Any] | None = replay
        self.finishes: bool = finishes
        # How many feeds that its events get into have such a map as readers who conflate need.
        self.folds: int = 0
        self.floor: int = floor
        # No commits lead on from a lower index: the state was replaced since. Written by the publisher.
        self.refreshed: int = 0
        self.dropped: int = 0
        self.feeds: dict[Subject, PlainFeed] = {}
        # Those of a blank key among them.
        self._blanks: dict[Subject, PlainFeed] = {}
        # How many of them are finished by a commit.
        self.finals: int = 0
        # The wide feeds that its events get into; written by `Feeds`.
        self.routes: Routes = Routes()
        # Oldest first, at most `limit`; and how many events and ends of subjects they have besides one each.
        self._log: deque[Kept] = deque()
        self._more: int = 0
        # What the events among them replace.
        self.replaced: dict[int, Replacement] = {}
        # Written by the passages: the snapshots that are complete and cached or read, or whose handler waits for
        # readers, which die when the history passes their index, lowest first; the greatest index of a snapshot or a
        # replay on this timeline, which may be ahead of what is published; and the serial number from which on
        # snapshots are of the present state.
        self.ageing: list[Any] = []
        self.farthest: int = 0
        self.era: int = 0

    def __len__(self) -> int:
        return len(self._log)

    @property
    def newest(self) -> int:
        """The index of the newest commit there ever was on this timeline, 0 if there was none."""
        return self._log[-1][0] if self._log else self.dropped

    @property
    def is_full(self) -> bool:
        """Whether the oldest commit is to be dropped."""
        count = len(self._log)
        return count > self.limit or (count + self._more > self._most_events and count > 1)

    @property
    def used(self) -> int:
        """How many of the feeds have history or readers. Any thread may ask."""
        idle = [each for each in list(self._blanks.values()) if each.start == each.end and not each.readers]
        return len(self.feeds) - len(idle)

    def newer_than(self, index: int) -> int:
        """How many of the commits that are kept have a greater index."""
        return len(self._log) - bisect_right(self._log, index, key=itemgetter(0))

    def has_room_behind(self, index: int) -> bool:
        """Whether the commits after this one are at most half of what is kept, if they are of the usual size."""
        newer, count = self.newer_than(index), len(self._log)
        return newer * 2 <= self.limit and newer * 2 * (count + self._more) <= self._most_events * count

    def kept(self) -> list[Kept]:
        """The commits that are kept, oldest first; a copy."""
        return list(self._log)

    def check_open(self, subjects: Iterable[Subject], reopening: Collection[Subject] = ()) -> None:
        """Raises `InvalidCommitError` if one of these is known to be finished by a commit, and not `reopening`."""
        for subject in subjects:
            feed = self.feeds.get(subject)
            if feed is not None and feed.sequel is not None and subject not in reopening:
                feed.check_open()

    def append(
        self,
        index: int,
        pairs: Pairs,
        groups: Groups,
        finished: Collection[Subject] = (),
        places: Sequence[int] | None = None,
    ) -> tuple[PlainFeed, ...]:
        """Adds what a commit has of this topic; returns the feeds that got something.

        `finished`: subjects that end with it.
        `places`: those of the pairs in the whole commit, if it has other topics too.
        """
        feeds = tuple([self.feeds.get(subject) or self._feed(Subject(*subject)) for subject in groups])
        item: Event[Any] | None = None
        for feed, events in zip(feeds, groups.values(), strict=True):
            item = delivery(events, item)
            feed.append(item)
        ending: tuple[PlainFeed, ...] = ()
        if finished:
            ending = tuple([ended for each in finished if (ended := self._ending(each, index)) is not None])
        if len(pairs) == 1 and places is None and not ending:
            self._log.append((index, pairs[0][0], feeds[0]))
        else:
            self._log.append((index, pairs, feeds, places, ending))
            self._more += len(pairs) + len(ending) - 1
        return feeds + ending

    def reopen(self, subjects: Iterable[Subject], index: int) -> list[tuple[PlainFeed, int]]:
        """Has there be more of these that are finished, from this commit on.

        Returns the feeds that are over, and where they were finished; who reads those comes to their end.
        In their place there are new ones, with what the history still has.
        """
        over: dict[PlainFeed, PlainFeed] = {}
        ended: list[tuple[PlainFeed, int]] = []
        for subject in subjects:
            feed = self.feeds.get(subject)
            if feed is None:
                continue
            feed.reopened = index
            if isinstance(feed.sequel, Finished) and feed.sequel.at < index:
                ended.append((feed, feed.sequel.at))
                feed.sequel = feed.sequel._replace(reopened=index)
                over[feed] = self._renewed(feed)
        if any(feed.is_ending or feed.start < feed.end for feed in over):
            self._log = deque([self._relisted(kept, over) for kept in self._log])
        for renewed in over.values():
            self._discard_if_unused(renewed)
        return ended

    def append_single(self, index: int, event: Event[Any], subject: Subject) -> PlainFeed:
        """`append` for a commit of one event; returns the feed of its subject, which knows that of the blank key.

        Raises `InvalidCommitError` if the subject is finished.
        `subject` may be a plain tuple.
        """
        feed = self.feeds.get(subject)
        if feed is None:
            feed = self._feed(Subject(*subject))
        elif feed.sequel is not None:
            feed.check_open()
        feed.items.append(event)
        feed.end += 1
        blank = feed.blank
        if blank is not None:
            blank.items.append(event)
            blank.end += 1
        self._log.append((index, event, feed))
        return feed

    def drop_oldest(self) -> Kept:
        """Forgets the oldest commit, and returns it."""
        kept = self._log.popleft()
        if self.replaced:
            for event in (kept[1],) if len(kept) == 3 else map(itemgetter(0), kept[1]):
                self.replaced.pop(id(event), None)
        self.dropped = index = kept[0]
        # Who resumes where a subject is finished would wait for ever: nobody knows any more that it is.
        floor = index + 1 if len(kept) == 5 and kept[4] else index
        if floor > self.floor:
            self.floor = floor
        if len(kept) == 3:
            feed = kept[2]
            feed.drop_oldest()
            if feed.blank is not None:
                feed.blank.drop_oldest()
            if feed.start == feed.end:
                self._discard_if_unused(feed)
        else:
            self._more -= len(kept[1]) + len(kept[4]) - 1
            for feed in kept[2]:
                feed.drop_oldest()
            for feed in kept[4]:
                feed.is_ending = False
            for feed in kept[2] + kept[4]:
                self._discard_if_unused(feed)
        return kept

    def enter(self, subject: Subject) -> PlainFeed:
        """The feed of a subject, which may be a plain tuple, for one more reader."""
        feed = self.feeds.get(subject)
        if feed is None:
            feed = self._feed(Subject(*subject))
        feed.readers += 1
        return feed

    def leave(self, feed: PlainFeed) -> None:
        """One reader less; a feed without readers stays only for what history it has."""
        feed.readers -= 1
        self._discard_if_unused(feed)

    def clear(self, floor: int, dropped: int) -> Forgotten:
        """Forgets everything; who still reads a feed keeps it."""
        forgotten = self._log, self.replaced, self.feeds, self.ageing
        self._log = deque()
        self._more = 0
        self.feeds = {}
        self._blanks = {}
        self.finals = 0
        self.replaced = {}
        self.routes = Routes()
        self.ageing = []
        self.floor = floor
        self.dropped = dropped
        return forgotten

    def _feed(self, subject: Subject) -> PlainFeed:
        feed = self.feeds.get(subject)
        if feed is None:
            blank: PlainFeed | None = None
            if subject.key:
                blank = self._feed(Subject("", subject.namespace, subject.partition))
                blank.keys += 1
            feed = self.feeds[subject] = PlainFeed(self, subject, blank)
            if blank is None:
                self._blanks[subject] = feed
        return feed

    def _ending(self, subject: Subject, index: int) -> PlainFeed | None:
        """The feed of a subject that is finished now; None if it was before."""
        feed: PlainFeed = self._feed(subject)
        if feed.is_final:
            return None
        feed.sequel = Finished(index, is_published=True)
        feed.is_ending = True
        self.finals += 1
        return feed

    def _renewed(self, feed: PlainFeed) -> PlainFeed:
        """A feed in the place of this one, which is over."""
        self.finals -= feed.is_final
        renewed = PlainFeed(self, feed.subject, feed.blank)
        renewed.items = list(feed.items)
        renewed.base, renewed.start, renewed.end = feed.base, feed.start, feed.end
        renewed.dropped = feed.dropped
        renewed.reopened = feed.reopened
        self.feeds[feed.subject] = renewed
        return renewed

    def _relisted(self, kept: Kept, over: Mapping[PlainFeed, PlainFeed]) -> Kept:
        """What is kept of a commit, with new feeds in the place of those that are over; it finishes none of these."""
        if len(kept) == 3:
            index, event, feed = kept
            return (index, event, over[feed]) if feed in over else kept
        index, pairs, feeds, places, ending = kept
        left = tuple([feed for feed in ending if feed not in over])
        self._more -= len(ending) - len(left)
        return index, pairs, tuple([over.get(feed, feed) for feed in feeds]), places, left

    def _discard_if_unused(self, feed: PlainFeed) -> None:
        if (
            feed.start == feed.end
            and not feed.readers
            and not feed.keys
            and not feed.is_ending
            and self.feeds.get(feed.subject) is feed
        ):
            del self.feeds[feed.subject]
            self.finals -= feed.is_final
            if feed.blank is None:
                del self._blanks[feed.subject]
            else:
                feed.blank.keys -= 1
                self._discard_if_unused(feed.blank)


def events_of(commit: Sequence[Kept]) -> Iterator[tuple[Event[Any], Subject]]:
    """The events of a commit with their subjects, in the order they were published: what some topics keep of it."""
    if len(commit) > 1:
        placed = [zip(kept[3], kept[1], strict=True) for kept in commit if len(kept) == 5 and kept[3]]
        yield from map(itemgetter(1), merge(*placed, key=itemgetter(0)))
        return
    (kept,) = commit
    if len(kept) == 3:
        yield kept[1], kept[2].subject
    else:
        yield from kept[1]
