"""Reading the log of the SQLite file, some commits at a time.

Everything here blocks and belongs in a worker thread.

Who asks for some topics gets nothing of the others: SQLite looks for the topic's name, in quotes, in the text of
each commit, and only a text that has it comes to Python.
A text that is no JSON, or does not begin and end as ours, comes too: nobody knows whom it concerns.
Any other that does not have the name is taken for one of other topics, whatever is in it.

A page is small in every respect, because other threads wait for the connection and for the interpreter.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from ._errors import HistoryLostError, UnreadableCommitError
from ._json import decode_operations, quoted
from ._sqlite_database import Database
from ._values import Commit, Head

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


class Log:
    """What `Store.changes` and `TopicLog` give."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(
        self, after: int, epoch: str | None, topics: frozenset[str] | None = None
    ) -> tuple[str, Sequence[Commit]]:
        """The epoch, which must be `epoch` unless that is None, and some commits after `after` if any.

        With topics: see `TopicLog.changes_of`.
        """

        def read(connection: sqlite3.Connection, head: Head) -> tuple[str, Sequence[Commit]]:
            if epoch not in {None, head.epoch} or after < head.floor:
                raise HistoryLostError(after, head.floor, head.epoch)
            page = _Page(str(self._database.file.path), after, topics)
            ours, names = _ours(topics)
            rows = connection.execute(
                f"SELECT \"index\", CASE WHEN {ours} OR typeof(operations) <> 'text' OR NOT ({_HAS_FORM})"  # noqa: S608
                ' THEN CAST(operations AS BLOB) END FROM log WHERE "index" > ? ORDER BY "index" LIMIT ?',
                (*names, after, _COMMITS if topics is None else _PASSED),
            )
            with closing(rows):
                for row in rows:
                    page.add(*row)
                    if page.is_full:
                        break
            return head.epoch, page.commits()

        return self._database.read(read)

    def reach(self, topics: frozenset[str], after: int, upto: int, left: int) -> tuple[int, int]:
        """A step of `TopicLog.reach`, from `upto` down: the index reached, and how many characters are left.

        They are below 0 when the commit at the index reached was too much.
        """

        def reach(connection: sqlite3.Connection, _: Head) -> tuple[int, int]:
            characters = left
            end = time.monotonic() + _SECONDS
            ours, names = _ours(topics)
            rows = connection.execute(
                f'SELECT "index", CASE WHEN {ours} THEN length(operations) ELSE 0 END FROM log'  # noqa: S608
                ' WHERE "index" > ? AND "index" <= ? ORDER BY "index" DESC',
                (*names, after, upto),
            )
            with closing(rows):
                for index, length in rows:
                    characters -= length
                    if characters < 0 or time.monotonic() > end:
                        return (index if characters < 0 else index - 1), characters
            return after, characters

        return self._database.read(reach)


class _Page:
    """Takes rows of the log until there are enough, or one that is not as it should be."""

    def __init__(self, file: str, after: int, topics: frozenset[str] | None) -> None:
        self.is_full = False
        self._file = file
        self._topics = topics
        self._commits: list[Commit] = []
        self._first = self._upto = after
        self._bytes = 0
        self._end = time.monotonic() + _SECONDS

    def add(self, index: int, text: bytes | None) -> None:
        """The next row; without a text if that does not concern the topics.

        Raises `UnreadableCommitError` if it is the first one; otherwise the page ends before it.
        """
        error: UnreadableCommitError | None = None
        if index != self._upto + 1:
            error = UnreadableCommitError(self._file, index - 1, missing=self._upto + 1)
        elif text is not None:
            operations, unreadable = decode_operations(text, self._topics)
            if unreadable is None or unreadable:
                error = UnreadableCommitError(self._file, index, unreadable, operations)
            elif operations or self._topics is None:
                self._commits.append(Commit(index, operations))
            self._bytes += len(text)
        if error is None:
            self._upto = index
            self.is_full = self._bytes >= _BYTES or time.monotonic() > self._end
        elif self._upto == self._first:
            raise error
        else:
            self.is_full = True

    def commits(self) -> Sequence[Commit]:
        """Those of the topics; if others follow, one without operations ends the page."""
        if self._upto > (self._commits[-1].index if self._commits else self._first):
            self._commits.append(Commit(self._upto, ()))
        return self._commits


def _ours(topics: frozenset[str] | None) -> tuple[str, Sequence[str]]:
    """An expression of SQL that is true for every commit with one of the topics, and its parameters."""
    if topics is None or len(topics) > _MOST_LOOKED_FOR:
        return "1", ()
    return " OR ".join(["0", *("instr(operations, ?)" for _ in topics)]), [quoted(each) for each in topics]
