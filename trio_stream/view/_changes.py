"""A reader of what changes in a view, one change for each key however far the reader falls behind."""

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NoReturn, Self

import anyio
import anyio.lowlevel
from typing_extensions import TypeVar, override

from trio_stream import ClosedResourceError

from ._shown import Shown
from ._state import Frozen
from ._table import GONE, Gone

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
    """Iterates over changes, for one task; made by `View.changes`.

    It goes in rounds.
    A round compares the state of the round before with the newest one, for the keys that were touched in between.
    A key that changed many times meanwhile comes once; one that changed back does not come.
    It stops when what the view follows is finished and all was told.
    Raises `ViewEnded` when the view has ended and all was told, and `ClosedResourceError` outside of its block.
    """

    __slots__ = ("_burst", "_is_closed", "_new", "_old", "_position", "_round", "_shown", "_waking")

    def __init__(self, shown: Shown[K, V]) -> None:
        self._shown = shown
        # What the present round compares; everything before _old was told.
        self._old = self._new = shown.state
        # That of _new in the log of touched keys.
        self._position = shown.touched.end
        # The keys of the present round that are left.
        self._round: Iterator[K | Gone] = iter(())
        # Keys looked at since the last checkpoint.
        self._burst = 0
        # Wakes the reader, if it waits.
        self._waking = anyio.Event()
        self._is_closed = False
        shown.readers += 1

    @override
    def __reduce__(self) -> NoReturn:
        raise TypeError("a reader of changes cannot be pickled or copied")

    def close(self) -> None:
        """Its block was left. For the view."""
        self._is_closed = True
        self._waking.set()
        self._shown.readers -= 1
        if not self._shown.readers:
            self._shown.touched.skip()

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
        while self._shown.state is self._new and not self._is_closed:
            if self._shown.is_finished:
                raise StopAsyncIteration
            self._shown.check_goes_on()
            self._waking = anyio.Event()
            await self._shown.changed.wait(self._waking)
        if self._is_closed:
            raise ClosedResourceError("the block of these changes was left")
        self._new = self._shown.state
        touched = self._shown.touched.since(self._position)
        self._position = self._shown.touched.end
        self._round = _all_keys(self._old, self._new) if touched is None else _once(touched)


def _once(touched: Sequence[Collection[K]]) -> Iterator[K | Gone]:
    """Each key once, and GONE in the place of one that came before."""
    if len(touched) == 1:
        yield from touched[0]
        return
    seen: set[K] = set()
    for keys in touched:
        for key in keys:
            if key in seen:
                yield GONE
            else:
                seen.add(key)
                yield key


def _all_keys(old: Frozen[Any, Any], new: Frozen[Any, Any]) -> Iterator[Any]:
    """Each key once, and GONE in the place of one that was there before, so that no step takes long."""
    yield from old
    for key in new:
        yield GONE if key in old else key
