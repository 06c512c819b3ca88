"""The application of the documentation that has a table of its own in a PostgreSQL database, killed at random."""

import random
from functools import partial

import pytest
from evidence import count
from faults.own_rows import EXAMPLES, ROWS, Application, run
from proof import amount
from stores.postgresql.server import Server

from trio_stream.stores import open_store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KILLS = amount(4, 100)  # on each back end


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_no_kill_leaves_a_row_without_its_event_or_an_event_without_its_row(
    anyio_backend: str, server: Server
) -> None:
    database = server.new_database()
    application = Application(EXAMPLES / "postgresql" / "orders.py", server.url(database))
    await application.create()
    async with open_store(application.place) as store:
        await run(
            application,
            store,
            partial(server.sql, ROWS, database=database),
            KILLS,
            random.Random(anyio_backend),
        )
    count(
        "fault", "PostgreSQL: an application with a table of its own killed: row and event, or neither", KILLS
    )
