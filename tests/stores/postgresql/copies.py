"""Older copies of a store in PostgreSQL, as a backup of its tables is one."""

from stores.postgresql.server import Server

_TABLES = ("ts_head", "ts_log", "ts_state", "ts_revoked", "ts_ids")


def back_up(server: Server, schema: str, copy: str) -> None:
    """As it is now, to another schema."""
    server.sql(
        f"CREATE SCHEMA {copy}",
        *(f"CREATE TABLE {copy}.{table} AS TABLE {schema}.{table}" for table in _TABLES),
    )


def restore(server: Server, schema: str, copy: str) -> None:
    """Puts that in its place, in one transaction, behind the back of everybody."""
    with server.connect() as connection:
        for table in _TABLES:
            connection.execute(f"DELETE FROM {schema}.{table}".encode())
            connection.execute(f"INSERT INTO {schema}.{table} TABLE {copy}.{table}".encode())
