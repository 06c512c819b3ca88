"""Folds what a connection gives, and decides when the result may be shown.

A snapshot is folded aside: what was shown before stays until the new one is whole.
Even then it waits if it is older than what is shown, as one from a cache may be, until it has caught up.
"""

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, Generic, assert_never

from typing_extensions import TypeVar

from trio_stream import Event, Framing

from ._reducer import Reducer
from ._shown import Shown

K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)

_INDEX: Final = attrgetter("index")


class Fold(Generic[K, V]):
    """The reducer of one view, and how far it is."""

    def __init__(self, reducer: Reducer[Any, K, V], shown: Shown[K, V]) -> None:
        self._reducer = reducer
        self._shown = shown
        # What the reducer returned last; of no meaning inside a snapshot.
        self._mapping: Mapping[K, V] = {}
        # Whether the snapshot that comes in is not whole yet.
        self._is_in_snapshot = True
        # Whether what is shown is not what was folded.
        self._is_aside = True
        # Up to which index everything was folded; 0 inside a snapshot.
        self.horizon: int = 0
        self.events: int = 0
        self.snapshots: int = 0

    @property
    def is_current(self) -> bool:
        """Whether what was folded is shown."""
        return not self._is_aside

    @property
    def is_in_snapshot(self) -> bool:
        """Whether what comes is of a snapshot that is not whole yet, so that nothing of it is shown."""
        return self._is_in_snapshot

    @property
    def is_behind(self) -> bool:
        """Whether a whole state is there that is too old to be shown."""
        return self._is_aside and not self._is_in_snapshot

    def begin_snapshot(self) -> None:
        """What was folded is void; a snapshot follows."""
        self._is_in_snapshot = self._is_aside = True
        self.horizon = 0
        self._reducer.reset()
        self._shown.set_void()

    def fold(self, events: Sequence[Event[Any]], horizon: int) -> Iterator[None]:
        """Takes what the connection gave, after which it has given everything up to `horizon`.

        Yields after each state that somebody waits for: there it may rest, and go on later.
        """
        begin = 0
        for end, framing in [
            (at, event.payload) for at, event in enumerate(events) if isinstance(event.payload, Framing)
        ]:
            yield from self._fold_state(events[begin:end])
            self._take_framing(framing, events[end])
            begin = end + 1
        yield from self._fold_state(events[begin:])
        self.reach(horizon)

    def _take_framing(self, framing: Framing, event: Event[Any]) -> None:
        match framing:
            case Framing.END_OF_SNAPSHOT:
                self._end_snapshot(event.index, event.mark)
            case Framing.NEW_SNAPSHOT_TO_FOLLOW:
                self.begin_snapshot()
            case _:
                assert_never(framing)

    def reach(self, horizon: int) -> None:
        """Everything up to `horizon` has been folded."""
        if self._is_in_snapshot:
            return
        self.horizon = max(self.horizon, horizon)
        if self._is_aside and self.horizon >= self._shown.state.index:
            self._show(self._shown.state.index, None, "")
        if not self._is_aside:
            self._shown.reach(self.horizon)

    def finish(self) -> bool:
        """Nothing comes any more, so what was folded is the state at every later index; False inside a snapshot."""
        self.reach(max(self.horizon, self._shown.state.index))
        return not self._is_in_snapshot

    def _fold_state(self, events: Sequence[Event[Any]]) -> Iterator[None]:
        if not events:
            return
        if self._is_in_snapshot:
            self._reduce(events)
            return
        waiters = self._shown.waiters
        begin = 0
        # Somebody waits for a state that lies in between; it is shown, so that they get it. It is that of all
        # indexes up to the next event.
        while (index := waiters.lowest_from(self.horizon + 1)) is not None and index < events[-1].index:
            end = bisect_right(events, index, lo=begin, key=_INDEX)
            self._advance(events[begin:end])
            self.reach(events[end].index - 1)
            begin = end
            yield
        self._advance(events[begin:])

    def _advance(self, events: Sequence[Event[Any]]) -> None:
        if events:
            self._reduce(events)
            self.horizon = events[-1].index
            self._show(self.horizon, events[0].index, events[-1].mark)

    def _end_snapshot(self, index: int, mark: str) -> None:
        self._reduce(())
        self._is_in_snapshot = False
        self.horizon = index
        self.snapshots += 1
        self._show(index, None, mark)
        self._shown.waiters.arrived.fire()  # from now on it matters what is published

    def _reduce(self, events: Sequence[Event[Any]]) -> None:
        mapping: object = self._reducer.apply(events)
        if not isinstance(mapping, Mapping):
            at = f"up to {events[-1]!r}" if events else "at the end of a snapshot"
            raise TypeError(f"the reducer returned {mapping!r}, which is no mapping, {at}")
        self._mapping = mapping
        self.events += len(events)

    def _show(self, index: int, first: int | None, mark: str) -> None:
        """Shows what was folded, unless that would go back; `first` is None for a whole new state."""
        shown = self._shown
        if self._is_aside:
            if shown.epoch == shown.state.epoch and index < shown.state.index:
                return
            first = None
            self._is_aside = False
        shown.show(self._mapping, index, first, mark)
