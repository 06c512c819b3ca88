"""The tables of a store in PostgreSQL, and what tells them from others.

The names of topics, namespaces and keys are compared by their bytes, which in UTF-8 is the order of the characters'
numbers, whatever the locale of the database is.
Values and operations are text: `jsonb` changes numbers and refuses the NUL that a text of JSON may have.

- `ts_head` has one row, which every commit locks, so that the order of the commits is that of their indexes.
  `mark` is that of the newest commit, `floor_mark` that of the commit `floor`.
  `at` never decreases, also when the clock of the server does.
  `recorded` names the transaction that has called `record` last.
- `ts_log` has a row for each commit above the floor: its operations as a JSON list, the topics that they
  are about, and the digests of the tokens that it revokes, with spaces between.
- `ts_state` has a row for each key, `ts_revoked` one for each token that was revoked lately, with its place
  among those of its commit, `ts_ids` one for each
  commit that was made with an id.
"""

from typing import Any, Final

import psycopg

VERSION: Final = 2
"""Of the tables: the same number as in the other engines, for the same content."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS {schema}ts_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    epoch text NOT NULL,
    idx bigint NOT NULL,
    mark text NOT NULL,
    at timestamptz NOT NULL,
    floor bigint NOT NULL,
    floor_mark text NOT NULL,
    salt bytea NOT NULL,
    rights_floor bigint NOT NULL,
    recorded text NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE IF NOT EXISTS {schema}ts_log (
    idx bigint PRIMARY KEY,
    mark text NOT NULL,
    at timestamptz NOT NULL,
    topics text[] NOT NULL,
    operations text NOT NULL,
    revoked text NOT NULL
);
CREATE TABLE IF NOT EXISTS {schema}ts_state (
    topic text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value text NOT NULL,
    idx bigint NOT NULL,
    final boolean NOT NULL,
    PRIMARY KEY (topic, namespace, key)
);
CREATE TABLE IF NOT EXISTS {schema}ts_revoked (
    digest text COLLATE "C" PRIMARY KEY,
    idx bigint NOT NULL,
    place integer NOT NULL
);
CREATE INDEX IF NOT EXISTS ts_revoked_idx ON {schema}ts_revoked (idx, place);
CREATE TABLE IF NOT EXISTS {schema}ts_ids (
    id uuid PRIMARY KEY,
    idx bigint NOT NULL,
    mark text NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS ts_ids_idx ON {schema}ts_ids (idx);
INSERT INTO {schema}ts_head
    SELECT true, {version}, {epoch}, 0, '', clock_timestamp(), 0, '', {salt}, 0, ''
    WHERE NOT EXISTS (SELECT 1 FROM {schema}ts_head);
"""

# Random, and made by the server, so that the text can be kept and run again elsewhere.
_EPOCH: Final = "replace(gen_random_uuid()::text, '-', '')"
_SALT: Final = "decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')"


# Held while they are made: two that make them at the same time would fail.
_LOCK: Final = 0x74726973_746F7265


def prefix(schema: str | None) -> str:
    """What stands before the name of a table: the name of the schema, quoted, and a dot."""
    return "" if schema is None else '"' + schema.replace('"', '""') + '".'


def statements(schema: str | None) -> str:
    """Makes what is not there yet."""
    text = _TABLES.format(schema=prefix(schema), version=VERSION, epoch=_EPOCH, salt=_SALT)
    return text.strip() + "\n"


def create(connection: psycopg.Connection[Any], schema: str | None) -> None:
    """Makes the tables, and the schema, if they are not there; in the transaction that runs, or in one of its own."""
    with connection.transaction(), psycopg.Cursor(connection) as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        if schema is not None:  # whoever may not make one may still use it
            cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema])
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE SCHEMA {prefix(schema)[:-1]}")
        cursor.execute(statements(schema))
