"""Commits in a transaction of the application's own, together with its rows."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from typing_extensions import override

from ._anchors import Anchor, Known
from ._errors import ConflictError
from ._orders import Order, draft
from ._postgresql_schema import create, prefix, statements
from ._postgresql_server import check_schema
from ._postgresql_writing import LIMITS, Group, Tables
from ._values import EpochIndex, Name, Operation, check_expected, check_operations

_NOTHING_KNOWN: Final = Known(Anchor("", 0, ""), MappingProxyType({}))

_NO_TRANSACTION: Final = (
    "the connection is in no transaction (autocommit): record belongs into the one that writes your own rows"
)


def record(
    connection: psycopg.Connection[Any],
    operations: Sequence[Operation],
    *,
    expect: Mapping[Name, int] | None = None,
    schema: str | None = None,
) -> EpochIndex:
    """Makes a commit of the store in the transaction of this connection, and returns its index.

    Your own rows and the commit are there together from your `COMMIT` on, or never.
    Call it once in a transaction, as the last statement before that: it locks the store, and all others who commit
    wait until the transaction is over.

    `schema`: where the tables are; without it that is where the `search_path` of the connection leads.

    As `Store.commit`, with its errors before anything is written: roll back then.
    A second call in one transaction is a `ValueError`, and so is a connection without a transaction.
    In a level above READ COMMITTED another commit may have come between: a `ConflictError`, repeat the transaction.
    Other errors of the server are psycopg's own.
    """
    recording = _Recording(connection, operations, expect, schema)
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor, recording:
        rows = []
        for sql, parameters in recording.group.locking():
            rows.append(cursor.execute(sql, parameters).fetchall())
        index = recording.decide(rows)
        for sql, parameters in recording.group.writing():
            cursor.execute(sql, parameters)
    return index


async def arecord(
    connection: psycopg.AsyncConnection[Any],
    operations: Sequence[Operation],
    *,
    expect: Mapping[Name, int] | None = None,
    schema: str | None = None,
) -> EpochIndex:
    """The same as `record` with an asynchronous connection, for asyncio."""
    recording = _Recording(connection, operations, expect, schema)
    async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
        with recording:
            rows = []
            for sql, parameters in recording.group.locking():
                await cursor.execute(sql, parameters)
                rows.append(await cursor.fetchall())
            index = recording.decide(rows)
            for sql, parameters in recording.group.writing():
                await cursor.execute(sql, parameters)
    return index  # noqa: ASYNC910 - psycopg waits for the server


def create_tables(connection: psycopg.Connection[Any], *, schema: str | None = None) -> None:
    """Makes the tables of a store where there are none, and their schema; in the transaction that runs, if any.

    With migrations, or with an asynchronous connection, execute `schema_sql` instead.
    """
    if schema is not None:
        check_schema(schema)
    create(connection, schema)


def schema_sql(schema: str | None = None) -> str:
    """The statements that make the tables, for migrations; the schema must be there. Harmless to repeat."""
    if schema is not None:
        check_schema(schema)
    return statements(schema)


class _Recording:
    """One call; a context in which the errors of the server that mean "repeat the transaction" say so."""

    def __init__(
        self,
        connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
        operations: Sequence[Operation],
        expect: Mapping[Name, int] | None,
        schema: str | None,
    ) -> None:
        operations = tuple(operations)
        check_operations(operations)
        if schema is not None:
            check_schema(schema)
        order = Order(operations, check_expected(expect or {}), "")
        store = f"database {connection.info.dbname}"
        drafted = draft(order, LIMITS, store)
        if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
            raise ValueError(_NO_TRANSACTION)
        self._names = drafted.names
        self.group = Group(Tables(prefix(schema)), store, [drafted], _NOTHING_KNOWN)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected):
            raise _OvertakenError(Name(*self._names[0]) if self._names else Name("", ""), 0, 0) from None

    def decide(self, rows: Sequence[Sequence[Any]]) -> EpochIndex:
        """The index, given what was found; raises why there is none."""
        self.group.doubt(rows)  # nothing is known here of earlier commits
        self.group.decide(rows, None)
        if self.group.head.recorded == self.group.head.transaction:
            raise ValueError("record was called before in this transaction: give it all operations at once")
        (outcome,) = self.group.outcomes
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class _OvertakenError(ConflictError):
    """Another transaction has come between, whatever it was about."""

    @override
    def __str__(self) -> str:
        return "another transaction has committed meanwhile: roll back, and repeat this one"
