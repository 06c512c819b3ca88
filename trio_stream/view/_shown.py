"""What a view shows, and who waits for it to change."""

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Generic, NamedTuple, assert_never

import anyio
from typing_extensions import TypeVar

from trio_stream import EndOfSubject

from ._errors import ViewEnded
from ._state import Frozen, Status, ViewStatus
from ._table import Table
from ._touched import Touched
from ._waiters import Crowd, IndexWaiters, Wakeups

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
    """The newest whole state and its status; written by the view's task, read and awaited by everybody.

    Nothing here wakes anybody: it marks who is to be woken, and the view's task then awaits `wakeups.wake`.
    """

    def __init__(self) -> None:
        self.state: Frozen[K, V] = Frozen(Table(), 0, "")
        self.status: ViewStatus = ViewStatus(Status.CONNECTING)
        # Of the present or last connection.
        self.epoch: str = ""
        # Up to which index of its epoch the state has everything; at least its own.
        self.horizon: int = 0
        # Whether the connection has said to drop the state. It is shown until there is another that is whole, but
        # does not count as that of any index.
        self.is_void: bool = False
        self.wakeups: Wakeups = Wakeups()
        # For those who wait for another state, for the view to be current, or for its end.
        self.changed: Crowd = Crowd(self.wakeups)
        self.waiters: IndexWaiters[Frozen[K, V]] = IndexWaiters(self.wakeups)
        # How many readers of changes there are, and what they read.
        self.readers: int = 0
        self.touched: Touched[K] = Touched()
        # {scope of a block that ends with the view: None}
        self._blocks: dict[anyio.CancelScope, None] = {}
        # Parts of states that were replaced as a whole. The view's task lets go of them one by one, because to free
        # all of a large state takes long.
        self.remains: list[object] = []
        # Oldest first, of one epoch; and how many changes they are, but for the oldest.
        self._recent: deque[_Recent] = deque()
        self._kept: int = 0

    @property
    def has_blocks(self) -> bool:
        """Whether there is a block to which an error of the view comes."""
        return bool(self._blocks)

    def is_current(self) -> bool:
        """Whether the state is the newest there is; raises `ViewEnded` if it never will be again."""
        match self.status.status:
            case Status.CURRENT | Status.FINISHED:
                return True
            case Status.CONNECTING | Status.STALE:
                return False
            case Status.CLOSED:
                raise ViewEnded("the view has ended") from self.status.reason
            case _:
                assert_never(self.status.status)

    @property
    def is_finished(self) -> bool:
        """Whether there will be no other state, because what is followed is finished."""
        return self.status.status is Status.FINISHED

    def check_goes_on(self) -> None:
        """Raises `ViewEnded` if there will be no other state."""
        if self.is_finished:
            raise ViewEnded("what the view follows is finished") from self.status.reason
        self.is_current()

    def new_block(self) -> anyio.CancelScope:
        """The scope of a block that will be run."""
        scope = anyio.CancelScope()
        self._blocks[scope] = None
        return scope

    @contextmanager
    def block(self, scope: anyio.CancelScope) -> Iterator[None]:
        """Runs a block, which an error that ends the view cancels, and which raises `ViewEnded` then."""
        self._check_error()
        try:
            with scope:
                yield
        finally:
            self._blocks.pop(scope, None)
        self._check_error()

    def _check_error(self) -> None:
        if self.status.status is Status.CLOSED and self.status.reason is not None:
            raise ViewEnded("the view has ended") from self.status.reason

    def set_lost(self, reason: BaseException | None) -> None:
        """The connection is over, because of `reason`: nobody says how the state goes on."""
        has_state = self.status.status is not Status.CONNECTING
        self.status = ViewStatus(Status.STALE if has_state else Status.CONNECTING, reason)

    def set_void(self) -> None:
        """What is shown may be wrong, or may not be shown any more; another state follows."""
        self.is_void = True
        self.set_lost(self.status.reason)

    def enter_epoch(self, epoch: str) -> None:
        """The connection is of this timeline; who waits for an index of another has to know."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.set_lost(self.status.reason)
            self.waiters.release_all()

    def set_finished(self, end: EndOfSubject) -> None:
        """The state is the last one, and right at every index from now on."""
        self.status = ViewStatus(Status.FINISHED, end)
        self.changed.fire()
        self.waiters.release_all()  # and each sees that its index is reached

    def set_closed(self, reason: BaseException | None) -> None:
        """Nothing will change any more."""
        if self.is_finished and reason is None:
            return
        self.status = ViewStatus(Status.CLOSED, reason)
        if reason is not None:  # they come first: what waits inside of a block is cancelled with it
            blocks, self._blocks = self._blocks, {}
            self.wakeups.add(scope.cancel for scope in blocks)
        self.changed.fire()
        self.waiters.release_all()

    def show(self, mapping: Mapping[K, V], index: int, first: int | None, mark: str) -> None:
        """Shows a state that has the events from index `first` on besides what was shown; None for a new snapshot.

        `mark` is that of the commit with this index, if it is known.
        """
        before = self.state
        self.state = Frozen(mapping, index, self.epoch, mark)
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
        self.is_void = False
        if touched is None:
            self.touched.skip()
        elif self.readers:
            self.touched.add(touched, len(mapping))
        self.changed.fire()

    def reach(self, horizon: int) -> None:
        """The connection says that the state has everything up to `horizon`."""
        self.horizon = max(self.horizon, horizon)
        if self.status.status is not Status.CURRENT and not self.is_finished:
            self.status = ViewStatus(Status.CURRENT)
            self.changed.fire()
        self.waiters.release(self.horizon, self.state)

    def has_reached(self, index: int) -> bool:
        """Whether the state has everything up to `index` of the connection's epoch; if it is finished, any index."""
        is_known = not self.is_void and self.state.epoch == self.epoch != ""
        return is_known and (index <= self.horizon or self.is_finished)

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
