"""`watch --view`: the current state as a table, drawn anew on a terminal and written once, in the end, elsewhere."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from operator import is_not
from typing import Final, TypeAlias

import anyio
import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trio_stream import Topic
from trio_stream.stores import Record, Store, open_store_publisher
from trio_stream.view import Frozen, View, ViewEnded, open_view

from ._lines import key_text, place_text, value_text
from ._watched import Watched

_PERIOD: Final = 0.1  # seconds between two drawings, at least

Place: TypeAlias = tuple[str, ...]
State: TypeAlias = Frozen[Place, Record]


class ViewWatch:
    """One run of the command; `final` is what to write when it has ended."""

    final: str

    def __init__(self, watched: Watched, *, exits: bool) -> None:
        self.final = ""
        self._exits = exits  # as soon as the state is there
        self._watched = watched
        self._console = Console()

    async def run(self, opening: AbstractAsyncContextManager[Store]) -> None:
        """Until it is cancelled, or has the state if that is all.

        `click.ClickException` when the state cannot be followed any more.
        """
        view: View[Place, Record]
        watched = self._watched
        try:
            async with (
                opening as store,
                open_store_publisher(store, watched.topics) as publisher,
                open_view(publisher.subscribe, watched.request, key=self._place) as view,
            ):
                if self._exits:
                    self.final = _text(await view.wait_current())
                elif self._console.is_terminal:
                    await self._draw(view)
                else:
                    await self._follow(view)
        except ViewEnded as ended:
            raise click.ClickException(f"the state cannot be followed: {ended.__cause__}") from ended

    def _place(self, topic: Topic[Record], record: Record) -> Place:
        return tuple(self._watched.place(topic.name, record))

    async def _draw(self, view: View[Place, Record]) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            while True:
                drawn = await view.wait_current()
                live.update(_table(drawn, self._watched.columns), refresh=True)
                await anyio.sleep(_PERIOD)
                await view.wait_for(partial(is_not, drawn))

    async def _follow(self, view: View[Place, Record]) -> None:
        try:
            await view.wait_current()
            click.echo("-- following; the state is written in the end", err=True)
            await view.wait_for(lambda _: False)
        finally:
            self.final = _text(view.frozen())


def _table(state: State, columns: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption=f"as of {state.index}")
    for column in (*columns, "value"):
        table.add_column(column)
    for place in sorted(state):
        table.add_row(*map(Text, map(key_text, place)), Text(value_text(state[place].value)))
    return table


def _text(state: State) -> str:
    lines = [f"{place_text(place)}  {value_text(state[place].value)}\n" for place in sorted(state)]
    return "".join([*lines, f"-- as of {state.index}\n"])
