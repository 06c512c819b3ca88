"""State stores: where the events come from, durable and shared by processes.

`Store` says what a store does, `open_store` opens one, `open_store_publisher` has it feed a publisher.
"""

from ._errors import ConflictError, HistoryLostError, StoreError, UnreadableCommitError
from ._feed import open_store_publisher
from ._open import open_store
from ._store import Store
from ._values import JSON, MAX_DEPTH, Commit, Delete, Entry, Head, Name, Operation, Put, Record, topic

__all__ = [
    "JSON",
    "MAX_DEPTH",
    "Commit",
    "ConflictError",
    "Delete",
    "Entry",
    "Head",
    "HistoryLostError",
    "Name",
    "Operation",
    "Put",
    "Record",
    "Store",
    "StoreError",
    "UnreadableCommitError",
    "open_store",
    "open_store_publisher",
    "topic",
]
