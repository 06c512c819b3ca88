"""The peer of the store in PostgreSQL: the same work, as one would write it by hand on a connection of psycopg.

It is the same SQL on the same tables, so that a store reads what was written by hand.
The notices have a channel of their own, and the content that the reader wants, which is less work for it than to read
the log.
"""

import json
import os
from collections.abc import Callable, Generator
from contextlib import suppress
from itertools import count, starmap
from time import perf_counter
from typing import Any, Final

from .by_hand import KEYS, item_of, to_json

with suppress(ImportError):  # then there is no server either, and the rows are left out
    import psycopg

CHANNEL: Final = "benchmark"

_LOCK: Final = "SELECT idx FROM ts_head FOR UPDATE"
_LOOK: Final = "SELECT value, final FROM ts_state WHERE topic = %s AND namespace = 'default' AND key = %s"
_WRITE: Final = f"""
WITH state AS (
    INSERT INTO ts_state (topic, namespace, key, value, idx, final) VALUES (%s, 'default', %s, %s, %s, false)
    ON CONFLICT (topic, namespace, key)
    DO UPDATE SET value = excluded.value, idx = excluded.idx, final = excluded.final
), log AS (
    INSERT INTO ts_log (idx, mark, at, topics, operations, revoked)
    SELECT %s, %s, greatest(clock_timestamp(), at), %s, %s, '' FROM ts_head
)
UPDATE ts_head SET idx = %s, mark = %s, at = greatest(clock_timestamp(), at)
RETURNING pg_notify('{CHANNEL}', %s)
"""

# The server makes the rows, as if the commits had been made one after the other.
_LOAD_LOG: Final = f"""
INSERT INTO ts_log (idx, mark, at, topics, operations, revoked)
SELECT n, lpad(to_hex(n), 16, '0'), clock_timestamp(), ARRAY[%(topic)s::text],
    '[["put",' || %(quoted)s::text || ',"default","key-' || n %% {KEYS} || '",' || n
    || CASE WHEN n > {KEYS} THEN ',[' || n - {KEYS} || ']' ELSE '' END || ']]', ''
FROM generate_series(1, %(commits)s::bigint) AS n
"""
_LOAD_STATE: Final = f"""
INSERT INTO ts_state (topic, namespace, key, value, idx, final)
SELECT %(topic)s, 'default', 'key-' || n %% {KEYS}, n::text, n, false
FROM generate_series(greatest(1, %(commits)s::bigint - {KEYS} + 1), %(commits)s::bigint) AS n
"""
_LOAD_HEAD: Final = """
UPDATE ts_head SET idx = l.idx, mark = l.mark, at = l.at FROM ts_log AS l WHERE l.idx = %(commits)s
"""
_READ_LOG: Final = "SELECT idx, mark, operations, revoked FROM ts_log WHERE idx > %s ORDER BY idx"


def commit(connection: "psycopg.Connection[Any]", topic: str, key: str, value: object) -> int:
    """Puts the value in one transaction, logs it with what it replaces, and tells of it; the index."""
    text = to_json(value)
    ((newest,),) = connection.execute(_LOCK)
    was, is_final = connection.execute(_LOOK, (topic, key)).fetchone() or (None, False)
    assert not is_final
    index, mark = int(newest) + 1, os.urandom(8).hex()
    operations = f"[{item_of(topic, key, text, was)}]"
    state, log, head = (topic, key, text, index), (index, mark, [topic], operations), (index, mark)
    connection.execute(_WRITE, (*state, *log, *head, text))
    connection.commit()
    return index


def commit_for(connection: "psycopg.Connection[Any]", topic: str, name: str, seconds: float) -> int:
    """Commits one put after the other, for so long; how many."""
    end = perf_counter() + seconds
    for number in count(1):
        commit(connection, topic, f"{name}-{number % 1000}", number)
        if perf_counter() >= end:
            return number
    raise AssertionError


def load_log(connection: "psycopg.Connection[Any]", topic: str, commits: int) -> None:
    """So many commits of one put into an empty store."""
    names = {"topic": topic, "quoted": to_json(topic), "commits": commits}
    for sql in (_LOAD_LOG, _LOAD_STATE, _LOAD_HEAD):
        connection.execute(sql, names)
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE")


def read_log(connection: "psycopg.Connection[Any]", after: int, take: Callable[..., object]) -> int:
    """Takes all commits behind that one; how many there were."""
    with connection.cursor("log") as cursor:  # of the server: the log need not have room in memory
        cursor.itersize = 512
        rows = cursor.execute(_READ_LOG, (after,))
        return sum(1 for _ in starmap(take, rows))


def payloads(url: str) -> Generator[str, None, None]:
    """What the notices say, as they come; the first one is "" and says that it listens."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield ""
        for notice in connection.notifies():
            yield notice.payload


def read_behind(connection: "psycopg.Connection[Any]", after: int) -> tuple[int, list[Any]]:
    """The values that were put by the commits behind that one, and the index of the newest."""
    values: list[Any] = []
    for index, _, text, _ in connection.execute(_READ_LOG, (after,)):
        after = index
        values += [item[4] for item in json.loads(text)]
    return after, values
