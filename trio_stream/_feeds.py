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
A union of single keys is finished when all of them are; if one of them is reopened, it follows that again.
One that was finished as a whole is over then, and stays with its readers; who comes now gets a new one.

When a history drops a commit, the commit is looked up again, and the wide feeds that it touches forget everything up to
it: what several topics have together reaches back as far as the one that reaches least.
"""

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, cast

from ._buffer import Feed, Finished
from ._commit import NO_END, Ending, Groups, Pairs, delivery
from ._conflation import Latest, RowFunc, Rows, row_of
from ._events import Event, Subject, Topic, size
from ._interest import ALL, Interest, is_single
from ._rights import Replaced, Replacement
from ._routes import Interests, Routes
from ._timeline import Timeline
from ._topic import History, Kept, PlainFeed, events_of
from ._wait import Parking

_ORIGIN: Final = 1 << 29  # room for what is filled in; below 1 << 30 an int is small
_STEP: Final = 8  # events of the histories that one step of filling looks at


class WideFeed(Feed):
    """What several interests, or one that is not plain, have together."""

    __slots__ = ("filled", "finished", "histories", "open", "routes")

    def __init__(self, interests: Interests, histories: tuple[History, ...], born: int) -> None:
        super().__init__(_ORIGIN)
        self.interests = interests
        self.histories: tuple[History, ...] = histories
        # Those that it is in, one for each history; none if it is over.
        self.routes: tuple[Routes, ...] = tuple([history.routes for history in histories])
        replaced = [history.replaced for history in histories]
        self.replaced: Replaced = replaced[0] if len(replaced) == 1 else ChainMap(*replaced)
        self.born = born
        # Where those wait who need what is older; None as long as nobody did.
        self.filled: Feed | None = None
        # The keys that it is of and that are not finished; None if it is not of single keys only.
        self.open: set[Interest] | None = None
        if all(map(is_single, interests)):
            self.open = set(interests)
        # The feeds of those that a commit has finished: it reads them so that this is remembered.
        self.finished: dict[PlainFeed, None] = {}

    def finish(self, interest: Interest, sequel: Finished, plain: PlainFeed | None = None) -> bool:
        """One of its keys is finished, and this is the feed of that; whether it was the last one."""
        if not self.open or interest not in self.open:
            return False
        self.open.discard(interest)
        if plain is not None:
            plain.readers += 1
            self.finished[plain] = None
        if not self.open:
            self.sequel = sequel
        return not self.open

    def reopen(self, interest: Interest, index: int, plain: PlainFeed | None) -> int | None:
        """One of its keys is reopened by this commit, and this is the feed of that.

        If all of them were finished it is over; then returns where that was.
        """
        if self.open is None:
            return None
        self.reopened = index
        if plain in self.finished:
            assert plain is not None
            del self.finished[plain]
            plain.readers -= 1
        if isinstance(self.sequel, Finished):
            self.sequel = self.sequel._replace(reopened=index)
            return self.sequel.at
        self.open.add(interest)
        return None

    @property
    def is_current(self) -> bool:
        """Whether no history of it was cleared since: if one was, only those who read it already come to its end."""
        return all(
            history.routes is routes for history, routes in zip(self.histories, self.routes, strict=True)
        )


class Feeds:
    """The histories of all topics, and the wide feeds."""

    def __init__(self, timeline: Timeline, parking: Parking, *, history: int, history_events: int) -> None:
        self.histories: dict[Topic[Any], History] = {}
        # Of those topics whose source says what a row is; all readers who conflate have this one.
        self.row_functions: dict[Topic[Any], RowFunc] = {}
        # How many more events were published than commits.
        self.more: int = 0
        self._timeline = timeline
        self._parking = parking
        self._limits = history, history_events
        self._wide: dict[Interests, WideFeed] = {}

    def add(
        self,
        topic: Topic[Any],
        *,
        row: RowFunc | None = None,
        replay: Callable[..., Any] | None = None,
        finishes: bool = False,
    ) -> None:
        """A topic more; it begins at the newest index."""
        floor = self._timeline.index
        self.histories[topic] = History(topic, *self._limits, floor, replay=replay, finishes=finishes)
        if row is not None:
            self.row_functions[topic] = row

    def rows(self, commit: Iterable[Event[Any]], topics: Iterable[Topic[Any]]) -> Rows:
        """Which rows these events are of, as far as somebody conflates them; before anything is changed."""
        rows: Rows = {}
        if not any([self.histories[topic].folds for topic in topics]):  # noqa: C419 - a list takes less time
            return rows
        for event in commit:
            function = self.row_functions.get(event.topic)
            if function is not None and self.histories[event.topic].folds:
                try:
                    rows[id(event)] = row_of(event, function)
                except Exception:  # noqa: BLE001 - who conflates asks again, and is told
                    rows[id(event)] = None
        return rows

    def check_open(self, parts: Mapping[Topic[Any], Groups], reopening: Ending = NO_END) -> None:
        """Raises `InvalidCommitError` if one of the subjects is known to be finished, and not `reopening`."""
        for topic, groups in parts.items():
            history = self.histories[topic]
            if history.finals:
                history.check_open(groups, reopening.get(topic, ()))

    def reopen(self, reopening: Ending, index: int) -> dict[Interests, tuple[Feed, int] | None]:
        """Has there be more of these subjects, from this commit on, which is about to be appended.

        Returns what is concerned, with the feed that is over, if there is one, and the index where it was finished.
        """
        concerned: dict[Interests, tuple[Feed, int] | None] = {}
        for topic, subjects in reopening.items():
            history = self.histories[topic]
            for subject in subjects:
                interest = _interest_in(topic, subject)
                concerned[interest,] = None
                for wide in list(history.routes.find(subject)):
                    assert isinstance(wide, WideFeed)
                    at = wide.reopen(interest, index, history.feeds.get(subject))
                    if at is not None:
                        concerned[wide.interests] = wide, at
                        self._retire(wide)
            for plain, at in history.reopen(subjects, index):
                concerned[_interests_of(plain)] = plain, at
        for interests, over in concerned.items():
            if over is not None and over[0].readers:
                for each in interests:
                    self.histories[each.topic].routes.retire(each, over[0], index)
        return concerned

    def append(
        self,
        index: int,
        pairs: Pairs,
        parts: Mapping[Topic[Any], Groups],
        ending: Ending = NO_END,
        rows: Rows | None = None,
    ) -> list[Feed]:
        """Adds a commit and drops what is now too old; returns the feeds that got something.

        `parts` has each topic of the commit, also one of which a subject is finished and no more.
        """
        self.more += len(pairs) - 1
        touched: list[Feed] = []
        if len(parts) == 1:
            for topic, groups in parts.items():
                touched += self.histories[topic].append(index, pairs, groups, ending.get(topic, ()))
        else:
            parted = _parted(pairs)
            for topic, groups in parts.items():
                own, places = parted.get(topic, ((), ()))
                history = self.histories[topic]
                touched += history.append(index, own, groups, ending.get(topic, ()), places)
        if self._wide:
            touched += self._append_wide(pairs)
            for topic, subjects in ending.items():
                touched += self._finish_wide(topic, subjects, index)
        if rows:
            _conflate(touched, index, rows)
        for topic in parts:
            history = self.histories[topic]
            while history.is_full:
                _drop(history)
        return touched

    def replace(self, replacements: Iterable[Replacement]) -> None:
        """Notes what events replace that are about to be appended."""
        for each in replacements:
            self.histories[each.event.topic].replaced[id(each.event)] = each

    def append_single(self, history: History, event: Event[Any], subject: Subject) -> Sequence[Feed]:
        """`append` for a commit of one event, in half of its time; `subject` may be a plain tuple.

        Returns those of the feeds that somebody waits in.
        """
        feed = history.append_single(event.index, event, subject)
        blank = feed.blank
        waited: list[Feed] = []
        if feed.waiting:
            waited.append(feed)
        if blank is not None and blank.waiting:
            waited.append(blank)
        if history.routes.shapes and (found := history.routes.find(subject)):
            history.routes.routed.append(event.index)
            for wide in found:
                wide.items.append(event)
                wide.end += 1
                if wide.waiting:
                    waited.append(wide)
        if history.is_full:
            _drop(history)
        return waited

    def enter(self, interests: Interests) -> Feed:
        """The feed of these interests, for one more reader."""
        topic, key, prefix, namespace, partition = interests[0]
        # The same as is_wide(), without the call.
        if len(interests) == 1 and not prefix and namespace is not ALL and partition is not ALL:
            plain = self.histories[topic].enter(cast("Subject", (key, namespace, partition)))
            if not plain.interests:
                plain.interests = interests
            return plain
        feed = self._wide.get(interests)
        if feed is None or not feed.is_current:
            feed = WideFeed(interests, self.histories_of(interests), self._timeline.index)
            self._wide[interests] = feed
            for each in interests:
                self.histories[each.topic].routes.add(each, feed)
            for routes in feed.routes:
                routes.count += 1
            self._finish_keys(feed)
        feed.readers += 1
        return feed

    def leave(self, feed: Feed) -> None:
        """One reader less."""
        if isinstance(feed, PlainFeed):
            feed.history.leave(feed)
        else:
            feed.readers -= 1
            if not feed.readers:
                self._discard(feed)
                self._parking.release(feed.drop_all(and_more=False), size)
        sequel = feed.sequel
        if feed.readers or not isinstance(sequel, Finished):
            return
        if sequel.reopened:
            for each in _interests_of(feed):
                self.histories[each.topic].routes.forget(each, feed)
            self._parking.release(feed.drop_all(and_more=False), size)
        elif not sequel.is_published:
            feed.sequel = None  # it is for the snapshot or replay function to say it again
            self._timeline.recall(sequel.at, feed)

    def ended(self, interests: Interests, sequel: Finished) -> Feed:
        """A feed without items, for one reader of these who alone knows that they are finished."""
        feed = WideFeed(interests, self.histories_of(interests), 0)
        feed.routes = ()
        feed.sequel = sequel
        feed.readers = 1
        return feed

    def conflate(self, feed: Feed) -> None:
        """One more reader of it conflates."""
        if feed.latest is None:
            feed.latest = Latest(self._timeline.index, self._limits[1])
            for history in self._histories_in(feed):
                history.folds += 1
        feed.latest.readers += 1

    def relax(self, feed: Feed) -> None:
        """One less."""
        assert feed.latest is not None
        feed.latest.readers -= 1
        if not feed.latest.readers:
            self._parking.release(feed.latest.close())
            feed.latest = None
            for history in self._histories_in(feed):
                history.folds -= 1

    def floor(self, feed: Feed) -> int:
        """The lowest index that a reader of it can resume from."""
        if isinstance(feed, PlainFeed):
            return feed.history.floor
        return max([history.floor for history in self._histories_in(feed)])

    def newest_dropped(self, feed: Feed) -> int:
        """The newest commit of its topics that is no longer in their histories."""
        return max([history.dropped for history in self._histories_in(feed)])

    def floor_of(self, interests: Interests) -> int:
        """The lowest index that one can resume from in all topics of these."""
        return max([history.floor for history in self.histories_of(interests)])

    def histories_of(self, interests: Interests) -> tuple[History, ...]:
        """Those of the topics, each once."""
        return tuple({self.histories[each.topic]: None for each in interests})

    def can_replay(self, feed: Feed) -> bool:
        """Whether one function reads older commits of all its topics."""
        histories = self._histories_in(feed)
        first = histories[0].replay
        return first is not None and all(each.replay == first for each in histories)

    def may_be_finished(self, feed: Feed) -> bool:
        """Whether it is of one key that may be finished since before the history, which a replay would say."""
        return (
            isinstance(feed, PlainFeed)
            and feed.history.finishes
            and feed.subject.key != ""
            and feed.start == feed.end
            and feed.sequel is None
            and not feed.reopened
        )

    def leads_on(self, feed: Feed, index: int) -> bool:
        """Whether commits lead from this index to the present state; who has read since the refresh need not ask."""
        return all(each.refreshed <= index for each in self._histories_in(feed))

    def reach(self, feed: Feed) -> int:
        """The index above which the feed has everything, or can be filled with it; only a wide feed has to be asked."""
        if isinstance(feed, WideFeed) and feed.filled is None:
            # Who has stopped keeps nothing to fill it with.
            gone = max([history.dropped for history in feed.histories])
            feed.dropped = max(feed.dropped, feed.born if self._timeline.is_stopped else min(feed.born, gone))
        return feed.dropped

    def filled(self, feed: Feed) -> Feed:
        """The gate that opens when the feed has what is older than itself; it is filled in now, if it is not yet."""
        assert isinstance(feed, WideFeed)
        if feed.filled is None:
            feed.filled = Feed()
            for history in feed.histories:
                history.routes.filled = max(history.routes.filled, feed.born)
            logs = [history.kept() for history in feed.histories]
            self._parking.in_slices(self._filling(feed, logs), sum(map(len, logs)))
        return feed.filled

    def fill_after(self, interests: Interests, index: int) -> None:
        """Fills the feed of these interests, if it is there and does not have all that is newer than this index."""
        feed = self._wide.get(interests)
        if feed is not None and feed.is_current and self.reach(feed) <= index < feed.born:
            self.filled(feed)

    def close(self) -> None:
        """Forgets the wide feeds; their readers keep them."""
        wide, self._wide = self._wide, {}
        self._parking.release(list(wide.values()))

    def _histories_in(self, feed: Feed) -> tuple[History, ...]:
        if isinstance(feed, PlainFeed):
            return (feed.history,)
        assert isinstance(feed, WideFeed)
        return feed.histories

    def _append_wide(self, pairs: Pairs) -> Iterable[Feed]:
        groups: dict[Feed, list[Event[Any]]] = {}
        routed: dict[Topic[Any], None] = {}
        for event, subject in pairs:
            found = self.histories[event.topic].routes.find(subject)
            if found:
                routed[event.topic] = None
            for feed in found:
                if feed in groups:
                    groups[feed].append(event)
                else:
                    groups[feed] = [event]
        for topic in routed:
            self.histories[topic].routes.routed.append(pairs[0][0].index)
        item: Event[Any] | None = None
        for feed, events in groups.items():
            item = delivery(events, item)
            feed.append(item)
        return groups

    def _finish_wide(self, topic: Topic[Any], subjects: Iterable[Subject], index: int) -> Iterator[Feed]:
        """Finishes those of which nothing else is left."""
        history = self.histories[topic]
        for subject in subjects:
            for feed in history.routes.find(subject):
                assert isinstance(feed, WideFeed)
                interest = _interest_in(topic, subject)
                if feed.finish(interest, Finished(index, is_published=True), history.feeds.get(subject)):
                    yield feed

    def _finish_keys(self, feed: WideFeed) -> None:
        """Has a new feed know which of its keys are finished already."""
        known: list[tuple[Interest, Finished, PlainFeed]] = []
        for interest in (feed.open and feed.interests) or ():
            history = self.histories[interest.topic]
            plain = (
                history.feeds.get(cast("Subject", (interest.key, *interest[3:]))) if history.finals else None
            )
            if plain is not None and isinstance(plain.sequel, Finished) and plain.is_final:
                known.append((interest, plain.sequel, plain))
        for interest, sequel, plain in sorted(known, key=lambda each: each[1].at):  # it ends at the last one
            feed.finish(interest, sequel, plain)

    def _filling(self, feed: WideFeed, logs: Iterable[list[Kept]]) -> Iterator[None]:
        """Steps of a few events each, however many interests there are."""
        routes: dict[Topic[Any], Routes] = {}
        for each in feed.interests:
            routes.setdefault(each.topic, Routes()).add(each, feed)
        older: list[Event[Any]] = []
        item: Event[Any] | None = None
        looked = 0
        for index, kept in groupby(merge(*logs, key=itemgetter(0)), itemgetter(0)):
            if index > feed.born or not feed.readers:
                break
            events: list[Event[Any]] = []
            for event, subject in events_of(list(kept)):
                if routes[event.topic].find(subject):
                    events.append(event)
                looked += 1
                if not looked % _STEP:
                    yield
            if events:
                item = delivery(events, item)
                older.append(item)
        feed.fill(older)
        assert feed.filled is not None
        feed.filled.end = 1
        self._parking.wake((feed.filled,))

    def _discard(self, feed: Feed) -> None:
        """Nobody reads it any more."""
        assert isinstance(feed, WideFeed)
        if feed.routes:
            self._retire(feed)

    def _retire(self, feed: WideFeed) -> None:
        """It gets nothing any more."""
        if self._wide.get(feed.interests) is feed:
            del self._wide[feed.interests]
        routes = dict(zip(feed.histories, feed.routes, strict=True))
        for each in feed.interests:
            routes[self.histories[each.topic]].remove(each, feed)
        for each_routes in feed.routes:
            each_routes.count -= 1
        feed.routes = ()
        finished, feed.finished = feed.finished, {}
        self._parking.in_slices(map(self.leave, finished), len(finished))


def _interests_of(feed: Feed) -> Interests:
    """Those of a plain feed, which may not have them yet, or of a wide one."""
    if isinstance(feed, PlainFeed):
        return (_interest_in(feed.history.topic, feed.subject),)
    return feed.interests


def _interest_in(topic: Topic[Any], subject: Subject) -> Interest:
    """That in just this."""
    return Interest(topic, subject.key, namespace=subject.namespace, partition=subject.partition)


def _conflate(touched: Iterable[Feed], index: int, rows: Rows) -> None:
    """Has those who conflate find this commit, of these rows, in the feeds that got it."""
    for feed in touched:
        if feed.latest is not None and feed.items and feed.items[-1].index == index:
            feed.latest.add(feed.items[-1].events, rows)


def _drop(history: History) -> None:
    """Has the history, and the wide feeds that have its oldest commit, forget that."""
    kept = history.drop_oldest()
    if history.routes.has_dropped(kept[0]):
        for _, subject in events_of((kept,)):
            for feed in history.routes.find(subject):
                feed.drop_through(kept[0])
            for feed in history.routes.former.find(subject) if history.routes.former else ():
                feed.drop_items(kept[0])


def _parted(pairs: Pairs) -> dict[Topic[Any], tuple[Pairs, Sequence[int]]]:
    """The events of a commit by topic, and their places in it."""
    parts: dict[Topic[Any], tuple[list[tuple[Event[Any], Subject]], list[int]]] = {}
    for place, pair in enumerate(pairs):
        own, places = parts.setdefault(pair[0].topic, ([], []))
        own.append(pair)
        places.append(place)
    return {**parts}


def is_wide(interests: Interests) -> bool:
    """Whether their feed is there only while it is read."""
    if len(interests) > 1:
        return True
    _, _, prefix, namespace, partition = interests[0]
    return prefix or namespace is ALL or partition is ALL
