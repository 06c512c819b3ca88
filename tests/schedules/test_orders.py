"""The promises under every order of tasks that is tried; each failure says how to replay it."""

from itertools import islice

import pytest
from evidence import note
from proof import amount
from schedules import explore
from schedules.orders import Seeded, exhaustive
from schedules.scripts import SCRIPTS

LIVES = amount(30, 500)  # random lives on each back end
SCRIPTED = {  # orders of each script at most, and random ones beyond
    "manual": (amount(60, 10_000), amount(20, 1_000)),
    "trio": (amount(20, 1_500), amount(10, 500)),
    "asyncio": (amount(20, 1_500), amount(10, 500)),
}


@pytest.mark.parametrize("backend", explore.BACKENDS)
def test_the_promises_hold_in_whatever_order_tasks_run(backend: str) -> None:
    """D1, D2, D3, D4, D5, D6, D7, D8, D9, D11, D12, D13, D14, D16, D17, D18.

    On uvloop tasks run in its one order, for its queue cannot be reached: there it is the course of events that varies.
    """
    lives = explore.random_lives(backend, range(LIVES))
    assert len(lives.orders) == (1 if backend == "uvloop" else LIVES)
    note("lives", backend, LIVES)
    note("life orders", backend, len(lives.orders))
    note("life events", backend, lives.events)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("backend", SCRIPTED)
def test_a_small_script_keeps_the_promises_in_every_order(backend: str, name: str) -> None:
    """D1, D2, D3, D4, D5, D6, D9, D12, D13, D14: all orders, or the first so many of them and random ones."""
    most, random = SCRIPTED[backend]
    seen = set()
    is_whole = False
    for order in islice(exhaustive(most + 1), most):
        explore.one_script(backend, name, order)
        seen.add(order.key)
        is_whole = order.is_last
    if not is_whole:
        for seed in range(random):
            sample = Seeded(seed)
            explore.one_script(backend, name, sample)
            seen.add(sample.key)
    note(f"script orders {'all' if is_whole else 'some'}", f"{backend}: {name}", len(seen))


def test_a_seed_gives_the_same_order_again() -> None:
    """What a failure prints must replay it."""
    for backend in ("trio", "asyncio"):
        assert explore.one_life(backend, 7)[0].taken == explore.one_life(backend, 7)[0].taken
        assert explore.one_life(backend, 7)[0].taken != explore.one_life(backend, 8)[0].taken
