"""The SQLite file: connections to it, its schema, its errors, and what to do when it was replaced.

Everything here blocks and belongs in a worker thread.

SQLite finds the write-ahead log of a file by name.
Once `jobs.db` has been replaced, the `jobs.db-wal` that lies beside it still is the log of the old file, and
whoever opens the new one would read both as one.
Therefore the `-wal` and `-shm` that are known to be the old file's are unlinked before a new file is opened.
"""

import os
import reprlib
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from trio_stream import ClosedResourceError

from ._errors import StoreError

if sys.platform != "win32":
    import fcntl

Synchronous: TypeAlias = Literal["OFF", "NORMAL", "FULL", "EXTRA"]

# How long one attempt waits for a lock, seconds. The caller tries again, and can be cancelled in between.
BUSY_SLICE: Final = 0.1

_MOST_QUOTED: Final = 200  # characters of a message of SQLite

_APPLICATION: Final = 0x74726973  # "tris": marks the file as ours
_VERSION: Final = 1

# head has one row. floor_mark is the mark that the log had at floor.
# log has one row per commit above floor. Its random mark tells two commits apart that have one index in two
# copies of the file; its operations are a JSON list of ["put", topic, namespace, key, value] and
# ["delete", topic, namespace, key].
_SCHEMA: Final = """
CREATE TABLE head (
    version INTEGER NOT NULL, epoch TEXT NOT NULL, "index" INTEGER NOT NULL,
    floor INTEGER NOT NULL, floor_mark BLOB NOT NULL
);
CREATE TABLE log (
    "index" INTEGER PRIMARY KEY, mark BLOB NOT NULL, operations TEXT NOT NULL
);
CREATE TABLE state (
    topic TEXT NOT NULL, namespace TEXT NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, "index" INTEGER NOT NULL,
    PRIMARY KEY (topic, namespace, key)
) WITHOUT ROWID;
"""

_REASONS: Final = {
    sqlite3.SQLITE_BUSY: "locked by another process",
    sqlite3.SQLITE_LOCKED: "locked by another process",
    sqlite3.SQLITE_NOTADB: "not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_FULL: "out of disk space",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
    sqlite3.SQLITE_PERM: "not permitted",
}


class BusyError(StoreError):
    """Another connection holds the lock; nothing was changed, and it may work later."""


class FileIdentity(NamedTuple):
    """Which file a path leads to."""

    device: int
    inode: int


class SQLiteFile:
    """A path, and what file was last seen there."""

    def __init__(self, path: str, *, synchronous: Synchronous, busy_timeout: float) -> None:
        self.path = Path(path).absolute()
        self._synchronous = synchronous
        self._busy_slice = min(busy_timeout, BUSY_SLICE)
        # Guards the fields below, which every connect() reads and writes.
        self._lock = threading.Lock()
        self._opened: FileIdentity | None = None
        # {path of a -wal or -shm: that of the file opened last}
        self._companions: dict[Path, FileIdentity] = {}

    def error(self, cause: str) -> StoreError:
        """A `StoreError` that names the file."""
        return StoreError(f"{self.path}: {cause}")

    def identity(self) -> FileIdentity:
        """Which file the path leads to now."""
        try:
            return _identity(self.path)
        except OSError as error:
            raise self.error(f"the file is gone ({error.strerror})") from error

    def sizes(self) -> tuple[int, int]:
        """Bytes of the file and of its write-ahead log."""
        try:
            file = self.path.stat().st_size
        except OSError as error:
            raise self.error(f"the file is gone ({error.strerror})") from error
        try:
            return file, Path(f"{self.path.resolve()}-wal").stat().st_size
        except FileNotFoundError:
            return file, 0

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Makes SQLite's errors ours."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            kind = BusyError if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} else StoreError
            reason = _REASONS.get(code)
            text = _text(error)
            raise kind(f"{self.path}: {f'{reason} ({text})' if reason else text}") from error

    def create(self) -> None:
        """Makes a new store of a file that does not exist or is empty; leaves any other as it is."""
        if not self.path.parent.is_dir():
            raise self.error(f"the directory {self.path.parent} does not exist")
        with self.named_errors(), closing(self._sqlite("rwc")) as connection:
            if _is_empty(connection):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN IMMEDIATE")
                if _is_empty(connection):
                    self._create_tables(connection)

    def connect(self) -> tuple[sqlite3.Connection, FileIdentity]:
        """A new connection to the file that is there now, and which one that is."""
        with self._lock, self.named_errors():
            identity = self.identity()
            if self._opened not in {None, identity}:
                self._discard_companions()
            connection = self._sqlite("rw")
            try:
                self._confirm(identity)  # before SQLite looks for a log of the file that it has opened
                self._configure(connection)
                self._confirm(identity)
            except BaseException:
                connection.close()
                raise
            self._opened = identity
            self._companions = dict(_companions(self.path))
            return connection, identity

    def _sqlite(self, mode: Literal["rw", "rwc"]) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_slice,
            isolation_level=None,
            check_same_thread=False,
        )

    def _create_tables(self, connection: sqlite3.Connection) -> None:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO head VALUES (?, ?, 0, 0, x'')", (_VERSION, new_epoch()))
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute("COMMIT")

    def _configure(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != _APPLICATION:
            raise self.error("not a store of trio_stream, but some other database or an empty file")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise self.error(f"no write-ahead log is possible here (journal mode {mode!r})")
        row = connection.execute("SELECT version FROM head").fetchone()
        if row is None:
            raise self.error("damaged: it has no head")
        if not isinstance(row[0], int):
            raise self.error(f"damaged: its head has version {reprlib.repr(row[0])}")
        if row[0] > _VERSION:
            raise self.error(f"written by a newer trio_stream (schema {row[0]}; this one knows {_VERSION})")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")

    def _confirm(self, identity: FileIdentity) -> None:
        if self.identity() != identity:
            raise BusyError(f"{self.path}: being replaced by another file")

    def _discard_companions(self) -> None:
        # Another process may be at the same, and have opened the new file already: look and unlink in one go.
        with _exclusive(self.path.parent):
            for path, identity in _companions(self.path):
                if self._companions.get(path) == identity:
                    path.unlink()


class Connection:
    """A connection that one thread at a time uses, opened when needed and anew when the file was replaced."""

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file
        # Guards the fields below: a native cancel on asyncio leaves a thread behind that is still at work.
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: FileIdentity | None = None
        self._is_closed = False

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """The connection, outside a transaction; one that is left open is rolled back.

        After an error of SQLite the next use gets a new connection.
        """
        with self._lock, self._file.named_errors():
            connection = self._open()
            try:
                try:
                    yield connection
                finally:
                    if connection.in_transaction:
                        connection.rollback()
            except sqlite3.Error:
                self._drop()
                raise

    def confirm(self) -> None:
        """Raises if the file was replaced since `use()` was entered: what was committed went with the old one."""
        if self._file.identity() != self._identity:
            raise self._file.error("the file was replaced during this commit, which may be lost")

    def close(self) -> None:
        """For good."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def _open(self) -> sqlite3.Connection:
        if self._is_closed:
            raise ClosedResourceError("this store is closed")
        if self._connection is None or self._file.identity() != self._identity:
            self._drop()
            self._connection, self._identity = self._file.connect()
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def new_epoch() -> str:
    """A name for a timeline that nobody has used before."""
    return os.urandom(16).hex()


def is_ours_or_empty(connection: sqlite3.Connection) -> bool:
    """Whether the file is a store, damaged or not, or nothing yet."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return application == _APPLICATION or _is_empty(connection)


def _text(error: sqlite3.Error) -> str:
    """What it says, without the value that it quotes where one is no UTF-8; the rest may be of the file too."""
    text = str(error).partition(" with text ")[0]
    return text if text.isprintable() and len(text) <= _MOST_QUOTED else repr(text[:_MOST_QUOTED])


def _is_empty(connection: sqlite3.Connection) -> bool:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return (application, tables) == (0, 0)


def _identity(path: Path) -> FileIdentity:
    status = path.stat()
    return FileIdentity(status.st_dev, status.st_ino)


def _companions(path: Path) -> Iterator[tuple[Path, FileIdentity]]:
    for suffix in ("-wal", "-shm"):
        companion = Path(f"{path.resolve()}{suffix}")
        with suppress(FileNotFoundError):
            yield companion, _identity(companion)


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    """Keeps other processes that ask for the same out; a crash gives it back."""
    if sys.platform == "win32":  # where a file that is open cannot be replaced
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
