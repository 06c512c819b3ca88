"""`import`: the records of a file, in batches of one commit each."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader

import anyio.to_thread
import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import override

from trio_stream.stores import Store

from ._records import Reader, RecordError


@dataclass
class Imported:
    """What was committed so far."""

    records: int = 0
    commits: int = 0
    index: int | None = None
    line: int = 0
    """The last one of the newest record committed."""

    @override
    def __str__(self) -> str:
        if self.index is None:
            return "nothing was committed"
        commits = _count(self.commits, "commit")
        return f"committed {_count(self.records, 'record')} in {commits}, up to index {self.index}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@contextmanager
def open_input(path: str) -> Iterator[BufferedReader]:
    """The file, or standard input for "-"."""
    try:
        file = open(0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")  # noqa: SIM115 - closed below
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    with file:  # and not the buffer, which a thread that waits for input holds locked
        yield BufferedReader(file)


async def import_records(
    store: Store, reader: Reader, *, name: str, batch: int, done: Imported, size: int | None
) -> None:
    """Commits all records, and says in `done` how far it came.

    A record that cannot be imported is a `click.ClickException` that names file and line; its batch is not committed.
    """
    with _progress(size) as advance:
        while True:
            try:
                lines = await anyio.to_thread.run_sync(partial(reader.read, batch), abandon_on_cancel=True)
            except RecordError as error:
                after = f" (through line {done.line})" if done.records else ""
                raise click.ClickException(
                    f"{name}:{error.line}: {error.reason}\n{str(done).capitalize()}{after}."
                ) from error
            except OSError as error:
                raise click.ClickException(f"{name}: {error.strerror}\n{str(done).capitalize()}.") from error
            if not lines:
                return
            done.index = await store.commit([line.put for line in lines])
            done.records += len(lines)
            done.commits += 1
            done.line = lines[-1].number
            advance(reader.bytes, done.records)


def size_of(file: BufferedReader) -> int | None:
    """Bytes, where that can be known before it is read."""
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _progress(size: int | None) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, by bytes read; nothing otherwise."""
    columns = (
        BarColumn(),
        TextColumn("{task.fields[records]:,} records"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=size, records=0)
        yield lambda position, records: progress.update(task, completed=position, records=records)
