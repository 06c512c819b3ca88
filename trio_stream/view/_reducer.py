"""Folds: how received events become the mapping that a view shows.

The default keeps one payload for each key.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

from typing_extensions import TypeVar, override

from trio_stream import Event, PayloadEvents

from ._table import GONE, Draft, Gone, Table

P = TypeVar("P", default=Any)
P_contra = TypeVar("P_contra", contravariant=True, default=Any)
K = TypeVar("K", bound=Hashable, default=Any)
K_co = TypeVar("K_co", bound=Hashable, covariant=True, default=Any)
V = TypeVar("V", default=Any)
V_co = TypeVar("V_co", covariant=True, default=Any)


class Reducer(Protocol[P_contra, K, V_co]):
    """Folds events into a mapping; synchronous, and with no effect but on itself."""

    def reset(self) -> None:
        """A snapshot begins: forget everything."""
        ...

    def apply(self, events: "Sequence[Event[P_contra]]", /) -> Mapping[K, V_co]:
        """Folds these events, none of which is framing, and returns the mapping after them.

        It is called for the parts of a snapshot, and once without events when the snapshot is whole.
        What it returns from then on is shown: it must not change any more.
        A `Table` is a mapping of which a changed copy is cheap.
        """
        ...


class KeyedReducer(Reducer[P, K, P]):
    """One payload for each key, the newest; deletions remove it.

    `key` tells the key of a payload, `is_delete` whether it is the removal of that key.
    The defaults are the payload's attributes of these names.
    """

    def __init__(
        self,
        key: Callable[[P], K] = attrgetter("key"),
        is_delete: Callable[[P], bool] = attrgetter("is_delete"),
    ) -> None:
        self._key = key
        self._is_delete = is_delete
        # The snapshot while it comes in.
        self._snapshot: Draft[K, P] | None = Draft()
        # Empty meanwhile.
        self._table: Table[K, P] = Table()

    @override
    def reset(self) -> None:
        self._snapshot = Draft()
        self._table = Table()

    @override
    def apply(self, events: Sequence[Event[P]], /) -> Mapping[K, P]:
        changes: dict[K, P | Gone] = {}
        self._collect(events, changes)
        if self._snapshot is None:
            self._table = self._table.changed(changes)
        else:
            self._snapshot.update(changes)
            if not events:
                self._table = Table.of_draft(self._snapshot)
                self._snapshot = None
        return self._table

    def _collect(self, events: Sequence[Event[P]], changes: dict[K, P | Gone]) -> None:
        """The newest payload of each key, or GONE where that is a removal."""
        key_of, is_delete = self._key, self._is_delete
        single: Event[P]
        for event in events:
            batch = event.payload
            # Asking for the very type is faster than isinstance(), which asks an abstract class like this one.
            for single in batch.items if type(batch) is PayloadEvents else (event,):
                payload: Any = single.payload
                try:
                    changes[key_of(payload)] = GONE if is_delete(payload) else payload
                except Exception as error:
                    error.add_note(f"while the view folded {single!r}")
                    raise
