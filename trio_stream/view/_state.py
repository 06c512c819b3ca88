"""What a view shows: its mapping at one index, and how well that is known to be current."""

import enum
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Generic, Never, Self

from typing_extensions import TypeVar, override

from trio_stream import Cursor

K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)


class Frozen(Mapping[K, V], Generic[K, V]):
    """The state of a view at one index; immutable, and shared by all who ask for it.

    Any thread may read it, and it can be pickled and copied if its mapping can.
    To keep one costs what has changed since, at most one dict of the size of the view.
    """

    __slots__ = ("epoch", "index", "mapping", "mark")

    mapping: Mapping[K, V]
    """What the reducer made."""
    index: int
    """The index of the state; 0 before the first snapshot."""
    epoch: str
    """The timeline that the index belongs to; empty before the first snapshot."""
    mark: str
    """The mark of the commit with this index; empty if it is not known."""

    def __init__(self, mapping: Mapping[K, V], index: int, epoch: str, mark: str = "") -> None:
        object.__setattr__(self, "mapping", mapping)
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "epoch", epoch)
        object.__setattr__(self, "mark", mark)

    @override
    def __setattr__(self, name: str, value: object) -> Never:
        raise FrozenInstanceError(f"a Frozen is immutable: {name!r} cannot be changed")

    @override
    def __delattr__(self, name: str) -> Never:
        raise FrozenInstanceError(f"a Frozen is immutable: {name!r} cannot be changed")

    @override
    def __reduce__(self) -> tuple[type[Self], tuple[Mapping[K, V], int, str, str]]:
        return type(self), (self.mapping, self.index, self.epoch, self.mark)

    @property
    def cursor(self) -> Cursor | None:
        """Where the state stands: `request.after(state.cursor)` goes on from there. None before the first snapshot."""
        return Cursor(self.index, self.epoch, self.mark) if self.epoch else None

    @override
    def __getitem__(self, key: K) -> V:
        return self.mapping[key]

    @override
    def __contains__(self, key: object) -> bool:
        return key in self.mapping  # which may, like a Counter, have a value for what is not in it

    @override
    def __len__(self) -> int:
        return len(self.mapping)

    @override
    def __iter__(self) -> Iterator[K]:
        return iter(self.mapping)

    @override
    def __repr__(self) -> str:
        mark = f", mark={self.mark!r}" if self.mark else ""
        return f"Frozen({self.mapping!r}, index={self.index}, epoch={self.epoch!r}{mark})"


class Status(enum.Enum):
    """How a view stands to what it follows."""

    CONNECTING = "connecting"
    """There has been no whole snapshot yet; the mapping is empty."""
    CURRENT = "current"
    """The mapping follows every change."""
    STALE = "stale"
    """The mapping is the last that was whole, and does not follow, because the connection is lost or its newest state
    has not come in yet; the view goes on trying."""
    FINISHED = "finished"
    """What the view follows is finished: the mapping is right for ever, and nothing will change it any more."""
    CLOSED = "closed"
    """The view has ended; the mapping is the last that was whole."""


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """Whether a view is current, and if not, why."""

    status: Status
    """Where the view stands."""
    reason: BaseException | None = None
    """The error that keeps it from following, if there is one: how the last connection has ended or why it could not be
    made, or what has ended the view; the `EndOfSubject`, if it is finished."""


@dataclass(frozen=True, slots=True)
class ViewStatistics:
    """What one view has done so far; all are counts."""

    keys: int
    """Keys in the mapping."""
    events: int
    """Events folded, those of snapshots too; several of one commit count as one."""
    snapshots: int
    """Whole snapshots received."""
    connections: int
    """How often `connect` was called."""
    waiting: int
    """Tasks in `wait_index`."""
    changes: int
    """Readers of `changes`."""
