"""Tools to prove one's own parts: traces, snapshot handlers, stores, cancellation and schedules.

Nothing here needs pytest or any other test runner: what is wrong is raised as `PromiseBroken`, an `AssertionError`.
"""

from ._broken import PromiseBroken
from ._cancel import cancel_at_every_checkpoint
from ._collect import collect
from ._handler import check_snapshot_handler
from ._schedule import Schedule, seeded_schedule
from ._store import STORE_CHECKS, StoreReport, check_store
from ._store_hooks import KillsStore, RestartsStore, RewindsStore
from ._store_trial import StoreCheck, StoreFactory
from ._trace import Model, State, check_trace

__all__ = [
    "STORE_CHECKS",
    "KillsStore",
    "Model",
    "PromiseBroken",
    "RestartsStore",
    "RewindsStore",
    "Schedule",
    "State",
    "StoreCheck",
    "StoreFactory",
    "StoreReport",
    "cancel_at_every_checkpoint",
    "check_snapshot_handler",
    "check_store",
    "check_trace",
    "collect",
    "seeded_schedule",
]
