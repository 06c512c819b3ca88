"""How waiting on a view can fail."""

from typing_extensions import override


class ViewEnded(Exception):
    """The view has ended, and what was waited for will not come.

    `__cause__` is why: the terminal error of the connection, of the reducer, of `key` or of `is_delete`.
    There is none if the block of `open_view` was left.
    What the view holds stays readable, as of its `index`.
    """


class ViewLimitError(RuntimeError):
    """The pool has as many views as it may have, and each has a user. Nothing was changed; leave one first."""


class StateLostError(LookupError):
    """A view has passed the index and no longer knows its state there. Nothing was changed; ask for a newer index."""


class EpochChanged(Exception):
    """The timeline that the awaited index belongs to has ended: the store was restored or replaced.

    The view goes on in the new epoch; ask the store again what to wait for.
    """

    old: str
    """The epoch when the wait began."""
    new: str
    """The epoch that the view follows now, or the other one if two views are of different epochs."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, new)
        self.old = old
        self.new = new

    @override
    def __str__(self) -> str:
        return f"the epoch has changed from {self.old!r} to {self.new!r}"
