"""`watch --view`: the current state as a table, drawn anew on a terminal and written once, in the end, elsewhere."""

from contextlib import AbstractAsyncContextManager
from functools import partial
from operator import is_not
from typing import Final

import anyio
import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trio_stream import SubscribeRequest
from trio_stream.stores import Record, Store, open_store_publisher
from trio_stream.view import Frozen, View, ViewEnded, open_view

from ._lines import key_text, value_text

_PERIOD: Final = 0.1  # seconds between two drawings, at least

State = Frozen[str, Record]


class ViewWatch:
    """One run of the command; `final` is what to write when it has ended."""

    final: str

    def __init__(self, request: SubscribeRequest[Record], *, exits: bool) -> None:
        self.final = ""
        self._exits = exits  # as soon as the state is there
        self._request = request
        self._console = Console()

    async def run(self, opening: AbstractAsyncContextManager[Store]) -> None:
        """Until it is cancelled, or has the state if that is all.

        `click.ClickException` when the state cannot be followed any more.
        """
        view: View[str, Record]
        try:
            async with (
                opening as store,
                open_store_publisher(store, [self._request.topic.name], history=0) as publisher,
                open_view(publisher.subscribe, self._request) as view,
            ):
                if self._exits:
                    self.final = _text(await view.wait_current())
                elif self._console.is_terminal:
                    await self._draw(view)
                else:
                    await self._follow(view)
        except ViewEnded as ended:
            raise click.ClickException(f"the state cannot be followed: {ended.__cause__}") from ended

    async def _draw(self, view: View[str, Record]) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            while True:
                drawn = await view.wait_current()
                live.update(_table(drawn), refresh=True)
                await anyio.sleep(_PERIOD)
                await view.wait_for(partial(is_not, drawn))

    async def _follow(self, view: View[str, Record]) -> None:
        try:
            await view.wait_current()
            click.echo("-- following; the state is written in the end", err=True)
            await view.wait_for(lambda _: False)
        finally:
            self.final = _text(view.frozen())


def _table(state: State) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption=f"as of {state.index}")
    table.add_column("key")
    table.add_column("value")
    for key in sorted(state):
        table.add_row(Text(key_text(key)), Text(value_text(state[key].value)))
    return table


def _text(state: State) -> str:
    lines = [f"{key_text(key)}  {value_text(state[key].value)}\n" for key in sorted(state)]
    return "".join([*lines, f"-- as of {state.index}\n"])
