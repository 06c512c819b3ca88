"""SQL statements whose cursor is closed where it was opened.

A statement that was not stepped to its end keeps its locks until its cursor is closed.
CPython closes a cursor when the last reference to it goes; PyPy and free-threaded builds do it some time later.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any


def run(connection: sqlite3.Connection, sql: str, parameters: Sequence[object] = ()) -> None:
    """Executes a statement that returns no rows."""
    connection.execute(sql, parameters).close()


def run_for_each(connection: sqlite3.Connection, sql: str, rows: Sequence[Sequence[object]]) -> None:
    """The same once for each row of parameters."""
    if len(rows) == 1:
        run(connection, sql, rows[0])  # which is faster
    else:
        connection.executemany(sql, rows).close()


def first_row(connection: sqlite3.Connection, sql: str, parameters: Sequence[object] = ()) -> Any:
    """The first row, None if there is none."""
    cursor = connection.execute(sql, parameters)
    row = cursor.fetchone()
    cursor.close()
    return row


@contextmanager
def rows_of(
    connection: sqlite3.Connection, sql: str, parameters: Sequence[object] = ()
) -> Iterator[Iterator[Any]]:
    """The rows, one at a time, until the block ends."""
    with closing(connection.execute(sql, parameters)) as cursor:
        yield cursor
