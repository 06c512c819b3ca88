"""The kinds of faults that are counted, and how many of each there are to be."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

from faults import trials
from faults.places import LossyPair, Pair, PostgreSQLPlace, SQLitePlace
from faults.trials import Found
from stores.postgresql.server import Server

Trial: TypeAlias = Callable[[Any, Random, int], Awaitable[Found]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind on one engine."""

    what: str
    aim: int
    at_once: int
    """As many are done in one trial, between which everything is checked."""
    trial: Trial
    place: Callable[[Path], Any]
    """A context: a place of its own for each trial."""


@contextmanager
def in_sqlite(folder: Path) -> Iterator[SQLitePlace]:
    yield SQLitePlace(folder)


@contextmanager
def in_postgresql(_: Path) -> Iterator[PostgreSQLPlace]:
    server = Server()
    try:
        server.create()
        server.start()
        yield PostgreSQLPlace(server)
    finally:
        server.remove()


@contextmanager
def in_pair(_: Path, kind: type[Pair] = Pair) -> Iterator[Pair]:
    pair = kind()
    try:
        pair.start()
        yield pair
    finally:
        pair.remove()


_KILLED = (
    "nothing acknowledged lost, nothing torn, nothing twice, no reader with another state than the log's"
)
_STALE = "no reader with another state than its log's, all who had seen what is lost began anew"
_PLACES: Final = {"SQLite": in_sqlite, "PostgreSQL": in_postgresql}

KINDS: Final[dict[str, Kind]] = {
    **{
        f"kills on {engine}": Kind(
            f"a writer on {engine} killed with `kill -9`: {_KILLED}", 200, 10, trials.kills, place
        )
        for engine, place in _PLACES.items()
    },
    **{
        f"applications on {engine}": Kind(
            f"an application on {engine} with rows of its own killed with `kill -9`: "
            "never a row without its event, never an event without its row, and the same",
            100,
            10,
            trials.kills_of_applications,
            place,
        )
        for engine, place in _PLACES.items()
    },
    "restarts on PostgreSQL": Kind(
        f"the server of PostgreSQL killed or shut down at once, and started again: {_KILLED}",
        50,
        10,
        trials.restarts,
        in_postgresql,
    ),
    "promotions on PostgreSQL": Kind(
        f"the primary of PostgreSQL killed with `kill -9`, its synchronous standby promoted: {_KILLED}",
        10,
        2,
        trials.promotions,
        in_pair,
    ),
    "restores under writers on PostgreSQL": Kind(
        f"an older copy in the place of a store in PostgreSQL while others commit: {_STALE},"
        " each acknowledged commit on the log that it was made to, once",
        50,
        5,
        trials.restores_under_writers,
        in_postgresql,
    ),
    "lossy promotions on PostgreSQL": Kind(
        f"the primary of PostgreSQL killed with `kill -9`, a standby promoted that lacks commits: {_STALE}",
        10,
        2,
        trials.restores,
        partial(in_pair, kind=LossyPair),
    ),
    **{
        f"restores on {engine}": Kind(
            f"an older copy in the place of a store in {engine}, while its publishers ran or were stopped: "
            f"{_STALE}",
            50,
            5,
            trials.restores,
            place,
        )
        for engine, place in _PLACES.items()
    },
}
