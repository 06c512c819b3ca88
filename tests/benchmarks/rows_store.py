"""Row: the store in one SQLite file, by the wall clock, because it waits for the disk."""

import tempfile
from functools import partial
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import anyio

from trio_stream.stores import Put, open_store

from .row import Figure, Load, Row, Sample
from .rows_follow import PACE, PACED, latency
from .store_writer import TOPIC
from .timing import settle


async def _store(synchronous: str, commits: int) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:{Path(directory) / 'bench.db'}"
        async with open_store(url, synchronous=synchronous) as store:
            settle()
            begin = perf_counter()
            for number in range(commits):
                await store.commit([Put(TOPIC, f"key-{number}", number)])
            committing = perf_counter() - begin
            begin = perf_counter()
            async with store.changes(0) as changes:
                async for commit in changes:
                    if commit.index == commits:
                        break
            replaying = perf_counter() - begin
        took = quantiles(await latency(url, PACED, PACE), n=100)
    return {
        "commits": commits / committing,
        "replay": commits / replaying,
        "p50": took[49] * 1e3,
        "p99": took[98] * 1e3,
    }


def store(backend: str, synchronous: str, load: Load) -> Sample:
    return anyio.run(_store, synchronous, load.n, backend=backend)


ROWS = (
    Row(
        "store",
        "The SQLite store: one put in each commit, one after the other; and commits of another process",
        (
            Figure("commits", "commits/s", more_is_better=True),
            Figure("replay", "commits/s read again", more_is_better=True),
            Figure("p50", "ms from another process's commit to receive, half of them"),
            Figure("p99", "ms, 99 of 100 of them"),
        ),
        {
            "FULL, on trio": partial(store, "trio", "FULL"),
            "NORMAL, on trio": partial(store, "trio", "NORMAL"),
            "FULL, on asyncio": partial(store, "asyncio", "FULL"),
        },
        (2_000,),
        (500,),
        counts="commits",
        rounds=2,
    ),
)
