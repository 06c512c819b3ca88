"""The command `watch`, in this process, and its output, which all runs of one scene write to.

A command has no public name to call it by: what runs it lies behind the parsing of its arguments.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import anyio
from anyio.lowlevel import checkpoint
from stores.storehouse import open_at
from sweep.driver import Setting
from sweep.durable import LAST, Keeper, kept
from typing_extensions import override

from trio_stream import Cursor
from trio_stream.cli._output import Output
from trio_stream.cli._watch import Watch
from trio_stream.cli._watched import Watched


class Watches(Output):
    """One watch after the other, each from the cursor of the one before, until the last commit is written."""

    def __init__(self, keeper: Keeper, file: TextIO) -> None:
        with redirect_stdout(file):
            super().__init__()
        self.cursors: list[Cursor | None] = [None]
        self._keeper = keeper
        self._written = Path(file.name)
        self._scope = anyio.CancelScope()
        # Called before each write.
        self.before: Callable[[], object] = lambda: None

    async def run(self) -> None:
        start = self.cursors[-1]
        if start is not None and start.index == LAST:
            return
        watch = Watch(Watched(topics=["jobs"]), start, self, as_json=True)
        try:
            with anyio.CancelScope() as self._scope:
                await watch.run(open_at(self._keeper.path))
        finally:
            self.cursors.append(watch.cursor)

    @override
    async def write(self, text: str) -> None:
        self.before()
        await super().write(text)
        if f'"cursor":"{LAST}@' in text:
            self._scope.cancel()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._written.read_text().splitlines()]

    async def check(self) -> None:
        """After the one snapshot that is whole, every commit is written once."""
        lines = self.lines
        (end,) = [line["index"] for line in lines if line["type"] == "end-of-snapshot"]
        commits = [line["index"] for line in lines if line["type"] == "commit"]
        assert commits == list(range(end + 1, LAST + 1))
        assert all(cursor is None or cursor.index >= end for cursor in self.cursors)


@contextmanager
def watches(keeper: Keeper) -> Iterator[Watches]:
    with keeper.path.with_name("written").open("a") as file:
        yield Watches(keeper, file)


@asynccontextmanager
async def watching() -> AsyncIterator[Setting]:
    """One that goes on with the cursor of the one that was cancelled writes what is missing, and nothing twice."""
    async with kept() as keeper:
        with watches(keeper) as those:
            yield Setting(those.run, keeper.commit, check=those.check, settle=checkpoint, by_scope_only=True)
