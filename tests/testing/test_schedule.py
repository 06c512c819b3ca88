"""`seeded_schedule`: the seed decides the order of tasks and of nothing else, and a failure can be seen again."""

import asyncio
from typing import Literal

import anyio
import anyio.lowlevel
import pytest
from trio._core import _run as trio_run

from trio_stream.testing import Schedule, seeded_schedule

Backend = Literal["trio", "asyncio"]

on_both = pytest.mark.parametrize("backend", ["trio", "asyncio"])


async def steps_of_four() -> str:
    """The order in which four tasks make three steps each."""
    order: list[str] = []

    async def steps(name: str) -> None:
        for _ in range(3):
            order.append(name)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for name in "abcd":
            tasks.start_soon(steps, name)
    return "".join(order)


def orders(backend: Backend, seeds: range) -> list[str]:
    return [seeded_schedule(seed).run(steps_of_four, backend=backend) for seed in seeds]


@on_both
def test_a_seed_gives_the_same_order_again(backend: Backend) -> None:
    assert orders(backend, range(10)) == orders(backend, range(10))


@on_both
def test_seeds_give_different_orders(backend: Backend) -> None:
    assert len(set(orders(backend, range(50)))) > 40


@on_both
def test_every_task_still_makes_its_steps(backend: Backend) -> None:
    assert all(sorted(order) == sorted("abcd" * 3) for order in orders(backend, range(10)))


@on_both
def test_arguments_go_in_and_the_result_comes_out(backend: Backend) -> None:
    async def add(one: int, other: int) -> int:
        await anyio.lowlevel.checkpoint()
        return one + other

    assert seeded_schedule(1).run(add, 1, 2, backend=backend) == 3


@on_both
def test_a_failure_says_which_seed_shows_it_again(backend: Backend) -> None:
    async def main() -> None:
        raise KeyError("a")

    with pytest.raises(KeyError) as caught:
        seeded_schedule(7).run(main, backend=backend)
    assert caught.value.__notes__ == [f"to see it again: seeded_schedule(7).run(..., backend={backend!r})"]


@on_both
def test_it_finds_a_race_that_the_usual_order_hides(backend: Backend) -> None:
    """The planted bug: a checkpoint between reading a shared count and writing it."""
    assert {seeded_schedule(seed).run(race, backend=backend) for seed in range(50)} == {False, True}


async def race() -> bool:
    """Whether a count is lost where only one of two tasks has a checkpoint in the middle."""
    count = 0

    async def careless() -> None:
        nonlocal count
        before = count
        await anyio.lowlevel.checkpoint()
        count = before + 1

    async def late() -> None:
        nonlocal count
        await anyio.lowlevel.checkpoint()
        count += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(careless)
        tasks.start_soon(late)
    return count < 2


def test_what_comes_after_on_trio_is_not_decided_by_it() -> None:
    """Tasks are shuffled by a seed in a block of its own; outside trio's own rule holds, and its own randomness."""
    before = random_state()
    seeded_schedule(1).run(steps_of_four, backend="trio")
    assert random_state() == before


def random_state() -> object:
    return trio_run._r.getstate(), trio_run._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001


def test_callbacks_that_are_no_steps_of_tasks_keep_their_places() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        loop = asyncio.get_running_loop()
        others = [asyncio.ensure_future(steps_of_four()) for _ in range(3)]
        for number in range(20):
            loop.call_soon(seen.append, number)
            if number % 5 == 0:
                others.append(asyncio.ensure_future(steps_of_four()))
        await asyncio.gather(*others)
        return seen

    for seed in range(20):
        with asyncio.Runner(loop_factory=seeded_schedule(seed).loop_factory) as runner:
            assert runner.run(main()) == list(range(20))


def test_orders_are_told_apart_by_their_name() -> None:
    schedules = [Schedule(seed) for seed in (1, 1, 2)]
    for schedule in schedules:
        schedule.run(steps_of_four, backend="asyncio")
    assert schedules[0].order == schedules[1].order != schedules[2].order
    assert schedules[0].choices > 0
