"""Standard output: whole lines at once, without blocking the event loop, and noticing that the reader has left.

Text is written to the descriptor itself, so that nothing is left in a buffer that would be flushed at exit into a
pipe that nobody reads.
What is printed by others, as help and tables are, goes through a `sys.stdout` that fails in the same way.
"""

import io
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Final

import anyio
import anyio.lowlevel
import click
from typing_extensions import Buffer, override

# Bytes that fit into a pipe which is ready for writing (PIPE_BUF on Linux), so that the write does not block.
_CHUNK: Final = 4096


class ReaderLeftError(Exception):
    """Nobody reads the output any more, as after `| head`: that is a way to end a command, too."""


class Output:
    """Raises `ReaderLeftError` when nobody reads any more, `click.ClickException` when writing fails otherwise."""

    def __init__(self) -> None:
        if sys.stdout is None:
            raise click.ClickException("standard output is closed")
        self._descriptor = sys.stdout.fileno()
        self._mode = os.fstat(self._descriptor).st_mode

    async def write(self, text: str) -> None:
        """Writes it; where the reader is slow this waits, and when cancelled then some of it has been written."""
        data = memoryview(text.encode())
        await anyio.lowlevel.checkpoint_if_cancelled()
        while data:
            if self._can_block:
                await anyio.wait_writable(self._descriptor)
            data = data[self._write(data[:_CHUNK]) :]
        await anyio.lowlevel.cancel_shielded_checkpoint()

    async def wait_until_reader_leaves(self) -> None:
        """Returns when the other end of the pipe is closed, where that can be known without writing."""
        if not (sys.platform == "linux" and stat.S_ISFIFO(self._mode)):
            await anyio.sleep_forever()
        # The writing end of a pipe is never ready for reading, but for the error that nobody reads it.
        await anyio.wait_readable(self._descriptor)

    @property
    def _can_block(self) -> bool:
        is_waited_for = stat.S_ISFIFO(self._mode) or stat.S_ISSOCK(self._mode) or os.isatty(self._descriptor)
        return sys.platform != "win32" and is_waited_for

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # it is non-blocking, and another process was faster
            return 0
        except OSError as error:
            raise _failure(error) from error


@contextmanager
def guarded_output() -> Iterator[None]:
    """What is printed inside and cannot be written raises what `Output` raises."""
    if sys.stdout is None:
        yield
        return
    raw = _Guard(sys.stdout.fileno(), "wb", closefd=False)
    buffered = io.BufferedWriter(raw)
    with redirect_stdout(io.TextIOWrapper(buffered, sys.stdout.encoding, sys.stdout.errors)) as output:
        yield
        output.flush()


class _Guard(io.FileIO):
    """Drops all that is written after an error, which is told once."""

    _has_failed = False

    @override
    def write(self, data: Buffer, /) -> int:
        try:
            while not self._has_failed:
                written = super().write(data)
                if written is not None:
                    return written
                select.select([], [self], [])  # it is non-blocking
        except OSError as error:
            self._has_failed = True
            raise _failure(error) from error
        return memoryview(data).nbytes


def _failure(error: OSError) -> ReaderLeftError | click.ClickException:
    if isinstance(error, BrokenPipeError):
        return ReaderLeftError()
    return click.ClickException(f"cannot write to standard output: {error.strerror}")
