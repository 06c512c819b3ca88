"""The promises under every order of tasks that is tried; each failure says how to replay it."""

from collections import Counter
from itertools import islice

import pytest
from backends import needs_uvloop
from evidence import count, note
from model.books import Plan
from proof import amount
from schedules import explore
from schedules.explore import LONG, SMALL
from schedules.orders import Seeded, exhaustive
from schedules.stage import Actor, Script, Stage, play

pytestmark = pytest.mark.slow

PARTS = amount(1, 10)
LIVES = {  # random ones in each part
    "trio": amount(30, 100),
    "asyncio": amount(30, 100),
    "uvloop": amount(10, 20),
}
EVENT_LOOPS = ("manual", "trio", "asyncio")
# What happens in every few of those with everything at once.
WHAT = ("fresh", "resumed", "marker", "lagged", "withdrawn", "conflated", "pages", "finished")
# Of each longer script: orders at most, and random ones beyond.
MOST = amount(100, 10_000)
RANDOM = amount(30, 1_000)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(
    "backend",
    ["trio", "asyncio", pytest.param("uvloop", marks=needs_uvloop)],
)
def test_the_promises_hold_in_whatever_order_tasks_run(backend: str, part: int) -> None:
    """D1, D2, D3, D4, D5, D6, D7, D8, D9, D11, D12, D13, D14, D16, D17, D18.

    On uvloop tasks run in its one order, for its queue cannot be reached: there it is the course of events that varies.
    """
    number = LIVES[backend]
    lives = explore.random_lives(backend, range(part * number, (part + 1) * number))
    assert len(lives.orders) == (1 if backend == "uvloop" else number)
    count("lives", backend, number)
    count("life events", backend, lives.events)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("backend", ["trio", "asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_the_promises_hold_with_everything_at_once_in_whatever_order_tasks_run(
    backend: str, part: int
) -> None:
    """D1, D2, D3, D4, D5, D6, D7, D9, D12, D13, D16, D17, D19, D20, D21, D22."""
    number = LIVES[backend]
    seen: Counter[str] = Counter()
    for seed in range(part * number, (part + 1) * number):
        seen += explore.one_whole_life(backend, seed)[1]
    if number >= 30:  # as many as each of it is sure to happen in
        assert min(seen[what] for what in WHAT) > 0
    count("whole lives", backend, number)
    for what in WHAT:
        count("in whole lives", f"{what}: {backend}", seen[what])


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("backend", EVENT_LOOPS)
def test_every_order_there_is_of_a_small_script_keeps_the_promises(backend: str, name: str) -> None:
    """D1, D2, D3, D4, D5, D6, D9, D11, D12, D13, D14, D16: to the last one, and in each everybody comes to his end."""
    seen = set()
    is_whole = False
    for order in exhaustive(100_000):
        explore.one_script(backend, name, order)
        seen.add(order.key)
        is_whole = order.is_last
    assert is_whole
    note("orders of small scripts", f"{name}: {backend}", len(seen))


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("backend", EVENT_LOOPS)
def test_a_longer_script_keeps_the_promises_in_its_first_orders_and_in_random_ones(
    backend: str, name: str
) -> None:
    """D1, D2, D3, D4, D5, D6, D9, D11, D12, D13, D14."""
    seen = set()
    is_whole = False
    for order in islice(exhaustive(MOST + 1), MOST):
        explore.one_script(backend, name, order)
        seen.add(order.key)
        is_whole = order.is_last
    if not is_whole:
        for seed in range(RANDOM):
            sample = Seeded(seed)
            explore.one_script(backend, name, sample)
            seen.add(sample.key)
    note("orders of longer scripts", f"{name}: {backend}", [len(seen), is_whole])


@pytest.mark.parametrize(("backend", "orders"), [("manual", 20), ("trio", 8), ("asyncio", 8)])
def test_of_two_tasks_with_three_steps_each_every_order_is_tried_once(backend: str, orders: int) -> None:
    """6! / (3! 3!) where any step may be the next; where all that are ready run in turn, 2 in each of 3 turns."""
    seen: list[str] = []

    def walks(name: str) -> Actor:
        async def walk(stage: Stage) -> None:
            for _ in range(2):
                seen[-1] += name
                await stage.pause()
            seen[-1] += name

        return walk

    script = Script({"a": walks("a"), "b": walks("b")}, [Plan()])
    for order in exhaustive(100):
        seen.append("")
        play(script, backend, order)
    assert len(set(seen)) == len(seen) == orders
    assert {"".join(sorted(each)) for each in seen} == {"aaabbb"}


def test_a_seed_gives_the_same_order_again() -> None:
    """What a failure prints must replay it."""
    for backend in ("trio", "asyncio"):
        assert explore.one_life(backend, 7)[0].taken == explore.one_life(backend, 7)[0].taken
        assert explore.one_life(backend, 7)[0].taken != explore.one_life(backend, 8)[0].taken
