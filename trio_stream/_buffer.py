"""The buffer that readers share: a feed, and positions in it. Pure, no event loop.

What is appended is shared by all readers; nothing is copied for any of them.

A position is an absolute number, not a pointer.
The lag of a reader is a subtraction, a batch is a slice, a resume is a bisection, and having fallen off the
history is a comparison, so a reader that does nothing costs nothing and pins nothing.

A *gate* is a feed that never has items: its end becomes 1 when those who wait at it are to look again.
"""

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

from ._conflation import Latest
from ._events import END_OF_SNAPSHOT, Event, Topic
from ._interest import Interest
from ._rights import NOTHING, Replaced, Replacement
from ._wait import Lot

_DROPPED: Final = Event[Any](Topic("dropped"), 0, END_OF_SNAPSHOT)  # in the place of an event that is gone
_INDEX: Final = attrgetter("index")
_COMPACT_FROM: Final = 64  # places of dropped items; below, moving the rest is not worth the call


class Finished(NamedTuple):
    """What follows a feed whose subject is finished: nothing, once this index is published."""

    at: int
    is_published: bool
    """Whether the commit was published that says so; if not, a snapshot or replay function did."""
    reopened: int = 0
    """The index of a later commit from which on there is more, in another feed; 0 if there is none."""


class Reached(NamedTuple):
    """What follows a feed that has all commits up to this one: those after it."""

    at: int
    mark: str
    """Of the commit with this index; "" if it is not known."""
    is_finished: bool
    """Nothing will ever come after it."""


class Broken(NamedTuple):
    """What follows a feed of which something is missing; `cause` is None if the publisher has stopped."""

    cause: BaseException | None


Sequel: TypeAlias = Finished | Reached | Broken


class Feed(Lot):
    """Deliveries, oldest first; readers that have had them all wait in it."""

    __slots__ = (
        "base",
        "born",
        "dropped",
        "end",
        "interests",
        "items",
        "latest",
        "readers",
        "reopened",
        "replaced",
        "sequel",
        "start",
    )

    def __init__(self, origin: int = 0) -> None:
        """`origin` is the first position; before it there may be room for what `fill` adds."""
        super().__init__()
        self.items: list[Event[Any]] = []
        # Positions: of items[0], of the oldest item kept, of the next item to come. base <= start <= end.
        self.base: int = origin
        self.start: int = origin
        self.end: int = origin
        # It has all that is newer than this index and ever came; what is older has to be filled in first.
        self.born: int = 0
        # All that is newer than this index, and was to be here, still is or can be filled in.
        self.dropped: int = 0
        # How many read from here; each counts itself in and out. And what they have asked for.
        self.readers: int = 0
        self.interests: tuple[Interest, ...] = ()
        # What its events replace; shared with other feeds.
        self.replaced: Replaced = NOTHING
        # For those who conflate; None if nobody does.
        self.latest: Latest | None = None
        # What follows the last item; None for more of the same.
        self.sequel: Sequel | None = None
        # The newest commit that reopened what it is of: that this is finished since an older one is not so any more.
        self.reopened: int = 0

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

    def drop_items(self, index: int) -> None:
        """Forgets the items up to this index."""
        while self.start < self.end and self.items[self.start - self.base].index <= index:
            self.drop_oldest()

    def drop_through(self, index: int) -> None:
        """Forgets all up to this index, also what is not here yet."""
        self.drop_items(index)
        if index > self.dropped:
            self.dropped = index

    def drop_all(self, *, and_more: bool) -> list[Event[Any]]:
        """Forgets all items, and perhaps that more was to come, so that a reader who had them all has fallen off.

        Returns them: to free very many takes long.
        """
        items, self.items = self.items, []
        self.end += and_more
        self.start = self.base = self.end
        return items

    def fill(self, older: list[Event[Any]]) -> None:
        """Puts in front what was published before the feed was born, oldest first; nothing older is to come."""
        gone = self.start - self.base
        self.items[:gone] = older[bisect_right(older, self.dropped, key=_INDEX) :]
        self.base = self.start = self.end - len(self.items)
        self.born = 0

    def after(self, index: int) -> int:
        """The position of the first kept item with a greater index; the end if there is none."""
        kept = max(0, self.start - self.base)  # below 0 for a moment, seen from another thread
        return self.base + bisect_right(self.items, index, lo=kept, key=_INDEX)


class Passage(Feed):
    """A feed that readers go through on their way, and that is filled for them."""

    __slots__ = ("_replaced",)

    def __init__(self) -> None:
        super().__init__()
        self._replaced: dict[int, Replacement] = {}
        self.replaced: Replaced = self._replaced

    def replace(self, replacements: Iterable[Replacement]) -> None:
        """Notes what events replace that are about to be appended."""
        for each in replacements:
            self._replaced[id(each.event)] = each

    def forget_replaced(self) -> list[Replacement]:
        """Forgets what its events replace, when it is emptied, and returns it."""
        replaced = list(self._replaced.values())
        self.replaced = self._replaced = {}
        return replaced
