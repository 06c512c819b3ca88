"""Reading a range of keys from PostgreSQL in one transaction, by a cursor of the server.

Everything here blocks and belongs in a worker thread.

A fetch has many rows, as long as they are small: a large value is left out there and fetched alone, so that no fetch
is larger than a few MiB whatever is in the table.
"""

import threading
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any, Final

from ._anchors import Known
from ._postgresql_database import ATTEMPTS, Database
from ._postgresql_server import Connection, Pool
from ._postgresql_writing import Statement
from ._scans import PAGE, Portion, Range, RawRow
from ._values import EpochIndex

_LARGE: Final = 8 << 10  # bytes of a value
_BYTES: Final = 1 << 20  # of values, after which no further row is in the same portion


class Scanner:
    """Begins to read."""

    def __init__(self, database: Database, most: int) -> None:
        """`most`: scans that read at the same time."""
        self._database = database
        self._pool = Pool(database.server, most)

    def read(self, rows: Range) -> "PostgreSQLReading":
        """What a scan of this range reads."""
        return PostgreSQLReading(self._database, self._pool, rows)

    def close(self) -> None:
        """Closes the connections that are kept."""
        self._pool.close()


class PostgreSQLReading:
    """See `Reading`."""

    def __init__(self, database: Database, pool: Pool, rows: Range) -> None:
        self._database = database
        self._pool = pool
        self._rows = rows
        self._stop = threading.Event()

    def interrupt(self) -> None:
        """See `Reading.interrupt`."""
        self._stop.set()

    def portions(self) -> Generator[Portion, None, None]:
        """See `Reading.portions`."""
        for _ in range(ATTEMPTS):
            last = yield from self._read()
            if last is not None:
                yield last
                return
            self._database.change_epoch()
            self._pool.forget()
        raise self._database.two_copies()

    def _read(self) -> Generator[Portion, None, Portion | None]:
        """All portions but the last, which it returns; None, and no portion, if the store went back."""
        known = self._database.known
        with self._pool.lend(partial(self._begin, known), self._stop) as (connection, (head, rows)):
            row = self._database.judge(known, head)
            if row is None:
                return None
            self._database.advance(known, row)
            index = EpochIndex(row.index, row.epoch, row.mark)
            pages = self._pages(connection, rows)
            page, is_last = next(pages)
            while not is_last:
                yield Portion(index, page, is_last=False)
                page, is_last = next(pages)
            return Portion(index, page, is_last=True)

    def _begin(self, known: Known, connection: Connection) -> tuple[Sequence[Any], Sequence[Any]]:
        """What `Database.judge` is given, and the first rows."""
        found = self._database.send(
            connection,
            [
                Statement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
                self._database.head_statement(known),
                self._cursor(),
                Statement(f"FETCH {PAGE} FROM trio_stream"),
            ],
        )
        return found[1], found[3]

    def _cursor(self) -> Statement:
        state = self._database.tables.state
        topic, namespace, first, after = self._rows
        columns = (
            f"SELECT key, CASE WHEN octet_length(value) <= {_LARGE} THEN value END, idx, namespace, final"
        )
        keys = "key >= %s" if after is None else "key >= %s AND key < %s"
        bounds = [first] if after is None else [first, after]
        if namespace is not None:
            return Statement(
                f"DECLARE trio_stream NO SCROLL CURSOR FOR {columns} FROM {state}"
                f" WHERE topic = %s AND namespace = %s AND {keys} ORDER BY key",
                [topic, namespace, *bounds],
            )
        # Leaps from one namespace to the next, so that it reads no keys but those between the bounds.
        return Statement(
            "DECLARE trio_stream NO SCROLL CURSOR FOR WITH RECURSIVE present (name) AS ("
            f"(SELECT namespace FROM {state} WHERE topic = %s ORDER BY namespace LIMIT 1) UNION ALL"
            f" SELECT (SELECT namespace FROM {state} WHERE topic = %s AND namespace > name"
            " ORDER BY namespace LIMIT 1) FROM present WHERE name IS NOT NULL)"
            f" SELECT found.* FROM present CROSS JOIN LATERAL ({columns} FROM {state}"
            f" WHERE topic = %s AND namespace = name AND {keys} ORDER BY key) AS found",
            [topic, topic, topic, *bounds],
        )

    def _pages(
        self, connection: Connection, rows: Sequence[Any]
    ) -> Generator[tuple[list[RawRow], bool], None, None]:
        """The rows, and whether these are the last."""
        page: list[RawRow] = []
        size = 0
        while True:
            for key, text, index, namespace, final in rows:
                value = text if text is not None else self._large(connection, namespace, key)
                page.append((key, value, index, namespace, final))
                size += len(value)
                if len(page) == PAGE or size >= _BYTES:
                    yield page, False
                    page, size = [], 0
            if len(rows) < PAGE:
                yield page, True
                return
            (rows,) = self._database.send(connection, [Statement(f"FETCH {PAGE} FROM trio_stream")])

    def _large(self, connection: Connection, namespace: str, key: str) -> str:
        sql = f"SELECT value FROM {self._database.tables.state} WHERE topic = %s AND namespace = %s AND key = %s"
        (((value,),),) = self._database.send(connection, [Statement(sql, [self._rows.topic, namespace, key])])
        return str(value)
