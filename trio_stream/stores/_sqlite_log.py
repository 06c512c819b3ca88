"""Reading the log of the SQLite file, some commits at a time.

Everything here blocks and belongs in a worker thread.

Who asks for some topics gets nothing of the others but that they were there: SQLite looks for the topic's name, in
quotes, in the text of each commit, and only a text that has it comes to Python; and for a key's name as well, where
one key is asked for.
A text that is no JSON, or does not begin and end as ours, comes too: nobody knows whom it concerns.
Any other that does not have the name is taken for one of other topics, whatever is in it.

A page is small in every respect, because other threads wait for the connection and for the interpreter.
"""

import sqlite3
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from trio_stream import Interest, SubscribeRequest

from ._errors import HistoryLostError, UnreadableCommitError
from ._json import decode_operations, quoted
from ._sqlite_database import Database, Row
from ._sqlite_schema import mark_text
from ._values import Commit, Record

_NEWEST: Final = 2**63 - 1  # no commit of SQLite's is above

# At most, in one go. After the last two no further commit is read.
_COMMITS: Final = 512
_PASSED: Final = 4096  # commits, with those of topics that nobody has asked for
_BYTES: Final = 1 << 20  # of JSON that comes to Python
_SECONDS: Final = 0.02

_MOST_LOOKED_FOR: Final = 16  # topics; with more, all commits are decoded

# What cannot be told from this must be looked at in Python. Older versions of SQLite may not have json_valid.
_HAS_FORM: Final = "operations GLOB '[[][[]\"*]]'" + (
    " AND json_valid(operations)" if sqlite3.sqlite_version_info >= (3, 38) else ""
)


@dataclass(frozen=True, slots=True)
class Position:
    """The commit after which somebody reads."""

    index: int
    epoch: str | None
    """None: whichever the store has."""
    mark: str
    """"" where it is trusted."""


class Log:
    """What `Store.changes`, `TopicLog` and `PagedLog` give."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(
        self, after: Position, topics: frozenset[str] | None = None
    ) -> tuple[Position, Sequence[Commit]]:
        """Where this is, now with its epoch, and some commits after it if any.

        With topics: see `TopicLog.changes_of`.
        """
        sought = _EVERYTHING if topics is None else _containing([(each, "") for each in topics])
        return self._read(after, topics, sought)

    def page(self, after: Position, request: SubscribeRequest[Record], upto: int) -> Sequence[Commit]:
        """See `PagedLog.page_of`."""
        sought = [(each.topic.name, _quoted_key(each)) for each in request.interests]
        topics = frozenset(topic for topic, _ in sought)
        return self._read(after, topics, _containing(sought), upto=upto)[1]

    def _read(
        self,
        after: Position,
        topics: frozenset[str] | None,
        sought: "_Sought",
        upto: int | None = None,
    ) -> tuple[Position, Sequence[Commit]]:
        """`upto`: the last one that may come; then those in which there is nothing that is sought are left out."""

        def read(connection: sqlite3.Connection, row: Row) -> tuple[Position, Sequence[Commit]]:
            self._check(connection, row, after)
            page = _Page(str(self._database.file.path), after.index, topics, is_sparse=upto is not None)
            ours, names = sought
            rows = connection.execute(
                f"SELECT idx, mark, revoked, CASE WHEN {ours} OR typeof(operations) <> 'text'"  # noqa: S608
                f" OR NOT ({_HAS_FORM}) THEN CAST(operations AS BLOB) END"
                " FROM ts_log WHERE idx > ? AND idx <= ? ORDER BY idx LIMIT ?",
                (
                    *names,
                    after.index,
                    _NEWEST if upto is None else upto,
                    _COMMITS if topics is None else _PASSED,
                ),
            )
            with closing(rows):
                for each in rows:
                    page.add(*each)
                    if page.is_full:
                        break
            return replace(after, epoch=row.epoch), page.commits()

        return self._database.read(read)

    def _check(self, connection: sqlite3.Connection, row: Row, after: Position) -> None:
        """`HistoryLostError` if nobody can go on from there."""
        is_lost = after.epoch not in {None, row.epoch} or after.index < row.floor
        if not is_lost and after.mark:
            # A commit that was there and is not is one of another copy; one that is damaged still is this one's.
            is_lost = after.index > row.index or (
                self._database.mark(connection, row, after.index) not in {None, after.mark}
            )
        if is_lost:
            raise HistoryLostError(after.index, row.floor, row.epoch)


class _Page:
    """Takes rows of the log until there are enough, or one that is not as it should be."""

    def __init__(self, file: str, after: int, topics: frozenset[str] | None, *, is_sparse: bool) -> None:
        """`is_sparse`: commits of which nothing is asked for are left out, but for the last one."""
        self.is_full = False
        self._file = file
        self._topics = topics
        self._is_sparse = is_sparse
        self._commits: list[Commit] = []
        self._first = self._upto = after
        self._mark: object = b""  # of the commit at _upto, if that is one of this page
        self._bytes = 0
        self._end = time.monotonic() + _SECONDS

    def add(self, index: int, mark: object, revoked: object, text: bytes | None) -> None:
        """The next row; without a text if that does not concern the topics.

        Raises `UnreadableCommitError` if it is the first one; otherwise the page ends before it.
        """
        error: UnreadableCommitError | None = None
        if index != self._upto + 1:
            error = UnreadableCommitError(self._file, index - 1, missing=self._upto + 1)
        else:
            operations, unreadable = ((), ()) if text is None else decode_operations(text, self._topics)
            if unreadable is None or unreadable:
                error = UnreadableCommitError(self._file, index, unreadable, operations, mark=mark_text(mark))
            elif operations or not self._is_sparse:
                digests = tuple(revoked.split()) if revoked and isinstance(revoked, str) else ()
                self._commits.append(Commit(index, operations, mark_text(mark), digests))
            self._bytes += len(text or b"")
        if error is None:
            self._upto, self._mark = index, mark
            self.is_full = self._bytes >= _BYTES or time.monotonic() > self._end
        elif self._upto == self._first:
            raise error
        else:
            self.is_full = True

    def commits(self) -> Sequence[Commit]:
        """Those that were asked for; if others follow, one without operations ends the page."""
        if self._upto > (self._commits[-1].index if self._commits else self._first):
            self._commits.append(Commit(self._upto, (), mark_text(self._mark)))
        return self._commits


_Sought: TypeAlias = tuple[str, Sequence[str]]
_EVERYTHING: Final[_Sought] = "1", ()


def _containing(sought: Collection[tuple[str, str]]) -> _Sought:
    """An expression of SQL that is true for every commit with one of these topics, and its parameters.

    Each comes with what else the text of such a commit contains; "" for nothing.
    """
    if not sought:
        return "0", ()
    if len(sought) > _MOST_LOOKED_FOR:
        return _EVERYTHING
    parts = [[quoted(topic), *([key] if key else [])] for topic, key in sought]
    terms = [" AND ".join(["instr(operations, ?)"] * len(each)) for each in parts]
    return f"({' OR '.join(terms)})", [each for part in parts for each in part]


def _quoted_key(interest: Interest) -> str:
    """What the text of each commit contains that this interest covers."""
    text = quoted(interest.key) if interest.key else ""
    return text[:-1] if interest.prefix else text
