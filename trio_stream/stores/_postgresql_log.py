"""Reading the log of a store in PostgreSQL, some commits at a time.

Everything here blocks and belongs in a worker thread.

Nothing is held between two pages.
Each is read in a transaction with the head, so that what is below the floor is never missed without a word.
The server leaves out the text of commits of other topics; their indexes come all the same, so that one that is
missing is noticed.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from trio_stream import Interest

from ._errors import HistoryLostError, UnreadableCommitError
from ._json import decode_operations, quoted
from ._postgresql_database import Database, Row
from ._postgresql_writing import Statement, mark_at
from ._values import Change, Commit

# At most, in one go.
_COMMITS: Final = 512
_PASSED: Final = 4096  # commits, with those of topics that nobody has asked for
_BYTES: Final = 1 << 20  # after which no further commit is read

_LAST: Final = 2**63 - 1  # which no commit can pass
_MOST_LOOKED_FOR: Final = 16  # interests; with more, all commits of their topics are read


@dataclass(frozen=True, slots=True)
class Place:
    """How far a reader of the log has come."""

    index: int
    epoch: str | None
    """None: whichever the store has."""
    mark: str
    """That of the commit at the index; "" if it need not be looked at."""


@dataclass(frozen=True, slots=True)
class Page:
    """What was read, and how far that is."""

    place: Place
    commits: Sequence[Commit]


class Log:
    """What `Store.changes`, `TopicLog` and `PagedLog` give."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, place: Place, topics: frozenset[str] | None, stop: threading.Event | None = None) -> Page:
        """Some commits after the place, if any. With topics: see `TopicLog.changes_of`."""
        ours = Statement("true") if topics is None else Statement("topics && %s::text[]", [list(topics)])
        return self._page(place, ours, _LAST, topics, stop)

    def page_of(
        self,
        interests: Sequence[Interest],
        place: Place,
        upto: int,
        stop: threading.Event | None = None,
    ) -> Sequence[Commit]:
        """See `PagedLog.page_of`."""
        topics = frozenset(each.topic.name for each in interests)
        commits = self._page(place, _about(interests), min(upto, _LAST), topics, stop).commits
        return [each for each in commits if each.operations or each is commits[-1]]

    def _page(
        self,
        place: Place,
        ours: Statement,
        upto: int,
        topics: frozenset[str] | None,
        stop: threading.Event | None,
    ) -> Page:
        """`ours`: for which commits the text is read."""
        t = self._database.tables
        after = min(place.index, _LAST)
        rows = (
            f"SELECT idx, mark, CASE WHEN {ours.sql} THEN operations END AS operations, revoked"
            f" FROM {t.log} WHERE idx > %s AND idx <= %s ORDER BY idx LIMIT %s"
        )
        sizes = (
            "SELECT p.*, sum(coalesce(octet_length(operations), 0)) OVER (ORDER BY idx)"
            f" - coalesce(octet_length(operations), 0) AS before FROM ({rows}) AS p"
        )
        most = _COMMITS if topics is None else _PASSED
        head, (marks, found) = self._database.read(
            [
                Statement(f"SELECT idx, mark FROM {t.log} WHERE idx = %s", [after]),
                Statement(
                    f"SELECT idx, mark, operations, revoked FROM ({sizes}) AS q WHERE before < %s ORDER BY idx",
                    [*ours.parameters, after, upto, most, _BYTES],
                ),
            ],
            stop,
        )
        place = self._judged(place, head, dict(marks))
        if not found and place.index < (last := min(head.index, upto)):
            raise UnreadableCommitError(self._database.server.name, last, missing=place.index + 1)
        commits = self._commits(place.index, found, topics)
        return Page(replace(place, index=commits[-1].index) if commits else place, commits)

    def _judged(self, place: Place, head: Row, marks: Mapping[int, str]) -> Place:
        """The same in the epoch of the store; `HistoryLostError` if nobody can go on from there."""
        is_lost = place.epoch not in {None, head.epoch} or place.index < head.floor
        is_reached = place.index <= head.index
        if not is_lost and place.mark:
            # Whoever has seen one above the head saw it where commits are taken; a standby may be behind that.
            mark = mark_at(place.index, head, marks)
            is_lost = mark not in {place.mark, None} if is_reached else not head.is_standby
        if is_lost:
            raise HistoryLostError(place.index, head.floor, head.epoch)
        return replace(place, epoch=head.epoch, mark="" if is_reached else place.mark)

    def _commits(
        self, after: int, rows: Sequence[Sequence[Any]], topics: frozenset[str] | None
    ) -> Sequence[Commit]:
        """What the rows say, up to the first one that is not as it should be; raises if there is none before it."""
        commits: list[Commit] = []
        for index, mark, text, revoked in rows:
            try:
                operations = self._operations(after + len(commits) + 1, index, mark, text, topics)
            except UnreadableCommitError:
                if not commits:
                    raise
                break
            commits.append(Commit(index, operations, mark, tuple(revoked.split())))
        return commits

    def _operations(
        self, expected: int, index: int, mark: str, text: str | None, topics: frozenset[str] | None
    ) -> tuple[Change, ...]:
        """None without a text, which is not read if it does not concern the topics."""
        store = self._database.server.name
        if index != expected:
            raise UnreadableCommitError(store, index - 1, missing=expected)
        if text is None:
            return ()
        operations, unreadable = decode_operations(text.encode(), topics)
        if unreadable is None or unreadable:
            raise UnreadableCommitError(store, index, unreadable, operations, mark=mark)
        return operations


def _about(interests: Sequence[Interest]) -> Statement:
    """True for every commit that one of these covers; commits of other keys are left out where that is cheap."""
    if len(interests) > _MOST_LOOKED_FOR:
        return Statement("topics && %s::text[]", [list({each.topic.name for each in interests})])
    conditions: list[str] = []
    parameters: list[object] = []
    for each in interests:
        conditions.append("%s = ANY(topics)")
        parameters.append(each.topic.name)
        if each.key:
            conditions[-1] += " AND strpos(operations, %s) > 0"
            key = quoted(each.key)
            parameters.append(key[:-1] if each.prefix else key)
    return Statement(" OR ".join(conditions), parameters)
