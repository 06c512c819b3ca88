"""Reading ahead: a second reader, in the place of the first, of which nobody knows.

A call that has to read very much before it returns anything sends a *scout*, and waits wherever that has to.
When the scout has come far enough the reader follows it, in the synchronous stretch in which the call returns.
If the call is cancelled before, the scout retires, and the reader has consumed nothing (D12).
"""

from copy import copy
from typing import Any, Final

from typing_extensions import TypeVar, override

from ._course import LIVE, NOWHERE, REPLAYING, Course, Phase
from ._reader import Reader

P = TypeVar("P", default=Any)

# What a reader takes over from its scout.
_PLACE: Final = (
    "_awaited",
    "_conflation",
    "_index",
    "_keeps",
    "_known",
    "_passed",
    "_phase",
    "_position",
    "_rights",
    "_snapshot",
    "_source",
    "_taken",
)


class Scout(Reader[P]):
    """Reads ahead of another reader."""

    __slots__ = ("_beginning",)

    def __init__(self, reader: Reader[P]) -> None:
        """In the same place."""
        for name in Course.__slots__:
            setattr(self, name, getattr(reader, name))
        self._parked = None
        self._leave = _no_leave
        self._watchers = None
        self._is_receiving = False
        # Which count.
        self._rights = copy(self._rights)
        self._conflation = copy(self._conflation)
        # How the reader begins, if the scout has found that out: it counts when the reader follows.
        self._beginning: str | None = None
        self._feed.readers += 1
        if self._uses_map:
            self._passages.feeds.conflate(self._feed)
        if self._snapshot is not None:
            self._passages.enter(self._snapshot, keeps=self._keeps)
        if self._awaited is not None or self._phase is REPLAYING:
            self._source.readers += 1

    def has_all(self, index: int) -> bool:
        """Whether it has everything up to an index that is published."""
        if self._phase is Phase.JUDGED:  # it has had a snapshot that is ahead of what is published
            return not self._source.end and 0 < self._index >= index
        if self._phase is REPLAYING:
            return self._awaited is None and self._index >= index
        if self._phase is not LIVE or self._is_to_go_on():
            return self._phase is LIVE and self._index >= index
        return self._index >= index or self._position == self._feed.end

    def retire(self) -> None:
        """Leaves, if it has neither ended nor been followed."""
        if self._end is None and self._feed is not NOWHERE:
            self._detach()

    @override
    def _count_beginning(self, how: str) -> None:
        self._beginning = how

    def settle(self, reader: Reader[P]) -> None:
        """Counts how the reader has begun, if that was found out here."""
        if self._beginning is not None and reader._awaited is not None and not reader._index:
            reader._count_beginning(self._beginning)

    def bring(self, reader: Reader[P]) -> None:
        """Has the reader stand where it stands, and leaves."""
        self.settle(reader)
        reader._leave_passage()
        for name in _PLACE:
            setattr(reader, name, getattr(self, name))
        reader._unchecked = NOWHERE
        reader._burst = reader._stop = 0
        reader._peak_lag = max(reader._peak_lag, self._peak_lag)
        if self._uses_map:
            self._passages.feeds.relax(reader._feed)
        self._passages.feeds.leave(reader._feed)
        reader._feed, self._feed = self._feed, NOWHERE  # its places are those of the reader now
        reader._tell_watchers()


def _no_leave(_: Course[Any]) -> None:
    """A scout is no subscription."""
