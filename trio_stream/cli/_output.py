"""Standard output: whole lines at once, without blocking the event loop, and noticing that the reader has left.

Text is written to the descriptor itself, so that nothing is left in a buffer that would be flushed at exit into a
pipe that nobody reads.
"""

import os
import stat
import sys
from typing import Final

import anyio
import anyio.lowlevel
import click

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
        return sys.platform != "win32" and (stat.S_ISFIFO(self._mode) or os.isatty(self._descriptor))

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BrokenPipeError:
            raise ReaderLeftError from None
        except OSError as error:
            raise click.ClickException(f"cannot write to standard output: {error.strerror}") from error
