"""How far the publisher has come, and whether a cursor lies on the way: one timeline for all of its topics.

An index alone does not say which commit is meant: after a restore of the store another commit may have it.
The *epoch* names the timeline, and changes when the publisher knows of a restore.
A *mark* is what the store wrote with one commit; where a timeline has marks, a cursor needs the right one, also when
nobody knew of a restore.
The timeline keeps the marks of its newest commits, of whatever topic, as many as a history keeps.

A cursor is judged at once, but for one that is ahead of what was published: that has to wait until its index is
published or passed over.
Where somebody waits for an index there is a *gate*: an empty feed that gets an end, and the mark of that commit, when
the index is reached.
"""

import enum
from bisect import bisect_left, insort
from collections import deque
from operator import itemgetter

from ._buffer import Feed
from ._tokens import Digest, Revocations
from ._wait import Slot


class Verdict(enum.Enum):
    """What is known of a cursor."""

    GOOD = enum.auto()
    """It lies on this timeline, or cannot be doubted."""
    STALE = enum.auto()
    """It does not, or nobody can know."""
    UNKNOWN = enum.auto()
    """It is older than what is remembered."""
    AHEAD = enum.auto()
    """It is to be judged when its index is reached."""


class Gate(Feed):
    """Opens when an index is published or passed over."""

    __slots__ = ("called", "mark")

    def __init__(self) -> None:
        super().__init__()
        # When it is open: of the commit with this index; "" if there is none, or it has none.
        self.mark: str = ""
        # Those who wait in these are woken when it opens.
        self.called: dict[Feed, None] = {}


class Timeline:
    """The indexes, and the marks of the newest of them."""

    __slots__ = (
        "_awaited",
        "_limit",
        "_marks",
        "_order",
        "commits",
        "epoch",
        "index",
        "is_stopped",
        "mark",
        "revocations",
    )

    def __init__(
        self, index: int, epoch: str, mark: str, limit: int, *, digest: Digest | None = None
    ) -> None:
        """`digest` gives the names of tokens; None if they are their own."""
        # Of the newest commit; `mark` is "" if it has none.
        self.index: int = index
        self.mark: str = mark
        self.epoch: str = epoch
        # How many commits were published.
        self.commits: int = 0
        # Nothing will be published any more.
        self.is_stopped: bool = False
        # A cursor is good only under the rights that it was reached with.
        self.revocations: Revocations = Revocations(digest)
        # (index, mark) of the newest commits from the first one on that had a mark, oldest first, at most `limit`.
        self._marks: deque[tuple[int, str]] = deque([(index, mark)] if mark else ())
        self._limit: int = limit
        # {index: the gate of those who wait for it}; and these indexes, lowest first.
        self._awaited: dict[int, Gate] = {}
        self._order: list[int] = []

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for an index."""
        return bool(self._order)

    def advance(self, index: int, mark: str) -> None:
        """A commit is published."""
        self.commits += 1
        self.index = index
        self.mark = mark
        if mark or self._marks:
            self._marks.append((index, mark))
            if len(self._marks) > self._limit:
                self._marks.popleft()

    def restart(self, index: int, epoch: str, mark: str) -> None:
        """Goes on after this commit; on another timeline, if the epoch is another."""
        if epoch != self.epoch:
            self._marks.clear()
            self.revocations.clear()
        self.epoch = epoch
        if self._marks and self._marks[-1][0] == index:
            self._marks.pop()
            mark = mark or self.mark
        self.advance(index, mark)
        self.commits -= 1  # this one was not published

    @property
    def _oldest(self) -> int:
        """The index of the oldest commit whose mark is remembered; one above the newest if there is none."""
        return self._marks[0][0] if self._marks else self.index + 1

    def mark_at(self, index: int) -> str | None:
        """The mark of the commit with this index; None if it is not known, or there is no such commit."""
        place = bisect_left(self._marks, index, key=itemgetter(0))
        if place < len(self._marks) and self._marks[place][0] == index:
            return self._marks[place][1]
        return None

    def judge(self, index: int, epoch: str | None, mark: str) -> Verdict:
        """Of a cursor with an index above 0. Without an epoch and a mark it is trusted, unless it is ahead."""
        if epoch is not None and epoch != self.epoch:
            return Verdict.STALE
        if index <= self.index:
            if not mark and (epoch is None or not self._marks):
                return Verdict.GOOD
            if not mark:
                return Verdict.STALE
            if index < self._oldest:
                return Verdict.UNKNOWN
            return Verdict.GOOD if self.mark_at(index) == mark else Verdict.STALE
        if epoch is None or (self._marks and not mark):
            return Verdict.STALE
        return Verdict.AHEAD if mark else Verdict.GOOD

    def contradicts(self, index: int, mark: str) -> bool:
        """Whether the commit with this index is known here to be another one than that with this mark."""
        if not mark or index > self.index or not self._marks or index < self._oldest:
            return False
        return self.mark_at(index) != mark

    def enter(self, index: int) -> Gate:
        """The gate of an index that is not reached, for one more who waits."""
        gate = self._awaited.get(index)
        if gate is None:
            gate = self._awaited[index] = Gate()
            insort(self._order, index)
        gate.readers += 1
        return gate

    def leave(self, index: int, gate: Feed) -> None:
        """One less."""
        gate.readers -= 1
        if not gate.readers and self._awaited.get(index) is gate:
            del self._awaited[index]
            del self._order[bisect_left(self._order, index)]

    def call(self, index: int, feed: Feed) -> None:
        """Has those who wait in this feed look again when the index is published, which is not reached."""
        self.enter(index).called[feed] = None

    def recall(self, index: int, feed: Feed) -> None:
        """Nobody waits in this feed any more."""
        gate = self._awaited.get(index)
        if gate is not None and feed in gate.called:
            del gate.called[feed]
            self.leave(index, gate)

    def reached(self) -> list[Feed]:
        """The gates of the indexes that are published now, which open, and the feeds that they call."""
        order = self._order
        if not order or order[0] > self.index:
            return []
        count = bisect_left(order, self.index + 1)
        passed, self._order = order[:count], order[count:]
        gates = [self._awaited.pop(index) for index in passed]
        for index, gate in zip(passed, gates, strict=True):
            gate.end = 1
            gate.mark = self.mark_at(index) or ""
        return [*gates, *[feed for gate in gates for feed in gate.called]]

    def everybody(self) -> list[Slot]:
        """All who wait; they are forgotten."""
        gates, self._awaited, self._order = self._awaited, {}, []
        return [slot for gate in gates.values() for slot in gate.waiting]
