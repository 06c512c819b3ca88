"""All rows, by name, in the order of the table."""

from collections.abc import Mapping

from . import (
    rows_bulk,
    rows_commits,
    rows_fan,
    rows_follow,
    rows_import,
    rows_latency,
    rows_memory,
    rows_publish,
    rows_snapshot,
    rows_store,
    rows_subscribe,
    rows_view,
)
from .row import Row

_MODULES = (
    rows_fan,
    rows_publish,
    rows_subscribe,
    rows_latency,
    rows_snapshot,
    rows_memory,
    rows_view,
    rows_store,
    rows_commits,
    rows_follow,
    rows_bulk,
    rows_import,
)

ROWS: Mapping[str, Row] = {row.name: row for module in _MODULES for row in module.ROWS}
