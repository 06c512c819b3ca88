"""The tables of a store in a SQLite file, and how those of the first edition become such.

A store is known by its table `ts_head`, so that it can lie in a file that has other tables, too.

- `ts_head` has one row. `floor_mark` is the mark that the log had at `floor`, `at` the time of the newest commit.
  `unmarked` is the newest commit of the first edition, whose clients have cursors without marks.
- `ts_log` has one row per commit above `floor`. Its random mark tells two commits apart that have one index in two
  copies of the file; `operations` is as in `_json`; `revoked` has the digests of the tokens that it revokes, with
  spaces between them. `at` is in seconds since 1970, and never decreases.
- `ts_state` has one row per key.
- `ts_revoked` has the newest revocation of each token, and `revoked_floor` the newest one that is forgotten.
- `ts_ids` has the commits that were made with an id.

The first edition had the tables `head`, `log` and `state`, and the file's `application_id`.
An upgrade renames them and adds columns; it copies nothing, however large the file is.
A view `head` is left in files that are ours alone: by it a process of the first edition sees that the file is newer.
"""

import os
import reprlib
import sqlite3
import time
from typing import Final

from ._sqlite_statements import first_row, rows_of, run

APPLICATION: Final = 0x74726973  # "tris": files that are ours alone
VERSION: Final = 2

SCHEMA: Final = """\
CREATE TABLE IF NOT EXISTS ts_head (
    version INTEGER NOT NULL, epoch TEXT NOT NULL, idx INTEGER NOT NULL,
    floor INTEGER NOT NULL, floor_mark BLOB NOT NULL,
    at REAL NOT NULL, salt BLOB NOT NULL, revoked_floor INTEGER NOT NULL, unmarked INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS ts_log (
    idx INTEGER PRIMARY KEY, mark BLOB NOT NULL, operations TEXT NOT NULL,
    at REAL NOT NULL, revoked TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS ts_state (
    topic TEXT NOT NULL, namespace TEXT NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, idx INTEGER NOT NULL, final INTEGER NOT NULL,
    PRIMARY KEY (topic, namespace, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ts_revoked (digest TEXT PRIMARY KEY, idx INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS ts_revoked_idx ON ts_revoked (idx);
CREATE TABLE IF NOT EXISTS ts_ids (id BLOB PRIMARY KEY, idx INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ts_ids_idx ON ts_ids (idx);
INSERT INTO ts_head
    SELECT 2, lower(hex(randomblob(16))), 0, 0, x'', 0, randomblob(32), 0, 0
    WHERE NOT EXISTS (SELECT * FROM ts_head);
"""
"""Makes the tables of a store; does nothing where they are."""

_HEADS: Final = "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('head', 'ts_head')"

_OLD_READERS: Final = "CREATE VIEW head AS SELECT version FROM ts_head"

# The commits of the first edition have no times: they count as made when they are upgraded.
_UPGRADE: Final = """
ALTER TABLE head RENAME TO ts_head;
ALTER TABLE ts_head RENAME COLUMN "index" TO idx;
ALTER TABLE ts_head ADD COLUMN at REAL NOT NULL DEFAULT {now};
ALTER TABLE ts_head ADD COLUMN salt BLOB NOT NULL DEFAULT x'{salt}';
ALTER TABLE ts_head ADD COLUMN revoked_floor INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ts_head ADD COLUMN unmarked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log RENAME TO ts_log;
ALTER TABLE ts_log RENAME COLUMN "index" TO idx;
ALTER TABLE ts_log ADD COLUMN at REAL NOT NULL DEFAULT {now};
ALTER TABLE ts_log ADD COLUMN revoked TEXT NOT NULL DEFAULT '';
ALTER TABLE state RENAME TO ts_state;
ALTER TABLE ts_state RENAME COLUMN "index" TO idx;
ALTER TABLE ts_state ADD COLUMN final INTEGER NOT NULL DEFAULT 0;
"""


def make_tables(connection: sqlite3.Connection) -> None:
    """Makes the tables of a store that are not there, in the transaction of the connection, or in one of their own."""
    run(connection, "SAVEPOINT ts_tables")
    try:
        _run_all(connection, SCHEMA)
    except BaseException:
        run(connection, "ROLLBACK TO ts_tables")
        raise
    finally:
        run(connection, "RELEASE ts_tables")


def create_file(connection: sqlite3.Connection) -> None:
    """Makes an empty file a store and nothing else; in a transaction."""
    _run_all(connection, SCHEMA)
    run(connection, _OLD_READERS)
    run(connection, f"PRAGMA application_id = {APPLICATION}")


def upgrade(connection: sqlite3.Connection) -> None:
    """Makes a store of the first edition one of this; in a transaction for writing, and only if it is still one."""
    if version_of(connection) != 1:
        return
    _run_all(connection, _UPGRADE.format(now=time.time(), salt=os.urandom(32).hex()))
    _run_all(connection, SCHEMA)  # the other tables
    run(connection, "UPDATE ts_head SET version = ?, unmarked = idx", (VERSION,))
    run(connection, _OLD_READERS)


def version_of(connection: sqlite3.Connection) -> int | None:
    """The edition of the store in the file; None if there is no store.

    `ValueError`, which says what is wrong, if it is damaged.
    """
    with rows_of(connection, _HEADS) as rows:
        tables = {name for (name,) in rows}
    is_ours = is_marked(connection)
    if "ts_head" in tables:
        head = "ts_head"
    elif is_ours and "head" in tables:
        head = "head"
    elif is_ours:
        raise ValueError("damaged: it has no table ts_head")
    else:
        return None
    row = first_row(connection, f"SELECT version FROM {head}")  # noqa: S608 - one of two names
    match row:
        case (int(version),):
            check_encoding(connection)
            return version
        case None:
            raise ValueError("damaged: it has no head")
        case _:
            raise ValueError(f"damaged: its head has version {reprlib.repr(row[0])}")


def check_encoding(connection: sqlite3.Connection) -> None:
    """`ValueError` in a file where texts are kept, compared and sorted in another encoding than UTF-8."""
    (encoding,) = first_row(connection, "PRAGMA encoding")
    if encoding != "UTF-8":
        raise ValueError(f"its texts are in {encoding}: a store needs UTF-8")


def is_marked(connection: sqlite3.Connection) -> bool:
    """Whether the file says that it is a store and nothing else."""
    (application,) = first_row(connection, "PRAGMA application_id")
    return bool(application == APPLICATION)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether there is nothing in the file."""
    (application,) = first_row(connection, "PRAGMA application_id")
    (tables,) = first_row(connection, "SELECT count(*) FROM sqlite_master")
    return (application, tables) == (0, 0)


def mark_text(mark: object) -> str:
    """A mark of the file as `Commit.mark`; "" for what is no mark: it is damaged, and equal to no other."""
    return mark.hex() if isinstance(mark, bytes) else ""


def _run_all(connection: sqlite3.Connection, script: str) -> None:
    """In the transaction that there is; `executescript` would end it."""
    for statement in script.split(";"):
        run(connection, statement)
