"""Reading many rows of the state as they were at one index, however slowly they are taken.

As long as a transaction reads, SQLite cannot begin its write-ahead log anew, and its connection has two files
open.
So a transaction lasts as long as reading does, and never as long as a reader takes.
Most topics are read whole in one call of a worker thread.
Of a larger one the rest is copied to a temporary file, page by page, by a task beside the reader; the reader
takes the pages from there when it wants them.
"""

import json
import marshal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel

from trio_stream import ClosedResourceError, running

from ._errors import StoreError
from ._spool import Queue, Spool
from ._sqlite_database import READ_CHARACTERS, Database
from ._sqlite_file import Connection, SQLiteFile
from ._values import JSON, EpochIndex

T = TypeVar("T")

Rows: TypeAlias = Sequence[tuple[str, JSON, int, str, bool]]
"""Keys, values, the indexes of the commits that they are from, namespaces, and whether the values are final."""
_RawRow: TypeAlias = tuple[str, str, int, str, int]  # with the value as JSON

PAGE: Final = 1024  # rows, at most
_STEP: Final = 8  # pages that are copied in one call of a worker thread: about 10 ms
_COPIES: Final = 4  # of the scans that take more than a page, how many read at the same time
_IDLE: Final = 1  # connections that are kept for the next scan

_DECODER: Final = json.JSONDecoder()

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


class Range(NamedTuple):
    """What a scan is about: the keys of one topic between two bounds, in one namespace or in all of them."""

    topic: str
    namespace: str | None
    """None: all of them, one after the other."""
    first: str
    """The lowest key."""
    after: str | bytes
    """What is greater than the highest."""

    @classmethod
    def of_key(cls, topic: str, namespace: str | None, key: str) -> "Range":
        """Just this key."""
        return cls(topic, namespace, key, f"{key}\0")  # no key has a NUL

    @classmethod
    def of_prefix(cls, topic: str, namespace: str | None, prefix: str = "") -> "Range":
        """The keys that begin with it."""
        return cls(topic, namespace, prefix, _after(prefix))

    def select(self, connection: sqlite3.Connection) -> sqlite3.Cursor:
        """Its rows, by namespace and key."""
        statement = _ALL_NAMESPACES if self.namespace is None else _ONE_NAMESPACE
        return connection.execute(statement, self._asdict())


class Run(Protocol):
    """Does work in a worker thread."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


class Scans:
    """The scans of one store; for the event loop's thread."""

    def __init__(
        self, database: Database, run: Run, close: Callable[[Callable[[], None]], Awaitable[None]]
    ) -> None:
        self._database = database
        self._run = run
        self._close = close
        self._lender = _Lender(database.file)
        self._spool = Spool(database.file.error)
        self._copies = anyio.Semaphore(_COPIES)

    def close(self) -> None:
        """Closes the connection that is kept; blocks. Scans that are open go on."""
        self._lender.close()

    @asynccontextmanager
    async def open(self, rows: Range) -> AsyncIterator[tuple[EpochIndex, Callable[[], Awaitable[Rows]]]]:
        """The index of what is read, and what gives the next rows of it; none at the end."""
        scan = _Scan(self._database, self._lender, Queue(self._spool), rows)
        with ExitStack() as place:  # among the copies: it is given back as soon as everything is read
            try:
                await self._begin(scan, place)
                reader = _Reader(scan, self._run)
                if scan.is_read:
                    place.close()
                    yield scan.index, reader.fetch
                else:
                    async with running(partial(self._copy, scan, place, reader)):
                        yield scan.index, reader.fetch
            finally:
                if not scan.is_closed:
                    await self._close(scan.close)

    async def _begin(self, scan: "_Scan", place: ExitStack) -> None:
        """Reads the first page, and more only where there is a place among the copies.

        What is small does not wait for what is large.
        """
        try:
            self._copies.acquire_nowait()
        except anyio.WouldBlock:
            await self._run(partial(scan.open, more=False))
            if scan.is_read:
                return
            await self._copies.acquire()
        place.callback(self._copies.release)
        await self._run(partial(scan.open, more=True))

    async def _copy(  # noqa: ASYNC910 - there is something to copy
        self, scan: "_Scan", place: ExitStack, reader: "_Reader", *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        task_status.started()
        while not scan.is_read:
            await self._run(scan.copy)
            reader.announce()
        place.close()


class _Reader:
    """Who takes the rows of a scan."""

    def __init__(self, scan: "_Scan", run: Run) -> None:
        self._scan = scan
        self._run = run
        self._received = 0  # pages of those that were copied
        self._has_failed = False
        self._news = anyio.Event()  # set, and replaced by a new one, when there may be more

    def announce(self) -> None:
        """There may be more, or nothing more will come."""
        self._news.set()
        self._news = anyio.Event()

    async def fetch(self) -> Rows:
        """The next rows; none at the end. After an error of the store there is no way to go on."""
        if self._has_failed:
            raise ClosedResourceError("this scan has failed")
        try:
            return await self._next_page()
        except StoreError:
            self._has_failed = True
            raise

    async def _next_page(self) -> Rows:
        await anyio.lowlevel.checkpoint()
        if self._scan.first:
            rows, self._scan.first = self._scan.first, ()
            return rows
        while self._received == self._scan.copied and not self._scan.is_read:
            await self._news.wait()
        if self._received < self._scan.copied:
            # A native cancel may lose what this returns: then it is asked for again.
            rows = await self._run(partial(self._scan.page, self._received))
            self._received += 1
            return rows
        if self._scan.failure is not None:
            raise self._scan.failure
        if self._received:
            await self._run(self._scan.drop)
        return ()


class _Scan:
    """The part that blocks, in worker threads; its public fields may be read from anywhere."""

    def __init__(self, database: Database, lender: "_Lender", queue: Queue, rows: Range) -> None:
        self._database = database
        self._lender = lender
        self._queue = queue
        self._rows = rows
        # Guards the fields below: a native cancel on asyncio leaves a thread behind that is still at work.
        self._lock = threading.Lock()
        self._pages = self._read()
        self._has_last_page = False  # the transaction is over, and the connection given back
        self.index = EpochIndex(0, "")
        self.first: Rows = ()  # the first page; the reader takes it away
        self.copied = 0  # how many pages follow it in the queue
        self.is_read = False  # nothing more is to come from the file
        self.failure: StoreError | ClosedResourceError | None = None  # comes after the pages that are there
        self.is_closed = False  # there is nothing to close

    def open(self, *, more: bool) -> None:
        """Begins, or begins anew: reads the first page, and if there is more goes on or gives it up."""
        with self._lock:
            if self.is_closed:
                raise ClosedResourceError("this scan was cancelled")
            self._pages = self._read()
            page = next(self._pages)
            if not (self._has_last_page or more):
                self._pages.close()
                return
            try:
                self.first = self._decoded(page)
            except StoreError as error:
                self._fail(error)
            else:
                self.is_read = self._has_last_page
            if self.is_read:
                self.is_closed = True
            else:
                self._copy()

    def copy(self) -> None:
        """Some pages more, unless the scan was closed."""
        with self._lock:
            if not self.is_closed:
                self._copy()

    def page(self, number: int) -> Rows:
        """One of those that were copied. Those before it have been received."""
        rows: Sequence[_RawRow] = marshal.loads(self._queue.get(number))  # noqa: S302 - nobody else has it
        return self._decoded(rows)

    def drop(self) -> None:
        """Everything was received."""
        self._queue.close()

    def close(self) -> None:
        """Ends the transaction, and drops what was copied. Idempotent."""
        with self._lock:
            self.is_closed = True
            self._pages.close()
            self._queue.close()

    def _copy(self) -> None:
        try:
            for page in islice(self._pages, _STEP):
                self._queue.put(marshal.dumps(page))
                self.copied += 1
        except (StoreError, ClosedResourceError) as error:
            self._fail(error)
        else:
            self.is_read = self._has_last_page

    def _fail(self, error: StoreError | ClosedResourceError) -> None:
        self._pages.close()
        self.failure = error
        self.is_read = True

    def _read(self) -> Generator[list[_RawRow], None, None]:
        """Pages. When the last one comes the transaction is over."""
        with self._lender.lend() as connection:
            while (index := self._database.begin(connection)) is None:
                pass  # the fork that was found has a new epoch now
            self.index = index
            with closing(self._rows.select(connection)) as rows:
                page, is_last = _page(rows)
                while not is_last:
                    yield page
                    page, is_last = _page(rows)
        self._has_last_page = True
        yield page

    def _decoded(self, page: Sequence[_RawRow]) -> Rows:
        return [
            (key, self._value(text, index), index, namespace, final != 0)
            for key, text, index, namespace, final in page
        ]

    def _value(self, text: str, index: int) -> JSON:
        value: JSON
        try:
            value, end = _DECODER.raw_decode(text)  # takes a third less time than `json.loads`
        except (TypeError, ValueError):
            return self._database.value(text, index)  # which says what is wrong with it
        return value if end == len(text) else self._database.value(text, index)


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


def _page(rows: sqlite3.Cursor) -> tuple[list[_RawRow], bool]:
    """The next rows, and whether that are all."""
    page: list[_RawRow] = []
    characters = 0
    for row in rows:
        page.append(row)
        characters += len(row[1])
        if len(page) == PAGE or characters >= READ_CHARACTERS:
            return page, False
    return page, True


def _after(prefix: str) -> str | bytes:
    """What all keys with the prefix are less than, and no other key that is greater than them."""
    shortened = prefix.rstrip(chr(sys.maxunicode))
    if not shortened:
        return b""  # SQLite sorts any blob behind any text
    after = ord(shortened[-1]) + 1
    return shortened[:-1] + chr(0xE000 if 0xD800 <= after < 0xE000 else after)  # no half of a surrogate pair
