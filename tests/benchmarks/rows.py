"""All rows, by name, in the order of the table."""

from collections.abc import Mapping

from . import (
    rows_bulk,
    rows_commits,
    rows_fan,
    rows_fleet,
    rows_follow,
    rows_import,
    rows_interests,
    rows_latency,
    rows_memory,
    rows_postgresql,
    rows_publish,
    rows_replay,
    rows_slow,
    rows_snapshot,
    rows_store,
    rows_subscribe,
    rows_view,
)
from .row import Row

_CORE = (
    rows_fan,
    rows_publish,
    rows_interests,
    rows_subscribe,
    rows_latency,
    rows_slow,
    rows_snapshot,
    rows_memory,
    rows_view,
    rows_import,
)
_STORES = (rows_store, rows_commits, rows_follow, rows_bulk, rows_replay)
_POSTGRESQL = (rows_postgresql,)
_FLEET = (rows_fleet,)

# The names of the rows in each file of a report, which are written by runs of their own: the disk has bad days.
FILES: Mapping[str, tuple[str, ...]] = {
    "performance.inc": tuple(row.name for module in _CORE for row in module.ROWS),
    "performance-stores.inc": tuple(row.name for module in _STORES for row in module.ROWS),
    "performance-postgresql.inc": tuple(row.name for module in _POSTGRESQL for row in module.ROWS),
    "performance-fleet.inc": tuple(row.name for module in _FLEET for row in module.ROWS),
}

ROWS: Mapping[str, Row] = {
    row.name: row for module in (*_CORE, *_STORES, *_POSTGRESQL, *_FLEET) for row in module.ROWS
}
