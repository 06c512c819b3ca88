"""`import`: the records of a file, in batches of one commit each."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio.to_thread
import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import override

from trio_stream.stores import Delete, Operation, Put, Store

from ._records import Line, Reader, Snapshot, check_values
from ._text import RecordError, TextReader


@dataclass
class Imported:
    """What was committed so far."""

    records: int = 0
    commits: int = 0
    index: int | None = None
    line: int = 0
    """The last one of the newest record committed."""
    keys: set[str] = field(default_factory=set)
    """Those that records have put and not deleted."""

    @override
    def __str__(self) -> str:
        if self.index is None:
            return "nothing was committed"
        records, commits = _count(self.records, "record"), _count(self.commits, "commit")
        return f"committed {records} in {commits}, {_count(len(self.keys), 'key')}, up to index {self.index}"

    def add(self, operations: Sequence[Operation], index: int) -> None:
        """Notes a commit."""
        self.commits += 1
        self.index = index
        for operation in operations:
            match operation:
                case Put():
                    self.keys.add(operation.key)
                case Delete():
                    self.keys.discard(operation.key)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


class Import:
    """One run of the command; `done` says how far it came."""

    def __init__(self, store: Store, *, topic: str, namespace: str, batch: int, done: Imported) -> None:
        self._store = store
        self._topic = topic
        self._namespace = namespace
        self._batch = batch
        self._done = done

    async def run(self, reader: Reader, text: TextReader, *, name: str, size: int | None) -> None:
        """Commits all records.

        One that cannot be imported is a `click.ClickException` that names file and line; its batch is not committed.
        """
        done = self._done
        with _progress(size) as advance:
            while True:
                try:
                    batch = await anyio.to_thread.run_sync(
                        partial(reader.read, self._batch), abandon_on_cancel=True
                    )
                    if batch.lines:
                        await self._commit_lines(batch.lines)
                except RecordError as error:
                    after = f" (through line {done.line})" if done.records else ""
                    raise click.ClickException(
                        f"{name}:{error.line}: {error.reason}\n{str(done).capitalize()}{after}."
                    ) from error
                except OSError as error:
                    raise click.ClickException(
                        f"{name}: {error.strerror}\n{str(done).capitalize()}."
                    ) from error
                if batch.snapshot is not None:
                    await self._remove_others(batch.snapshot)
                elif not batch.lines:
                    return
                advance(text.bytes, done.records)

    async def _commit_lines(self, lines: Sequence[Line]) -> None:
        operations = [line.operation for line in lines]
        try:
            index = await self._store.commit(operations)
        except ValueError:  # which does not say on which line the value is
            await anyio.to_thread.run_sync(check_values, lines)
            raise
        self._done.add(operations, index)
        self._done.records += len(lines)
        self._done.line = lines[-1].number

    async def _remove_others(self, snapshot: Snapshot) -> None:
        """Deletes the keys that were gone when the snapshot was taken."""
        async with self._store.list(self._topic, namespace=self._namespace) as entries:
            others = [
                Delete(self._topic, key, self._namespace) async for key, _ in entries if snapshot.removes(key)
            ]
        for start in range(0, len(others), self._batch):
            operations = others[start : start + self._batch]
            self._done.add(operations, await self._store.commit(operations))


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
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    with Progress(*columns, console=console, transient=True, disable=not is_terminal) as progress:
        task = progress.add_task("", total=size, records=0)
        yield lambda position, records: progress.update(task, completed=position, records=records)
