"""What a view shows, and who waits for it to change."""

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Any, Final, Generic, NamedTuple

from typing_extensions import TypeVar

from ._changes import Changes
from ._errors import ViewEnded
from ._state import Frozen, Status, ViewStatus
from ._table import Table
from ._waiters import IndexWaiters, Signal

K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)

RECENT: Final = 1024  # changed keys up to which older states are kept for state_at()


class _Recent(NamedTuple):
    """A state that is or was shown."""

    state: Frozen[Any, Any]
    # The index of the first event that it has and the state before has not.
    first: int
    # Keys that may differ from the state before: what it costs to keep that one.
    changes: int


class Shown(Generic[K, V]):
    """The newest whole state and its status; written by the view's task, read and awaited by everybody."""

    def __init__(self) -> None:
        self.state: Frozen[K, V] = Frozen(Table(), 0, "")
        self.status: ViewStatus = ViewStatus(Status.CONNECTING)
        # Of the present or last connection.
        self.epoch: str = ""
        # Up to which index of its epoch the state has everything; at least its own.
        self.horizon: int = 0
        # Fires when the state or the status has changed.
        self.changed: Signal = Signal()
        self.waiters: IndexWaiters[Frozen[K, V]] = IndexWaiters()
        self.readers: set[Changes[K, V]] = set()
        # Parts of states that were replaced as a whole. The view's task lets go of them one by one, because to free
        # all of a large state takes long.
        self.remains: list[object] = []
        # Oldest first, of one epoch; and how many changes they are, but for the oldest.
        self._recent: deque[_Recent] = deque()
        self._kept: int = 0

    def check(self) -> None:
        """Raises if nothing will change any more."""
        if self.status.status is Status.CLOSED:
            raise ViewEnded("the view has ended") from self.status.reason

    def set_status(self, status: Status, reason: BaseException | None = None) -> None:
        self.status = ViewStatus(status, reason)
        self.changed.fire()
        if status is Status.CLOSED:
            self.waiters.release_all()

    def enter_epoch(self, epoch: str) -> None:
        """The connection is of this timeline; who waits for an index of another has to know."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.set_stale()
            self.waiters.release_all()

    def set_stale(self) -> None:
        """The connection does not say how the state goes on."""
        if self.status.status is Status.CURRENT:
            self.set_status(Status.STALE)

    def show(self, mapping: Mapping[K, V], index: int, first: int | None) -> None:
        """Shows a state that has the events from index `first` on besides what was shown; None for a new snapshot."""
        before = self.state
        self.state = Frozen(mapping, index, self.epoch)
        if first is None and isinstance(before.mapping, Table):
            self.remains += before.mapping.parts
        touched = mapping.changed_since(before.mapping) if isinstance(mapping, Table) else None
        if before.epoch != self.epoch:
            self._recent.clear()
            self._kept = 0
        self._remember(
            _Recent(
                self.state,
                before.index + 1 if first is None else first,
                max(1, len(before if touched is None else touched)),
            )
        )
        self.horizon = index if first is None else max(self.horizon, index)
        for reader in self.readers:
            reader.touch(touched)
        self.changed.fire()

    def reach(self, horizon: int) -> None:
        """The connection says that the state has everything up to `horizon`."""
        self.horizon = max(self.horizon, horizon)
        if self.status.status is not Status.CURRENT:
            self.set_status(Status.CURRENT)
        self.waiters.release(self.horizon, self.state)

    def has_reached(self, index: int) -> bool:
        """Whether the state has everything up to `index` of the connection's epoch."""
        return self.state.epoch == self.epoch != "" and index <= self.horizon

    def state_at(self, index: int) -> Frozen[K, V] | None:
        """The state at an index that has been reached, if it is still known."""
        after: int | None = None
        for state, first, _ in reversed(self._recent):
            if state.index <= index:
                return state if after is None or after > index else None
            after = first
        return None

    def _remember(self, recent: _Recent) -> None:
        if self._recent:
            self._kept += recent.changes
        self._recent.append(recent)
        while self._kept > RECENT:
            self._recent.popleft()
            self._kept -= self._recent[0].changes
