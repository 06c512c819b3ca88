"""Reading many rows of the state as they were at one index, however slowly they are taken.

As long as a transaction reads, an engine has to keep what is replaced meanwhile, and a connection is in use.
So a transaction lasts as long as reading does, and never as long as a reader takes.
Most topics are read whole in one call of a worker thread.
Of a larger one the rest is copied to a temporary file, page by page, by a task beside the reader; the reader
takes the pages from there when it wants them.
"""

import json
import marshal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel

from trio_stream import ClosedResourceError, running

from ._errors import StoreError
from ._spool import Queue, Spool
from ._values import JSON, EpochIndex

T = TypeVar("T")

PAGE: Final = 1024
"""Rows of a portion, at most."""
_STEP: Final = 8  # pages that are copied in one call of a worker thread: about 10 ms
COPIES: Final = 4
"""Of the scans that take more than a page, how many read at the same time."""

_LONGEST_CLOSE: Final = 0.2  # seconds

_DECODER: Final = json.JSONDecoder()


Rows: TypeAlias = Sequence[tuple[str, JSON, int, str, bool]]
"""Keys, values, the indexes of the commits that they are from, namespaces, and whether they are final."""
RawRow: TypeAlias = tuple[str, str, int, str, bool]
"""The same with the value as JSON."""


class Range(NamedTuple):
    """What a scan is about: the keys of one topic between two bounds, in one namespace or in all of them."""

    topic: str
    namespace: str | None
    """None: all of them, one after the other."""
    first: str
    """The lowest key."""
    after: str | None
    """What is greater than the highest; None if there is no such text."""

    @classmethod
    def of_key(cls, topic: str, namespace: str | None, key: str) -> "Range":
        """Just this key."""
        return cls(topic, namespace, key, f"{key}\x01")  # no key has a NUL

    @classmethod
    def of_prefix(cls, topic: str, namespace: str | None, prefix: str = "") -> "Range":
        """The keys that begin with it."""
        return cls(topic, namespace, prefix, _after(prefix))


@dataclass(frozen=True, slots=True)
class Portion:
    """Some rows of a scan."""

    index: EpochIndex
    """Of the state that they are of; the same in each."""
    rows: list[RawRow]
    is_last: bool
    """Whether the transaction is over, and the connection given back."""


class Reading(Protocol):
    """What an engine reads in one transaction; blocks."""

    def portions(self) -> Generator[Portion, None, None]:
        """At least one; begins anew each time. Closed early it ends the transaction."""
        ...

    def interrupt(self) -> None:
        """Ends what another thread waits for in `portions` soon, with a `StoreError`; does not wait."""
        ...


class Run(Protocol):
    """Does work in a worker thread."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


class Scans:
    """The scans of one store; for the event loop's thread."""

    def __init__(
        self,
        read: Callable[[Range], Reading],
        run: Run,
        close: Callable[[Callable[[], None]], Awaitable[None]],
        error: Callable[[str], StoreError],
    ) -> None:
        """`error` makes one that names the store."""
        self._read = read
        self._run = run
        self._close = close
        self._error = error
        self._spool = Spool(error)
        self._copies = anyio.Semaphore(COPIES)

    @asynccontextmanager
    async def open(self, rows: Range) -> AsyncIterator[tuple[EpochIndex, Callable[[], Awaitable[Rows]]]]:
        """The index of what is read, and what gives the next rows of it; none at the end."""
        scan = _Scan(self._read(rows), Queue(self._spool), self._error)
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
                    scan.interrupt()  # the threads that are to close it may be those that wait
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

    def __init__(self, reading: Reading, queue: Queue, error: Callable[[str], StoreError]) -> None:
        self._reading = reading
        self._queue = queue
        self._error = error
        # Guards the fields below: a native cancel on asyncio leaves a thread behind that is still at work.
        self._lock = threading.Lock()
        self._portions = reading.portions()
        self._has_last_page = False
        self.index = EpochIndex(0, "")
        self.first: Rows = ()  # the first page; the reader takes it away
        self.copied = 0  # how many pages follow it in the queue
        self.is_read = False  # nothing more is to come from the file
        self.failure: StoreError | ClosedResourceError | None = None  # comes after the pages that are there
        self.is_closed = False  # there is nothing to close

    def open(self, *, more: bool) -> None:
        """Begins, or begins anew: reads the first page, and if there is more goes on or gives it up."""
        with self._turn():
            if self.is_closed:
                raise ClosedResourceError("this scan was cancelled")
            self._portions = self._reading.portions()
            portion = next(self._portions)
            self.index, self._has_last_page = portion.index, portion.is_last
            if not (self._has_last_page or more):
                self._portions.close()
                return
            try:
                self.first = self._decoded(portion.rows)
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
        with self._turn():
            if not self.is_closed:
                self._copy()

    def page(self, number: int) -> Rows:
        """One of those that were copied. Those before it have been received."""
        rows: Sequence[RawRow] = marshal.loads(self._queue.get(number))  # noqa: S302 - nobody else has it
        return self._decoded(rows)

    def drop(self) -> None:
        """Everything was received."""
        self._queue.close()

    def interrupt(self) -> None:
        """Ends soon what any thread does here; does not wait."""
        self._reading.interrupt()

    def close(self) -> None:
        """Ends the transaction, and drops what was copied. Idempotent.

        A thread that is at work is not waited for long: it may be connecting to a server that does not answer.
        Then it does this when it is done.
        """
        self.is_closed = True
        self._reading.interrupt()
        self._end(_LONGEST_CLOSE)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Keeps other threads out, and does what one that came to close has left."""
        try:
            with self._lock:
                yield
        finally:
            if self.is_closed:
                self._end(0)

    def _end(self, seconds: float) -> None:
        """Unless another thread is at work for so long, which does it then."""
        if self._lock.acquire(timeout=seconds):
            try:
                self._portions.close()
                self._queue.close()
            finally:
                self._lock.release()

    def _copy(self) -> None:
        try:
            for portion in islice(self._portions, _STEP):
                self._queue.put(marshal.dumps(portion.rows))
                self.copied += 1
                self._has_last_page = portion.is_last
        except (StoreError, ClosedResourceError) as error:
            self._fail(error)
        else:
            self.is_read = self._has_last_page

    def _fail(self, error: StoreError | ClosedResourceError) -> None:
        self._portions.close()
        self.failure = error
        self.is_read = True

    def _decoded(self, page: Sequence[RawRow]) -> Rows:
        return [
            (key, self._value(text, index), index, namespace, bool(final))
            for key, text, index, namespace, final in page
        ]

    def _value(self, text: str, index: int) -> JSON:
        value: JSON
        try:
            value, end = _DECODER.raw_decode(text)  # takes a third less time than `json.loads`
        except (TypeError, ValueError):
            end = -1
        if end != len(text):
            raise self._error(f"damaged: a value of commit {index} is not JSON")
        return value


def _after(prefix: str) -> str | None:
    """What all keys with the prefix are less than, and no other key that is greater than them."""
    shortened = prefix.rstrip(chr(sys.maxunicode))
    if not shortened:
        return None
    after = ord(shortened[-1]) + 1
    return shortened[:-1] + chr(0xE000 if 0xD800 <= after < 0xE000 else after)  # no half of a surrogate pair
