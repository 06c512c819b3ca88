"""A pytest plugin (`-p sweeps`) that counts the suspensions at which calls were cancelled, for the report."""

from collections import Counter

import interruptions
from evidence import note
from interruptions import Call, Interrupt, Step

calls: Counter[str] = Counter()
cancelled: Counter[str] = Counter()


def counted(way: Interrupt) -> Interrupt:
    name = getattr(way, "__name__", "another way")

    async def counting(call: Call, at: int, otherwise: Step) -> bool:
        was_cancelled = await way(call, at, otherwise)
        calls[name] += 1
        cancelled[name] += was_cancelled
        return was_cancelled

    return counting


for way in (interruptions.by_scope, interruptions.natively):
    setattr(interruptions, way.__name__, counted(way))


def pytest_sessionfinish() -> None:
    for name in calls:
        note("sweep", f"calls driven, {name}", calls[name])
        note("sweep", f"calls cancelled, {name}", cancelled[name])
