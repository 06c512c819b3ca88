"""An immutable mapping that is fast to fill, cheap to change, and shares what has not changed.

It is a stack of plain dicts, the oldest and largest first, none of which ever changes again.
A snapshot is the first of them; a change lays a small one on top, with `GONE` in the place of what was deleted.
Whatever is less than four times as large as what lies on it is merged with that, as in a log-structured merge tree
(O'Neil et al., "The Log-Structured Merge-Tree", 1996), so that there are at most about log4(n) of them.

What it costs, with n keys:

- to fill it, what a dict costs, which it is;
- to look up a key, at most log4(n) lookups;
- to change m keys, O(m log n) on average, at the speed of `dict.copy` and `dict.update`; but now and then, whenever
  n / 4 keys have changed, one copy of a dict of n keys in one go;
- to keep an older table, what has changed since; the newest one has a second dict of its n keys once it was changed.
"""

from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import Any, Final, Generic, cast

from typing_extensions import TypeVar, override

K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)

_MISSING: Final = object()
_RATIO: Final = 4  # how many times as large a dict is, at least, as what lies on it


class Gone:
    """In the place of the value of a key that was deleted; there is one, `GONE`."""

    __slots__ = ()


GONE: Final = Gone()
"""In what `Table.changed` is given: this key is deleted."""


class Table(Mapping[K, V], Generic[K, V]):
    """An immutable mapping of which a changed copy is cheap; for reducers. It has no order.

    Made by `of` and `changed`; `Table()` is empty.
    """

    __slots__ = ("_changes", "_draft", "_identity", "_layers", "_len", "_parent")

    # The largest first; that one has no Gone in it.
    _layers: tuple[dict[K, V | Gone], ...]
    _len: int
    # All of this table as one dict, for the next one to take over and to change; None without or after that.
    _draft: dict[K, V] | None
    # Which table this is, and which one it was made of, by which changes.
    _identity: object
    _parent: object
    _changes: Mapping[K, V | Gone]

    def __init__(self) -> None:
        self._layers = ({},)
        self._len = 0
        self._draft = None
        self._identity = object()
        self._parent = None
        self._changes = {}

    @classmethod
    def of(cls, content: dict[K, V | Gone]) -> "Table[K, V]":
        """A table of what is not `GONE` in this dict, which must not be changed any more."""
        _drop_gone(content)
        table = cls()
        table._layers = (content,)
        table._len = len(content)
        return table

    @override
    def __getitem__(self, key: K) -> V:
        for layer in reversed(self._layers):
            value = layer.get(key, _MISSING)
            if value is not _MISSING:
                if value is GONE:
                    break
                return cast("V", value)
        raise KeyError(key)

    @override
    def __len__(self) -> int:
        return self._len

    @override
    def __iter__(self) -> Iterator[K]:
        base = self._layers[0]
        above = self._above()
        for key in base:
            if key not in above:
                yield key
        for key, value in above.items():
            if not isinstance(value, Gone):
                yield key

    @override
    def __repr__(self) -> str:
        return f"Table({dict(self)!r})"

    def changed(self, changes: Mapping[K, V | Gone]) -> "Table[K, V]":
        """A table with these values set, and the keys deleted that have `GONE` here, whether they were there or not."""
        draft = self._take_draft()
        own: dict[K, Any] = {**changes}
        above = own
        draft.update(own)
        for key in [key for key, value in own.items() if value is GONE]:
            del draft[key]
        layers = list(self._layers)
        while layers and len(layers[-1]) < _RATIO * len(above):
            layer = layers.pop()
            above = {**layer, **above} if layers else draft.copy()  # which has no Gone in it
        table: Table[K, V] = Table()
        table._layers = (*layers, above) if own else self._layers
        table._len = len(draft)
        table._draft = draft
        table._parent = self._identity
        table._changes = own
        return table

    def changed_since(self, older: object) -> Collection[K] | None:
        """The keys that may differ from `older`, if this was made by changing just that one; otherwise None."""
        if isinstance(older, Table) and older._identity is self._parent:  # noqa: SLF001 - of this class
            return self._changes.keys()
        return None

    def _above(self) -> dict[K, V | Gone]:
        """What lies on the first dict, as one."""
        above: dict[K, V | Gone] = {}
        for layer in self._layers[1:]:
            above.update(layer)
        return above

    def _take_draft(self) -> dict[K, Any]:
        draft, self._draft = self._draft, None
        if draft is not None:
            return draft
        everything: dict[K, Any] = self._layers[0].copy()
        for layer in self._layers[1:]:
            everything.update(layer)
        _drop_gone(everything)
        return everything


def _drop_gone(content: dict[K, Any]) -> None:
    for key in [key for key, value in content.items() if value is GONE]:
        del content[key]
