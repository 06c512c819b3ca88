"""Reading the log of a store in PostgreSQL, some commits at a time.

Everything here blocks and belongs in a worker thread.

Nothing is held between two pages.
Each is read in a transaction with the head, so that what is below the floor is never missed without a word.
The server leaves out the text of commits of other topics; their indexes come all the same, so that one that is
missing is noticed.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ._errors import HistoryLostError, UnreadableCommitError
from ._json import Decoded, decode_operations
from ._postgresql_database import Database, Row
from ._postgresql_writing import Statement, mark_at
from ._values import Commit

# At most, in one go.
_COMMITS: Final = 512
_PASSED: Final = 4096  # commits, with those of topics that nobody has asked for
_BYTES: Final = 1 << 20  # after which no further commit is read

_LAST: Final = 2**63 - 1  # which no commit can pass
_NOTHING: Final = Decoded((), frozenset())


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

    def read(
        self,
        place: Place,
        topics: frozenset[str] | None,
        stop: threading.Event | None = None,
        *,
        upto: int = _LAST,
    ) -> Page:
        """Some commits after the place and up to an index, if any. With topics: see `TopicLog.changes_of`."""
        t = self._database.tables
        after = min(place.index, _LAST)
        ours = "true" if topics is None else "topics && %s::text[]"
        rows = (
            f"SELECT idx, mark, CASE WHEN {ours} THEN operations END AS operations, revoked"
            f" FROM {t.log} WHERE idx > %s AND idx <= %s ORDER BY idx LIMIT %s"
        )
        sizes = (
            "SELECT p.*, sum(coalesce(octet_length(operations), 0)) OVER (ORDER BY idx)"
            f" - coalesce(octet_length(operations), 0) AS before FROM ({rows}) AS p"
        )
        head, (marks, found) = self._database.read(
            [
                Statement(f"SELECT idx, mark FROM {t.log} WHERE idx = %s", [after]),
                Statement(
                    f"SELECT idx, mark, operations, revoked FROM ({sizes}) AS q WHERE before < %s ORDER BY idx",
                    [
                        *([] if topics is None else [list(topics)]),
                        after,
                        upto,
                        _COMMITS if topics is None else _PASSED,
                        _BYTES,
                    ],
                ),
            ],
            stop,
        )
        place = self._judged(place, head, dict(marks))
        commits = self._commits(place.index, found, topics)
        return Page(replace(place, index=commits[-1].index) if commits else place, commits)

    def _judged(self, place: Place, head: Row, marks: Mapping[int, str]) -> Place:
        """The same in the epoch of the store; `HistoryLostError` if it is not of that."""
        if place.epoch not in {None, head.epoch} or place.index < head.floor:
            raise HistoryLostError(place.index, head.floor, head.epoch)
        if place.mark and place.index <= head.index:
            if mark_at(place.index, head, marks) not in {place.mark, None}:
                raise HistoryLostError(place.index, head.floor, head.epoch)
            place = replace(place, mark="")
        return replace(place, epoch=head.epoch)

    def _commits(
        self, after: int, rows: Sequence[Sequence[Any]], topics: frozenset[str] | None
    ) -> Sequence[Commit]:
        """What the rows say, up to the first one that is not as it should be; raises if there is none before it."""
        commits: list[Commit] = []
        for index, mark, text, revoked in rows:
            try:
                commits.append(self._commit(after + len(commits) + 1, index, mark, text, revoked, topics))
            except UnreadableCommitError:
                if not commits:
                    raise
                break
        return commits

    def _commit(
        self, next_: int, index: int, mark: str, text: str | None, revoked: str, topics: frozenset[str] | None
    ) -> Commit:
        """Without a text if it does not concern the topics."""
        store = self._database.server.name
        if index != next_:
            raise UnreadableCommitError(store, index - 1, missing=next_)
        operations, unreadable = decode_operations(text.encode(), topics) if text is not None else _NOTHING
        digests = _digests(revoked)
        if unreadable is None or unreadable or digests is None:
            raise UnreadableCommitError(store, index, unreadable, operations)
        return Commit(index, operations, mark, digests)


def _digests(text: str) -> tuple[str, ...] | None:
    """None if it is not of our form."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not (isinstance(found, list) and all(isinstance(each, str) for each in found)):
        return None
    return tuple(found)
