"""The store that --store names, and what is said where there is none.

A URL may have a password in it: no message has more of it than its scheme.
"""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import click

from trio_stream.stores import Store, open_store
from trio_stream.stores.sqlite import open_sqlite_store

_PATIENCE = {
    "sqlite": {"busy_timeout": 30.0}
}  # seconds; options of the engine that has other processes beside it


def engine_of(url: str) -> str:
    """The engine; a usage error if the URL names no store, and an error if the engine is not installed."""
    try:
        open_store(url)
    except ValueError as error:
        raise click.UsageError(f"Invalid value for '--store': {error}") from None
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    scheme = url.partition(":")[0]
    return "postgresql" if scheme == "postgres" else scheme


def file_of(url: str) -> Path:
    """The file of the store; a usage error if it is not in one."""
    if (engine := engine_of(url)) != "sqlite":
        raise click.UsageError(f"this is for a store in a file; the one of --store is in {engine}")
    return Path(url.partition(":")[2].removeprefix("//")).absolute()


def check_store_exists(url: str) -> Path:
    """The file of the store; an error if there is none."""
    path = file_of(url)
    if not _is_there(path):
        raise click.ClickException(f"there is no store {path}; put, txn, import, watch and wait make one")
    return path


def opening_of(
    url: str, *, makes_store: bool = False, reads: bool = False
) -> AbstractAsyncContextManager[Store]:
    """What opens the store; an error if there is none and this command is not one that makes it.

    `reads`: the command changes nothing, and works for a user who may only read, too.
    """
    if engine_of(url) != "sqlite":
        return open_store(url, read_only=reads and not makes_store)
    path = file_of(url) if makes_store else check_store_exists(url)
    is_there = _is_there(path)
    return open_sqlite_store(str(path), read_only=reads and is_there and not _is_writable(path))


def patient_opening_of(url: str) -> AbstractAsyncContextManager[Store]:
    """What opens the store for one of several processes that write at the same time."""
    options: dict[str, Any] = _PATIENCE.get(engine_of(url), {})
    return open_store(url, **options)


def _is_writable(path: Path) -> bool:
    """SQLite also makes files beside it."""
    return os.access(path, os.W_OK) and os.access(path.resolve().parent, os.W_OK)


def _is_there(path: Path) -> bool:
    """Whether there is a file; an error if that cannot be known, as in a folder that one may not enter."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    return True
