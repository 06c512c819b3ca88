"""A temporary file in which pages wait for readers that are slower than what writes them.

One file for any number of queues: however many readers are slow, that takes one of the files that a process
may have open.
It is made when it is first needed, has no name where the system allows that, and is gone with its last queue.

It is divided into blocks.
A page takes free ones, the lowest first, and gives them back when it has been read; free blocks at the end are
cut off.
So one reader that waits for long does not keep the space of all that have come and gone since.
"""

import heapq
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final, NamedTuple

from trio_stream import ClosedResourceError

from ._errors import StoreError

BLOCK: Final = 16 * 1024  # bytes


class Page(NamedTuple):
    """Where the content of a page is."""

    blocks: list[int]
    size: int  # bytes


class Spool:
    """The file; blocks, in worker threads."""

    def __init__(self, error: Callable[[str], StoreError]) -> None:
        self._error = error  # makes one that names the store
        # Guards the fields below and the position in the file.
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._queues = 0  # that use the file
        self._length = 0  # of the file, in blocks
        self._free: set[int] = set()  # blocks below _length
        self._lowest: list[int] = []  # a heap of the free blocks, and of some that were cut off

    def join(self) -> None:
        """One queue more uses the file."""
        with self._lock, self._named_errors():
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - leave() closes it
            self._queues += 1

    def leave(self) -> None:
        """One queue less; it must have released its pages. The last one closes the file."""
        with self._lock:
            self._queues -= 1
            if not self._queues:
                self._opened.close()
                self._file = None
                self._length = 0
                self._free.clear()
                self._lowest.clear()

    def write(self, content: bytes) -> Page:
        """Keeps it until the page is released."""
        page = Page([], len(content))
        rest = memoryview(content)
        with self._lock, self._named_errors():
            try:
                while rest:
                    page.blocks.append(self._take_block())
                    self._write_block(page.blocks[-1], rest[:BLOCK])
                    rest = rest[BLOCK:]
            except BaseException:
                self._release_blocks(page.blocks)
                raise
        return page

    def read(self, page: Page) -> bytes:
        """What was written."""
        content = bytearray()
        with self._lock, self._named_errors():
            for block in page.blocks:
                self._opened.seek(block * BLOCK)
                content += self._opened.read(min(BLOCK, page.size - len(content)))
        return bytes(content)

    def release(self, pages: Iterable[Page]) -> None:
        """Gives back what they take."""
        with self._lock, self._named_errors():
            self._release_blocks(block for page in pages for block in page.blocks)

    @property
    def _opened(self) -> IO[bytes]:
        assert self._file is not None, "a queue that has not joined, or has left"
        return self._file

    def _take_block(self) -> int:
        while self._lowest:
            block = heapq.heappop(self._lowest)
            if block in self._free:
                self._free.remove(block)
                return block
        self._length += 1
        return self._length - 1

    def _write_block(self, block: int, content: memoryview) -> None:
        self._opened.seek(block * BLOCK)
        while content:  # a disk that is almost full takes a part
            content = content[self._opened.write(content) :]

    def _release_blocks(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            self._free.add(block)
            heapq.heappush(self._lowest, block)
        length = self._length
        while self._length - 1 in self._free:
            self._length -= 1
            self._free.remove(self._length)
        if self._length < length:
            with suppress(OSError):  # it stays as long as it is, until it is gone
                self._opened.truncate(self._length * BLOCK)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f"a temporary file in {tempfile.tempdir}" if tempfile.tempdir else "a temporary file"
            raise self._error(f"{where}, for a slow reader: {error.strerror or error}") from error


class Queue:
    """Pages in their order, numbered from 0. One thread may put while another gets."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        # Guards the fields below.
        self._lock = threading.Lock()
        self._pages: deque[Page] = deque()  # those from _first on
        self._first = 0
        self._has_joined = False
        self._is_closed = False

    def put(self, content: bytes) -> None:
        """Adds a page."""
        with self._lock:
            self._check()
            if not self._has_joined:
                self._spool.join()
                self._has_joined = True
            self._pages.append(self._spool.write(content))

    def get(self, number: int) -> bytes:
        """A page that was put. Those before it have been received: they are dropped."""
        with self._lock:
            self._check()
            received = [self._pages.popleft() for _ in range(number - self._first)]
            self._first = number
            self._spool.release(received)
            return self._spool.read(self._pages[0])

    def close(self) -> None:
        """Drops all pages, and takes no more. Idempotent; must be called."""
        with self._lock:
            self._is_closed = True
            if self._has_joined:
                self._has_joined = False
                self._spool.release(self._pages)
                self._pages.clear()
                self._spool.leave()

    def _check(self) -> None:
        if self._is_closed:
            raise ClosedResourceError("this scan has ended")
