"""One of many processes that commit at once: `python -m benchmarks.store_committer WAY PATH NAME SECONDS`.

It says "ready", begins when a line comes, and says how many commits it made.
Without SECONDS it commits until it is killed.
"""

import sys
from itertools import count
from pathlib import Path
from time import perf_counter

import anyio

from trio_stream.stores import Put, Store, open_store

from . import by_hand

OTHERS = "others"  # the topic


async def commit_for(store: Store, name: str, seconds: float) -> int:
    """Commits one put after the other, for so long; how many."""
    end = perf_counter() + seconds
    for number in count(1):
        await store.commit([Put(OTHERS, f"{name}-{number % 1000}", number)])
        if perf_counter() >= end:
            return number
    raise AssertionError


def wait_for_start() -> None:
    say("ready")
    sys.stdin.readline()


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def _ours(path: Path, name: str, seconds: float) -> int:
    async with open_store(f"sqlite:{path}", busy_timeout=60) as store:
        await store.head()
        wait_for_start()
        return await commit_for(store, name, seconds)


def _by_hand(path: Path, name: str, seconds: float) -> int:
    with by_hand.connected(path) as connection:
        by_hand.head(connection)
        wait_for_start()
        return by_hand.commit_for(connection, OTHERS, name, seconds)


def main(way: str, path: str, name: str, seconds: str = "inf") -> None:
    if way == "by hand":
        say(_by_hand(Path(path), name, float(seconds)))
    else:
        say(anyio.run(_ours, Path(path), name, float(seconds), backend=way))


if __name__ == "__main__":
    main(*sys.argv[1:])
