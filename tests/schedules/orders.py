"""Decides in which order tasks run that could all run now, on either event loop, and remembers what it decided.

On trio the order within each batch of ready tasks is trio's own random one, made deterministic.
On asyncio it is that of the ready *task steps* among themselves; every other handle stays in its place, because
`call_soon` is first in, first out by contract.
uvloop keeps its queue in C, out of reach: what runs there is the plain order.
"""

# ruff: noqa: SLF001 - reaches into both event loops on purpose

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, MutableSequence
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import trio._core._run
import trio.testing
from typing_extensions import override

T = TypeVar("T")


class Order:
    """A source of permutations; `taken` is what it gave: (which, of how many)."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int]] = []
        # Whether it is asked at all; where it is not, tasks run in their order of arrival.
        self.is_asked = True

    @property
    def key(self) -> tuple[int, ...]:
        """The choices made; the same order has the same."""
        return tuple(chosen for chosen, _ in self.taken)

    @property
    def is_last(self) -> bool:
        """Whether it is the last of all orders, depth first."""
        return all(chosen == count - 1 for chosen, count in self.taken)

    def choose(self, count: int) -> int:
        """One of `count` tasks: the one to run next."""
        raise NotImplementedError

    def choose_of(self, count: int) -> int:
        """The same, remembered; no choice if there is only one."""
        if count == 1 or not self.is_asked:
            return 0
        chosen = self.choose(count)
        self.taken.append((chosen, count))
        return chosen

    def permute(self, items: MutableSequence[Any]) -> None:
        for place in range(len(items) - 1):
            chosen = self.choose_of(len(items) - place)
            items[place], items[place + chosen] = items[place + chosen], items[place]


class Seeded(Order):
    """Random, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    @override
    def choose(self, count: int) -> int:
        return self._random.randrange(count)


class Replayed(Order):
    """Begins with the choices given, and always takes the first task after them."""

    def __init__(self, choices: list[int]) -> None:
        super().__init__()
        self._choices = choices

    @override
    def choose(self, count: int) -> int:
        at = len(self.taken)
        return self._choices[at] if at < len(self._choices) else 0


def exhaustive(most: int) -> Iterator[Replayed]:
    """Every order there is, depth first, at most `most`: run each to its end before asking for the next."""
    choices: list[int] = []
    for _ in range(most):
        order = Replayed(choices)
        yield order
        taken = list(order.taken)
        while taken and taken[-1][0] == taken[-1][1] - 1:
            taken.pop()
        if not taken:
            return
        choices = [chosen for chosen, _ in taken]
        choices[-1] += 1


class _Ready(deque[Any]):
    """The ready handles of asyncio; permutes the task steps of each round when its first is taken."""

    order: Order
    left = 0  # of the present round

    @override
    def popleft(self) -> Any:
        if not self.left:
            self.left = len(self)
            steps = [place for place, handle in enumerate(self) if _is_task_step(handle)]
            handles = [self[place] for place in steps]
            self.order.permute(handles)
            for place, handle in zip(steps, handles, strict=True):
                self[place] = handle
        self.left -= 1
        return super().popleft()


def _is_task_step(handle: Any) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)


class OrderedLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with task steps in the given order."""

    def __init__(self, order: Order) -> None:
        super().__init__()
        self._ready = _Ready()
        self._ready.order = order
        # Who waits until nothing else can run.
        self.idlers: list[asyncio.Future[None]] = []

    def _run_once(self) -> None:
        if self.idlers and not self._ready:
            self.idlers.pop().set_result(None)
        super()._run_once()  # type: ignore[misc]  # the stubs leave it out


async def idle() -> None:
    """Returns when no other task can run; meanwhile this one is in no order."""
    if trio.lowlevel.in_trio_run():
        await anyio.wait_all_tasks_blocked()
        return
    loop = asyncio.get_running_loop()
    if isinstance(loop, OrderedLoop):
        loop.idlers.append(idler := loop.create_future())
        await idler
        return
    for _ in range(60):  # the next line polls every 0.1 s, unless it finds all waiting at once
        await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()


@contextmanager
def _trio_in(order: Order) -> Iterator[None]:
    class Shuffle(random.Random):
        @override
        def shuffle(self, x: MutableSequence[Any]) -> None:
            order.permute(x)

    run: Any = trio._core._run
    old = run._r, run._ALLOW_DETERMINISTIC_SCHEDULING
    run._r, run._ALLOW_DETERMINISTIC_SCHEDULING = Shuffle(), True
    try:
        yield
    finally:
        run._r, run._ALLOW_DETERMINISTIC_SCHEDULING = old


def run(backend: str, order: Order, main: Callable[[], Awaitable[T]]) -> T:
    """Runs `main` on an event loop whose tasks run in this order."""
    if backend == "trio":
        with _trio_in(order):
            return anyio.run(
                main, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)}
            )
    if backend == "asyncio":
        return anyio.run(
            main, backend="asyncio", backend_options={"loop_factory": lambda: OrderedLoop(order)}
        )
    return anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})
