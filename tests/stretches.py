"""Counts what the library does in one stretch, from one turn of the event loop to the next; never how long it takes."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import trio
import trio.abc
from typing_extensions import override

import trio_stream

PACKAGE = str(Path(trio_stream.__file__).parent)


@dataclass
class Stretches:
    """Calls of functions of the library: in all, and in the longest stretch; and the same of what a test counts."""

    calls: int = 0
    longest: int = 0
    most_counted: int = 0
    _before: int = 0
    _counted: int = 0

    def count(self, more: int = 1) -> None:
        """Something else has happened, so many times."""
        self._counted += more
        self.most_counted = max(self.most_counted, self._counted)

    def cut(self) -> None:
        """A stretch ends, and another begins."""
        self.longest = max(self.longest, self.calls - self._before)
        self._before = self.calls
        self._counted = 0


class _Steps(trio.abc.Instrument):
    def __init__(self, cut: Callable[[], None]) -> None:
        self._cut = cut

    @override
    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._cut()

    @override
    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._cut()


@contextmanager
def _steps_of_trio(cut: Callable[[], None]) -> Iterator[None]:
    steps = _Steps(cut)
    trio.lowlevel.add_instrument(steps)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(steps)


@contextmanager
def _handles_of_asyncio(cut: Callable[[], None]) -> Iterator[None]:
    """Of its own loops; uvloop keeps its handles to itself."""
    run = asyncio.Handle._run  # noqa: SLF001

    def cutting(self: asyncio.Handle) -> None:
        cut()
        run(self)
        cut()

    asyncio.Handle._run = cutting  # type: ignore[method-assign] # noqa: SLF001
    try:
        yield
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign] # noqa: SLF001


@contextmanager
def stretches(*, calls: bool = True) -> Iterator[Stretches]:
    """Counts while the block runs; to count no calls is faster. Not for uvloop."""
    seen = Stretches()

    def profile(frame: FrameType, what: str, _: Any) -> None:
        if what == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            seen.calls += 1

    with ExitStack() as stack:
        stack.enter_context(
            _steps_of_trio(seen.cut) if trio.lowlevel.in_trio_run() else _handles_of_asyncio(seen.cut)
        )
        before = sys.getprofile()
        sys.setprofile(profile if calls else before)
        try:
            yield seen
        finally:
            sys.setprofile(before)
            seen.cut()
