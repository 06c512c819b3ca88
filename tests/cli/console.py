"""What tests of the command line share: running it as a user does, in processes of its own."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from signal import Signals
from typing import Any, TypeAlias

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from trio_stream.stores import Put, open_store

PROGRAM = [sys.executable, "-m", "trio_stream"]
PATIENCE = 60.0  # seconds after which what should have come will not come any more


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[Any]:
        """What was written with --json."""
        return [json.loads(line) for line in self.out.split("\n")[:-1]]


Command: TypeAlias = Callable[..., Result]


async def run(*arguments: str, stdin: bytes = b"") -> Result:
    with anyio.fail_after(PATIENCE):
        ended = await anyio.run_process([*PROGRAM, *arguments], input=stdin, check=False)
    return Result(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


async def put(key: str, text: str, *, namespace: str = "default") -> int:
    """Commits a value, as JSON, to the topic "jobs" of the store of this folder."""
    async with open_store("sqlite:trio-stream.db") as store:
        return await store.commit([Put("jobs", key, json.loads(text), namespace)])


class Running:
    """A command that has been started."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self._out = BufferedByteReceiveStream(process.stdout)
        self._err = BufferedByteReceiveStream(process.stderr)

    async def line(self) -> str:
        with anyio.fail_after(PATIENCE):
            return (await self._out.receive_until(b"\n", 1 << 20)).decode()

    async def warning(self) -> str:
        """A line of standard error."""
        with anyio.fail_after(PATIENCE):
            return (await self._err.receive_until(b"\n", 1 << 20)).decode()

    async def object(self) -> Any:
        return json.loads(await self.line())

    async def until(self, text: str) -> list[str]:
        """The lines up to the first one in which the text is."""
        lines = [await self.line()]
        while text not in lines[-1]:
            lines.append(await self.line())
        return lines

    async def end(self, signal: Signals | None = None) -> Result:
        """The exit code, and the rest of the output."""
        if signal is not None:
            self.process.send_signal(signal)
        with anyio.fail_after(PATIENCE):
            out = b"".join([chunk async for chunk in self._out])
            err = b"".join([chunk async for chunk in self._err])
            return Result(await self.process.wait(), out.decode(), err.decode())


@asynccontextmanager
async def started(*arguments: str, stdin: int = subprocess.DEVNULL) -> AsyncIterator[Running]:
    async with await anyio.open_process([*PROGRAM, *arguments], stdin=stdin) as process:
        try:
            yield Running(process)
        finally:
            if process.returncode is None:
                process.kill()
