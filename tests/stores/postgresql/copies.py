"""Older copies of a store in PostgreSQL, as a backup of its tables is one."""

from typing import Any

import psycopg
from stores.postgresql.server import Server

TABLES = ("ts_head", "ts_log", "ts_state", "ts_revoked", "ts_ids")


def back_up(server: Server, schema: str, copy: str) -> None:
    """As it is now, to another schema; whoever commits meanwhile, it is of one commit."""
    with server.connect() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(f"CREATE SCHEMA {copy}".encode())
        for table in TABLES:
            connection.execute(f"CREATE TABLE {copy}.{table} AS TABLE {schema}.{table}".encode())


def restore(server: Server, schema: str, copy: str) -> None:
    """Puts that in its place, in one transaction, behind the back of everybody."""
    with server.connect() as connection:
        restore_in(connection, schema, copy)


def restore_in(connection: "psycopg.Connection[Any]", schema: str, copy: str) -> None:
    """The same in a transaction of this connection."""
    for table in TABLES:
        connection.execute(f"DELETE FROM {schema}.{table}".encode())
        connection.execute(f"INSERT INTO {schema}.{table} TABLE {copy}.{table}".encode())
