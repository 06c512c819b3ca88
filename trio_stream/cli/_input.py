"""What a command reads: a file, or standard input for "-"."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader

import click


def name_of(path: str) -> str:
    """How messages call it."""
    return "standard input" if path == "-" else path


@contextmanager
def open_input(path: str) -> Iterator[BufferedReader]:
    """The file, or standard input for "-"."""
    try:
        is_input = path == "-"
        if is_input and sys.stdin is None:
            raise click.ClickException("standard input is closed")
        file = open(0 if is_input else path, "rb", buffering=0, closefd=not is_input)  # noqa: SIM115 - closed below
    except OSError as error:
        raise click.ClickException(f"{name_of(path)}: {error.strerror}") from error
    with file:  # and not the buffer, which a thread that waits for input holds locked
        yield BufferedReader(file)


def read_input(path: str) -> bytes:
    """All of it."""
    with open_input(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise click.ClickException(f"{name_of(path)}: {error.strerror}") from error


def size_of(file: BufferedReader) -> int | None:
    """Bytes, where that can be known before it is read."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
