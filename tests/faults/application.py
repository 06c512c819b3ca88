"""An application with a table of its own, `orders`: each order is a row and an event, in one transaction.

`python application.py sqlite PATH NAME` or `python application.py postgresql CONNINFO SCHEMA NAME`; it is there to be
killed.
It says what a writer says, see `writer.py`.
"""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final, TypeAlias
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.writer import operations, say

from trio_stream.stores import sqlite

# Adds the row of an order and records its event; the index.
Order: TypeAlias = Callable[[str, int], int]


@contextmanager
def in_sqlite(path: str) -> Iterator[Order]:
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:

        def order(task: str, number: int) -> int:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO orders VALUES (?, ?)", (task, number))
            index = sqlite.record(connection, operations(task, number))
            connection.execute("COMMIT")
            return index

        yield order


@contextmanager
def in_postgresql(place: str, schema: str) -> Iterator[Order]:
    import psycopg

    from trio_stream.stores import postgresql

    with psycopg.connect(place) as connection:

        def order(task: str, number: int) -> int:
            with connection.transaction():
                statement = f"INSERT INTO {schema}.orders VALUES (%s, %s)"
                connection.execute(statement.encode(), (task, number))
                return postgresql.record(connection, operations(task, number), schema=schema)

        yield order


ENGINES: Final[dict[str, Callable[..., AbstractContextManager[Order]]]] = {
    "sqlite": in_sqlite,
    "postgresql": in_postgresql,
}


def main() -> None:
    engine, *place, name = sys.argv[1:]
    task = f"{name}.own"
    number = 0
    with ENGINES[engine](*place) as order:
        while True:
            number += 1
            say("try", task, number, uuid4())
            say("made", int(order(task, number)), task, number)


if __name__ == "__main__":
    main()
