"""How time is taken.

Throughput is measured in processor seconds of the process: on a machine with other work the wall clock would
measure that work.
What is measured does not wait for anything, so on a machine without other work both are the same.
Latency is measured by the wall clock.
"""

import gc
from collections.abc import Awaitable, Callable
from statistics import median
from time import process_time

BLOCK = 0.02  # seconds, below which one reading of the clock is not worth much
LEAST = 3  # blocks


def settle() -> None:
    """Puts what is there out of the collector's sight; the collector itself stays on, as in an application."""
    gc.collect()
    gc.freeze()


async def seconds_each(work: Callable[[int], Awaitable[float]], seconds: float) -> float:
    """The median of the processor time of one repetition; `work` does so many and returns what they took.

    It may do more than it counts; `seconds` is for all of it. The first blocks are the warm-up.
    """
    begin = process_time()
    count = 1
    while await work(count) < BLOCK and process_time() - begin < seconds / 4:
        count *= 2
    blocks: list[float] = []
    while len(blocks) < LEAST or process_time() - begin < seconds:
        blocks.append(await work(count) / count)
    return median(blocks)
