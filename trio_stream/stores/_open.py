"""Opening the store that a URL names."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from ._store import Store
from .sqlite import open_sqlite_store


def open_store(url: str, **options: Any) -> AbstractAsyncContextManager[Store]:
    """Opens the store that `url` names; the options are those of its engine.

    `sqlite:jobs.db`, `sqlite:/var/jobs.db` or `sqlite:///var/jobs.db`: see `sqlite.open_sqlite_store`.
    Everything after the scheme is the path, as it is: nothing is decoded.

    `postgresql://[user[:password]@][host][:port][/database][?schema=SCHEMA]`, with the options of libpq: see
    `postgresql.open_postgresql_store`.
    An `ImportError` if psycopg is not installed, which the extra `trio-stream[postgresql]` brings.
    """
    if not isinstance(url, str):
        raise TypeError(f"a store is named by a URL like 'sqlite:PATH', not {url!r}")
    scheme, separator, rest = url.partition(":")
    match scheme:
        case "sqlite" if separator:
            return open_sqlite_store(_path(url, rest), **options)
        case "postgresql" | "postgres" if rest.startswith("//"):
            from .postgresql import open_postgresql_store

            return open_postgresql_store(url, **options)
        case _:
            # What follows the scheme may have a password in it.
            shown = f"{scheme}:..." if separator else url
            raise ValueError(f"{shown!r} does not name a store: expected 'sqlite:PATH' or 'postgresql://...'")


def _path(url: str, rest: str) -> str:
    if rest.startswith("//"):
        if not rest.startswith("///"):
            raise ValueError(f"{url!r} names a host: expected 'sqlite:PATH' or 'sqlite:///ABSOLUTE/PATH'")
        rest = rest[2:]
    if not rest or rest == ":memory:":
        raise ValueError(f"{url!r} does not name a file: a store is shared by processes")
    return rest
