"""Compaction in small steps, each a transaction of its own, beside which others write.

First the floor is raised: from then on the commits up to it are gone for everybody.
Then their rows are removed, some at a time; what an interrupted compaction leaves behind is removed by the next one.
The server reuses their space (autovacuum).
"""

from functools import partial
from typing import Final

from ._postgresql_database import IDS_KEPT, Database
from ._threads import Threads

_STEP: Final = 0.02  # seconds, about
_FIRST: Final = 256  # rows
_MOST: Final = 16_384


async def compact(database: Database, threads: Threads, index: int) -> None:
    """Forgets the commits up to `index`; `ValueError` if there is no such commit yet."""
    await threads.run(partial(database.raise_floor, index))
    size = _FIRST
    is_last = False
    while not is_last:
        seconds, is_last = await threads.run(partial(database.trim, size))
        if seconds > _STEP:
            size = max(1, size // 2)
        elif seconds < _STEP / 2:
            size = min(size * 2, _MOST)
    await threads.run(partial(database.forget_ids, IDS_KEPT))
