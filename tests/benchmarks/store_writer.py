"""Another process of the store: `python -m benchmarks.store_writer URL COMMITS` makes commits at an even pace.

The value of each is the time at which it was asked for, of a clock that the processes of a machine share.
"""

import sys
from time import perf_counter
from typing import Final

import anyio

from trio_stream.stores import Put, open_store

TOPIC: Final = "values"
PACE: Final = 0.005  # seconds between two commits


async def main(url: str, commits: int) -> None:
    async with open_store(url) as store:
        for number in range(commits):
            await store.commit([Put(TOPIC, f"key-{number}", perf_counter())])
            await anyio.sleep(PACE)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
