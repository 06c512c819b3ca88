"""Compaction in small steps, each a transaction of its own, so that nobody waits long for the lock.

First the floor is raised: from then on the commits up to it are gone for everybody.
Then their rows are removed, some at a time, and the pages that become free are given back to the file system.
A step is made larger or smaller so that it keeps the lock for about `_STEP` seconds; after each, the lock is free for
as long as it was held, because SQLite lets whoever waits look for it now and then only.
What an interrupted compaction leaves behind is removed by the next one.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import anyio

from ._sqlite_database import Database, Step
from ._threads import Threads

_STEP: Final = 0.008  # seconds
_FIRST: Final = 16  # rows or pages
_MOST: Final = 16_384


async def compact(database: Database, threads: Threads, index: int) -> None:
    """Forgets the commits up to `index`; `ValueError` if there is no such commit yet."""
    await threads.run(partial(database.raise_floor, index))
    for work in (database.trim, database.shrink):
        await _in_steps(work, threads)
    await threads.run(database.checkpoint)


async def _in_steps(work: Callable[[int], Step], threads: Threads) -> None:
    size = _FIRST
    while True:
        step = await threads.run(partial(work, size))
        if step.is_last:
            return
        if step.seconds > _STEP:
            size = max(1, size // 2)
        elif step.seconds < _STEP / 2:
            size = min(size * 2, _MOST)
        await anyio.sleep(step.seconds)
