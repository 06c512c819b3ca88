"""The store that --store names, and what is said where there is none."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click

from trio_stream.stores import open_store
from trio_stream.stores.sqlite import SQLiteStore, open_sqlite_store


def path_of(url: str) -> Path:
    """The file of the store; a usage error if the URL names none."""
    try:
        open_store(url)
    except ValueError as error:
        raise click.UsageError(f"Invalid value for '--store': {error}") from None
    return Path(url.partition(":")[2].removeprefix("//")).absolute()


def check_store_exists(url: str) -> Path:
    """The file of the store; an error if there is none."""
    path = path_of(url)
    if not _is_there(path):
        raise click.ClickException(f"there is no store {path}; put, txn, import, watch and wait make one")
    return path


def opening_of(
    url: str, *, makes_store: bool = False, reads: bool = False
) -> AbstractAsyncContextManager[SQLiteStore]:
    """What opens the store; an error if there is none and this command is not one that makes it.

    `reads`: the command changes nothing, and works for a user who may only read the file, too.
    """
    path = path_of(url) if makes_store else check_store_exists(url)
    is_there = _is_there(path)
    return open_sqlite_store(str(path), read_only=reads and is_there and not _is_writable(path))


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
