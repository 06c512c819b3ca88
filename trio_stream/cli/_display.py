"""Showing the demonstration as it goes: a table on a terminal, lines anywhere else."""

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from ._followers import Follower

_COLUMNS: Final = ("subscriber", "", "index", "keys", "changes", "snapshots", "resumes", "last")


class Display(Protocol):
    """Used as `with`."""

    period: float
    """Seconds between two looks."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    def note(self, text: str) -> None:
        """Says what has just happened."""
        ...

    def show(self, followers: Sequence[Follower]) -> None:
        """Says how far everybody is."""
        ...


def open_display() -> Display:
    """What suits standard output."""
    console = Console()
    return _Screen(console) if console.is_terminal else _Lines()


class _Screen(Display):
    def __init__(self, console: Console) -> None:
        self.period = 0.1
        self._live = Live(console=console, auto_refresh=False)

    @override
    def __enter__(self) -> Self:
        self._live.start()
        return self

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._live.stop()

    @override
    def note(self, text: str) -> None:
        self._live.console.print(Text(text), soft_wrap=True)

    @override
    def show(self, followers: Sequence[Follower]) -> None:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for column in _COLUMNS:
            is_number = column in _COLUMNS[2:7]
            is_elastic = column == _COLUMNS[-1]  # gives way where the terminal is narrow
            table.add_column(column, justify="right" if is_number else "left", no_wrap=not is_elastic)
        for follower in followers:
            table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in _cells(follower)))
        self._live.update(table, refresh=True)


class _Lines(Display):
    def __init__(self) -> None:
        self.period = 1.0
        self._started = anyio.current_time()

    @override
    def __enter__(self) -> Self:
        return self

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        pass

    @override
    def note(self, text: str) -> None:
        click.echo(f"{anyio.current_time() - self._started:6.2f} s  {text}")

    @override
    def show(self, followers: Sequence[Follower]) -> None:
        for follower in followers:
            name, doing, *figures, latest = _cells(follower)
            parts = [f"{column} {cell}" for column, cell in zip(_COLUMNS[2:7], figures, strict=True)]
            self.note(f"{name}: {doing}; {', '.join(parts)}; {latest}")


def _cells(follower: Follower) -> list[str]:
    return [
        follower.name,
        follower.doing,
        str(follower.index),
        str(len(follower.state.entries)),
        str(follower.changes),
        str(follower.snapshots),
        str(follower.resumes),
        follower.latest,
    ]
