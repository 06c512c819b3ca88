"""Tries orders of tasks: `python tests/schedules/explore.py BACKEND SEED` replays one random life.

`python tests/schedules/explore.py BACKEND whole SEED` replays one of those with everything at once.
`python tests/schedules/explore.py BACKEND SCRIPT 0.2.1` replays one script with the choices made in it.
"""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from schedules import interests, scripts, whole
from schedules.everything import WholeLife
from schedules.life import Life
from schedules.orders import Order, Replayed, Seeded, run
from schedules.stage import play

SMALL = {**scripts.SMALL, **interests.SMALL, **whole.SMALL}
LONG = {**scripts.LONG, **interests.LONG, **whole.LONG}
SCRIPTS = {**SMALL, **LONG}


@dataclass
class Lives:
    """What random lives were tried: the distinct orders, and the events that the readers got."""

    orders: set[tuple[int, ...]] = field(default_factory=set)
    events: int = 0


def one_life(backend: str, seed: int) -> tuple[Order, int]:
    """A random life under a random order of tasks, which are the same for the same seed."""
    order = Seeded(seed)
    try:
        events = run(backend, order, Life(seed).run).events
    except BaseException as error:
        error.add_note(f"replay: python tests/schedules/explore.py {backend} {seed}")
        raise
    return order, events


def one_whole_life(backend: str, seed: int) -> tuple[Order, Counter[str]]:
    """The same, with everything at once; what has happened in it."""
    order, life = Seeded(seed), WholeLife(seed)
    try:
        run(backend, order, life.run)
    except BaseException as error:
        error.add_note(f"replay: python tests/schedules/explore.py {backend} whole {seed}")
        raise
    return order, life.world.seen


def one_script(backend: str, name: str, order: Order) -> None:
    """A small script under one order of tasks."""
    try:
        play(SCRIPTS[name], backend, order)
    except BaseException as error:
        choices = ".".join(map(str, order.key))
        error.add_note(f"replay: python tests/schedules/explore.py {backend} {name!r} {choices or 0}")
        raise


def random_lives(backend: str, seeds: Iterable[int]) -> Lives:
    lives = Lives()
    for seed in seeds:
        order, events = one_life(backend, seed)
        lives.orders.add(order.key)
        lives.events += events
    return lives


if __name__ == "__main__":
    backend, what, *choices = sys.argv[1:]
    if what == "whole":
        one_whole_life(backend, int(choices[0]))
    elif choices:
        one_script(backend, what, Replayed([int(choice) for choice in choices[0].split(".")]))
    else:
        one_life(backend, int(what))
