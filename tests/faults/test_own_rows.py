"""The application of the documentation that has a table of its own in an SQLite file, killed at random."""

import random
from functools import partial
from pathlib import Path

import pytest
from evidence import count
from faults.own_rows import EXAMPLES, ROWS, Application, Row, Told, check, run
from proof import amount
from stores.storehouse import open_at, sql

from trio_stream.stores import Commit, Put

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KILLS = amount(4, 100)  # on each back end


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_no_kill_leaves_a_row_without_its_event_or_an_event_without_its_row(
    anyio_backend: str, path: Path
) -> None:
    application = Application(EXAMPLES / "your_own_rows.py", str(path))
    await application.create()
    async with open_at(path, busy_timeout=60) as store:
        await run(application, store, partial(sql, path, ROWS), KILLS, random.Random(anyio_backend))
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    count("fault", "SQLite: an application with a table of its own killed: row and event, or neither", KILLS)


ROW = (1, "tea", 1)
EVENT = Commit(1, (Put("orders", "1", {"item": "tea", "count": 1}),))
NEXT = Commit(2, (Put("orders", "2", {"item": "tea", "count": 2}),))
AGAIN = Commit(2, (Put("orders", "2", {"item": "tea", "count": 1}),))
TOLD = Told(1, "tea", 1)


def test_a_row_and_its_event_are_right() -> None:
    check([ROW], [EVENT], [TOLD])


@pytest.mark.parametrize(
    ("rows", "events", "told"),
    [
        pytest.param([ROW, (2, "tea", 2)], [EVENT], [TOLD], id="a row without its event"),
        pytest.param([ROW], [EVENT, NEXT], [TOLD], id="an event without its row"),
        pytest.param([(1, "tea", 2)], [EVENT], [TOLD], id="another row"),
        pytest.param([ROW], [EVENT, Commit(2, EVENT.operations)], [TOLD], id="an event twice"),
        pytest.param([ROW], [EVENT], [TOLD, Told(2, "tea", 2)], id="an acknowledged order lost"),
        pytest.param([ROW, (2, "tea", 1)], [EVENT, AGAIN], [TOLD], id="an order twice"),
    ],
)
def test_what_is_wrong_is_found(rows: list[Row], events: list[Commit], told: list[Told]) -> None:
    with pytest.raises(AssertionError):
        check(rows, events, told)
