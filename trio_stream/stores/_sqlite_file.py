"""The SQLite file: connections to it, its schema, its errors, and what to do when it was replaced.

Everything here blocks and belongs in a worker thread.

SQLite finds the write-ahead log of a file by name.
Once `jobs.db` has been replaced, the `jobs.db-wal` that lies beside it still is the log of the old file, and
whoever opens the new one would read both as one.
Therefore the `-wal` and `-shm` that are known to be the old file's are unlinked before a new file is opened.
"""

import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from trio_stream import ClosedResourceError

from ._errors import BusyError, StoreError
from ._sqlite_schema import VERSION, create_file, is_empty, is_marked, upgrade, version_of
from ._sqlite_statements import first_row, run

if sys.platform != "win32":
    import fcntl

Synchronous: TypeAlias = Literal["OFF", "NORMAL", "FULL", "EXTRA"]

# How long one attempt waits for a lock, seconds. The caller tries again, and can be cancelled in between.
BUSY_SLICE: Final = 0.1

_LARGEST_LOG: Final = 16 << 20  # bytes that the -wal keeps when it is begun anew

_MOST_QUOTED: Final = 200  # characters of a message of SQLite
_VALUE: Final = " with text "  # after which a message quotes one that is no UTF-8

_FORKED: Final = (
    "SQLite does not survive a fork: this process was forked while the store was open; start processes with"
    " spawn or exec, or open the store after the fork only"
)

# {id of a connection: device and inode of its file}, of all that this process has open.
_connected: Final[dict[int, tuple[int, int]]] = {}
# The files that the parent of this process had open when it was forked. What SQLite knows of them is wrong here: it
# takes locks for its own that only the parent has, and commits are lost.
_inherited: Final[set[tuple[int, int]]] = set()


def _disown() -> None:
    _inherited.update(_connected.values())
    _connected.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)

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


_LOCKED: Final = (0, 0)  # the version of a file that is read under SQLite's locks


class FileIdentity(NamedTuple):
    """Which file a path leads to."""

    device: int
    inode: int
    version: tuple[int, int] = _LOCKED
    """Of a file that is read without locks: when it was written last, and its size."""


class SQLiteFile:
    """A path, and what file was last seen there."""

    def __init__(
        self,
        path: str,
        *,
        synchronous: Synchronous,
        busy_timeout: float,
        read_only: bool = False,
        takes_old: bool = False,
    ) -> None:
        """With `takes_old` a store of the first edition is connected to as it is."""
        self.path = Path(path).absolute()
        self._name = str(self.path)
        self.is_read_only = read_only
        self._takes_old = takes_old
        self._synchronous = synchronous
        self._busy_slice = min(busy_timeout, BUSY_SLICE)
        self._process = os.getpid()
        # Guards the fields below, which every connect() reads and writes.
        self._lock = threading.Lock()
        self._opened: FileIdentity | None = None
        # {id of an open connection: device and inode of its file}
        self._connections: dict[int, tuple[int, int]] = {}
        # {path of a -wal or -shm: that of the file opened last}
        self._companions: dict[str, FileIdentity] = {}

    def error(self, cause: str) -> StoreError:
        """A `StoreError` that names the file."""
        return StoreError(f"{self.path}: {cause}")

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked from the one that opened the store."""
        return os.getpid() != self._process

    def check_process(self) -> None:
        """Raises in a process that was forked from the one that opened the store."""
        if self.is_inherited:
            raise self.error(_FORKED)

    def identity(self) -> FileIdentity:
        """Which file the path leads to now."""
        status = self._status()
        if self.is_read_only and not self._has_log():
            return FileIdentity(status.st_dev, status.st_ino, (status.st_mtime_ns, status.st_size))
        return FileIdentity(status.st_dev, status.st_ino)

    def check_companions(self) -> None:
        """Raises if the `-wal` or `-shm` of the open file was deleted or replaced: what follows would be lost.

        They stay as they are until the last connection of all processes is closed.
        """
        for path, identity in self._companions.items():
            try:
                status = os.stat(path)  # noqa: PTH116 - as in `identity`
            except OSError:
                pass
            else:
                if (status.st_dev, status.st_ino) == identity[:2]:
                    continue
            raise self.error(
                f"{Path(path).name} was deleted or replaced while the store was open, and newer commits"
                " may be in it: close the store in all processes before anything else opens it"
            )

    def check_untouched(self, identity: FileIdentity) -> None:
        """Raises if the file was read without locks, and somebody has begun to write to it meanwhile."""
        if identity.version != _LOCKED and self.identity() != identity:
            raise BusyError(f"{self.path}: written to while it was read")

    def sizes(self) -> tuple[int, int]:
        """Bytes of the file and of its write-ahead log."""
        file = self._status().st_size
        try:
            return file, _companion(self.path, "-wal").stat().st_size
        except FileNotFoundError:
            return file, 0

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Makes the errors of SQLite and of the system ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.named(error) from _cause(error)
        except OSError as error:
            raise self._unopened(error) from error

    def _unopened(self, error: OSError) -> StoreError:
        return self.error(f"cannot be opened ({error.strerror or error})")

    def named(self, error: sqlite3.Error) -> StoreError:
        """What the error of SQLite is for the users of the store."""
        code = _code(error)
        if code == sqlite3.SQLITE_IOERR:  # SQLite says no more of a file whose `-wal` was deleted
            try:
                self.check_companions()
            except StoreError as lost:
                return lost
        kind = BusyError if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} else StoreError
        reason = _REASONS.get(code)
        text = _text(error)
        return kind(f"{self.path}: {f'{reason} ({text})' if reason else text}")

    def create(self) -> None:
        """Makes a new store of a file that does not exist or is empty; leaves any other as it is."""
        with self.named_errors():
            if not is_directory(self.path.parent):
                raise self.error(f"the directory {self.path.parent} does not exist")
            self._check_not_inherited()
            with closing(self._sqlite("mode=rwc")) as connection:
                if is_empty(connection):
                    run(connection, "PRAGMA auto_vacuum = INCREMENTAL")  # before anything is in the file
                    run(connection, "PRAGMA journal_mode = WAL")
                    run(connection, "BEGIN IMMEDIATE")
                    if is_empty(connection):
                        create_file(connection)
                        run(connection, "COMMIT")

    def connect(self) -> tuple[sqlite3.Connection, FileIdentity]:
        """A new connection to the file that is there now, and which one that is; to be given to `disconnect`."""
        self.check_process()
        with self._lock, self.named_errors():
            identity = self.identity()
            self._check_not_inherited()
            if self._opened is not None and self._opened[:2] != identity[:2]:
                self._discard_companions()
            elif identity[:2] in list(self._connections.values()):
                self.check_companions()
            connection = self._sqlite(self._mode(identity))
            self._connections[id(connection)] = _connected[id(connection)] = identity[:2]
            try:
                self._confirm(identity)  # before SQLite looks for a log of the file that it has opened
                self._configure(connection)
                self._confirm(identity)
            except BaseException:
                self.disconnect(connection)
                raise
            self._opened = identity
            found = () if self.is_read_only else _companions(self.path)
            self._companions = {str(path): of for path, of in found}
            return connection, identity

    def disconnect(self, connection: sqlite3.Connection) -> None:
        """Closes it; but not in a process that was forked, where it belongs to the parent."""
        if not self.is_inherited:
            connection.close()
            self._connections.pop(id(connection), None)
            _connected.pop(id(connection), None)

    def _status(self) -> os.stat_result:
        try:
            return os.stat(self._name)  # noqa: PTH116 - at each commit, and half as long as by a Path
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.error(f"the file is gone ({error.strerror})") from error
        except OSError as error:
            raise self._unopened(error) from error

    def _mode(self, identity: FileIdentity) -> str:
        """How SQLite is to open the file.

        Reading a file with a write-ahead log means to write into its `-shm`, or to make one.
        Where there is none nobody has the file open for writing, and it can be read without; whoever does so
        compares the identity before and after, which changes when anybody begins to write.
        """
        if not self.is_read_only:
            return "mode=rw"
        return "mode=ro" if identity.version == _LOCKED else "mode=ro&immutable=1"

    def _has_log(self) -> bool:
        return _companion(self.path, "-wal").exists()

    def _check_not_inherited(self) -> None:
        with suppress(FileNotFoundError):
            status = self.path.stat()
            if (status.st_dev, status.st_ino) in _inherited:
                raise self.error(_FORKED)

    def _sqlite(self, query: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.as_uri()}?{query}",
            uri=True,
            timeout=self._busy_slice,
            isolation_level=None,
            check_same_thread=False,
        )

    def _configure(self, connection: sqlite3.Connection) -> None:
        version = self._version(connection)
        if not self.is_read_only:
            (mode,) = first_row(connection, "PRAGMA journal_mode = WAL")
            if mode != "wal":
                raise self.error(f"no write-ahead log is possible here (journal mode {mode!r})")
            run(connection, f"PRAGMA synchronous = {self._synchronous}")
            first_row(connection, f"PRAGMA journal_size_limit = {_LARGEST_LOG}")
        if version < VERSION and not self._takes_old:
            self._upgrade(connection)

    def _version(self, connection: sqlite3.Connection) -> int:
        try:
            version = version_of(connection)
        except ValueError as error:
            raise self.error(str(error)) from None
        if version is None:
            raise self.error(
                "not a store of trio_stream, but some other database or an empty file"
                " (create_tables makes one in a database of your own)"
            )
        if version > VERSION:
            raise self.error(f"written by a newer trio_stream (schema {version}; this one knows {VERSION})")
        return version

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        if self.is_read_only:
            raise self.error(
                f"written by an older trio_stream (schema 1; this one has {VERSION}): open it for writing"
                " once, which upgrades it"
            )
        run(connection, "BEGIN IMMEDIATE")
        upgrade(connection)
        run(connection, "COMMIT")

    def _confirm(self, identity: FileIdentity) -> None:
        if self.identity() != identity:
            raise BusyError(f"{self.path}: being replaced by another file")

    def _discard_companions(self) -> None:
        if self.is_read_only:
            if self._has_log():
                raise self.error("the file was replaced, and the old one's -wal lies beside it")
            return
        # Another process may be at the same, and have opened the new file already: look and unlink in one go.
        with _exclusive(self.path.parent):
            for path, identity in _companions(self.path):
                if self._companions.get(str(path)) == identity:
                    path.unlink(missing_ok=True)  # SQLite takes it away with the last connection


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
        self._file.check_process()
        with self._lock:
            try:
                connection = self._open()
                try:
                    try:
                        yield connection
                    except (sqlite3.Error, StoreError):
                        self._check_untouched()  # then it may be what two versions of the file are together
                        raise
                    self._check_untouched()
                finally:
                    if connection.in_transaction:
                        connection.rollback()
            except sqlite3.Error as error:
                self._drop()
                raise self._file.named(error) from _cause(error)

    def confirm(self) -> None:
        """Raises if the file was replaced since `use()` was entered: what was committed went with the old one."""
        if self._file.identity() != self._identity:
            raise self._file.error("the file was replaced during this commit")
        self._file.check_companions()

    def close(self) -> None:
        """For good."""
        if self._file.is_inherited:
            return  # the lock may be held for ever by a thread that only the parent has
        with self._lock:
            self._is_closed = True
            self._drop()

    def _open(self) -> sqlite3.Connection:
        if self._is_closed:
            raise ClosedResourceError("this store is closed")
        if self._connection is None or self._file.identity() != self._identity:
            self._drop()
            self._connection, self._identity = self._file.connect()
        else:
            self._file.check_companions()
        return self._connection

    def _check_untouched(self) -> None:
        assert self._identity is not None
        self._file.check_untouched(self._identity)

    def _drop(self) -> None:
        if self._connection is not None:
            self._file.disconnect(self._connection)
            self._connection = None


def is_directory(path: Path) -> bool:
    """What `Path.is_dir` says, but an `OSError` where that cannot be known, on every Python."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def new_epoch() -> str:
    """A name for a timeline that nobody has used before."""
    return os.urandom(16).hex()


def is_ours_or_empty(connection: sqlite3.Connection) -> bool:
    """Whether the file is a store, damaged or not, or nothing yet."""
    if is_marked(connection) or is_empty(connection):
        return True
    try:
        return version_of(connection) is not None
    except ValueError:
        return True


def _text(error: sqlite3.Error) -> str:
    """What it says, without the value that it quotes where one is no UTF-8; the rest may be of the file too."""
    text = str(error).partition(_VALUE)[0]
    return text if text.isprintable() and len(text) <= _MOST_QUOTED else repr(text[:_MOST_QUOTED])


def _code(error: sqlite3.Error) -> int:
    """The primary result code."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def _cause(error: sqlite3.Error) -> sqlite3.Error | None:
    """The error, if it may be shown in a traceback: one that quotes a value may not."""
    return None if _VALUE in str(error) else error


def _companion(path: Path, suffix: str) -> Path:
    return Path(f"{path.resolve()}{suffix}")


def _companions(path: Path) -> Iterator[tuple[Path, FileIdentity]]:
    for suffix in ("-wal", "-shm"):
        companion = _companion(path, suffix)
        with suppress(FileNotFoundError):
            status = companion.stat()
            yield companion, FileIdentity(status.st_dev, status.st_ino)


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
