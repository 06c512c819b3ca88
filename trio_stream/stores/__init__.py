"""State stores: where the events come from, durable and shared by processes.

`Store` says what a store does, `open_store` opens one, `open_store_publisher` has it feed a publisher.
"""

from ._errors import (
    BehindError,
    CommitUnknownError,
    ConflictError,
    HistoryLostError,
    LimitExceededError,
    StoreError,
    UnreadableCommitError,
)
from ._feed import open_store_publisher
from ._open import open_store
from ._retention import Retention
from ._status import DescribedStore, StoreStatus
from ._store import Store
from ._topic_log import PagedLog, TopicLog
from ._values import (
    JSON,
    MAX_DEPTH,
    MOST_REVOKED,
    Change,
    Commit,
    Delete,
    Entry,
    EpochIndex,
    Head,
    Limits,
    Name,
    Operation,
    Put,
    Record,
    Revocations,
    Revoke,
    token_digest,
    topic,
)
from ._wide import WideStore

__all__ = [
    "JSON",
    "MAX_DEPTH",
    "MOST_REVOKED",
    "BehindError",
    "Change",
    "Commit",
    "CommitUnknownError",
    "ConflictError",
    "Delete",
    "DescribedStore",
    "Entry",
    "EpochIndex",
    "Head",
    "HistoryLostError",
    "LimitExceededError",
    "Limits",
    "Name",
    "Operation",
    "PagedLog",
    "Put",
    "Record",
    "Retention",
    "Revocations",
    "Revoke",
    "Store",
    "StoreError",
    "StoreStatus",
    "TopicLog",
    "UnreadableCommitError",
    "WideStore",
    "open_store",
    "open_store_publisher",
    "token_digest",
    "topic",
]
