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
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from time import perf_counter
from typing import Final, Literal, NamedTuple, TypeVar, assert_never

from ._errors import BusyError, ConflictError, StoreError, again
from ._json import encode_operations, encode_value
from ._orders import Order, Outcome
from ._sqlite_file import Connection, SQLiteFile, new_epoch
from ._sqlite_statements import first_row, rows_of, run, run_for_each
from ._values import JSON, Delete, Entry, EpochIndex, Head, Name, Operation, Put

T = TypeVar("T")

_TRIM: Final = (
    'DELETE FROM log WHERE "index" IN'
    ' (SELECT "index" FROM log WHERE "index" <= (SELECT floor FROM head) ORDER BY "index" LIMIT ?)'
)

READ_CHARACTERS: Final = 1 << 20  # of JSON, after which no further commit or row is read in the same go


_HEAD: Final = (
    'SELECT epoch, "index", floor, floor_mark,'
    ' (SELECT mark FROM log WHERE log."index" = head."index"),'
    ' (SELECT mark FROM log WHERE log."index" = ?) FROM head'
)


@dataclass(frozen=True, slots=True)
class _Row:
    """The one row of `head`, and the marks of two commits of the log; None for one that is not there."""

    epoch: str
    index: int
    floor: int
    floor_mark: bytes
    newest_mark: bytes | None
    anchor_mark: bytes | None


@dataclass(frozen=True, slots=True)
class _Anchor:
    epoch: str
    index: int
    mark: bytes


class Step(NamedTuple):
    """A part of something long, in a transaction of its own."""

    seconds: float
    """How long it kept others from writing."""
    is_last: bool


class Database:
    """The transactions; any number of threads may call them, and those of one connection take turns."""

    def __init__(self, file: SQLiteFile) -> None:
        self.file = file
        self._writer = Connection(file)
        self._reader = Connection(file)
        self._cleaner = Connection(file)
        # Guards the anchor, which is taken before a transaction and replaced after it.
        self._lock = threading.Lock()
        self._anchor = _Anchor("", 0, b"")
        # {epoch in the file: what this process calls it}, after forks that it may only read and not write down.
        self._renamed: dict[str, str] = {}

    @property
    def epoch(self) -> str:
        """The epoch that was seen last."""
        return self._anchor.epoch

    def close(self) -> None:
        """Closes the connections; what is called later raises."""
        for connection in (self._reader, self._cleaner, self._writer):
            connection.close()

    def head(self) -> Head:
        """See `Store.head`."""
        return self._read(lambda _, row: Head(row.index, row.floor, row.epoch))

    def get(self, name: Name) -> tuple[int, Entry | None]:
        """See `Store.get`; with the index of the state that it was read in."""
        return self._read(lambda connection, row: (row.index, self._get(connection, name, row.epoch)))

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

    def commit(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        """All of them in one transaction, one after the other; what became of each.

        An order that cannot be done leaves the others alone.
        `BusyError`: it was not begun, and may be asked for again. Whatever goes wrong is an outcome, and not raised:
        others of the orders may have been done.
        """
        texts = [_encode(order) for order in orders]
        is_ending = False
        anchor = self._anchor
        outcomes: list[Outcome] = []
        try:
            with self._writer.use() as connection:
                run(connection, "BEGIN IMMEDIATE")
                row = self._rejoin(connection, anchor)
                index, mark = row.index, b""
                for order, text in zip(orders, texts, strict=True):
                    refusal = text if isinstance(text, Exception) else _refusal(connection, order, row.epoch)
                    if refusal is None:
                        assert not isinstance(text, Exception)
                        index, mark = index + 1, os.urandom(8)
                        _write_state(connection, index, text.encoded)
                        run(connection, "INSERT INTO log VALUES (?, ?, ?)", (index, mark, text.operations))
                    outcomes.append(EpochIndex(index, row.epoch) if refusal is None else refusal)
                if index == row.index:
                    return outcomes
                run(connection, 'UPDATE head SET "index" = ?', (index,))
                is_ending = True
                run(connection, "COMMIT")
                self._writer.confirm()
        except Exception as error:  # noqa: BLE001 - for those who wait
            if is_ending and isinstance(error.__cause__, sqlite3.Error) and not isinstance(error, BusyError):
                # All of it may be in the log, where a process that recovers after a crash finds it.
                doubt = StoreError(f"{error}; whether it was committed is not known")
                doubt.__cause__ = error.__cause__
                return [again(doubt) for _ in orders]
            if len(orders) == 1 or is_ending or isinstance(error, BusyError):
                return [again(error) for _ in orders]
            # Nothing is done, and some of them can perhaps be done without the others.
            return self._commit_each(orders)
        self._advance(anchor, _Anchor(row.epoch, index, mark))
        return outcomes

    def _commit_each(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        """In a transaction each. Those behind one that finds the file locked are not begun: they keep their order."""
        outcomes: list[Outcome] = []
        for order in orders:
            if outcomes and isinstance(outcomes[-1], BusyError):
                outcomes.append(again(outcomes[-1]))
            else:
                outcomes.extend(self.commit([order]))
        return outcomes

    def raise_floor(self, index: int) -> None:
        """Makes the commits up to `index` unreadable; `trim` removes them."""
        anchor = self._anchor
        with self._writer.use() as connection:
            run(connection, "BEGIN IMMEDIATE")
            row = self._rejoin(connection, anchor)
            if index > row.index:
                raise ValueError(f"cannot compact up to {index}: the newest commit is {row.index}")
            if index > row.floor:
                mark = self._mark(connection, row, index)
                run(connection, "UPDATE head SET floor = ?, floor_mark = ?", (index, mark))
            run(connection, "COMMIT")
            self._writer.confirm()

    def trim(self, most: int) -> Step:
        """Removes some commits below the floor, at most so many."""
        with self._writer.use() as connection:
            run(connection, "BEGIN IMMEDIATE")
            begin = perf_counter()
            with closing(connection.execute(_TRIM, (most,))) as cursor:
                is_last = cursor.rowcount < most
            run(connection, "COMMIT")
            return Step(perf_counter() - begin, is_last)

    def shrink(self, most: int) -> Step:
        """Gives some pages of the file back, at most so many."""
        with self._writer.use() as connection:
            run(connection, "BEGIN IMMEDIATE")
            begin = perf_counter()
            (free,) = first_row(connection, "PRAGMA freelist_count")
            with rows_of(connection, f"PRAGMA incremental_vacuum({most:d})") as pages:
                for _ in pages:
                    pass
            (left,) = first_row(connection, "PRAGMA freelist_count")
            run(connection, "COMMIT")
            # A file of the first edition keeps its free pages, for what is written next.
            return Step(perf_counter() - begin, left in {0, free})

    def checkpoint(self) -> None:
        """Moves what it can from the write-ahead log to the file; keeps nobody from writing or reading."""
        with self._cleaner.use() as connection:
            first_row(connection, "PRAGMA wal_checkpoint(PASSIVE)")

    def begin(self, connection: sqlite3.Connection) -> EpochIndex | None:
        """Begins a transaction for reading and returns its index; None, and none begun, after a fork."""
        anchor = self._anchor
        run(connection, "BEGIN")
        row = self._row(connection, anchor)
        if _is_forked(row, anchor):
            connection.rollback()
            self._change_epoch(anchor)
            return None
        return EpochIndex(row.index, row.epoch)

    def _read(self, work: Callable[[sqlite3.Connection, _Row], T]) -> T:
        while True:
            # Taken first: a transaction that begins later sees the anchor's commit if the file has it.
            anchor = self._anchor
            with self._reader.use() as connection:
                run(connection, "BEGIN")
                row = self._row(connection, anchor)
                read = None
                if not _is_forked(row, anchor):
                    read = _Anchor(row.epoch, row.index, self._newest_mark(row)), work(connection, row)
            if read is None:
                self._change_epoch(anchor)
                continue
            here, result = read
            self._advance(anchor, here)  # not before: what was read without locks is good only now
            return result

    def _change_epoch(self, anchor: _Anchor) -> None:
        if self.file.is_read_only:
            with self._reader.use() as connection:
                run(connection, "BEGIN")
                if _is_forked(
                    self._row(connection, anchor), anchor
                ):  # still: another thread may have seen it too
                    self._renamed[first_row(connection, "SELECT epoch FROM head")[0]] = new_epoch()
            return
        with self._writer.use() as connection:
            run(connection, "BEGIN IMMEDIATE")
            self._rejoin(connection, anchor)
            run(connection, "COMMIT")

    def _rejoin(self, connection: sqlite3.Connection, anchor: _Anchor) -> _Row:
        """The head, in a writing transaction; with a new epoch, if the anchor is (still) not in the file."""
        row = self._row(connection, anchor)
        if not _is_forked(row, anchor):
            return row
        epoch = new_epoch()
        run(connection, "UPDATE head SET epoch = ?", (epoch,))
        return replace(row, epoch=epoch)

    def _advance(self, before: _Anchor, after: _Anchor) -> None:
        """Moves the anchor; a thread that was overtaken by others must not move it back."""
        with self._lock:
            now = self._anchor
            if now is before or (now.epoch == after.epoch and now.index < after.index):
                self._anchor = after

    def _row(self, connection: sqlite3.Connection, anchor: _Anchor) -> _Row:
        found = first_row(connection, _HEAD, (anchor.index,))
        match found:
            case (str(epoch), int(index), int(floor), bytes(), _, known):
                row = _Row(self._renamed.get(epoch, epoch), *found[1:])
            case None:
                raise self.file.error("damaged: it has no head")
            case _:
                raise self.file.error(f"damaged: its head is {reprlib.repr(found[:4])}")
        if floor < anchor.index <= index and anchor.epoch == row.epoch and known is None:
            raise self.file.error(f"damaged: commit {anchor.index} is missing from the log")
        return row

    def _newest_mark(self, row: _Row) -> bytes:
        if row.index == row.floor:
            return row.floor_mark
        if row.newest_mark is None:
            raise self.file.error(f"damaged: commit {row.index} is missing from the log")
        return row.newest_mark

    def _mark(self, connection: sqlite3.Connection, row: _Row, index: int) -> bytes:
        if index == row.floor:
            return row.floor_mark
        found = first_row(connection, 'SELECT mark FROM log WHERE "index" = ?', (index,))
        if found is None:
            raise self.file.error(f"damaged: commit {index} is missing from the log")
        mark: bytes = found[0]
        return mark

    def _get(self, connection: sqlite3.Connection, name: Name, epoch: str) -> Entry | None:
        found = first_row(
            connection, 'SELECT value, "index" FROM state WHERE topic = ? AND key = ? AND namespace = ?', name
        )
        if found is None:
            return None
        text, index = found
        return Entry(self.value(text, index), EpochIndex(index, epoch))

    def value(self, text: str, index: int) -> JSON:
        """The value of a row of `state`."""
        try:
            value: JSON = json.loads(text)
        except ValueError as error:
            raise self.file.error(f"damaged: a value of commit {index} is not JSON") from error
        return value


class _Text(NamedTuple):
    """An order as it is written."""

    encoded: Sequence[tuple[Operation, str]]
    operations: str


def _encode(order: Order) -> _Text | Exception:
    try:
        encoded = [(each, encode_value(each) if isinstance(each, Put) else "") for each in order.operations]
    except Exception as error:  # noqa: BLE001 - a value may be of any class that is a list or a dict
        return error
    return _Text(encoded, encode_operations(encoded))


def _is_forked(row: _Row, anchor: _Anchor) -> bool:
    if anchor.epoch != row.epoch or anchor.index < row.floor:
        return False
    mark = row.floor_mark if anchor.index == row.floor else row.anchor_mark
    return anchor.index > row.index or mark != anchor.mark


def _topics(connection: sqlite3.Connection) -> Sequence[str]:
    """One look into the index for each."""
    topics: list[str] = []
    while found := first_row(
        connection, "SELECT min(topic) FROM state WHERE topic > ?", (topics[-1] if topics else "",)
    )[0]:
        topics.append(found)
    return topics


def _refusal(connection: sqlite3.Connection, order: Order, epoch: str) -> ConflictError | None:
    for name, expected in order.expect.items():
        found = first_row(
            connection, 'SELECT "index" FROM state WHERE topic = ? AND key = ? AND namespace = ?', name
        )
        actual = 0 if found is None else found[0]
        read_in = expected.epoch if isinstance(expected, EpochIndex) else order.epoch
        if actual != expected or (expected and read_in != epoch):
            return ConflictError(name, int(expected), actual)
    return None


def _write_state(
    connection: sqlite3.Connection, index: int, encoded: Sequence[tuple[Operation, str]]
) -> None:
    for kind, group in groupby(encoded, key=_kind):
        match kind:
            case "put":
                sql = "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?)"
                rows = [(each.topic, each.namespace, each.key, value, index) for each, value in group]
                run_for_each(connection, sql, rows)
            case "delete":
                sql = "DELETE FROM state WHERE topic = ? AND namespace = ? AND key = ?"
                names = [(each.topic, each.namespace, each.key) for each, _ in group]
                run_for_each(connection, sql, names)
            case _:
                assert_never(kind)


def _kind(encoded: tuple[Operation, str]) -> Literal["put", "delete"]:
    operation, _ = encoded
    match operation:
        case Put():
            return "put"
        case Delete():
            return "delete"
        case _:
            assert_never(operation)
