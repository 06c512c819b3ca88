"""The transactions on the SQLite file, and the timeline that they are on.

Everything here blocks and belongs in a worker thread.

An *anchor* is the newest commit that this process knows to be in the file: its epoch, its index and the
random mark of its log row.
Every transaction looks whether it still is there.
If not, and the epoch is the same, somebody has put an older copy of the file in its place, and the indexes
above the copy's newest mean two things: the timeline has forked.
Whoever notices first gives the file a new epoch, so that no index is misread from then on.
"""

import json
import os
import reprlib
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar, assert_never

from ._errors import ConflictError
from ._json import encode_operations, encode_value
from ._sqlite_file import Connection, SQLiteFile, new_epoch
from ._values import Delete, Entry, Head, Name, Operation, Put

T = TypeVar("T")

READ_CHARACTERS: Final = 1 << 20  # of JSON, after which no further commit or row is read in the same go


@dataclass(frozen=True, slots=True)
class _Row:
    """The one row of `head`."""

    epoch: str
    index: int
    floor: int
    floor_mark: bytes


@dataclass(frozen=True, slots=True)
class _Anchor:
    epoch: str
    index: int
    mark: bytes


class Database:
    """The transactions; any number of threads may call them, and those of one connection take turns."""

    def __init__(self, file: SQLiteFile) -> None:
        self.file = file
        self._writer = Connection(file)
        self._reader = Connection(file)
        # Guards the anchor, which is taken before a transaction and replaced after it.
        self._lock = threading.Lock()
        self._anchor = _Anchor("", 0, b"")

    def close(self) -> None:
        """Closes the connections; what is called later raises."""
        self._reader.close()
        self._writer.close()

    def head(self) -> Head:
        """See `Store.head`."""
        return self._read(lambda _, row: Head(row.index, row.floor, row.epoch))

    def get(self, name: Name) -> tuple[int, Entry | None]:
        """See `Store.get`; with the index of the state that it was read in."""
        return self._read(lambda connection, row: (row.index, self._get(connection, name)))

    def topics(self) -> Sequence[str]:
        """See `SQLiteStore.topics`."""
        return self._read(lambda connection, _: _topics(connection))

    def sizes(self) -> tuple[int, int, int]:
        """Commits of the log, bytes of the file and of its write-ahead log."""
        commits = self._read(lambda _, row: row.index - row.floor)
        return commits, *self.file.sizes()

    def read(self, work: Callable[[sqlite3.Connection, Head], T]) -> T:
        """Does it in a transaction for reading."""
        return self._read(lambda connection, row: work(connection, Head(row.index, row.floor, row.epoch)))

    def commit(self, operations: Sequence[Operation], expect: Mapping[Name, int]) -> int:
        """See `Store.commit`."""
        encoded = [(op, encode_value(op) if isinstance(op, Put) else "") for op in operations]
        anchor = self._anchor
        with self._writer.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = self._rejoin(connection, anchor)
            _check_expected(connection, expect)
            index = row.index + 1
            mark = os.urandom(8)
            _write_state(connection, index, encoded)
            connection.execute("INSERT INTO log VALUES (?, ?, ?)", (index, mark, encode_operations(encoded)))
            connection.execute('UPDATE head SET "index" = ?', (index,))
            connection.execute("COMMIT")
            self._writer.confirm()
        self._advance(anchor, _Anchor(row.epoch, index, mark))
        return index

    def compact(self, index: int) -> None:
        """See `Store.compact`."""
        anchor = self._anchor
        with self._writer.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = self._rejoin(connection, anchor)
            if index > row.index:
                raise ValueError(f"cannot compact up to {index}: the newest commit is {row.index}")
            if index > row.floor:
                mark = self._mark(connection, row, index)
                connection.execute("UPDATE head SET floor = ?, floor_mark = ?", (index, mark))
                connection.execute('DELETE FROM log WHERE "index" <= ?', (index,))
            connection.execute("COMMIT")
            self._writer.confirm()

    def begin(self, connection: sqlite3.Connection) -> int | None:
        """Begins a transaction for reading and returns its index; None, and none begun, after a fork."""
        anchor = self._anchor
        connection.execute("BEGIN")
        row = self._row(connection)
        if self._is_forked(connection, row, anchor):
            connection.rollback()
            self._change_epoch(anchor)
            return None
        return row.index

    def _read(self, work: Callable[[sqlite3.Connection, _Row], T]) -> T:
        while True:
            # Taken first: a transaction that begins later sees the anchor's commit if the file has it.
            anchor = self._anchor
            with self._reader.use() as connection:
                connection.execute("BEGIN")
                row = self._row(connection)
                if not self._is_forked(connection, row, anchor):
                    here = _Anchor(row.epoch, row.index, self._mark(connection, row, row.index))
                    result = work(connection, row)
                    self._advance(anchor, here)
                    return result
            self._change_epoch(anchor)

    def _change_epoch(self, anchor: _Anchor) -> None:
        with self._writer.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._rejoin(connection, anchor)
            connection.execute("COMMIT")

    def _rejoin(self, connection: sqlite3.Connection, anchor: _Anchor) -> _Row:
        """The head, in a writing transaction; with a new epoch, if the anchor is (still) not in the file."""
        row = self._row(connection)
        if not self._is_forked(connection, row, anchor):
            return row
        epoch = new_epoch()
        connection.execute("UPDATE head SET epoch = ?", (epoch,))
        return replace(row, epoch=epoch)

    def _is_forked(self, connection: sqlite3.Connection, row: _Row, anchor: _Anchor) -> bool:
        if anchor.epoch != row.epoch or anchor.index < row.floor:
            return False
        return anchor.index > row.index or self._mark(connection, row, anchor.index) != anchor.mark

    def _advance(self, before: _Anchor, after: _Anchor) -> None:
        """Moves the anchor; a thread that was overtaken by others must not move it back."""
        with self._lock:
            now = self._anchor
            if now is before or (now.epoch == after.epoch and now.index < after.index):
                self._anchor = after

    def _row(self, connection: sqlite3.Connection) -> _Row:
        row = connection.execute('SELECT epoch, "index", floor, floor_mark FROM head').fetchone()
        match row:
            case (str(), int(), int(), bytes()):
                return _Row(*row)
            case None:
                raise self.file.error("damaged: it has no head")
            case _:
                raise self.file.error(f"damaged: its head is {reprlib.repr(row)}")

    def _mark(self, connection: sqlite3.Connection, row: _Row, index: int) -> bytes:
        if index == row.floor:
            return row.floor_mark
        found = connection.execute('SELECT mark FROM log WHERE "index" = ?', (index,)).fetchone()
        if found is None:
            raise self.file.error(f"damaged: commit {index} is missing from the log")
        mark: bytes = found[0]
        return mark

    def _get(self, connection: sqlite3.Connection, name: Name) -> Entry | None:
        found = connection.execute(
            'SELECT value, "index" FROM state WHERE topic = ? AND key = ? AND namespace = ?', name
        ).fetchone()
        return None if found is None else self.entry(*found)

    def entry(self, text: str, index: int) -> Entry:
        """A row of `state`."""
        try:
            return Entry(json.loads(text), index)
        except ValueError as error:
            raise self.file.error(f"damaged: a value of commit {index} is not JSON") from error


def _topics(connection: sqlite3.Connection) -> Sequence[str]:
    """One look into the index for each."""
    topics: list[str] = []
    while found := connection.execute(
        "SELECT min(topic) FROM state WHERE topic > ?", (topics[-1] if topics else "",)
    ).fetchone()[0]:
        topics.append(found)
    return topics


def _check_expected(connection: sqlite3.Connection, expect: Mapping[Name, int]) -> None:
    for name, expected in expect.items():
        found = connection.execute(
            'SELECT "index" FROM state WHERE topic = ? AND key = ? AND namespace = ?', name
        ).fetchone()
        actual = 0 if found is None else found[0]
        if actual != expected:
            raise ConflictError(name, expected, actual)


def _write_state(
    connection: sqlite3.Connection, index: int, encoded: Sequence[tuple[Operation, str]]
) -> None:
    for operation, value in encoded:
        topic, key, namespace = operation.name
        match operation:
            case Put():
                connection.execute(
                    "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?)",
                    (topic, namespace, key, value, index),
                )
            case Delete():
                connection.execute(
                    "DELETE FROM state WHERE topic = ? AND namespace = ? AND key = ?", (topic, namespace, key)
                )
            case _:
                assert_never(operation)
