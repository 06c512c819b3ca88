"""Reading many rows of the state as they were at one index, on a connection of its own."""

import sqlite3
import sys
import threading
from collections.abc import Sequence
from typing import Final

from trio_stream import ClosedResourceError

from ._sqlite_database import READ_CHARACTERS, Database
from ._values import Entry

CHUNK: Final = 256  # rows in one go, at most


class Scan:
    """One topic and namespace in the order of the keys, those with a prefix; blocks, in a worker thread.

    The transaction lasts until `close`, which must be called: SQLite's log cannot be reset before.
    """

    def __init__(self, database: Database, topic: str, namespace: str, prefix: str) -> None:
        self._database = database
        self._where = (topic, namespace, prefix, _after(prefix))
        # Guards the fields below: a native cancel on asyncio leaves a thread behind that is still at work.
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._rows: sqlite3.Cursor | None = None
        # What fetch() returned last, and how many rows it has returned with it.
        self._chunk: Sequence[tuple[str, Entry]] = ()
        self._fetched = 0
        self._epoch = ""
        self._is_closed = False

    def open(self) -> int:
        """The index of the state that is read."""
        with self._lock, self._database.file.named_errors():
            if self._is_closed:
                raise ClosedResourceError("this scan was cancelled")
            self._connection, _ = self._database.file.connect()
            while (index := self._database.begin(self._connection)) is None:
                pass  # the fork that was found has a new epoch now
            self._epoch = index.epoch
            self._rows = self._connection.execute(
                'SELECT key, value, "index" FROM state WHERE topic = ? AND namespace = ? AND key >= ? AND key < ?'
                " ORDER BY key",
                self._where,
            )
            return index

    def fetch(self, received: int) -> Sequence[tuple[str, Entry]]:
        """The rows after the first `received`, some at a time; none at the end.

        The caller says what has reached it: a native cancel may have lost what the last call returned.
        """
        with self._lock, self._database.file.named_errors():
            if self._rows is None:
                raise ClosedResourceError("this scan has ended")
            if received == self._fetched:
                rows, self._rows = self._rows, None  # for good if this fails: some rows are lost then
                self._chunk = self._read(rows)
                self._fetched += len(self._chunk)
                self._rows = rows
            return self._chunk

    def close(self) -> None:
        """Ends the transaction. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._disconnect()

    def _read(self, rows: sqlite3.Cursor) -> Sequence[tuple[str, Entry]]:
        chunk: list[tuple[str, Entry]] = []
        characters = 0
        for key, value, index in rows:
            chunk.append((key, self._database.entry(value, index, self._epoch)))
            characters += len(value)
            if len(chunk) == CHUNK or characters >= READ_CHARACTERS:
                break
        return chunk

    def _disconnect(self) -> None:
        if self._connection is not None:
            if self._rows is not None:
                self._rows.close()
                self._rows = None
            self._database.file.disconnect(self._connection)
            self._connection = None


def _after(prefix: str) -> str | bytes:
    """What all keys with the prefix are less than, and no other key that is greater than them."""
    shortened = prefix.rstrip(chr(sys.maxunicode))
    if not shortened:
        return b""  # SQLite sorts any blob behind any text
    after = ord(shortened[-1]) + 1
    return shortened[:-1] + chr(0xE000 if 0xD800 <= after < 0xE000 else after)  # no half of a surrogate pair
