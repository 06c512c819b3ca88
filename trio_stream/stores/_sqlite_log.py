"""Reading the log of the SQLite file, some commits at a time.

Everything here blocks and belongs in a worker thread.

Who asks for some topics gets nothing of the others but their marks: SQLite looks for the topic's name, in quotes, in
the text of each commit, and only a text that has it comes to Python.
A replay has SQLite look for the key, too, or for how it begins.
A text that is no JSON, or does not begin and end as ours, comes too: nobody knows whom it concerns.
Any other that does not have the name is taken for one of other topics, whatever is in it.

A page is small in every respect, because other threads wait for the connection and for the interpreter.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from trio_stream import Interest

from ._errors import HistoryLostError, UnreadableCommitError
from ._json import decode_operations, quoted
from ._sqlite_database import Database, Row
from ._sqlite_schema import mark_text
from ._values import Change, Commit

# At most, in one go. After the last two no further commit is read.
_COMMITS: Final = 512
_PASSED: Final = 4096  # commits, with those of topics that nobody has asked for
_BYTES: Final = 1 << 20  # of JSON that comes to Python
_SECONDS: Final = 0.02

_MOST_LOOKED_FOR: Final = 16  # topics or keys; with more, all commits are decoded

HIGHEST: Final = 2**63 - 1  # index of a commit that SQLite can have

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
        names = None if topics is None else [(quoted(topic),) for topic in topics]
        page = _Page(str(self._database.file.path), after.index, topics, keeps_all=True)
        most = _COMMITS if topics is None else _PASSED
        return self._database.read(partial(self._fill, page, after, HIGHEST, names, most))

    def page_of(self, interests: Sequence[Interest], after: Position, upto: int) -> Sequence[Commit]:
        """See `PagedLog.page_of`."""
        topics = frozenset(each.topic.name for each in interests)
        page = _Page(str(self._database.file.path), after.index, topics, keeps_all=False)
        names = [_written(each) for each in interests]
        _, commits = self._database.read(partial(self._fill, page, after, min(upto, HIGHEST), names, _PASSED))
        return commits

    def _fill(
        self,
        page: "_Page",
        after: Position,
        upto: int,
        names: Sequence[Sequence[str]] | None,
        most: int,
        connection: sqlite3.Connection,
        row: Row,
    ) -> tuple[Position, Sequence[Commit]]:
        self._check(connection, row, after)
        ours, parameters = _ours(names)
        rows = connection.execute(
            f"SELECT idx, mark, revoked, CASE WHEN {ours} OR typeof(operations) <> 'text' OR NOT ({_HAS_FORM})"  # noqa: S608
            " THEN CAST(operations AS BLOB) END FROM ts_log WHERE idx > ? AND idx <= ? ORDER BY idx LIMIT ?",
            (*parameters, after.index, upto, most),
        )
        with closing(rows):
            for each in rows:
                page.add(*each)
                if page.is_full:
                    break
        return replace(after, epoch=row.epoch), page.commits()

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

    def __init__(self, file: str, after: int, topics: frozenset[str] | None, *, keeps_all: bool) -> None:
        """Without `keeps_all` commits of which nothing is left are left out, apart from the last one."""
        self.is_full = False
        self._file = file
        self._topics = topics
        self._keeps_all = keeps_all
        self._commits: list[Commit] = []
        self._last: Commit | None = None  # the newest one, if it was left out
        self._first = self._upto = after
        self._bytes = 0
        self._end = time.monotonic() + _SECONDS

    def add(self, index: int, mark: object, revoked: object, text: bytes | None) -> None:
        """The next row; without a text if that does not concern the topics.

        Raises `UnreadableCommitError` if it is the first one; otherwise the page ends before it.
        """
        error: UnreadableCommitError | None = None
        operations: tuple[Change, ...] = ()
        if index != self._upto + 1:
            error = UnreadableCommitError(self._file, index - 1, missing=self._upto + 1)
        elif text is not None:
            operations, unreadable = decode_operations(text, self._topics)
            if unreadable is None or unreadable:
                error = UnreadableCommitError(self._file, index, unreadable, operations, mark=mark_text(mark))
            self._bytes += len(text)
        if error is None:
            self._upto = index
            self.is_full = self._bytes >= _BYTES or time.monotonic() > self._end
            self._keep(Commit(index, operations, mark_text(mark), _digests(revoked)))
        elif self._upto == self._first:
            raise error
        else:
            self.is_full = True

    def commits(self) -> Sequence[Commit]:
        """Those that were kept, and the newest one in any case."""
        return self._commits if self._last is None else [*self._commits, self._last]

    def _keep(self, commit: Commit) -> None:
        if self._keeps_all or commit.operations:
            self._commits.append(commit)
            self._last = None
        else:
            self._last = commit


def _digests(revoked: object) -> tuple[str, ...]:
    return tuple(revoked.split()) if isinstance(revoked, str) and revoked else ()


def _written(interest: Interest) -> Sequence[str]:
    """What stands in the text of every commit that the interest covers."""
    topic = quoted(interest.topic.name)
    if not interest.key:
        return (topic,)
    key = quoted(interest.key)
    return topic, key[:-1] if interest.prefix else key


def _ours(names: Sequence[Sequence[str]] | None) -> tuple[str, Sequence[str]]:
    """An expression of SQL that is true for every commit whose text has all parts of one of the names."""
    if names is None or len(names) > _MOST_LOOKED_FOR:
        return "1", ()
    each = [" AND ".join(["instr(operations, ?)"] * len(parts)) for parts in names]
    return " OR ".join(["0", *each]), [part for parts in names for part in parts]
