"""The peer of the SQLite store: the same work, as one would write it by hand on a connection of `sqlite3`.

It is the same SQL on the same tables, so that a store reads what was written by hand, and the other way round.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import count, islice, starmap
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from trio_stream import Event, Topic
from trio_stream.stores import Commit, Put, Record, sqlite

KEYS: Final = 1000  # that the commits of a log are about, in turn

_LOGGED: Final = 10_000  # commits that are written in one transaction where only the log is wanted
_LOOK: Final = "SELECT value, final FROM ts_state WHERE topic = ? AND namespace = 'default' AND key = ?"
_PUT: Final = (
    "INSERT OR REPLACE INTO ts_state (topic, namespace, key, value, idx, final)"
    " VALUES (?, 'default', ?, ?, ?, 0)"
)
_LOG: Final = "INSERT INTO ts_log (idx, mark, operations, at, revoked) VALUES (?, ?, ?, ?, '')"

to_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def create(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        sqlite.create_tables(connection)


@contextmanager
def connected(
    path: Path, synchronous: str = "FULL", *, check_same_thread: bool = True
) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=check_same_thread)
    with closing(made) as connection:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        yield connection


def head(connection: sqlite3.Connection) -> int:
    index: int = connection.execute("SELECT idx FROM ts_head").fetchone()[0]
    return index


def item_of(topic: str, key: str, value: str, was: str | None) -> str:
    """A put as the log has it; `value` is JSON, and so is what it replaces, if there was something."""
    previous = "" if was is None else f",[{was}]"
    return f"{to_json(['put', topic, 'default', key])[:-1]},{value}{previous}]"


def commit(connection: sqlite3.Connection, topic: str, items: Iterable[tuple[str, Any]]) -> int:
    """Puts these keys and values in one transaction, and logs them with what they replace."""
    written = [(key, to_json(value)) for key, value in items]
    connection.execute("BEGIN IMMEDIATE")
    newest, at = connection.execute("SELECT idx, at FROM ts_head").fetchone()
    index, at = int(newest) + 1, max(at, time.time())
    operations: list[str] = []
    for key, value in written:
        was, is_final = connection.execute(_LOOK, (topic, key)).fetchone() or (None, False)
        assert not is_final
        operations.append(item_of(topic, key, value, was))
    connection.executemany(_PUT, [(topic, key, value, index) for key, value in written])
    connection.execute(_LOG, (index, os.urandom(8), f"[{','.join(operations)}]", at))
    connection.execute("UPDATE ts_head SET idx = ?, at = ?", (index, at))
    connection.execute("COMMIT")
    return index


def commit_for(connection: sqlite3.Connection, topic: str, name: str, seconds: float) -> int:
    """Commits one put after the other, for so long; how many."""
    end = perf_counter() + seconds
    for number in count(1):
        commit(connection, topic, [(f"{name}-{number % 1000}", number)])
        if perf_counter() >= end:
            return number
    raise AssertionError


def load_lines(connection: sqlite3.Connection, topic: str, lines: Iterable[bytes], batch: int) -> None:
    """Commits the records of NDJSON, so many at a time."""
    records = map(json.loads, lines)
    while some := list(islice(records, batch)):
        commit(connection, topic, [(record["key"], record["value"]) for record in some])


def load_log(connection: sqlite3.Connection, topic: str, commits: int) -> None:
    """So many commits of one put into an empty store, as if they had been made one after the other."""
    at = time.time()
    rows = (
        (number, os.urandom(8), f"[{item_of(topic, _key(number), str(number), _before(number))}]", at)
        for number in range(1, commits + 1)
    )
    while some := list(islice(rows, _LOGGED)):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_LOG, some)
        connection.execute("COMMIT")
    newest = range(max(0, commits - KEYS) + 1, commits + 1)
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_PUT, [(topic, _key(number), str(number), number) for number in newest])
    connection.execute("UPDATE ts_head SET idx = ?, at = ?", (commits, at))
    connection.execute("COMMIT")


def read_state(connection: sqlite3.Connection, topic: str) -> int:
    """Reads all keys and values; how many."""
    rows = connection.execute(
        "SELECT key, value, idx, final FROM ts_state WHERE topic = ? AND namespace = 'default'", (topic,)
    )
    return sum(1 for _ in ((key, json.loads(value), index, final) for key, value, index, final in rows))


def read_log(connection: sqlite3.Connection, after: int, take: Callable[..., object]) -> int:
    """Takes all commits behind that one; how many there were."""
    rows = connection.execute(
        "SELECT idx, mark, operations, revoked FROM ts_log WHERE idx > ? ORDER BY idx", (after,)
    )
    return sum(1 for _ in starmap(take, rows))


def as_it_is(*row: object) -> object:
    return row


def decoded(index: int, mark: object, text: str, revoked: object) -> object:
    return index, mark, json.loads(text), revoked


def delivered(index: int, mark: object, text: str, _revoked: object) -> object:
    """What a reader gets, made of a commit of one put: the objects, checked as their classes do, and nothing else."""
    ((_, name, namespace, key, value, *before),) = json.loads(text)
    replaces = bool(before)
    previous = before[0][0] if before else None
    put = Put(name, key, value, namespace, previous=previous, replaces=replaces)
    commit_ = Commit(index, (put,), str(mark))
    record = Record(key, put.value, "put", namespace)
    replaced = Record(key, put.previous, "put", namespace) if replaces else None
    whole = Event(Topic(name), index, record, previous=replaced, mark=commit_.mark)
    return Event(whole.topic, index, record, mark=commit_.mark)  # nobody may have what was there before


def _key(number: int) -> str:
    return f"key-{number % KEYS}"


def _before(number: int) -> str | None:
    """What the commit of this number replaces."""
    return None if number <= KEYS else str(number - KEYS)
