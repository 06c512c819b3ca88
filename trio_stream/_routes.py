"""Which wide feeds an event gets into: prefixes, `ALL`, and several interests together. Pure, no event loop.

An interest is looked for by what it would look like, in one dict for each *shape* in use: how long a prefix is, and
whether it is of all namespaces or partitions.
So what a publish costs grows with the shapes in use and with the feeds that match, not with those that do not.

When a history drops a commit it is looked for once more, so that the feeds which have it drop it too; not if no feed
got it when it was published, and none was filled with it later.
The commits do not say which feeds have them: those come and go while a quiet topic keeps its commits.

*Former* feeds get nothing any more: what they are of was finished, and reopened since.
They are looked for in the same way, only when a commit is dropped that they may have.
"""

from collections import deque
from collections.abc import Collection
from typing import TypeAlias

from ._buffer import Feed
from ._events import Subject
from ._interest import ALL, Interest, Name

Interests: TypeAlias = tuple[Interest, ...]

_Shape: TypeAlias = tuple[int | None, bool, bool]
"""Of an interest: the length of its prefix, or None if it is one key; whether it is of all namespaces, partitions."""
_Place: TypeAlias = tuple[str, Name, Name]


class Routes:
    """The wide feeds that events of one topic get into."""

    __slots__ = ("count", "filled", "former", "routed", "shapes")

    def __init__(self) -> None:
        # How many feeds there are. Written by `Feeds`; any thread may look.
        self.count: int = 0
        # The indexes of the kept commits that some feed got, oldest first; a feed may have been filled with those up to
        # `filled` too.
        self.routed: deque[int] = deque()
        self.filled: int = 0
        # {shape: {place: the feeds that have such an interest}}, without empty entries.
        self.shapes: dict[_Shape, dict[_Place, dict[Feed, None]]] = {}
        # The former feeds that somebody reads, which may have the commits up to `filled`; None if there never was one.
        self.former: Routes | None = None

    def add(self, interest: Interest, feed: Feed) -> None:
        shape, place = _located(interest)
        self.shapes.setdefault(shape, {}).setdefault(place, {})[feed] = None

    def remove(self, interest: Interest, feed: Feed) -> None:
        shape, place = _located(interest)
        places = self.shapes[shape]
        del places[place][feed]
        if not places[place]:
            del places[place]
            if not places:
                del self.shapes[shape]

    def find(self, subject: Subject) -> Collection[Feed]:
        """The feeds that an event of this subject gets into, each once."""
        key, namespace, partition = subject
        found: dict[Feed, None] | None = None
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

    def has_dropped(self, index: int) -> bool:
        """The history has dropped this commit, its oldest; whether feeds may have it."""
        if self.routed and self.routed[0] == index:
            self.routed.popleft()
            return True
        return index <= self.filled and bool(self.shapes or (self.former and self.former.shapes))

    def retire(self, interest: Interest, feed: Feed, index: int) -> None:
        """The feed is a former one from this commit on."""
        if self.former is None:
            self.former = Routes()
        self.former.add(interest, feed)
        self.filled = max(self.filled, index)

    def forget(self, interest: Interest, feed: Feed) -> None:
        """Nobody reads the former feed any more, which may not be known here."""
        if self.former is not None and feed in self.former.find_exactly(interest):
            self.former.remove(interest, feed)

    def find_exactly(self, interest: Interest) -> Collection[Feed]:
        """The feeds that have this interest."""
        shape, place = _located(interest)
        return self.shapes.get(shape, {}).get(place, ())


def _located(interest: Interest) -> tuple[_Shape, _Place]:
    _, key, prefix, namespace, partition = interest
    length = len(key) if prefix or not key else None
    return (length, namespace is ALL, partition is ALL), (key, namespace, partition)
