"""Processes and servers killed with `kill -9` at random moments, under readers that stay and readers that hop.

D1 to D6 for readers in a process that lives, and durability of what was acknowledged.
These are a few of each kind; `python tests/faults` does as many as the report has.
"""

import random
from typing import Final

import pytest
from evidence import count
from faults import trials
from faults.kinds import KINDS
from faults.places import Pair, Place, PostgreSQLPlace
from faults.trials import Found
from stores.postgresql.server import Server

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TIMES: Final = 5  # on each back end

on_both_libraries = pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])


def counted(kind: str, found: Found) -> None:
    count("fault", KINDS[kind].what, found.times)
    count("resumed", "beside faults", found.resumes)


@on_both_libraries
async def test_no_kill_of_a_writer_loses_tears_or_repeats_a_commit_for_anybody(
    place: Place, anyio_backend: str
) -> None:
    found = await trials.kills(place, random.Random(anyio_backend), TIMES)
    counted(f"kills on {place.engine}", found)


@on_both_libraries
async def test_no_kill_of_an_application_parts_its_rows_from_their_events(
    place: Place, anyio_backend: str
) -> None:
    found = await trials.kills_of_applications(place, random.Random(anyio_backend), TIMES)
    counted(f"applications on {place.engine}", found)


@on_both_libraries
async def test_no_end_of_the_server_loses_tears_or_repeats_a_commit_for_anybody(
    own_server: Server, anyio_backend: str
) -> None:
    found = await trials.restarts(PostgreSQLPlace(own_server), random.Random(anyio_backend), TIMES)
    counted("restarts on PostgreSQL", found)


@on_both_libraries
async def test_no_end_of_the_primary_loses_tears_or_repeats_a_commit_for_anybody(
    pair: Pair, anyio_backend: str
) -> None:
    found = await trials.promotions(pair, random.Random(anyio_backend), 1)
    counted("promotions on PostgreSQL", found)


@on_both_libraries
async def test_no_reader_goes_on_where_an_older_copy_does_not(place: Place, anyio_backend: str) -> None:
    """D7, D24: each of its states is that of the log that it was on."""
    found = await trials.restores(place, random.Random(anyio_backend), TIMES)
    counted(f"restores on {place.engine}", found)


@on_both_libraries
async def test_no_reader_goes_on_where_an_older_copy_under_writers_does_not(
    server: Server, anyio_backend: str
) -> None:
    """D7, D24, and each acknowledged commit is on the log that it was made to."""
    found = await trials.restores_under_writers(PostgreSQLPlace(server), random.Random(anyio_backend), TIMES)
    counted("restores under writers on PostgreSQL", found)


@on_both_libraries
async def test_no_reader_goes_on_where_a_standby_that_lacks_commits_does_not(
    lossy_pair: Pair, anyio_backend: str
) -> None:
    """D7, D24: as with an older copy."""
    found = await trials.restores(lossy_pair, random.Random(anyio_backend), 1)
    counted("lossy promotions on PostgreSQL", found)
