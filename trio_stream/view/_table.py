"""An immutable mapping that is fast to fill, cheap to change, and shares what has not changed.

Its keys are spread over parts by their hash, and each part is a stack of plain dicts, the oldest and largest first,
none of which ever changes again.
A change lays a small one on top, with `GONE` in the place of what was deleted.
Whatever is less than four times as large as what lies on it is merged with that, as in a log-structured merge tree
(O'Neil et al., "The Log-Structured Merge-Tree", 1996), so that there are at most about log4(n / 17) of them.
One change merges as much as it must on average, and a little more; so no step is long, however many keys there are.

What it costs, with n keys:

- to fill it, about as much as a dict;
- to look up a key, at most log4(n / 17) lookups;
- to change m keys, O(m log n), at the speed of copying dicts;
- to keep an older table, what has changed since.
"""

import enum
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from typing import Any, Final, Generic, Self, TypeAlias, cast

from typing_extensions import TypeVar, override

K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)

_RATIO: Final = 4  # how many times as large a dict is, at least, as what lies on it
_UNDIVIDED: Final = 8192  # keys up to which a table has only one part
_PARTS: Final = 17  # beyond; a prime, so that integer keys with a stride go into all of them
_MERGED: Final = 60_000  # keys of the largest dicts that one change may copy, besides what it must on average


class Gone(enum.Enum):
    """In the place of the value of a key that was deleted; there is one, `GONE`, in each process."""

    GONE = "gone"


GONE: Final = Gone.GONE
"""In what `Table.changed` is given: this key is deleted."""


_Layers: TypeAlias = tuple[dict[K, V | Gone], ...]  # the largest first; that one has no Gone in it


class Draft(Generic[K, V]):
    """A table in the making."""

    def __init__(self) -> None:
        # One, or _PARTS of them; without Gone.
        self.parts: list[dict[K, V | Gone]] = [{}]

    @classmethod
    def of(cls, content: Mapping[K, V | Gone]) -> Self:
        """A draft of what is not `GONE` in this mapping."""
        draft = cls()
        draft.update(content)
        return draft

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (
            _merged(self.parts),
        )  # not the parts: where a key goes differs between processes

    def update(self, changes: Mapping[K, V | Gone]) -> None:
        """Sets these values, and deletes the keys that have `GONE`."""
        parts = self.parts
        count = len(parts)
        for key, value in changes.items():
            if value is GONE:
                parts[hash(key) % count].pop(key, None)
            else:
                parts[hash(key) % count][key] = value
        if count == 1 and len(parts[0]) > _UNDIVIDED:
            self.parts = [{} for _ in range(_PARTS)]
            self.update(parts[0])


class Table(Mapping[K, V], Generic[K, V]):
    """An immutable mapping of which a changed copy is cheap; for reducers. It has no order.

    Made by `of` and `changed`; `Table()` is empty.
    """

    __slots__ = ("_changes", "_deleted", "_identity", "_len", "_parent", "_parts")

    # One, or _PARTS of them.
    _parts: Sequence[_Layers[K, V]]
    _len: int
    # The numbers of the parts that may have a Gone.
    _deleted: AbstractSet[int]
    # Which table this is, and which one it was made of, by which changes.
    _identity: object
    _parent: object
    _changes: Mapping[K, V | Gone]

    def __init__(self) -> None:
        self._parts = (({},),)
        self._len = 0
        self._deleted = frozenset()
        self._identity = object()
        self._parent = None
        self._changes = {}

    @classmethod
    def of(cls, content: Mapping[K, V | Gone]) -> "Table[K, V]":
        """A table of what is not `GONE` in this mapping; all of it in one go."""
        return cls.of_draft(Draft[K, V].of(content))

    @classmethod
    def of_draft(cls, draft: Draft[K, V]) -> "Table[K, V]":
        """What the draft has come to; it must not be changed any more."""
        table = cls()
        table._parts = [(part,) for part in draft.parts]
        table._len = sum(map(len, draft.parts))
        return table

    @property
    def parts(self) -> Sequence[object]:
        """What it consists of. Whoever keeps these when the table is no more can let go of them one by one."""
        return self._parts

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        # Not the parts: where a key goes differs between processes.
        merged = (_merged(layers) for layers in self._parts)
        return type(self).of, (
            {k: value for part in merged for k, value in part.items() if value is not GONE},
        )

    @override
    def __getitem__(self, key: K) -> V:
        for layer in reversed(self._parts[hash(key) % len(self._parts)]):
            if key in layer:
                value = layer[key]
                if value is GONE:
                    break
                return cast("V", value)
        raise KeyError(key)

    @override
    def __len__(self) -> int:
        return self._len

    @override
    def __iter__(self) -> Iterator[K]:
        for base, *layers in self._parts:
            above = _merged(layers)
            for key in base:
                if key not in above:
                    yield key
            for key, value in above.items():
                if value is not GONE:
                    yield key

    @override
    def __repr__(self) -> str:
        return f"Table({dict(self)!r})"

    def changed(self, changes: Mapping[K, V | Gone]) -> "Table[K, V]":
        """A table with these values set, and the keys deleted that have `GONE` here, whether they were there or not."""
        own = {**changes}
        parts = list(self._parts)
        length = self._len
        deleted = self._deleted | {hash(key) % len(parts) for key, value in own.items() if value is GONE}
        budget = _MERGED + _RATIO * len(own)
        for at, mine in self._split(own).items():
            layers = parts[at]
            length += _growth(layers, mine) if at in deleted else _growth_without_gone(layers, mine)
            parts[at] = merged = _laid_on(layers, mine, budget)
            if len(merged) == 1:
                budget -= len(merged[0])
                deleted -= {at}
        if len(parts) == 1 and length > _UNDIVIDED:
            table = Table.of(_merged(parts[0]))
        else:
            table = Table()
            table._parts = parts
            table._len = length
            table._deleted = deleted
        table._parent = self._identity
        table._changes = own
        return table

    def changed_since(self, older: object) -> Collection[K] | None:
        """The keys that may differ from `older`, if this was made by changing just that one; otherwise None."""
        if isinstance(older, Table) and older._identity is self._parent:  # noqa: SLF001 - of this class
            return self._changes.keys()
        return None

    def _split(self, changes: dict[K, V | Gone]) -> Mapping[int, dict[K, V | Gone]]:
        """What concerns each part."""
        count = len(self._parts)
        if count == 1:
            return {0: changes} if changes else {}
        split: defaultdict[int, dict[K, V | Gone]] = defaultdict(dict)
        for key, value in changes.items():
            split[hash(key) % count][key] = value
        return split


def _merged(layers: Iterable[dict[K, V | Gone]]) -> dict[K, V | Gone]:
    merged: dict[K, V | Gone] = {}
    for layer in layers:
        merged.update(layer)
    return merged


def _growth(layers: _Layers[K, V], changes: dict[K, V | Gone]) -> int:
    """By how many keys there are more with these changes."""
    growth = 0
    downwards = layers[::-1]
    for key, value in changes.items():
        if value is not GONE:
            growth += 1
        for layer in downwards:
            if key in layer:
                if layer[key] is not GONE:
                    growth -= 1
                break
    return growth


def _growth_without_gone(layers: _Layers[K, V], changes: dict[K, V | Gone]) -> int:
    """The same where nothing is or was deleted; faster."""
    new = set(changes)
    for layer in layers:
        new = new.difference(layer)  # looks each of the few up in the layer
    return len(new)


def _laid_on(layers: _Layers[K, V], above: dict[K, V | Gone], budget: int) -> _Layers[K, V]:
    """The layers with one more, merged where that is due; the largest only if it has no more keys than `budget`."""
    below = list(layers)
    while len(below) > 1 and len(below[-1]) < _RATIO * len(above):
        above = {**below.pop(), **above}
    base = below[0]
    if len(below) > 1 or not len(base) < min(_RATIO * len(above), budget + 1):
        return (*below, above)
    base = {**base, **above}
    for key in [key for key, value in above.items() if value is GONE]:
        del base[key]
    return (base,)
