"""Forgetting commits in the transactions of those who commit, as a `Retention` says.

Now and then a transaction raises the floor and removes rows for a few milliseconds; what is left to remove is left to
the next one. It needs no wait for the disk of its own.
Where the log becomes much shorter the free pages are given back to the file system, too, some at a time; a few are
kept for what is written next.
"""

import sqlite3
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import closing
from typing import Final

from ._retention import Retention
from ._sqlite_statements import first_row, rows_of, run

_TRIM: Final = (
    "DELETE FROM ts_log WHERE idx IN"
    " (SELECT idx FROM ts_log WHERE idx <= (SELECT floor FROM ts_head) ORDER BY idx LIMIT ?)"
)
_TRIM_IDS: Final = (
    "DELETE FROM ts_ids WHERE id IN"
    " (SELECT id FROM ts_ids WHERE idx <= (SELECT floor FROM ts_head) AND at < ? ORDER BY idx LIMIT ?)"
)
_RAISE: Final = (
    "UPDATE ts_head SET (floor, floor_mark) = (SELECT idx, mark FROM ts_log WHERE ts_log.idx = ?)"
    " WHERE EXISTS (SELECT * FROM ts_log WHERE ts_log.idx = ?)"
)

_SHORTEST_MEMORY: Final = 600  # seconds that an id is remembered at least

_EVERY: Final = 64  # commits from one time to the next
_STEP: Final = 64  # rows, or pages
_SECONDS: Final = 0.004
_MOST_FREE: Final = 1024  # pages


class Retaining:
    """One process's part in it."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._left = 0  # commits until the next time

    def work(self, connection: sqlite3.Connection, commits: int) -> None:
        """A transaction has made so many commits, and is to be ended."""
        self._left -= commits
        if self._left > 0:
            return
        self._left = _EVERY
        index, floor = first_row(connection, "SELECT idx, floor FROM ts_head")
        wanted = self._floor(connection, floor, index)
        if wanted > floor:
            run(connection, _RAISE, (wanted, wanted))
        end = time.perf_counter() + _SECONDS
        while trim(connection, _STEP) and time.perf_counter() < end:
            pass
        (free,) = first_row(connection, "PRAGMA freelist_count")
        if free > _MOST_FREE:
            give_back(connection, _STEP)

    def _floor(self, connection: sqlite3.Connection, floor: int, index: int) -> int:
        """The newest commit that is to be forgotten."""
        if self._retention.commits is not None:
            floor = max(floor, index - self._retention.commits)
        if self._retention.age is None:
            return floor
        young = time.time() - self._retention.seconds
        log = range(floor + 1, index + 1)
        return floor + bisect_left(log, young, key=_time_of(connection))


def trim(connection: sqlite3.Connection, most: int) -> bool:
    """Removes some rows of what lies below the floor, at most so many; whether there may be more."""
    with closing(connection.execute(_TRIM, (most,))) as cursor:
        is_more = cursor.rowcount == most
    with closing(connection.execute(_TRIM_IDS, (time.time() - _SHORTEST_MEMORY, most))) as cursor:
        return is_more or cursor.rowcount == most


def give_back(connection: sqlite3.Connection, most: int) -> None:
    """Gives some free pages back to the file system, at most so many, if the file is one that does."""
    times = 1
    if sys.version_info < (3, 12):  # which does not step a statement to its end that has no columns
        (free,) = first_row(connection, "PRAGMA freelist_count")
        times, most = min(free, most), 1
    for _ in range(times):
        with rows_of(connection, f"PRAGMA incremental_vacuum({most:d})") as pages:
            for _ in pages:
                pass


def _time_of(connection: sqlite3.Connection) -> Callable[[int], float]:
    def time_of(index: int) -> float:
        match first_row(connection, "SELECT at FROM ts_log WHERE idx = ?", (index,)):
            case (int() | float() as at,):
                return at
            case _:  # what is missing or damaged can be forgotten
                return 0.0

    return time_of
