"""What can go wrong with a store, each kind with a type of its own."""

from copy import copy
from typing import TypeVar

from typing_extensions import override

from ._values import Change, Name

E = TypeVar("E", bound=Exception)


class StoreError(Exception):
    """The store could not do it; the message names the store and the cause.

    It is logged where nobody is there to get it: apart from a `ConflictError`, which is never logged, it has no key,
    value or token in it.
    A commit that ends in this has not been acknowledged, and none of it can be seen, except where the
    message says that this is not known.
    """


class BusyError(StoreError):
    """Somebody else holds a lock, or it was no good time; nothing was changed, and it may work later."""


class BehindError(StoreError):
    """Who was asked has less than was seen of the store before, as a replica that is behind; nothing is lost.

    Ask again in a moment.
    """


class CommitUnknownError(StoreError):
    """The connection went after the commit was sent: nobody knows here whether it was made.

    Ask again with the same `id`, which makes no second one; or read.
    """


class LimitExceededError(StoreError, ValueError):
    """A commit has more than one may have; nothing was sent."""

    what: str
    """What there is too much of: "operations", or bytes of "commit", "key" or "value"; see `Limits`."""
    limit: int
    actual: int

    def __init__(self, store: str, what: str, limit: int, actual: int) -> None:
        super().__init__(store, what, limit, actual)
        self.store = store
        self.what = what
        self.limit = limit
        self.actual = actual

    @override
    def __str__(self) -> str:
        unit = "" if self.what == "operations" else " bytes"
        return f"{self.store}: {self.what} of {self.actual}{unit}: more than {self.limit}, the limit of a commit here"


class ConflictError(StoreError):
    """An expectation of a commit did not hold, or it puts a key that is finished; nothing was changed.

    Read again, decide again.
    """

    name: Name
    expected: int
    """The index that the name should have had; 0 for none."""
    actual: int
    """The index that it has; 0 if it does not exist."""
    is_final: bool
    """Whether it is that a finished key was to be put; `expected` is then what `expect` said, or `actual`."""

    def __init__(self, name: Name, expected: int, actual: int, is_final: bool = False) -> None:
        super().__init__(name, expected, actual, is_final)
        self.name = name
        self.expected = expected
        self.actual = actual
        self.is_final = is_final

    @override
    def __str__(self) -> str:
        if self.is_final:
            return f"{self.name} is finished since commit {self.actual}: only a Delete frees it"
        if self.actual == self.expected:
            return f"{self.name} has index {self.actual} as expected, but of another epoch: the store was replaced"
        return f"{self.name} has index {self.actual}, not {self.expected} as expected (0: does not exist)"


class HistoryLostError(StoreError):
    """The commits from `after` + 1 on are no longer all there; take a snapshot and go on from its index."""

    after: int
    """The index after which commits were asked for."""
    floor: int
    """The newest commit that is gone."""
    epoch: str
    """The store's timeline now. If `after` is from another one, it does not compare with `floor`."""

    def __init__(self, after: int, floor: int, epoch: str) -> None:
        super().__init__(after, floor, epoch)
        self.after = after
        self.floor = floor
        self.epoch = epoch

    @override
    def __str__(self) -> str:
        if self.after < self.floor:
            return (
                f"cannot go on after {self.after}: commits up to {self.floor} are gone (epoch {self.epoch!r})"
            )
        return f"cannot go on after {self.after}: the store has a new timeline, epoch {self.epoch!r}"


def again(error: E) -> E:
    """The same error for one more task: one that several tasks raise collects the tracebacks of them all."""
    another = copy(error)
    another.__cause__ = error.__cause__
    return another


class UnreadableCommitError(StoreError):
    """A commit of the log is damaged or missing, or was written by a newer version; those before it are not affected.

    The state is another matter: it can be read, and has what the commit did.
    To go on, take a snapshot of the topics concerned and follow the changes after `index`.
    """

    store: str
    """Where the commit is."""
    index: int
    """The commit; the last one, where several are missing in a row."""
    topics: frozenset[str] | None
    """The topics that it concerns; None if that is not known, so that it may be any."""
    operations: tuple[Change, ...]
    """What it did to other topics."""
    mark: str
    """That of the commit; "" if it is not known."""

    def __init__(
        self,
        store: str,
        index: int,
        topics: frozenset[str] | None = None,
        operations: tuple[Change, ...] = (),
        *,
        mark: str = "",
        missing: int = 0,
    ) -> None:
        super().__init__(store, index, topics)
        self.store = store
        self.index = index
        self.topics = topics
        self.operations = operations
        self.mark = mark
        # The first of the commits that are missing; 0 if it is there and cannot be read.
        self._missing = missing

    @override
    def __str__(self) -> str:
        if self._missing:
            return f"{self.store}: damaged: commit {self._missing} is missing from the log"
        return f"{self.store}: damaged: commit {self.index} of the log cannot be read"
