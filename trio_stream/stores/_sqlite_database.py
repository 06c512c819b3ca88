"""The transactions on the SQLite file, and the timeline that they are on.

Everything here blocks and belongs in a worker thread.
Every transaction looks whether the farthest commit that this process knows of its epoch still is there: see
`_anchors`.
"""

import json
import reprlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from ._anchors import Anchor, Anchors, Known, is_forked
from ._errors import BusyError, CommitUnknownError, StoreError, again
from ._orders import Draft, Order, Outcome, draft
from ._retention import Retention
from ._sqlite_file import Connection, SQLiteFile, new_epoch
from ._sqlite_retention import Retaining, give_back, trim
from ._sqlite_schema import mark_text
from ._sqlite_statements import first_row, rows_of, run
from ._sqlite_write import LIMITS, Writer
from ._values import JSON, Entry, EpochIndex, Head, Name, Revocations

T = TypeVar("T")

READ_CHARACTERS: Final = 1 << 20  # of JSON, after which no further commit or row is read in the same go

_HEAD: Final = (
    "SELECT epoch, idx, floor, floor_mark, at, unmarked,"
    " (SELECT mark FROM ts_log WHERE ts_log.idx = ts_head.idx),"
    " (SELECT mark FROM ts_log WHERE ts_log.idx = ?) FROM ts_head"
)
_MARK: Final = "SELECT mark FROM ts_log WHERE idx = ?"


@dataclass(frozen=True, slots=True)
class Row:
    """The one row of `ts_head`, and the mark of the newest commit; marks are as in `Commit.mark`."""

    epoch: str
    index: int
    floor: int
    floor_mark: str
    at: float
    unmarked: int
    newest_mark: str | None
    """None if that commit is missing from the log."""

    @property
    def mark(self) -> str:
        """Of the newest commit; "" if it is not known."""
        return self.newest_mark or ""

    @property
    def head(self) -> Head:
        """The same as a value of the protocol."""
        return Head(self.index, self.floor, self.epoch, self.mark, self.unmarked)


class Step(NamedTuple):
    """A part of something long, in a transaction of its own."""

    seconds: float
    """How long it kept others from writing."""
    is_last: bool


class Database:
    """The transactions; any number of threads may call them, and those of one connection take turns."""

    def __init__(self, file: SQLiteFile, retention: Retention | None = None) -> None:
        self.file = file
        self._retaining = None if retention is None else Retaining(retention)
        self._writer = Connection(file)
        self._reader = Connection(file)
        self._cleaner = Connection(file)
        self._anchors = Anchors()
        # {epoch in the file: what this process calls it}, after forks that it may only read and not write down.
        self._renamed: dict[str, str] = {}

    @property
    def epoch(self) -> str:
        """The epoch that was seen last."""
        return self._anchors.known.newest.epoch

    def close(self) -> None:
        """Closes the connections; what is called later raises."""
        for connection in (self._reader, self._cleaner, self._writer):
            connection.close()

    def head(self) -> Head:
        """See `Store.head`."""
        return self.read(lambda _, row: row.head)

    def get(self, name: Name) -> tuple[EpochIndex, Entry | None]:
        """See `Store.get`; with the index of the state that it was read in."""
        return self.read(
            lambda connection, row: (
                EpochIndex(row.index, row.epoch, row.mark),
                self._get(connection, name, row.epoch),
            )
        )

    def topics(self) -> Sequence[str]:
        """See `Store.topics`."""
        return self.read(lambda connection, _: _topics(connection))

    def revocations(self) -> Revocations:
        """See `Store.revocations`."""

        def read(connection: sqlite3.Connection, _: Row) -> Revocations:
            match first_row(connection, "SELECT salt, revoked_floor FROM ts_head"):
                case (bytes(salt), int(floor)):
                    with rows_of(
                        connection, "SELECT digest, idx FROM ts_revoked ORDER BY idx, rowid"
                    ) as rows:
                        return Revocations(salt, floor, MappingProxyType(dict(rows)))
            raise self.file.error("damaged: its head has no salt")

        return self.read(read)

    def sizes(self) -> tuple[int, int, int]:
        """Commits of the log, bytes of the file and of its write-ahead log."""
        commits = self.read(lambda _, row: row.index - row.floor)
        return commits, *self.file.sizes()

    def commit(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        """All of them in one transaction, one after the other; what became of each.

        An order that cannot be done leaves the others alone.
        `BusyError`: it was not begun, and may be asked for again. Whatever goes wrong is an outcome, and not raised:
        others of the orders may have been done.
        """
        drafts = [self._draft(order) for order in orders]
        is_ending = False
        known = self._anchors.known
        try:
            with self._writer.use() as connection:
                run(connection, "BEGIN IMMEDIATE")
                writer = self._begin_commits(connection, known)
                outcomes = writer.write(drafts)
                writer.finish()
                if self._retaining is not None and writer.count:
                    self._retaining.work(connection, writer.count)
                is_ending = True
                run(connection, "COMMIT")
                self._writer.confirm()
        except Exception as error:  # noqa: BLE001 - for those who wait
            if is_ending and isinstance(error, StoreError) and not isinstance(error, BusyError):
                # All of it may be in the log, where a process that recovers after a crash finds it.
                doubt = CommitUnknownError(f"{error}; whether it was committed is not known")
                doubt.__cause__ = error.__cause__
                return [again(doubt) for _ in orders]
            if len(orders) == 1 or is_ending or isinstance(error, BusyError):
                return [again(error) for _ in orders]
            # Nothing is done, and some of them can perhaps be done without the others.
            return self._commit_each(orders)
        newest = writer.newest
        self._anchors.advance(known, Anchor(newest.epoch, int(newest), newest.mark))
        return outcomes

    def _draft(self, order: Order) -> Draft | Exception:
        try:
            return draft(order, LIMITS, str(self.file.path))
        except Exception as error:  # noqa: BLE001 - a value may be of any class that is a list or a dict
            return error

    def _begin_commits(self, connection: sqlite3.Connection, known: Known) -> Writer:
        row = self._rejoin(connection, known)
        return Writer(
            connection,
            str(self.file.path),
            epoch=row.epoch,
            index=row.index,
            mark=row.mark,
            at=row.at,
        )

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
        known = self._anchors.known
        with self._writer.use() as connection:
            run(connection, "BEGIN IMMEDIATE")
            row = self._rejoin(connection, known)
            if index > row.index:
                raise ValueError(f"cannot compact up to {index}: the newest commit is {row.index}")
            if index > row.floor:
                found = first_row(connection, _MARK, (index,))
                if found is None:
                    raise self.file.error(f"damaged: commit {index} is missing from the log")
                run(connection, "UPDATE ts_head SET floor = ?, floor_mark = ?", (index, found[0]))
            run(connection, "COMMIT")
            self._writer.confirm()

    def trim(self, most: int) -> Step:
        """Removes some commits below the floor, at most so many."""
        with self._writer.use() as connection:
            run(connection, "BEGIN IMMEDIATE")
            begin = perf_counter()
            is_more = trim(connection, most)
            run(connection, "COMMIT")
            return Step(perf_counter() - begin, not is_more)

    def shrink(self, most: int) -> Step:
        """Gives some pages of the file back, at most so many."""
        with self._writer.use() as connection:
            run(connection, "BEGIN IMMEDIATE")
            begin = perf_counter()
            (free,) = first_row(connection, "PRAGMA freelist_count")
            give_back(connection, most)
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
        known = self._anchors.known
        run(connection, "BEGIN")
        row = self._row(connection, known)
        if row is None:
            connection.rollback()
            self._change_epoch(known)
            return None
        return EpochIndex(row.index, row.epoch, row.mark)

    def read(self, work: Callable[[sqlite3.Connection, Row], T]) -> T:
        """Does it in a transaction for reading."""
        while True:
            # Taken first: a transaction that begins later sees these commits if the file has them.
            known = self._anchors.known
            with self._reader.use() as connection:
                run(connection, "BEGIN")
                row = self._row(connection, known)
                read = None
                if row is not None:
                    read = Anchor(row.epoch, row.index, self._newest_mark(row)), work(connection, row)
            if read is None:
                self._change_epoch(known)
                continue
            here, result = read
            self._anchors.advance(known, here)  # not before: what was read without locks is good only now
            return result

    def mark(self, connection: sqlite3.Connection, row: Row, index: int) -> str | None:
        """That of a commit from the floor on; None if it is missing from the log."""
        if index == row.floor:
            return row.floor_mark
        found = first_row(connection, _MARK, (index,))
        return None if found is None else mark_text(found[0])

    def _change_epoch(self, known: Known) -> None:
        if self.file.is_read_only:
            with self._reader.use() as connection:
                run(connection, "BEGIN")
                if self._row(connection, known) is None:  # still: another thread may have seen it too
                    self._renamed[first_row(connection, "SELECT epoch FROM ts_head")[0]] = new_epoch()
            return
        with self._writer.use() as connection:
            run(connection, "BEGIN IMMEDIATE")
            self._rejoin(connection, known)
            run(connection, "COMMIT")

    def _rejoin(self, connection: sqlite3.Connection, known: Known) -> Row:
        """The head, in a writing transaction; with a new epoch, if what is known is (still) not in the file."""
        row, has_forked = self._look(connection, known)
        if not has_forked:
            return row
        epoch = new_epoch()
        run(connection, "UPDATE ts_head SET epoch = ?", (epoch,))
        return replace(row, epoch=epoch)

    def _row(self, connection: sqlite3.Connection, known: Known) -> Row | None:
        """The head; None after a fork."""
        row, has_forked = self._look(connection, known)
        return None if has_forked else row

    def _look(self, connection: sqlite3.Connection, known: Known) -> tuple[Row, bool]:
        """The head, and whether the timeline has forked."""
        found = first_row(connection, _HEAD, (known.newest.index,))
        match found:
            case (
                str(epoch),
                int(index),
                int(floor),
                bytes(floor_mark),
                int() | float() as at,
                int(unmarked),
                newest,
                marked,
            ):
                epoch = self._renamed.get(epoch, epoch)
                newest_mark = mark_text(newest) or None
                row = Row(epoch, index, floor, mark_text(floor_mark), at, unmarked, newest_mark)
                if index == floor:
                    row = replace(row, newest_mark=row.floor_mark)
            case None:
                raise self.file.error("damaged: it has no head")
            case _:
                raise self.file.error(f"damaged: its head is {reprlib.repr(found[:4])}")
        anchor = known.of(epoch)
        if anchor is None or anchor.index < floor:
            return row, False
        if anchor is known.newest and anchor.index != floor:
            mark = None if marked is None else mark_text(marked)
        else:
            mark = self.mark(connection, row, anchor.index)
        if mark is None and anchor.index <= index:
            raise self.file.error(f"damaged: commit {anchor.index} is missing from the log")
        return row, is_forked(anchor, index=index, floor=floor, mark=mark)

    def _newest_mark(self, row: Row) -> str:
        if row.newest_mark is None:
            raise self.file.error(f"damaged: commit {row.index} is missing from the log")
        return row.newest_mark

    def _get(self, connection: sqlite3.Connection, name: Name, epoch: str) -> Entry | None:
        found = first_row(
            connection,
            "SELECT value, idx, final FROM ts_state WHERE topic = ? AND key = ? AND namespace = ?",
            name,
        )
        if found is None:
            return None
        text, index, final = found
        return Entry(self.value(text, index), EpochIndex(index, epoch), final != 0)

    def value(self, text: str, index: int) -> JSON:
        """The value of a row of `state`."""
        try:
            value: JSON = json.loads(text)
        except ValueError as error:
            raise self.file.error(f"damaged: a value of commit {index} is not JSON") from error
        return value


def _topics(connection: sqlite3.Connection) -> Sequence[str]:
    """One look into the index for each."""
    topics: list[str] = []
    while found := first_row(
        connection, "SELECT min(topic) FROM ts_state WHERE topic > ?", (topics[-1] if topics else "",)
    )[0]:
        topics.append(found)
    return topics
