"""Commits in a transaction of the application's own, together with its rows.

A savepoint that stays open to the end of the transaction says that it has one: SQLite forgets it together with the
transaction, however that ends.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from ._errors import StoreError
from ._orders import Order, draft
from ._sqlite_schema import SCHEMA, VERSION, check_encoding, make_tables, mark_text, version_of
from ._sqlite_statements import first_row, run
from ._sqlite_write import LIMITS, Writer
from ._values import EpochIndex, Name, Operation, check_expected, check_operations

_HEAD: Final = (
    "SELECT epoch, idx, at, CASE idx WHEN floor THEN floor_mark ELSE"
    " (SELECT mark FROM ts_log WHERE ts_log.idx = ts_head.idx) END FROM ts_head"
)


def record(
    connection: sqlite3.Connection,
    operations: Sequence[Operation],
    *,
    expect: Mapping[Name, int] | None = None,
) -> EpochIndex:
    """Makes a commit of the store in the transaction of this connection, and returns its index.

    Your own rows and the commit are there together from your `COMMIT` on, or never.
    The connection is one to the store's file, which may have tables of your own; see `create_tables`.
    Call it once in a transaction, as the last statement before that.
    It blocks, as the rest of your transaction does.

    As `Store.commit`, with its errors, and then it has changed nothing.
    A second call in one transaction is a `ValueError`, and so is a connection without a transaction.
    Other errors of SQLite are sqlite3's own, among them "database is locked": begin with `BEGIN IMMEDIATE` where
    others may write at the same time.
    """
    operations = tuple(operations)
    check_operations(operations)
    order = Order(operations, check_expected(expect or {}), "")
    with _plain(connection):
        store = _file_of(connection)
        drafted = draft(order, LIMITS, store)
        if not connection.in_transaction:
            raise ValueError(
                "the connection is in no transaction: record belongs into the one that writes your rows"
            )
        _check_tables(connection, store)
        _begin(connection)
        try:
            run(connection, "UPDATE ts_head SET idx = idx")  # from here on nobody else commits
            writer = _writer(connection, store)
            (outcome,) = writer.write([drafted])
            if isinstance(outcome, Exception):
                raise outcome
            writer.finish()
        except BaseException:
            if connection.in_transaction:  # SQLite may have ended it
                run(connection, "ROLLBACK TO ts_recorded")
                run(connection, "RELEASE ts_recorded")
            raise
    return outcome


def create_tables(connection: sqlite3.Connection) -> None:
    """Makes a store in a file that has tables of your own, where there is none; in the transaction that runs, if any.

    Without one it is a transaction of its own.
    With migrations execute `schema_sql` instead.
    `StoreError` in a file whose texts are in UTF-16.
    """
    with _plain(connection):
        try:
            check_encoding(connection)
        except ValueError as error:
            raise StoreError(f"{_file_of(connection)}: {error}") from None
        make_tables(connection)


def schema_sql() -> str:
    """The statements that make the tables of a store, for migrations. Harmless to repeat."""
    return SCHEMA


@contextmanager
def _plain(connection: sqlite3.Connection) -> Iterator[None]:
    """Has rows come as tuples with strings, whatever the application wants them to be."""
    rows, text = connection.row_factory, connection.text_factory
    connection.row_factory, connection.text_factory = None, str
    try:
        yield
    finally:
        connection.row_factory, connection.text_factory = rows, text


def _file_of(connection: sqlite3.Connection) -> str:
    _, _, file = first_row(connection, "PRAGMA database_list")
    return file or ":memory:"


def _check_tables(connection: sqlite3.Connection, store: str) -> None:
    try:
        version = version_of(connection)
    except ValueError as error:
        raise StoreError(f"{store}: {error}") from None
    if version is None:
        raise StoreError(f"{store}: there is no store in it; create_tables makes one")
    if version != VERSION:
        raise StoreError(
            f"{store}: written by another trio_stream (schema {version}; this one has {VERSION}); an older one is"
            " upgraded by open_store"
        )


def _begin(connection: sqlite3.Connection) -> None:
    try:
        run(connection, "RELEASE ts_recorded")
    except sqlite3.OperationalError:  # there is none
        run(connection, "SAVEPOINT ts_recorded")
    else:
        run(connection, "SAVEPOINT ts_recorded")
        raise ValueError("record was called before in this transaction: give it all operations at once")


def _writer(connection: sqlite3.Connection, store: str) -> Writer:
    match first_row(connection, _HEAD):
        case (str(epoch), int(index), int() | float() as at, mark):
            return Writer(connection, store, epoch=epoch, index=index, mark=mark_text(mark), at=at)
        case _:
            raise StoreError(f"{store}: damaged: its head cannot be read")
