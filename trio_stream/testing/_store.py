"""The conformance kit of the store protocol: what every engine must pass.

Each check is about one promise and begins where the store stands, so that none needs an empty store, and all may
run on one.
They write to topics of their own whose names begin with "check-", and compact the log.
"""

from collections.abc import Sequence
from typing import Final

import anyio.lowlevel

from ._store_cancel import CANCEL_CHECKS
from ._store_changes import CHANGES_CHECKS
from ._store_commit import COMMIT_CHECKS
from ._store_read import READ_CHECKS
from ._store_trial import StoreCheck, StoreFactory

STORE_CHECKS: Final[Sequence[StoreCheck]] = (*COMMIT_CHECKS, *READ_CHECKS, *CHANGES_CHECKS, *CANCEL_CHECKS)
"""All checks, each an async function of the factory; its name says what it checks."""


async def check_store(factory: StoreFactory, *, checks: Sequence[StoreCheck] = STORE_CHECKS) -> None:
    """Runs all checks, one after the other, on what `factory` opens; `PromiseBroken` for the first that fails.

    `factory`: opens the store, and opens the same one each time it is called; two may be open at once, as two
    processes would have it. The store is written to: give it one of its own.
    `checks`: some of `STORE_CHECKS`, which a test runner can also call one by one: `await check(factory)`.

    A check waits for what must come: wrap it in `fail_after`.
    """
    await anyio.lowlevel.checkpoint()
    for check in checks:
        await check(factory)
