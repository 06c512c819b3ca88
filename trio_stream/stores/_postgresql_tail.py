"""Waiting until a store in PostgreSQL may hold something new, one look for all who wait.

The store announces its own commits at once.
Of those of others the server notifies: the store listens first, and then whoever waits reads, so that no commit is
missed between the two.
What a notice says is not trusted: it only ends the wait.
No thread waits for one; the event loop watches the socket.

Every `_NET` seconds the head is looked at all the same, a net for what no notice tells of: a connection that is dead
without a word, a store whose tables were made anew.
When the net catches a commit, notices may not come at all: then the head is looked at every `poll_interval`, up to
the next notice.
On a standby, and behind a pooler, nobody can listen: there the head is looked at as often.
While nothing comes the looks become rarer, down to one in `_LONGEST` times that.
"""

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import psycopg
from typing_extensions import override

from trio_stream import ClosedResourceError

from ._lookout import Lookout
from ._postgresql_database import Database, Row
from ._postgresql_server import Connection
from ._postgresql_writing import Statement

T = TypeVar("T")

_NET: Final = 3.0  # seconds
_GROWTH: Final = 1.5
_LONGEST: Final = 5  # times poll_interval


class Ask(Protocol):
    """Does work in a worker thread, which is told when nobody wants it any more."""

    def __call__(self, work: Callable[[threading.Event], T], /) -> Awaitable[T]: ...


class Listener:
    """A connection that is notified of commits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Guards the fields below: a native cancel on asyncio leaves a thread behind that is still in open().
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._heard: Row | None = None  # the head when it began to listen
        self._is_closed = False
        # Held while a task waits for the socket, which must not be closed meanwhile.
        self._socket_in_use = threading.Lock()

    def open(self, stop: threading.Event) -> Row:
        """Begins to listen, where that is possible; blocks, in a worker thread. The head as it is then."""
        row = self._database.look(stop)
        connection = None if row.is_standby or self._database.server.is_pooled else self._listen(row.channel)
        with self._lock, self._socket_in_use:
            if self._is_closed:
                if connection is not None:
                    connection.close()
                raise ClosedResourceError("this store is closed")
            self._disconnect()
            self._connection = connection
        return self._database.look(stop)

    def take(self) -> bool:
        """Whether there was a notice since the last call; does not block."""
        if self._connection is None:
            return False
        found = False
        try:
            self._connection.pgconn.consume_input()
            while self._connection.pgconn.notifies() is not None:
                found = True
        except psycopg.Error:
            self._disconnect()
        return found

    @property
    def is_listening(self) -> bool:
        """Whether notices can come."""
        return self._connection is not None

    @contextmanager
    def socket(self) -> Iterator[int | None]:
        """What is readable when there is a notice, for one task at a time; None if there can be none."""
        with self._socket_in_use:
            yield None if self._connection is None or self._is_closed else self._connection.fileno()

    def close(self) -> None:
        """For good; waits for the task that has the `socket`."""
        with self._lock, self._socket_in_use:
            self._is_closed = True
            self._disconnect()

    def _listen(self, channel: str) -> Connection:
        connection = self._database.server.connect()
        try:
            self._database.send(connection, [Statement(f'LISTEN "{channel}"')])
        except psycopg.Error as error:
            connection.close()
            raise self._database.server.named(error) from None
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Tail(Lookout):
    """What readers of the log wait for."""

    def __init__(self, database: Database, listener: Listener, ask: Ask, *, poll_interval: float) -> None:
        super().__init__()
        self._database = database
        self._listener = listener
        self._ask = ask
        self._poll_interval = poll_interval
        self._pause = poll_interval  # seconds until the next look, where no notices come
        # Whether notices tell of commits; the server gets the benefit of the doubt.
        self._is_told = True
        # The head at the last look; None if it has changed since, or is not known.
        self._row: Row | None = None
        self._is_open = False  # the listener is, or need not be

    @override
    def announce(self) -> None:
        self._row = None
        super().announce()

    @override
    async def _look(self, seen: int) -> None:  # noqa: ASYNC910 - the reader has waited
        while self.version == seen and not self._is_closed:
            if not self._is_open:
                row = await self._ask(self._listener.open)
                self._is_open = True
                self.announce()  # what came before it was heard by nobody
                self._row = row
                return
            await self._rest_until_due()
            if self.version != seen or self._is_closed:
                return
            was_listening = self._listener.is_listening
            if self._listener.take():
                self._is_told = True
                self._pause = self._poll_interval
                self.announce()
            elif was_listening and not self._listener.is_listening:
                self._is_open = False
            else:
                await self._compare()

    async def _compare(self) -> None:
        """Looks at the head."""
        before, self._row = self._row, None
        row = await self._ask(self._database.look)
        if before is not None and (row.is_standby, row.channel) != (before.is_standby, before.channel):
            self._is_open = False
        if row == before:
            self._row = row
            self._pause = min(self._pause * _GROWTH, _LONGEST * self._poll_interval)
            return
        if before is not None and self._listener.is_listening and self._is_told:
            self._is_told = self._is_open = False  # perhaps a new connection hears more
        self._pause = self._poll_interval
        self.announce()
        self._row = row

    async def _rest_until_due(self) -> None:
        """Until a notice, and no longer than until the next look."""
        with self._listener.socket() as socket:
            await self._rest_for(_NET if socket is not None and self._is_told else self._pause, socket)
