"""A store in one SQLite file, for any number of processes of one machine.

Every call runs in a worker thread, under a limiter of the store's own: an application that keeps all its
threads busy does not hold it up.
No connection is ever used by two threads at once.
A lock that another process holds is waited for in short attempts, between which a call can be cancelled.
Readers who wait for the commits of others are woken by the kernel's notices on Linux (inotify, one descriptor for
each open store that somebody waits at), elsewhere by looking for them.
An idle one costs about 0.2 % of a core on Linux.

Tasks that commit at the same time share a transaction, in the order of their arrival; nobody waits for company.
Each has an index of its own, sees the commits before it, and succeeds or is refused alone.
Only when SQLite cannot end the transaction itself do all of them fail, each with an error of its own.
That is a `CommitUnknownError`: when a disk refuses to sync the `-wal`, and the process is
killed before the next commit, whoever opens the store next finds them there.

The file may have tables of the application's own beside those of the store, whose names begin with `ts_`.
`create_tables` makes them there, and `record` commits in a transaction of the application's.

What to know about the file:

- It is in WAL mode: while anyone has `jobs.db` open, `jobs.db-wal` and `jobs.db-shm` are part of it.
  Keep it off network file systems, and do not copy it with `cp` while it is in use: `backup_sqlite_store`, or
  `trio-stream backup copy.db`, makes a consistent copy while processes write.
- SQLite begins the `-wal` anew when it has 4 MB and no transaction reads.
  A snapshot or a `list` reads in one transaction, about a second for a million rows, however slow its reader is.
  So the `-wal` grows beyond that by what is written meanwhile: about three times the size of the values.
  When it is begun anew it keeps the size that it had, but no more than 16 MB.
- Of a topic that is larger than a page (1,024 rows, or 1 MiB), what a reader has not taken yet waits in a
  temporary file of the process: one for all readers, 0 bytes when none is behind.
  It is where Python's `tempfile` puts it: set `TMPDIR` to another directory if `/tmp` is small, or in memory.
  If that is full, the snapshots and lists that need it fail with a `StoreError` that names it.
- While a process has the store open, do not delete or move its `-wal` and `-shm`: newer commits may be in them only.
  A process that notices it does nothing more in the store but raise `StoreError`.
  When all processes have closed it nothing is lost.
- SQLite does not survive a fork.
  A process that was forked while its parent had the store open gets a `StoreError` from every call, and if it opens
  the store anew.
  Start processes with `spawn` or `exec`, or open the store after the fork only.
- `compact` works in small transactions of about 10 ms, between which others write, and gives the space back to the
  file system.
  Files that were made by version 0.1 keep it, for what is written next; `VACUUM` by hand, once and while nobody uses
  the store, changes that: `sqlite3 jobs.db "PRAGMA auto_vacuum = 2; VACUUM"`.
- A file that version 0.1 has made is upgraded when it is first opened for writing: in one transaction that copies
  nothing, however large the file is. Its epoch, its indexes and its marks stay.
  Processes with version 0.1 that have it open get a `StoreError` from then on.
- Never copy over one that is in use: `cp copy.db jobs.db` writes into the open file behind SQLite's back, and
  damages it.
- To restore while processes run, use `restore_sqlite_store`, or `trio-stream restore copy.db`.
  It puts the copy into the file under SQLite's locks, together with a new epoch, so that nobody goes on from a
  cursor of what is gone.
- A file that is moved to the place of the old one is noticed, too.
  It must be a closed one, without a `-wal`, and the `-wal` and `-shm` of the old one must be removed first: a
  process that comes only now would read them as part of the new one.
  Stop all writers while you do it: what they commit in between goes with the old file.
- An older copy of the same store that was put back by other means gets a new epoch from the first process that has
  seen more than it holds.
  If none runs nobody can know that; cursors of what is gone are found out by their marks, later.
"""

import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, get_args
from uuid import UUID

import anyio
from typing_extensions import override

from trio_stream import (
    Cursor,
    SubscribeRequest,
)

from ._engine import EngineStore, Scan, order_of
from ._group_commit import CommitLine
from ._retention import Retention
from ._scans import Range, Scans
from ._sqlite_backup import backup_sqlite_store, restore_sqlite_store
from ._sqlite_compaction import compact
from ._sqlite_database import Database
from ._sqlite_file import SQLiteFile, Synchronous
from ._sqlite_log import HIGHEST, Log, Position
from ._sqlite_record import create_tables, record, schema_sql
from ._sqlite_scan import Scanner
from ._sqlite_tail import Tail, Watch
from ._sqlite_write import LIMITS
from ._status import DescribedStore, StoreStatus
from ._steps import Steps
from ._store import Store
from ._threads import Threads
from ._values import (
    Commit,
    Entry,
    EpochIndex,
    Head,
    Limits,
    Name,
    Operation,
    Record,
    Revocations,
    check_index,
    check_position,
)

__all__ = [
    "SQLiteStore",
    "Sizes",
    "backup_sqlite_store",
    "create_tables",
    "open_sqlite_store",
    "record",
    "restore_sqlite_store",
    "schema_sql",
]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a store is."""

    commits: int
    """Commits in the log: those that `changes` can give."""
    file: int
    """Bytes of the file."""
    write_ahead_log: int
    """Bytes of the `-wal` beside it."""


class SQLiteStore(Store, DescribedStore, Protocol):
    """What a store in a SQLite file can do beside `Store`."""

    @override
    async def commit(
        self,
        operations: Sequence[Operation],
        *,
        expect: Mapping[Name, int] | None = None,
        id: UUID | None = None,
        if_changed: bool = False,
    ) -> EpochIndex:
        """As `Store.commit`; the index knows its epoch and its mark."""
        ...

    async def sizes(self) -> Sizes:
        """How large the store is now."""
        ...


def open_sqlite_store(
    path: str,
    *,
    synchronous: Synchronous = "FULL",
    busy_timeout: float = 5.0,
    poll_interval: float = 0.005,
    read_only: bool = False,
    retention: Retention | None = None,
) -> AbstractAsyncContextManager[SQLiteStore]:
    """Opens the store in the file `path`; makes it if there is none, but not its directory.

    `synchronous`: SQLite's.
    A commit survives a crash of the process in any case, but one of the machine only with "FULL" and "EXTRA"
    for certain; with "OFF" that may damage the file.
    `busy_timeout`: seconds to wait for a lock that another process holds before it is a `StoreError`.
    `read_only`: for a process or a user who may only read the file, which must be there.
    `commit` and `compact` are a `StoreError` then.
    Where nobody writes to the file, so that it has no `-wal`, it is read without locks, and again if a writer comes
    meanwhile; a `list` or a snapshot that has begun to give rows ends with a `StoreError` in that case.
    `retention`: how much of the log is kept; see `Retention`.
    `poll_interval`: seconds between two looks for the commits of others, where the system does not tell of them,
    as Linux does.
    While somebody waits and nothing comes the looks become rarer, down to one in 10 `poll_interval`; on Linux,
    where they are only a net, one in 100.
    """
    if synchronous not in get_args(Synchronous):
        raise ValueError(f"synchronous is one of {get_args(Synchronous)}, not {synchronous!r}")
    if not busy_timeout >= 0:
        raise ValueError(f"busy_timeout is a number of seconds from 0, not {busy_timeout}")
    if retention is not None and not isinstance(retention, Retention):
        raise TypeError(f"retention is a Retention, not {retention!r}")
    if not poll_interval > 0:
        raise ValueError(f"poll_interval is a number of seconds above 0, not {poll_interval}")
    file = SQLiteFile(path, synchronous=synchronous, busy_timeout=busy_timeout, read_only=read_only)
    return _open(file, busy_timeout, poll_interval, retention)


@asynccontextmanager
async def _open(
    file: SQLiteFile, busy_timeout: float, poll_interval: float, retention: Retention | None
) -> AsyncIterator[SQLiteStore]:
    store = _SQLiteStore(file, busy_timeout, poll_interval, retention)
    try:
        await store.open()
        yield store
    finally:
        await store.aclose()


class _SQLiteStore(EngineStore, SQLiteStore):
    """See `SQLiteStore`."""

    def __init__(
        self, file: SQLiteFile, busy_timeout: float, poll_interval: float, retention: Retention | None
    ) -> None:
        self._database = Database(file, retention)
        self._threads = Threads(busy_timeout)
        self._commits = CommitLine(self._database.commit, self._threads, patience=busy_timeout)
        self._compacting = anyio.Lock()
        self._log = Log(self._database)
        self._watch = Watch(file)
        self._tail = Tail(self._watch, self._threads.run, poll_interval=poll_interval)
        self._scanner = Scanner(self._database)
        self._scans = Scans(
            self._scanner.read, self._threads.run, self._threads.finish, self._database.file.error
        )

    async def open(self) -> None:
        """Makes the file if there is none, and finds out whether it is a store."""
        if not self._database.file.is_read_only:
            await self._threads.run(self._database.file.create)
        await self.head()

    async def aclose(self) -> None:
        """Closes the file; whoever still waits for changes is told so."""
        self._tail.close()
        await self._threads.finish(self._watch.close, self._scanner.close, self._database.close)

    @override
    async def head(self) -> Head:
        return await self._threads.run(self._database.head)

    @property
    @override
    def limits(self) -> Limits:
        return LIMITS

    @override
    async def commit(
        self,
        operations: Sequence[Operation],
        *,
        expect: Mapping[Name, int] | None = None,
        id: UUID | None = None,
        if_changed: bool = False,
    ) -> EpochIndex:
        order = order_of(operations, expect, self._database.epoch, id, if_changed=if_changed)
        self._check_writable()
        index = await self._commits.commit(order)
        self._tail.announce()
        return index

    @override
    async def topics(self) -> Sequence[str]:
        return await self._threads.run(self._database.topics)

    @override
    async def sizes(self) -> Sizes:
        return Sizes(*await self._threads.run(self._database.sizes))

    @override
    async def status(self) -> StoreStatus:
        head, sizes = await self.head(), await self.sizes()
        return StoreStatus(
            "sqlite",
            sqlite3.sqlite_version,
            str(self._database.file.path),
            head,
            sizes.commits,
            {"file": sizes.file, "write_ahead_log": sizes.write_ahead_log},
        )

    @override
    async def page_of(
        self, request: SubscribeRequest[Record], after: Cursor, *, upto: int
    ) -> Sequence[Commit]:
        return await self._threads.run(partial(self._log.page_of, request.interests, _position(after), upto))

    @override
    async def revocations(self) -> Revocations:
        return await self._threads.run(self._database.revocations)

    @override
    async def compact(self, index: int) -> None:
        check_index(index)
        self._check_writable()
        async with self._compacting:
            await compact(self._database, self._threads, index)

    @override
    def _scan(self, rows: Range) -> Scan:
        return self._scans.open(rows)

    @override
    @asynccontextmanager
    async def _changes(
        self, after: int | Cursor, topics: frozenset[str] | None
    ) -> AsyncIterator[AsyncIterator[Commit]]:
        position, ready = await self._threads.run(partial(self._log.read, _position(after), topics))

        async def fetch() -> Sequence[Commit]:
            nonlocal position, ready
            commits, ready = ready, ()
            while not commits:
                version = self._tail.version
                _, commits = await self._threads.run(partial(self._log.read, position, topics))
                if not commits:
                    await self._tail.wait(version)
            position = replace(position, index=commits[-1].index, mark=commits[-1].mark)
            return commits  # noqa: ASYNC910 - those that were ready on entering were waited for

        with Steps(fetch) as steps:
            yield steps

    @override
    async def _get(self, name: Name) -> tuple[EpochIndex, Entry | None]:
        return await self._threads.run(partial(self._database.get, name))

    def _check_writable(self) -> None:
        if self._database.file.is_read_only:
            raise self._database.file.error("opened for reading only")


def _position(after: int | Cursor) -> Position:
    match check_position(after):
        case Cursor(index, epoch, mark):
            return Position(min(index, HIGHEST), epoch, mark)
        case index:
            return Position(min(index, HIGHEST), None, "")
