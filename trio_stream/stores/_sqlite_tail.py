"""Waiting until the SQLite file may hold something new, one look for all who wait.

The store announces its own commits at once.
Those of others, and of other processes, are found by a *look*: it asks `PRAGMA data_version`, and which file the
path leads to.
A look runs in the event loop's thread, the one exception to the rule that SQLite belongs in worker threads.
It reads shared memory and at most one page and waits for no lock: 20 us at the median and 0.5 ms at the worst
of 13,000 looks while another process made 6,900 commits a second, 90 us on an idle machine that has to wake up.
A thread takes several times as long to come to it.

When to look:

- On Linux, when the kernel tells that somebody wrote to the `-wal`, or that the file was replaced (`_inotify`).
  A commit writes to the `-wal`, waits for the disk, and only then becomes visible, without a further notice.
  So a notice is followed by looks at 1, 2.5, 5, 8 ms and so on: the disk's time, and at most half as much again.
- Everywhere, after a rest that grows with the quiet, `_GROWTH` times from look to look.
  Without notices it grows from `poll_interval` to 10 times that; at the default of 5 ms an idle process then
  spends 0.3 % of a core.
  With notices it grows to 100 times `poll_interval`, a net for what the kernel does not tell: a symbolic link
  that leads elsewhere now, a file system without notices.
  When the net catches a change, the rests are those of a system without notices until the next notice.

A commit between a look and the rest is not missed: the files are watched before the first look, and its notice
ends the rest at once.
"""

import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from typing_extensions import override

from trio_stream import ClosedResourceError

from ._errors import StoreError
from ._inotify import REPLACED, WRITTEN, Inotify
from ._lookout import Lookout
from ._sqlite_file import FileIdentity, SQLiteFile
from ._sqlite_statements import first_row

# Seconds, after a notice; it is spent without listening, which keeps looks apart while somebody writes all the time.
_FIRST_REST: Final = 0.001
_GROWTH: Final = 1.5
_LONGEST_REST: Final = 10  # times poll_interval
_LONGEST_REST_WITH_NOTICES: Final = 100


class Watch:
    """A connection that is only asked whether the file has changed, and the kernel's notices about the file."""

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file
        # Guards the fields below: a native cancel on asyncio leaves a thread behind that is still in open().
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: FileIdentity | None = None
        self._wal = Path()
        self._wal_identity: FileIdentity | None = None
        self._version: object = None
        self._is_closed = False
        # Opened once, by the first open(); closed by close().
        self._inotify: Inotify | None = None
        # Whether it watches the files of the connection.
        self._is_listening = False
        # Held while a task waits for the descriptor, which must not be closed meanwhile.
        self._descriptor_in_use = threading.Lock()

    def open(self) -> None:
        """Begins to watch the file that is there now; blocks, in a worker thread.

        What happened until then was seen by nobody: the next poll says that something was committed.
        """
        with self._lock, self._file.named_errors():
            if self._is_closed:
                raise ClosedResourceError("this store is closed")
            self._disconnect()
            self._connection, self._identity = self._file.connect()
            first_row(self._connection, "PRAGMA busy_timeout = 0")
            self._data_version(self._connection)  # makes the -wal if there is none
            self._wal = Path(f"{self._file.path.resolve()}-wal")
            self._wal_identity = _identity(self._wal)
            self._is_listening = self._listen()
            self._version = None

    def poll(self) -> bool | None:
        """Whether something was committed since the last poll; None if `open` must be called first."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._has_changed()
        except (sqlite3.Error, StoreError):
            return None  # whoever opens it anew finds out what it is
        finally:
            self._lock.release()

    def take_notice(self) -> bool:
        """Whether the kernel has told of something since the last call."""
        return self._inotify is not None and self._inotify.take()

    @contextmanager
    def descriptor(self) -> Iterator[int | None]:
        """What is readable when there is a notice, for one task at a time; None if there are no notices."""
        with self._descriptor_in_use:
            is_usable = self._is_listening and not self._is_closed
            yield self._inotify.descriptor if self._inotify is not None and is_usable else None

    def close(self) -> None:
        """For good; waits for the task that has the `descriptor`."""
        with self._lock, self._descriptor_in_use:
            self._is_closed = True
            self._disconnect()
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None

    def _has_changed(self) -> bool | None:
        if self._connection is None or self._file.identity() != self._identity:
            return None
        match _identity(self._wal):
            case None if self._file.is_read_only:  # nobody writes; the kernel tells of the file itself
                self._is_listening = False
            case None:  # open() finds out whether that is an error
                return None
            case identity if identity != self._wal_identity:
                return None
        before, self._version = self._version, self._data_version(self._connection)
        return self._version != before

    def _listen(self) -> bool:
        if self._inotify is None:
            self._inotify = Inotify.open()
        return self._inotify is not None and self._inotify.watch(
            [(self._file.path, REPLACED), (self._wal, WRITTEN)]
        )

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._file.disconnect(self._connection)
            self._connection = None

    @staticmethod
    def _data_version(connection: sqlite3.Connection) -> object:
        return first_row(connection, "PRAGMA data_version")[0]


class Tail(Lookout):
    """What readers of the log wait for."""

    def __init__(
        self, watch: Watch, run: Callable[[Callable[[], None]], Awaitable[None]], *, poll_interval: float
    ) -> None:
        super().__init__()
        self._watch = watch
        self._run = run
        self._pace = _Pace(poll_interval)

    @override
    async def _look(self, seen: int) -> None:  # noqa: ASYNC910 - the reader has waited
        while self.version == seen and not self._is_closed:
            is_told = self._watch.take_notice()
            if is_told:
                self._pace.notice()
            match self._watch.poll():
                case True:
                    self._pace.change(is_told=is_told)
                    self.announce()
                case None:
                    await self._run(self._watch.open)
                    self._watch.poll()  # says that something was committed, and that is announced in any case
                    self.announce()
                case False:
                    await self._rest_until_due()

    async def _rest_until_due(self) -> None:
        """Until a notice, or something else to look at again for, and no longer than the pace says."""
        with self._watch.descriptor() as descriptor:
            rest = self._pace.next_rest(has_notices=descriptor is not None)
            await self._rest_for(rest, None if rest <= _FIRST_REST else descriptor)


class _Pace:
    """How long to rest between two looks."""

    def __init__(self, poll_interval: float) -> None:
        self._poll_interval = poll_interval
        self._rest = 0.0  # the last one, seconds; 0 if a change or a notice came after it
        self._is_longest = False  # the last rest was as long as one can be
        # Whether the newest change that took so long to find was told; the kernel gets the benefit of the doubt.
        self._is_told = True

    def notice(self) -> None:
        """A change is coming."""
        self._is_told = True
        self._begin()

    def change(self, *, is_told: bool) -> None:
        """There was one; where one comes, others may."""
        if self._is_longest and not is_told:
            self._is_told = False
        self._begin()

    def next_rest(self, *, has_notices: bool) -> float:
        """Seconds."""
        if has_notices and self._is_told:
            first, longest = min(_FIRST_REST, self._poll_interval), _LONGEST_REST_WITH_NOTICES
        else:
            first, longest = self._poll_interval, _LONGEST_REST
        self._rest = min(max(first, self._rest * _GROWTH), longest * self._poll_interval)
        self._is_longest = self._rest == longest * self._poll_interval
        return self._rest

    def _begin(self) -> None:
        self._rest = 0.0
        self._is_longest = False


def _identity(path: Path) -> FileIdentity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return FileIdentity(status.st_dev, status.st_ino)
