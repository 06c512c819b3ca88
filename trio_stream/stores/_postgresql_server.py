"""Connections to a PostgreSQL server: where it is, how long it is waited for, and its errors.

Everything here blocks and belongs in a worker thread.

A server that hangs says nothing, and neither does one that lets a statement wait for a lock.
psycopg waits for it in intervals of a tenth of a second, and between two of them a connection of ours looks whether
that has lasted too long, or nobody wants the answer any more.
Then it asks the server to cancel what it does, and closes.

No message has a password in it, nor anything else that the server quotes: of its errors only the first line is told,
and psycopg's own are not kept as a cause, because details of theirs name keys and values.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import psycopg
import psycopg.conninfo
from psycopg.abc import RV, ConnDict, PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from typing_extensions import override

from trio_stream import ClosedResourceError

from ._errors import StoreError

T = TypeVar("T")

OLDEST: Final = 14  # version of the server; older ones are no longer kept by those who make it
_MOST_QUOTED: Final = 300  # characters of a message of the server
_INTERVAL: Final = (
    0.1  # seconds, after which whoever waits for a connection looks whether that is still wanted
)
_UNREADABLE: Final = (
    "libpq cannot read the URL of the store, which is not shown because there may be a password in it:"
    " expected postgresql://[USER[:PASSWORD]@][HOST][:PORT][/DATABASE][?schema=SCHEMA&OPTION=VALUE...]"
)
_UNWANTED: Final = "nobody waits for it any more"
_CANCEL: Final = 1.0  # seconds that the server has to take notice of a cancel

# {SQLSTATE: what it means for a store}: "PostgreSQL Error Codes", Appendix A of its documentation.
_REASONS: Final = {
    "25006": "read-only (a standby, or a transaction that may only read)",
    "3D000": "there is no such database",
    "3F000": "there is no such schema",
    "42501": "not permitted",
    "42703": "not a store of trio_stream: its tables are others",
    "42P01": "not a store of trio_stream: it lacks its tables",
    "53100": "the server is out of disk space",
    "53200": "the server is out of memory",
    "53300": "the server has no connection left",
    "53400": "the server is at a limit of its configuration",
    "55P03": "a lock was not to be had (lock_timeout of the server)",
    "57014": "cancelled by the server (statement_timeout, or somebody has cancelled it)",
    "57P01": "the server is shutting down",
    "57P02": "the server has crashed",
    "57P03": "the server cannot be connected to now",
}
_NOT_WRITABLE: Final = frozenset({"25006", "42501"})
_ENDS: Final = frozenset({"57P01", "57P02", "57P03"})


class PostgreSQLURL(NamedTuple):
    """What the URL of a store says."""

    conninfo: str
    """For libpq, untouched."""
    schema: str | None
    """Where the tables are; None: where the server's `search_path` leads."""
    name: str
    """For messages: without a password."""
    secrets: tuple[str, ...]
    """What must not be in any message, in all ways to write it."""
    has_connect_timeout: bool


def parse(url: str) -> PostgreSQLURL:
    """Takes `schema` out of the URL; `ValueError` for what libpq cannot read, without quoting it."""
    address, question, query = url.partition("?")
    options = [each for each in query.split("&") if each] if question else []
    schemas = [unquote(each.partition("=")[2]) for each in options if each.partition("=")[0] == "schema"]
    rest = [each for each in options if each.partition("=")[0] != "schema"]
    if len(schemas) > 1:
        raise ValueError("the URL of a store names two schemas")
    schema = schemas[0] if schemas else None
    if schema is not None:
        check_schema(schema)
    conninfo = f"{address}?{'&'.join(rest)}" if rest else address
    try:
        parameters = psycopg.conninfo.conninfo_to_dict(conninfo)
    except (psycopg.Error, UnicodeError):
        raise ValueError(_UNREADABLE) from None
    # libpq reads a part of a password that is not quoted as a host or a database, and would tell of that.
    before, _, _ = address.partition("://")[2].rpartition("@")
    hosts = str(parameters.get("host") or "").split(",")
    if "@" in before or "/" in before or any("@" in each[1:] for each in hosts if each[:1] != "/"):
        raise ValueError(f"{_UNREADABLE}; in a password, write @ as %40 and / as %2F")
    secrets = [str(parameters[each]) for each in ("password", "sslpassword") if parameters.get(each)]
    secrets += [os.environ[each] for each in ("PGPASSWORD",) if os.environ.get(each)]
    written = [form for each in secrets for form in (each, quote(each), quote(each, safe=""))]
    return PostgreSQLURL(
        conninfo,
        schema,
        _name(parameters, schema),
        tuple(dict.fromkeys(written)),
        "connect_timeout" in parameters,
    )


def check_schema(schema: str) -> None:
    """Raises for what cannot be the name of a schema."""
    if not schema or "\0" in schema or len(schema.encode()) > 63:
        raise ValueError(f"a schema has a name of 1 to 63 bytes, not {schema!r}")


def _name(parameters: ConnDict, schema: str | None) -> str:
    """Like the URL, without a password and without options."""
    if parameters.get("service"):
        place = f"service {parameters['service']}"
    else:
        user = f"{parameters['user']}@" if parameters.get("user") else ""
        host = parameters.get("host") or parameters.get("hostaddr") or ""
        port = f":{parameters['port']}" if parameters.get("port") else ""
        database = f"/{parameters['dbname']}" if parameters.get("dbname") else ""
        place = f"{user}{host}{port}{database}"
    return f"postgresql://{place}" + (f"?schema={schema}" if schema else "")


class MayNotWriteError(StoreError):
    """The server, or the rights of the user, allow reading only."""


class Unanswered(psycopg.OperationalError):
    """The server has said nothing for as long as it is waited for, or nobody wants to know any more."""


class Connection(psycopg.Connection[TupleRow]):
    """One that does not wait for ever; for one thread at a time."""

    patience: float = 30.0
    """Seconds without a word of the server."""
    is_near: bool = False
    """Whether the server is on this machine."""
    stop: threading.Event | None = None
    """Set when nobody wants the answer of what is done now."""

    @override
    def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        try:
            return super().wait(self._bounded(gen), *args, **options)
        except Unanswered:  # nobody knows what would come next on it
            self.stop = None
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=_CANCEL)
            self.close()
            raise

    def _bounded(self, gen: PQGen[RV]) -> PQGen[RV]:
        """The same, which psycopg also steps when nothing has come for a while."""
        since = time.monotonic()
        try:
            state = next(gen)
            while True:
                ready = yield state
                if ready:
                    since = time.monotonic()
                elif self.stop is not None and self.stop.is_set():
                    raise Unanswered(_UNWANTED)
                elif time.monotonic() - since > self.patience:
                    raise Unanswered(f"no answer for {self.patience:g} s")
                state = gen.send(ready)
        except StopIteration as end:
            result: RV = end.value
            return result


def is_lost(connection: Connection, error: psycopg.Error) -> bool:
    """Whether the error is the end of the connection."""
    return connection.closed or error.sqlstate in _ENDS


def is_near(connection: Connection) -> bool:
    """Whether the server is on this machine."""
    return connection.info.host.startswith("/") or connection.info.hostaddr in {"127.0.0.1", "::1"}


class Server:
    """Where the store is, and what was found out about it."""

    def __init__(self, url: PostgreSQLURL, *, connect_timeout: float, statement_timeout: float) -> None:
        self.name = url.name
        self._url = url
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self.is_pooled = False
        """Whether a pooler is between, so that any connection of its may do what comes next.

        Then nothing is prepared, which another client may have prepared by the same name, and nobody listens.
        """

    def error(self, cause: str) -> StoreError:
        """A `StoreError` that names the store."""
        return StoreError(f"{self.name}: {cause}")

    def connect(self) -> Connection:
        """A new connection, outside a transaction, on which each statement is one of its own."""
        options: dict[str, Any] = {"client_encoding": "UTF8", "fallback_application_name": "trio_stream"}
        if not self._url.has_connect_timeout:
            options["connect_timeout"] = max(2, round(self._connect_timeout))  # libpq's least
        try:
            connection = Connection.connect(
                self._url.conninfo,
                autocommit=True,
                prepare_threshold=2,
                **options,
            )
        except psycopg.Error as error:
            raise self._unconnected(error) from None
        connection.patience = self._statement_timeout
        connection.is_near = is_near(connection)
        try:
            self._check(connection)
        except psycopg.Error as error:
            connection.close()
            raise self._unconnected(error) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def named(self, error: psycopg.Error) -> StoreError:
        """What an error of psycopg is for the users of the store."""
        kind = MayNotWriteError if error.sqlstate in _NOT_WRITABLE else StoreError
        return kind(f"{self.name}: {self.cause(error)}")

    def cause(self, error: psycopg.Error) -> str:
        """The same without the name of the store."""
        if isinstance(error, Unanswered):
            return (
                f"{error}: the server or the network hangs, or another transaction keeps the store locked, such as"
                " one that has called record and was not committed (statement_timeout)"
            )
        reason = _REASONS.get(error.sqlstate or "")
        text = self._text(error)
        code = f" ({error.sqlstate})" if error.sqlstate and not reason else ""
        return f"{reason} ({text})" if reason else f"{text}{code}"

    def pipeline(self, connection: Connection) -> AbstractContextManager[object]:
        """Statements inside are sent together, where that is possible and saves time.

        On the same machine a round trip takes less than what psycopg does for a pipeline (0.1 ms and more).
        """
        if self.is_pooled or connection.is_near or not psycopg.Pipeline.is_supported():
            return nullcontext()
        return connection.pipeline()

    def _unconnected(self, error: psycopg.Error) -> StoreError:
        text = self._text(error)
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            return self.error(f"cannot be connected to: {text} (connect_timeout)")
        return self.error(f"cannot be connected to: {text}")

    def _check(self, connection: Connection) -> None:
        version = connection.info.server_version
        if version < OLDEST * 10_000:
            raise self.error(
                f"the server is PostgreSQL {version // 10_000}: older than {OLDEST}, the oldest that can hold a store"
            )
        # A pooler does not know which server process it will lend, and tells of one that is not there.
        ((pid,),) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchall()
        if pid != connection.info.backend_pid:
            self.is_pooled = True
            connection.prepare_threshold = None
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in (None, "UTF8"):
            raise self.error(f"the database has the encoding {encoding}: a store needs UTF8")

    def _text(self, error: psycopg.Error) -> str:
        text = error.diag.message_primary or " ".join(str(error).split())
        for secret in self._url.secrets:
            text = text.replace(secret, "***")
        return text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}..."


class Pool:
    """Some connections, each used by one thread at a time, opened when they are needed and kept for the next use."""

    def __init__(self, server: Server, most: int) -> None:
        self._server = server
        self._places = threading.Semaphore(most)
        # Guards the fields below.
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._is_closed = False

    def run(self, work: Callable[[Connection], T], stop: threading.Event | None = None) -> T:
        """Does it with a connection that is outside a transaction; one that is left open is rolled back.

        Once more, if it finds that a connection that was kept is dead.
        So it must be harmless to do again, or raise something else than psycopg's errors.
        """
        with self.lend(work, stop) as (_, result):
            return result

    @contextmanager
    def lend(
        self, begin: Callable[[Connection], T], stop: threading.Event | None = None
    ) -> Iterator[tuple[Connection, T]]:
        """The same for longer: the connection, and what `begin` has returned, which may be done more than once."""
        while True:
            with self._lent(stop) as (connection, is_fresh):
                try:
                    begun = begin(connection)
                except psycopg.Error as error:
                    if self._is_old(connection, error) and not is_fresh:
                        continue
                    raise self._server.named(error) from None
                try:
                    yield connection, begun
                except psycopg.Error as error:
                    self._is_old(connection, error)
                    raise self._server.named(error) from None
                return

    def forget(self) -> None:
        """Closes those that are kept: they may lead to another server than new ones do."""
        self._drop_idle()

    def close(self) -> None:
        """For good; those that are in use are closed when they come back."""
        with self._lock:
            self._is_closed = True
        self._drop_idle()

    def _is_old(self, connection: Connection, error: psycopg.Error) -> bool:
        """Whether a new connection may do what this one did not; forgets those that are as old."""
        if not is_lost(connection, error):
            return False
        connection.close()
        self._drop_idle()
        return not isinstance(error, Unanswered)

    @contextmanager
    def _lent(self, stop: threading.Event | None) -> Iterator[tuple[Connection, bool]]:
        """A connection, and whether it is new."""
        while not self._places.acquire(timeout=_INTERVAL):
            if stop is not None and stop.is_set():
                raise self._server.error(_UNWANTED)
        try:
            connection, is_fresh = self._take()
            connection.stop = stop
            try:
                yield connection, is_fresh
            finally:
                connection.stop = None
                self._give_back(connection)
        finally:
            self._places.release()

    def _take(self) -> tuple[Connection, bool]:
        with self._lock:
            if self._is_closed:
                raise ClosedResourceError("this store is closed")
            if self._idle:
                return self._idle.pop(), False
        return self._server.connect(), True

    def _give_back(self, connection: Connection) -> None:
        patience = connection.patience
        with suppress(psycopg.Error):
            if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
                connection.patience = min(
                    patience, _CANCEL
                )  # who leaves does not wait for a server that hangs
                connection.rollback()
        connection.patience = patience
        with self._lock:
            is_good = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
            if is_good and not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
