"""Another process at PostgreSQL, by hand: `python -m benchmarks.postgresql_writer URL COMMITS PACE`.

What `store_writer` does with a store: commits at an even pace, each with the time at which it was asked for.
"""

import sys
from time import perf_counter, sleep

import psycopg

from . import by_hand_postgresql
from .store_writer import TOPIC


def main(url: str, commits: int, pace: float) -> None:
    """`pace`: seconds before each commit."""
    with psycopg.connect(url) as connection:
        for number in range(commits):
            sleep(pace)
            by_hand_postgresql.commit(connection, TOPIC, f"key-{number}", perf_counter())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
