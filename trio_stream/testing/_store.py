"""The conformance kit of the store protocol: what every engine must pass.

Each check is about one promise and begins where the store stands, so that none needs an empty store, and all may
run on one.
They write to topics of their own whose names begin with "check-", revoke tokens of their own, and compact the log.
Nobody else commits to the store meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio.lowlevel

from ._store_cancel import CANCEL_CHECKS
from ._store_changes import CHANGES_CHECKS
from ._store_commit import COMMIT_CHECKS
from ._store_course import COURSE_CHECKS
from ._store_guard import PATIENCE
from ._store_hooks import HOOK_CHECKS
from ._store_marks import MARK_CHECKS
from ._store_options import OPTION_CHECKS
from ._store_read import READ_CHECKS
from ._store_trial import StoreCheck, StoreFactory
from ._store_writers import WRITER_CHECKS

STORE_CHECKS: Final[Sequence[StoreCheck]] = (
    *COMMIT_CHECKS,
    *READ_CHECKS,
    *CHANGES_CHECKS,
    *WRITER_CHECKS,
    *MARK_CHECKS,
    *OPTION_CHECKS,
    *CANCEL_CHECKS,
    *COURSE_CHECKS,
    *HOOK_CHECKS,
)
"""All checks, each an async function of the factory; its name says what it checks."""


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What `check_store` has found out about a store that keeps its promises."""

    kept: Sequence[str] = ()
    """The names of the checks that it has passed."""
    not_run: Mapping[str, str] = field(default_factory=dict)
    """The names of the checks that could not be made, each with the reason."""


async def check_store(
    factory: StoreFactory, *, checks: Sequence[StoreCheck] = STORE_CHECKS, patience: float = PATIENCE
) -> StoreReport:
    """Runs all checks, one after the other, on what `factory` opens; `PromiseBroken` for the first that fails.

    `factory`: opens the store, and opens the same one each time it is called; several may be open at once, as several
    processes would have it. The store is written to: give it one of its own.
    It may offer more, for checks that need it: `KillsStore`, `RestartsStore`, `RewindsStore`.
    `checks`: some of `STORE_CHECKS`, which a test runner can also call one by one: `await check(factory)` returns None
    for a promise that is kept, or why it could not be checked.
    `patience`: seconds that one call of the store may take, of real time; a call that takes longer is a broken promise.

    Whatever the store raises or returns that it must not is `PromiseBroken`, with the exception as its cause.
    """
    await anyio.lowlevel.checkpoint()
    outcomes = {check.__name__: await check(factory, patience=patience) for check in checks}
    return StoreReport(
        tuple(name for name, reason in outcomes.items() if reason is None),
        {name: reason for name, reason in outcomes.items() if reason is not None},
    )
