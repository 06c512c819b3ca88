"""The newest event of each row, for readers that are behind and want no more than that. Pure, no event loop.

A *row* is what one payload is the whole state of; the source of the topic says which row that is.

Beside a feed that such readers share lies a map, `Latest`: the newest event of each row, in the order of their indexes.
It begins when the first of them comes, and ends with the last.
So a reader catches up by one delivery of as many events as there are rows, however much was published, and also when
the history has passed it.

A reader with rights cannot use the map: what it may see depends on what its last state was.
For it the events that it has not had are *folded*: of each row the last payload, and what the first of them replaced,
as far as that is known.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from ._events import Event, Topic
from ._rights import Replaced, Rights

RowFunc: TypeAlias = Callable[[Any], Hashable]
"""Says which row of the state a payload is."""
Row: TypeAlias = tuple[Topic[Any], Hashable]

MOST_FOLDED: Final = 4096  # events that one delivery is folded of


class Latest:
    """The newest event of each row in one feed since some index; at most so many rows, then the oldest are dropped."""

    __slots__ = ("_limit", "_rows", "dropped", "readers")

    def __init__(self, since: int, limit: int) -> None:
        # Oldest first.
        self._rows: dict[Row, Event[Any]] = {}
        self._limit: int = limit
        # For all that is newer than this index it has the newest event of each row.
        self.dropped: int = since
        # How many conflate; each counts itself in and out.
        self.readers: int = 0

    def add(self, events: Iterable[Event[Any]], rows: "Rows") -> None:
        """Of one commit, the newest."""
        kept = self._rows
        for event in events:
            row = rows.get(id(event))
            if row is None:  # it is not known of which row this is
                self.dropped = event.index
                continue
            kept.pop(row, None)
            kept[row] = event
            if len(kept) > self._limit:
                self.dropped = max(self.dropped, kept.pop(next(iter(kept))).index)

    def close(self) -> list[Event[Any]]:
        """Forgets everything, and returns it: to free very many takes long."""
        events = list(self._rows.values())
        self._rows.clear()
        return events

    def newer_than(self, index: int) -> list[Event[Any]]:
        """The newest event of each row that has changed since, by index."""
        found: list[Event[Any]] = []
        for event in reversed(self._rows.values()):
            if event.index <= index:
                break
            found.append(event)
        found.reverse()
        return found


Rows: TypeAlias = dict[int, Row | None]
"""{the `id` of an event: its row; None, or nothing, if the function that says so has failed or was not asked}."""


def row_of(event: Event[Any], function: RowFunc) -> Row:
    """Raises what the function raises, and `TypeError` if it is async or gives what cannot be hashed."""
    row = function(event.payload)
    if isinstance(row, Awaitable):
        raise TypeError(f"the row of a {type(event.payload).__name__} is not to be awaited")
    hash(row)
    return event.topic, row


class Conflation:
    """Of one reader that takes what it is behind in one delivery."""

    __slots__ = ("conflated", "rows")

    def __init__(self, rows: dict[Topic[Any], RowFunc]) -> None:
        """`rows`: the function of each topic that it reads, and perhaps of others."""
        self.rows: dict[Topic[Any], RowFunc] = rows
        # How many such deliveries it got.
        self.conflated: int = 0

    def folded(
        self, events: Sequence[Event[Any]], rights: Rights | None, replaced: Replaced
    ) -> list[Event[Any]]:
        """What is left of these, oldest first: of each row what the reader may see of the newest, by index.

        Raises what a `RowFunc` raises, and what `rights` raise.
        """
        # Of these alone, and before anybody is asked, who may publish: then the history forgets what is old.
        replaced = {id(each): replaced[id(each)] for each in events if id(each) in replaced}
        first: dict[Row, Event[Any]] = {}
        last: dict[Row, Event[Any]] = {}
        for event in events:
            row = row_of(event, self.rows[event.topic])
            if row not in first or id(first[row]) not in replaced:  # it was not known what that replaced
                first[row] = event
            last.pop(row, None)
            last[row] = event
        if rights is None:
            return list(last.values())
        shown = [rights.across(first[row], event, replaced) for row, event in last.items()]
        for event, got in zip(last.values(), shown, strict=True):
            if got is not event:
                rights.count(event, got)
        return [event for event in shown if event is not None]
