"""A store in PostgreSQL, for any number of processes and machines.

It needs psycopg 3, which the extra brings: `pip install trio-stream[postgresql]`.
It runs on trio and on asyncio: what it asks the server is asked in worker threads, under a limiter of the store's own,
and who waits for the commits of others takes no thread.

Commits have the order of their indexes, because each locks the one row of `ts_head`.
Tasks that commit at the same time share a transaction, in the order of their arrival; nobody waits for company.
Each has an index of its own, sees the commits before it, and succeeds or is refused alone.

When the connection goes after a commit was sent, a second one finds out what became of it.
Only if that cannot be had within some seconds it is a `CommitUnknownError`.

A snapshot or a `list` is read in one transaction of the server.
That does not wait for a slow reader: what the reader has not taken yet waits in a temporary file of the process.

An application that keeps rows of its own in the same database writes them and a commit in one transaction: `record`.

What to know about the server, its rights, poolers and standbys is in the how-to "Use a PostgreSQL store".
"""

try:
    import psycopg  # noqa: F401 - the modules below need it
except ImportError as _error:
    raise ImportError(
        f"a store in PostgreSQL needs psycopg 3 ({_error}): pip install 'trio-stream[postgresql]', or"
        " 'psycopg[binary]' where libpq is not installed"
    ) from _error

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

from typing_extensions import override

from trio_stream import Cursor, SubscribeRequest

from ._engine import EngineStore, Scan, order_of
from ._group_commit import CommitLine
from ._postgresql_compaction import compact
from ._postgresql_database import Database
from ._postgresql_log import Log, Place
from ._postgresql_record import arecord, create_tables, record, schema_sql
from ._postgresql_scan import Scanner
from ._postgresql_server import Server, parse
from ._postgresql_tail import Listener, Tail
from ._postgresql_writing import LIMITS
from ._retention import Retention
from ._scans import COPIES, Range, Scans
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
    "PostgreSQLStore",
    "arecord",
    "create_tables",
    "open_postgresql_store",
    "record",
    "schema_sql",
]

T = TypeVar("T")

_SMALL_SCANS: Final = 2  # that read although all places of the large ones are taken


class PostgreSQLStore(Store, DescribedStore, Protocol):
    """What a store in PostgreSQL can do beside `Store`."""


def open_postgresql_store(
    url: str,
    *,
    retention: Retention | None = None,
    read_only: bool = False,
    connect_timeout: float = 10.0,
    statement_timeout: float = 30.0,
    poll_interval: float = 0.2,
) -> AbstractAsyncContextManager[PostgreSQLStore]:
    """Opens the store that `url` names, as libpq takes it; makes its tables if there are none.

    `postgresql://[user[:password]@][host][:port][/database][?schema=SCHEMA&OPTION=VALUE...]`: all options are libpq's,
    but for `schema`, where the tables are; without it that is where the `search_path` of the user leads.

    `retention`: what of the log is kept; without it all, until `compact`.
    `read_only`: for a process or a user who may only read; `commit` and `compact` are a `StoreError` then.
    `connect_timeout`: seconds to wait for a connection before it is a `StoreError`; if the URL has one, too, that
    counts.
    `statement_timeout`: seconds without a word of the server, be it that it hangs or that another transaction keeps
    the store locked, before it is a `StoreError`.
    `poll_interval`: seconds between two looks for the commits of others, where the server cannot tell of them: on a
    standby, and behind a pooler that lends connections for a transaction. While nothing comes they become rarer, down
    to one in 5 `poll_interval`.
    """
    for name, seconds in (("connect_timeout", connect_timeout), ("statement_timeout", statement_timeout)):
        if not seconds > 0:
            raise ValueError(f"{name} is a number of seconds above 0, not {seconds}")
    if not poll_interval > 0:
        raise ValueError(f"poll_interval is a number of seconds above 0, not {poll_interval}")
    parsed = parse(url)
    server = Server(parsed, connect_timeout=connect_timeout, statement_timeout=statement_timeout)
    return _open(Database(server, parsed.schema, read_only=read_only, retention=retention), poll_interval)


@asynccontextmanager
async def _open(database: Database, poll_interval: float) -> AsyncIterator[PostgreSQLStore]:
    store = _PostgreSQLStore(database, poll_interval)
    try:
        await store.open()
        yield store
    finally:
        await store.aclose()


class _PostgreSQLStore(EngineStore, PostgreSQLStore):
    """See `PostgreSQLStore`."""

    def __init__(self, database: Database, poll_interval: float) -> None:
        self._database = database
        self._threads = Threads(0.0)
        self._ask = self._threads.ask
        self._commits = CommitLine(database.commit, self._threads, patience=0.0)
        self._log = Log(database)
        self._listener = Listener(database)
        self._tail = Tail(database, self._listener, self._ask, poll_interval=poll_interval)
        self._scanner = Scanner(database, COPIES + _SMALL_SCANS)
        self._scans = Scans(self._scanner.read, self._abandonable, self._threads.close, database.server.error)

    async def open(self) -> None:
        """Finds or makes the tables."""
        await self._threads.run(self._database.open)
        await self.head()

    async def aclose(self) -> None:
        """Closes all connections; whoever still waits for changes is told so."""
        self._tail.close()
        await self._threads.close(self._listener.close, self._scanner.close, self._database.close)

    @property
    @override
    def limits(self) -> Limits:
        return LIMITS

    @override
    async def head(self) -> Head:
        return await self._ask(self._database.head)

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
        return await self._ask(self._database.topics)

    @override
    async def status(self) -> StoreStatus:
        return await self._ask(self._database.status)

    @override
    async def revocations(self) -> Revocations:
        return await self._ask(self._database.revocations)

    @override
    async def compact(self, index: int) -> None:
        check_index(index)
        self._check_writable()
        await compact(self._database, self._threads, index)

    @override
    async def page_of(
        self, request: SubscribeRequest[Record], after: Cursor, *, upto: int
    ) -> Sequence[Commit]:
        place = Place(after.index, after.epoch, after.mark)
        return await self._ask(partial(self._log.page_of, request.interests, place, upto))

    @override
    def _scan(self, rows: Range) -> Scan:
        return self._scans.open(rows)

    @override
    @asynccontextmanager
    async def _changes(
        self, after: int | Cursor, topics: frozenset[str] | None
    ) -> AsyncIterator[AsyncIterator[Commit]]:
        where = check_position(after)
        place = (
            Place(where.index, where.epoch, where.mark)
            if isinstance(where, Cursor)
            else Place(where, None, "")
        )
        page = await self._ask(partial(self._log.read, place, topics))
        place, ready = page.place, page.commits

        async def fetch() -> Sequence[Commit]:
            nonlocal place, ready
            commits, ready = ready, ()
            while not commits:
                version = self._tail.version
                page = await self._ask(partial(self._log.read, place, topics))
                place, commits = page.place, page.commits
                if not commits:
                    await self._tail.wait(version)
            return commits  # noqa: ASYNC910 - those that were ready on entering were waited for

        with Steps(fetch) as steps:
            yield steps

    async def _abandonable(self, work: Callable[[], T]) -> T:
        """For scans, which tell their threads themselves when they are left."""
        return await self._ask(lambda _: work())

    def _check_writable(self) -> None:
        if self._database.is_read_only:
            raise self._database.server.error("opened for reading only")

    @override
    async def _get(self, name: Name) -> tuple[EpochIndex, Entry | None]:
        return await self._ask(partial(self._database.get, name))
