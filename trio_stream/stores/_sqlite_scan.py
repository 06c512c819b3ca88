"""Reading a range of keys from the SQLite file in one transaction.

Everything here blocks and belongs in a worker thread.

As long as a transaction reads, SQLite cannot begin its write-ahead log anew, and its connection has two files
open.
"""

import sqlite3
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Final

from trio_stream import ClosedResourceError

from ._scans import PAGE, Portion, Range, RawRow
from ._sqlite_database import READ_CHARACTERS, Database
from ._sqlite_file import Connection, SQLiteFile

_IDLE: Final = 1  # connections that are kept for the next scan

_COLUMNS: Final = "SELECT state.key, state.value, state.idx, state.namespace, state.final FROM "
_KEYS: Final = "state.key >= :first AND state.key < :after"
_ONE_NAMESPACE: Final = (
    f"{_COLUMNS} ts_state AS state WHERE state.topic = :topic AND state.namespace = :namespace"
    f" AND {_KEYS} ORDER BY state.key"
)
# Leaps from one namespace to the next, so that it reads no keys but those between the bounds. CROSS JOIN keeps SQLite
# to this order of the loops, which is that of the rows.
_ALL_NAMESPACES: Final = (
    "WITH RECURSIVE present (name) AS ("  # noqa: S608 - both are ours
    "SELECT min(namespace) FROM ts_state WHERE topic = :topic UNION ALL "
    "SELECT (SELECT min(namespace) FROM ts_state WHERE topic = :topic AND namespace > name)"
    " FROM present WHERE name IS NOT NULL) "
    f"{_COLUMNS} present CROSS JOIN ts_state AS state ON state.topic = :topic AND state.namespace = name AND {_KEYS}"
)


class Scanner:
    """Begins to read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lender = _Lender(database.file)

    def read(self, rows: Range) -> "SQLiteReading":
        """What a scan of this range reads."""
        return SQLiteReading(self._database, self._lender, rows)

    def close(self) -> None:
        """Closes the connection that is kept. Scans that are open go on."""
        self._lender.close()


class SQLiteReading:
    """See `Reading`."""

    def __init__(self, database: Database, lender: "_Lender", rows: Range) -> None:
        self._database = database
        self._lender = lender
        self._rows = rows

    def interrupt(self) -> None:
        """See `Reading.interrupt`: a page does not take long."""

    def portions(self) -> Generator[Portion, None, None]:
        """See `Reading.portions`."""
        with self._lender.lend() as connection:
            while (index := self._database.begin(connection)) is None:
                pass  # the fork that was found has a new epoch now
            with closing(self._select(connection)) as rows:
                page, is_last = _page(rows)
                while not is_last:
                    yield Portion(index, page, is_last=False)
                    page, is_last = _page(rows)
        yield Portion(index, page, is_last=True)

    def _select(self, connection: sqlite3.Connection) -> sqlite3.Cursor:
        """Its rows, by namespace and key."""
        topic, namespace, first, after = self._rows
        statement = _ALL_NAMESPACES if namespace is None else _ONE_NAMESPACE
        # SQLite sorts any blob behind any text.
        bounds = {"first": first, "after": b"" if after is None else after}
        return connection.execute(statement, {"topic": topic, "namespace": namespace, **bounds})


class _Lender:
    """Lends connections to scans, and keeps one for the next: to connect takes as long as a small scan."""

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file
        # Guards the fields below.
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._is_closed = False

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        """A connection, outside a transaction; see `Connection.use`."""
        connection = self._take()
        try:
            with connection.use() as sqlite:
                yield sqlite
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Closes the one that is kept; those that are lent are closed when they come back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Connection:
        with self._lock:
            if self._is_closed:
                raise ClosedResourceError("this store is closed")
            return self._idle.pop() if self._idle else Connection(self._file)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()


def _page(rows: sqlite3.Cursor) -> tuple[list[RawRow], bool]:
    """The next rows, and whether that are all."""
    page: list[RawRow] = []
    characters = 0
    for row in rows:
        page.append(row)
        characters += len(row[1])
        if len(page) == PAGE or characters >= READ_CHARACTERS:
            return page, False
    return page, True
