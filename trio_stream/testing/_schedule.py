"""Orders of tasks that a seed decides, on both back ends, so that a failure can be seen again.

trio has this built in, for Hypothesis, under private names: the tasks that are ready are shuffled.
On asyncio only the steps of tasks are permuted, in the places that steps of tasks have among what is ready.
Every other callback keeps its place: `call_soon` is first in, first out by contract, and libraries rely on it.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, Literal, TypeVarTuple

import anyio
from trio._core import _run as trio_run
from typing_extensions import TypeVar

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Schedule:
    """One order of tasks among many; made by `seeded_schedule`."""

    seed: int
    """What decides."""
    choices: int
    """How often more than one step was ready, in all runs so far; asyncio only, trio does not tell."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.choices = 0
        self._order = blake2b(digest_size=8)

    @property
    def order(self) -> str:
        """Names the orders that were chosen: two schedules with the same name did the same; asyncio only."""
        return self._order.hexdigest()

    def loop_factory(self) -> asyncio.AbstractEventLoop:
        """A new event loop with this schedule, for `asyncio.Runner` and anyio's `backend_options`."""
        return _SeededLoop(random.Random(self.seed), self._chosen)  # noqa: S311 - no secret

    def run(
        self,
        async_fn: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        backend: Literal["trio", "asyncio"] = "trio",
        **backend_options: Any,
    ) -> T:
        """Runs an async function as `anyio.run` does; a failure gets a note with the seed."""
        try:
            if backend == "trio":
                with self._seeded_trio():
                    return anyio.run(async_fn, *args, backend="trio", backend_options=backend_options)
            if backend != "asyncio":
                raise ValueError(f"backend is 'trio' or 'asyncio', not {backend!r}")
            options = {"loop_factory": self.loop_factory, **backend_options}
            return anyio.run(async_fn, *args, backend="asyncio", backend_options=options)
        except BaseException as error:
            error.add_note(f"to see it again: seeded_schedule({self.seed}).run(..., backend={backend!r})")
            raise

    @contextmanager
    def _seeded_trio(self) -> Iterator[None]:
        generator: random.Random = trio_run._r  # noqa: SLF001 - as Hypothesis's plugin of trio does it
        state = generator.getstate()
        was_deterministic = trio_run._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001
        vars(trio_run)["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
        generator.seed(self.seed)
        try:
            yield
        finally:
            generator.setstate(state)
            vars(trio_run)["_ALLOW_DETERMINISTIC_SCHEDULING"] = was_deterministic

    def _chosen(self, order: list[int]) -> None:
        self.choices += 1
        self._order.update(bytes(str(order), "ascii"))


def seeded_schedule(seed: int) -> Schedule:
    """The order of tasks that this seed stands for: `seeded_schedule(7).run(main, backend="asyncio")`.

    The same seed and program give the same order again, as far as the program itself is deterministic: no threads,
    no real clock, no order of a set.
    Not thread-safe on trio, whose generator is one for the process.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"a seed is an integer, not {seed!r}")
    return Schedule(seed)


class _SeededLoop(asyncio.SelectorEventLoop):
    """Permutes the steps of tasks that are ready at the beginning of each turn."""

    _ready: deque[asyncio.Handle]  # of `asyncio.BaseEventLoop`; from 3.11 to 3.15 under this name

    def __init__(self, generator: random.Random, chosen: Callable[[list[int]], None]) -> None:
        super().__init__()
        self._generator = generator
        self._chosen = chosen

    def _run_once(self) -> None:
        places = [place for place, handle in enumerate(self._ready) if _is_step(handle)]
        if len(places) > 1:
            order = self._generator.sample(places, len(places))
            handles = [self._ready[place] for place in order]
            for place, handle in zip(places, handles, strict=True):
                self._ready[place] = handle
            self._chosen(order)
        super()._run_once()  # type: ignore[misc]  # the stubs leave it out


def _is_step(handle: asyncio.Handle) -> bool:
    """Whether this runs a task's first or next step, told as asyncio's own debug output tells it."""
    return isinstance(getattr(getattr(handle, "_callback", None), "__self__", None), asyncio.Task)
