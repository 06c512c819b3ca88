"""The peer of the SQLite store: the same work, as one would write it by hand on a connection of `sqlite3`."""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import count, islice
from pathlib import Path
from time import perf_counter
from typing import Any

_SCHEMA = """
CREATE TABLE head ("index" INTEGER NOT NULL);
CREATE TABLE log ("index" INTEGER PRIMARY KEY, mark BLOB NOT NULL, operations TEXT NOT NULL);
CREATE TABLE state (
    topic TEXT NOT NULL, namespace TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, "index" INTEGER NOT NULL,
    PRIMARY KEY (topic, namespace, key)
) WITHOUT ROWID;
INSERT INTO head VALUES (0);
"""

_LOOK = "SELECT value FROM state WHERE topic = ? AND namespace = 'default' AND key = ?"


def create(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)


@contextmanager
def connected(
    path: Path, synchronous: str = "FULL", *, check_same_thread: bool = True
) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=check_same_thread)
    with closing(made) as connection:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        yield connection


def head(connection: sqlite3.Connection) -> int:
    index: int = connection.execute('SELECT "index" FROM head').fetchone()[0]
    return index


def commit(connection: sqlite3.Connection, topic: str, items: Iterable[tuple[str, Any]]) -> int:
    """Puts these keys and values in one transaction, and logs them with what they replace."""
    items = list(items)
    connection.execute("BEGIN IMMEDIATE")
    index = head(connection) + 1
    replaced = [connection.execute(_LOOK, (topic, key)).fetchone() for key, _ in items]
    connection.executemany(
        "INSERT OR REPLACE INTO state VALUES (?, 'default', ?, ?, ?)",
        [(topic, key, json.dumps(value), index) for key, value in items],
    )
    operations = json.dumps(
        [
            ["put", topic, "default", key, value, was]
            for (key, value), was in zip(items, replaced, strict=True)
        ]
    )
    connection.execute("INSERT INTO log VALUES (?, ?, ?)", (index, os.urandom(8), operations))
    connection.execute('UPDATE head SET "index" = ?', (index,))
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


def read_state(connection: sqlite3.Connection, topic: str) -> int:
    """Reads all keys and values; how many."""
    rows = connection.execute(
        "SELECT key, value, \"index\" FROM state WHERE topic = ? AND namespace = 'default'", (topic,)
    )
    return sum(1 for _ in ((key, json.loads(value), index) for key, value, index in rows))
