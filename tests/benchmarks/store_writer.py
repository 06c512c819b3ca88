"""Another process of the store: `python -m benchmarks.store_writer URL COMMITS PACE` makes commits at an even pace.

The value of each is the time at which it was asked for, of a clock that the processes of a machine share.
"""

import sys
from time import perf_counter
from typing import Final

import anyio

from trio_stream.stores import Put, open_store

TOPIC: Final = "values"


async def main(url: str, commits: int, pace: float) -> None:
    """`pace`: seconds before each commit."""
    options = {"busy_timeout": 60} if url.startswith("sqlite:") else {}
    async with open_store(url, **options) as store:
        for number in range(commits):
            await anyio.sleep(pace)
            await store.commit([Put(TOPIC, f"key-{number}", perf_counter())])


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
