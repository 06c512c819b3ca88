"""A copy of a store while processes write to it, and putting one back while processes read it.

Both are first made beside their destination, under a name of their own, and get there when they are complete.

A restored store must not keep the epoch that it had when it was copied: it would take cursors of commits that were
made after the copy, and are gone, for its own.
So the copy is given a new epoch, and gets into the store's file together with it, in one transaction of SQLite's.
"""

import os
import reprlib
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from ._errors import BusyError, StoreError
from ._sqlite_file import BUSY_SLICE, SQLiteFile, is_directory, is_ours_or_empty, new_epoch
from ._sqlite_schema import is_empty, is_marked, upgrade
from ._sqlite_statements import first_row, run
from ._values import Head

T = TypeVar("T")

_STEP: Final = 10_000  # of SQLite's instructions between two looks whether the call was cancelled
_PAGES: Final = 256  # of the file that are copied between two of these looks
_PAUSE: Final = 0.01  # seconds between two attempts to get a lock that SQLite does not wait for itself

_HEAD: Final = (
    "SELECT idx, floor, epoch, CASE idx WHEN floor THEN floor_mark ELSE"
    " (SELECT mark FROM ts_log WHERE ts_log.idx = ts_head.idx) END FROM ts_head"
)


async def backup_sqlite_store(
    path: str, target: str, *, overwrite: bool = False, busy_timeout: float = 5.0
) -> Head:
    """Copies the store in the file `path` to a new file `target`, while anybody may read and write the store.

    The copy is the store as it was at one commit, which is returned.
    It is one closed file that can be opened as a store.
    It appears when it is complete and on the disk, with the permissions of the store's file.
    `overwrite`: it may take the place of a file that is there, but not of anything else, and not of the store.
    `busy_timeout`: seconds to wait for a lock that another process holds.

    `StoreError`: SQLite or the file system has refused something; there is no copy then, and none after a cancel.
    (A native `Task.cancel()` of asyncio does not wait to see: the copy is there as a whole or not at all.)
    """

    def work() -> Head:
        return _backup(Path(path).absolute(), Path(target).absolute(), busy_timeout, overwrite=overwrite)

    return await _in_thread(work, target)


async def restore_sqlite_store(backup: str, path: str, *, busy_timeout: float = 5.0) -> Head:
    """Puts the store in the file `backup` in the place of the one in the file `path`, while anybody may use that.

    The store gets a new epoch together with its content, in one step: whoever follows it is told, with
    `CloseReason.REFRESH`, and cursors from before are out of date.
    What was committed since the backup is gone.
    Its newest commit and the new epoch are returned.
    If there is no file `path` it is made, but not its directory.
    `busy_timeout`: seconds to wait for a lock that another process holds.

    `StoreError`: SQLite or the file system has refused something, the backup is damaged or no store, or the file
    `path` is one of another application.
    The store is what it was then, and after a cancel.
    (A native `Task.cancel()` of asyncio does not wait to see: it is restored as a whole or not at all.)
    """

    def work() -> Head:
        return _restore(Path(backup).absolute(), Path(path).absolute(), busy_timeout)

    return await _in_thread(work, path)


async def _in_thread(work: Callable[[], T], made: str) -> T:
    try:
        return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
    except OSError as error:
        raise StoreError(f"{error.filename or made}: {error.strerror}") from error


def _backup(path: Path, target: Path, busy_timeout: float, *, overwrite: bool) -> Head:
    _check_target(path, target, overwrite=overwrite)
    file = _file(path, read_only=True)
    with _temporary(target, like=path) as copy:
        _copy(file, copy, busy_timeout)
        head = _change(copy, file, None)
        _place(copy, target, overwrite=overwrite)
    return head


def _restore(backup: Path, path: Path, busy_timeout: float) -> Head:
    if _is_same(backup, path):
        raise StoreError(f"{backup}: this is the store itself")
    with _temporary(path, like=backup) as copy:
        file = _file(backup, read_only=True)
        _copy(file, copy, busy_timeout)
        head = _change(copy, file, new_epoch())
        # Not before all of that has worked. Nobody may read the store who could not read the backup.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _mode(backup)))
        _replace_content(copy, _file(path), busy_timeout)
    return head


def _file(path: Path, *, read_only: bool = False) -> SQLiteFile:
    return SQLiteFile(
        str(path), synchronous="FULL", busy_timeout=BUSY_SLICE, read_only=read_only, takes_old=read_only
    )


def _check_target(path: Path, target: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise StoreError(f"{target}: exists already")
    if target.is_symlink() or not target.is_file():
        raise StoreError(f"{target}: not a file that a backup may take the place of")
    if any(_is_same(target, Path(f"{path.resolve()}{suffix}")) for suffix in ("", "-wal", "-shm")):
        raise StoreError(f"{target}: this is the store itself")


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode) | stat.S_IRUSR | stat.S_IWUSR


@contextmanager
def _temporary(target: Path, *, like: Path) -> Iterator[Path]:
    """An empty file beside the target, with the permissions of another file; gone afterwards unless it was moved."""
    if not is_directory(target.parent):
        raise StoreError(f"{target}: the directory {target.parent} does not exist")
    copy = target.with_name(f".trio-stream-{os.urandom(8).hex()}.tmp")
    mode = _mode(like)
    try:
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode))
    except OSError as error:
        raise StoreError(f"{target}: no file can be made beside it ({error.strerror})") from error
    try:
        yield copy
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)


def _copy(file: SQLiteFile, copy: Path, busy_timeout: float) -> None:
    """All of the store, as of one commit, once SQLite has found no damage in it."""

    def attempt() -> None:
        connection, identity = file.connect()
        try:
            os.truncate(copy, 0)
            with file.named_errors(), _cancellable(connection):
                (found,) = first_row(connection, "PRAGMA integrity_check(1)")
                if found != "ok":
                    raise file.error(f"damaged: {found!r}")
                run(connection, "VACUUM INTO ?", (os.fspath(copy),))
        except StoreError:
            file.check_untouched(identity)  # or it may have seen half of what somebody wrote
            raise
        finally:
            file.disconnect(connection)
        file.check_untouched(identity)

    _persist(attempt, busy_timeout)


def _change(copy: Path, origin: SQLiteFile, epoch: str | None) -> Head:
    """What the copy has; it is of the present edition then, and gets a new epoch unless that is None."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection, origin.named_errors():
        run(connection, "BEGIN IMMEDIATE")
        upgrade(connection)
        if epoch is not None:
            run(connection, "UPDATE ts_head SET epoch = ?", (epoch,))
        run(connection, "COMMIT")
        head = connection.execute(_HEAD).fetchall()
        # What lies below the floor was left there by a compaction that was interrupted.
        log = first_row(
            connection,
            "SELECT count(*), min(idx), max(idx) FROM ts_log WHERE idx > (SELECT floor FROM ts_head)",
        )
    match head:
        case [(int(index), int(floor), str(epoch), bytes(mark))]:
            if log == ((0, None, None) if index == floor else (index - floor, floor + 1, index)):
                return Head(index, floor, epoch, mark.hex())
    raise origin.error(f"damaged: a head of {reprlib.repr(head)} and a log of {reprlib.repr(log)}")


def _place(copy: Path, target: Path, *, overwrite: bool) -> None:
    """Moves the copy to its place when it is on the disk."""
    _synchronize(copy)
    anyio.from_thread.check_cancelled()
    if overwrite:
        copy.replace(target)
    else:
        _place_new(copy, target)
    if os.name == "posix":
        _synchronize(target.parent)


def _place_new(copy: Path, target: Path) -> None:
    try:
        os.link(copy, target)  # which a file that has come meanwhile makes fail
    except FileExistsError:
        raise StoreError(f"{target}: exists already") from None
    except OSError:  # this file system has no such links
        copy.rename(target)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_content(copy: Path, file: SQLiteFile, busy_timeout: float) -> None:
    """Everything in the file, in one transaction."""
    deadline = time.monotonic() + busy_timeout

    def look(status: int, _: int, __: int) -> None:
        anyio.from_thread.check_cancelled()
        if status & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} and time.monotonic() >= deadline:
            raise BusyError(f"{file.path}: locked by another process")

    with (
        file.named_errors(),
        closing(_open(copy)) as source,
        closing(_open(file.path)) as target,
    ):
        if not is_ours_or_empty(target):
            raise file.error("the file of another application")
        if is_marked(source) and not (is_marked(target) or is_empty(target)):
            raise file.error("it has tables of an application, which the backup does not have")
        (page_size,) = first_row(target, "PRAGMA page_size")
        run(source, f"PRAGMA page_size = {page_size}")
        run(source, "VACUUM")  # a file with a write-ahead log can take only pages of its own size
        source.backup(target, pages=_PAGES, progress=look, sleep=_PAUSE)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_SLICE, isolation_level=None)


@contextmanager
def _cancellable(connection: sqlite3.Connection) -> Iterator[None]:
    """Ends SQLite's work with the exception of a cancel, once the call is cancelled."""
    connection.set_progress_handler(anyio.from_thread.check_cancelled, _STEP)
    try:
        yield
    except sqlite3.OperationalError:
        anyio.from_thread.check_cancelled()
        raise


def _persist(attempt: Callable[[], None], busy_timeout: float) -> None:
    """Does it again while the file is locked, until the time is over."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            attempt()
        except BusyError:
            if time.monotonic() >= deadline:
                raise
            anyio.from_thread.check_cancelled()
            time.sleep(_PAUSE)
        else:
            return
