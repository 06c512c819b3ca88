"""A reader of what changes in a view, one change for each key however far the reader falls behind."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, Self

import anyio.lowlevel
from typing_extensions import TypeVar

from trio_stream import ClosedResourceError

from ._state import Frozen
from ._table import GONE, Gone
from ._waiters import Signal

K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)

BURST: Final = 64  # keys looked at between two checkpoints


@dataclass(frozen=True, slots=True)
class Change(Generic[K, V]):
    """One key that is different; `old` or `new` is None where the key was or is absent."""

    key: K
    old: V | None
    new: V | None


class Changes(Generic[K, V]):
    """Iterates over changes without end, for one task; made by `View.changes`.

    It goes in rounds.
    A round compares the state of the round before with the newest one, for the keys that were touched in between.
    A key that changed many times meanwhile comes once; one that changed back does not come.
    Raises `ViewEnded` when the view has ended and all was told, and `ClosedResourceError` outside of its block.
    """

    def __init__(self, state: Callable[[], Frozen[K, V]], changed: Signal, check: Callable[[], None]) -> None:
        # The view's newest state; its signal for a newer one; raises if there will be none.
        self._state = state
        self._changed = changed
        self._check = check
        # What the present round compares; everything before _old was told.
        self._old = self._new = state()
        # The keys of the present round that are left.
        self._round: Iterator[K | Gone] = iter(())
        # Those touched since _new, in order; None for perhaps all that there are.
        self._touched: dict[K, None] | None = {}
        # Keys looked at since the last checkpoint.
        self._burst = 0
        self._is_closed = False

    def touch(self, keys: Iterable[K] | None) -> None:
        """These keys, or perhaps any, have changed. For the view."""
        if keys is None:
            self._touched = None
        elif self._touched is not None:
            self._touched.update(dict.fromkeys(keys))

    def close(self) -> None:
        """It will not be told any more. For the view."""
        self._is_closed = True
        self._changed.fire()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[K, V]:
        """The next change; a checkpoint if it has to wait, and every 64 keys."""
        while True:
            if self._burst >= BURST:
                self._burst = 0
                await anyio.lowlevel.checkpoint()
            for key in self._round:
                self._burst += 1
                if not isinstance(key, Gone):
                    old = self._old[key] if key in self._old else None  # noqa: SIM401 - get() may make a value up
                    new = self._new[key] if key in self._new else None  # noqa: SIM401
                    if old is not new and old != new:
                        return Change(key, old, new)
                if self._burst >= BURST:
                    break
            else:
                await self._next_round()

    async def _next_round(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._burst = 0
        self._old = self._new
        while self._state() is self._new:
            if self._is_closed:
                raise ClosedResourceError("the block of these changes was left")
            self._check()
            await self._changed.wait()
        touched, self._touched = self._touched, {}
        self._new = self._state()
        self._round = iter(touched) if touched is not None else _all_keys(self._old, self._new)


def _all_keys(old: Frozen[Any, Any], new: Frozen[Any, Any]) -> Iterator[Any]:
    """Each key once, and GONE in the place of one that was there before, so that no step takes long."""
    yield from old
    for key in new:
        yield GONE if key in old else key
