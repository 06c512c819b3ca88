"""All feeds of a publisher: which commits get where, and what a reader of some interests reads.

A single interest in one key, or in all keys of one namespace, is *plain*: its feed is in the history of its topic,
whether somebody reads it or not, so that anybody can resume from it.

All others are *wide*: a prefix, `ALL`, several interests.
A wide feed is there only while it is read, one for all readers of the same interests.
It is born empty at the newest index.
Who needs older commits has it filled from the histories, once and for all its readers, in slices, and waits at a gate
meanwhile.

A commit is looked up in `Routes`, by one dict for each shape of interest in use, and is one delivery in each feed that
it touches, its events in published order, however many interests cover them.
When a history drops a commit, the commit is looked up again, and the wide feeds that it touches forget everything up to
it: what several topics have together reaches back as far as the one that reaches least.
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

from ._buffer import Feed
from ._commit import Groups, Pairs, delivery
from ._events import Event, Subject, Topic, size
from ._interest import ALL, Interest, Name
from ._request import covered
from ._timeline import Timeline
from ._topic import History, Kept, events_of
from ._wait import PORTION, Parking

Interests: TypeAlias = tuple[Interest, ...]

_ORIGIN: Final = 1 << 29  # room for what is filled in; below 1 << 30 an int is small

_Shape: TypeAlias = tuple[int | None, bool, bool]
"""Of an interest: the length of its prefix, or None if it is one key; whether it is of all namespaces, partitions."""
_Place: TypeAlias = tuple[str, Name, Name]


class WideFeed(Feed):
    """What several interests, or one that is not plain, have together."""

    __slots__ = ("filled", "interests")

    def __init__(self, interests: Interests) -> None:
        super().__init__(_ORIGIN)
        self.interests: Interests = interests
        # Where those wait who need what is older; None as long as nobody did.
        self.filled: Feed | None = None


class Routes:
    """The wide feeds that events of one topic get into."""

    __slots__ = ("shapes",)

    def __init__(self) -> None:
        # {shape: {place: the feeds that have such an interest}}, without empty entries.
        self.shapes: dict[_Shape, dict[_Place, dict[WideFeed, None]]] = {}

    def add(self, interest: Interest, feed: WideFeed) -> None:
        shape, place = _located(interest)
        self.shapes.setdefault(shape, {}).setdefault(place, {})[feed] = None

    def remove(self, interest: Interest, feed: WideFeed) -> None:
        shape, place = _located(interest)
        places = self.shapes[shape]
        del places[place][feed]
        if not places[place]:
            del places[place]
            if not places:
                del self.shapes[shape]

    def find(self, subject: Subject) -> Iterable[WideFeed]:
        """The feeds that an event of this subject gets into, each once."""
        key, namespace, partition = subject
        found: dict[WideFeed, None] | None = None
        is_own = False
        for (length, any_namespace, any_partition), places in self.shapes.items():
            feeds = places.get(
                (
                    key if length is None else key[:length],
                    ALL if any_namespace else namespace,
                    ALL if any_partition else partition,
                )
            )
            if feeds is None:
                continue
            if found is None:
                found = feeds
            elif is_own:
                found.update(feeds)
            else:
                found, is_own = {**found, **feeds}, True
        return found or ()

    def feeds(self) -> dict[WideFeed, None]:
        """All of them."""
        every: dict[WideFeed, None] = {}
        for places in self.shapes.values():
            for feeds in places.values():
                every.update(feeds)
        return every


def _located(interest: Interest) -> tuple[_Shape, _Place]:
    _, key, prefix, namespace, partition = interest
    length = len(key) if prefix or not key else None
    return (length, namespace is ALL, partition is ALL), (key, namespace, partition)


class Feeds:
    """The histories of all topics, and the wide feeds."""

    def __init__(self, timeline: Timeline, parking: Parking, *, history: int, history_events: int) -> None:
        self.histories: dict[Topic[Any], History] = {}
        self._timeline = timeline
        self._parking = parking
        self._limits = history, history_events
        self._wide: dict[Interests, WideFeed] = {}
        # {topic: which wide feeds there are for it}, for those that have one.
        self.routes: dict[Topic[Any], Routes] = {}

    def add(self, topic: Topic[Any]) -> None:
        """A topic more; it begins at the newest index."""
        self.histories[topic] = History(topic, *self._limits, self._timeline.index)

    def append(self, index: int, pairs: Pairs, parts: Mapping[Topic[Any], Groups]) -> list[Feed]:
        """Adds a commit and drops what is now too old; returns the feeds that got something."""
        touched: list[Feed] = []
        for topic, groups in parts.items():
            touched += self.histories[topic].append(index, pairs, groups)
        if self.routes:
            touched += self._append_wide(pairs)
        for topic in parts:
            history = self.histories[topic]
            while history.is_full:
                self._drop_wide(topic, history.drop_oldest())
        return touched

    def append_single(self, history: History, event: Event[Any], subject: Subject) -> Iterable[Feed]:
        """`append` for a commit of one event, in half of its time; `subject` may be a plain tuple.

        Returns those of the feeds that somebody waits in.
        """
        feed = history.append_single(event.index, event, subject)
        if history.is_full:
            self._drop_wide(history.topic, history.drop_oldest())
        blank = feed.blank
        if self.routes:
            wide = self._append_wide(((event, feed.subject),))
            return (feed, *wide) if blank is None else (feed, blank, *wide)
        if feed.waiting:
            return (feed,) if blank is None else (feed, blank)
        return (blank,) if blank is not None and blank.waiting else ()

    def enter(self, interests: Interests) -> Feed:
        """The feed of these interests, for one more reader."""
        if not is_wide(interests):
            topic, key, _, namespace, partition = interests[0]
            return self.histories[topic].enter(cast("Subject", (key, namespace, partition)))
        feed = self._wide.get(interests)
        if feed is None:
            feed = self._wide[interests] = WideFeed(interests)
            feed.born = self._timeline.index
            feed.dropped = self.dropped(interests)
            for each in interests:
                self.routes.setdefault(each.topic, Routes()).add(each, feed)
        feed.readers += 1
        return feed

    def leave(self, interests: Interests, feed: Feed) -> None:
        """One reader less."""
        if isinstance(feed, WideFeed):
            feed.readers -= 1
            if not feed.readers:
                self._discard(feed)
                self._parking.release(feed.drop_all(and_more=False), size)
        else:
            self.histories[interests[0].topic].leave(feed)

    def floor(self, interests: Interests) -> int:
        """The lowest index that one can resume from."""
        if len(interests) == 1:
            return self.histories[interests[0].topic].floor
        return max([self.histories[each.topic].floor for each in interests])

    def dropped(self, interests: Interests) -> int:
        """The index of the newest commit of these topics that was here and no longer is."""
        return max([self.histories[each.topic].dropped for each in interests])

    def filled(self, feed: Feed) -> Feed:
        """The gate that opens when the feed has what is older than itself; it is filled in now, if it is not yet."""
        assert isinstance(feed, WideFeed)
        if feed.filled is None:
            feed.filled = Feed()
            logs = [self.histories[topic].kept() for topic in {each.topic for each in feed.interests}]
            self._parking.in_slices(self._filling(feed, logs), sum(map(len, logs)))
        return feed.filled

    def forget(self, topic: Topic[Any]) -> None:
        """Nobody else comes into the wide feeds that this topic has a part in."""
        for feed in self.routes[topic].feeds() if topic in self.routes else ():
            self._discard(feed)

    def wide_of(self, topic: Topic[Any]) -> int:
        """How many wide feeds there are that events of this topic may get into."""
        routes = self.routes.get(topic)
        return 0 if routes is None else len(routes.feeds())

    def _append_wide(self, pairs: Pairs) -> Iterable[Feed]:
        groups: dict[WideFeed, list[Event[Any]]] = {}
        for event, subject in pairs:
            routes = self.routes.get(event.topic)
            if routes is not None:
                for feed in routes.find(subject):
                    if feed in groups:
                        groups[feed].append(event)
                    else:
                        groups[feed] = [event]
        item: Event[Any] | None = None
        for feed, events in groups.items():
            item = delivery(events, item)
            feed.append(item)
        return groups

    def _drop_wide(self, topic: Topic[Any], kept: Kept) -> None:
        """The history of the topic has dropped this commit."""
        routes = self.routes.get(topic) if self.routes else None
        if routes is not None:
            for event, subject in events_of(kept):
                if event.topic == topic:
                    for feed in routes.find(subject):
                        feed.drop_through(kept[0])

    def _filling(self, feed: WideFeed, logs: Iterable[list[Kept]]) -> Iterator[None]:
        """Steps of about an event each."""
        older: list[Event[Any]] = []
        born, interests = feed.born, feed.interests
        done = 0
        item: Event[Any] | None = None
        for kept in merge(*logs, key=itemgetter(0)):
            index = kept[0]
            if index > born or not feed.readers:
                break
            if index == done:  # it is of several topics
                continue
            done = index
            events: list[Event[Any]] = []
            for count, (event, subject) in enumerate(events_of(kept), 1):
                if covered(interests, event.topic, subject):
                    events.append(event)
                if not count % PORTION:
                    yield
            if events:
                item = delivery(events, item)
                older.append(item)
            yield
        feed.fill(older)
        assert feed.filled is not None
        feed.filled.end = 1
        self._parking.wake((feed.filled,))

    def _discard(self, feed: WideFeed) -> None:
        """Out of the routes."""
        if self._wide.get(feed.interests) is not feed:
            return
        del self._wide[feed.interests]
        for each in feed.interests:
            routes = self.routes[each.topic]
            routes.remove(each, feed)
            if not routes.shapes:
                del self.routes[each.topic]


def is_wide(interests: Interests) -> bool:
    """Whether their feed is there only while it is read."""
    if len(interests) > 1:
        return True
    _, _, prefix, namespace, partition = interests[0]
    return prefix or namespace is ALL or partition is ALL
