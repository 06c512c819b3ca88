"""The farthest commits that this process has seen in a store: by them it notices that the store went back.

An *anchor* is such a commit: its epoch, its index and its mark.
Every transaction looks whether the anchor of its epoch still is there.
If not, somebody has put an older copy in the place of the store, and the indexes above the copy's newest mean two
things: the timeline has forked.
Whoever notices first gives the store a new epoch, so that no index is misread from then on.

The farthest commit of every epoch is kept, not only of the present one.
A copy that is restored twice comes back with the epoch that its first life ran under, after the store has had
another one meanwhile.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Anchor:
    """A commit that was in the store; index 0 is where it begins."""

    epoch: str
    index: int
    mark: str


class Known(NamedTuple):
    """The anchors at one moment. Take them before a transaction begins: then it must see them all."""

    newest: Anchor
    """That of the epoch which was seen last."""
    earlier: Mapping[str, Anchor]
    """{epoch: its farthest}, of all other epochs."""

    def of(self, epoch: str) -> Anchor | None:
        """The anchor that a store with this epoch must have; None if nothing is known of that."""
        return self.newest if self.newest.epoch == epoch else self.earlier.get(epoch)


class Anchors:
    """All of one store, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held to replace the field below
        self.known = Known(Anchor("", 0, ""), MappingProxyType({}))

    def advance(self, before: Known, seen: Anchor) -> None:
        """A transaction that took `before`, and found no fork, has seen this as the newest commit.

        It may have been overtaken by others.
        """
        newest, earlier = before
        if newest.epoch == seen.epoch and newest.index == seen.index:
            return
        with self._lock:
            newest, earlier = now = self.known
            if newest.epoch == seen.epoch:
                if newest.index < seen.index:
                    self.known = Known(seen, earlier)
                return
            if now is before:
                others = {**earlier, newest.epoch: newest}
                others.pop(seen.epoch, None)
                self.known = Known(seen, others)
            elif seen.epoch not in earlier or earlier[seen.epoch].index < seen.index:
                self.known = Known(newest, {**earlier, seen.epoch: seen})


def is_forked(anchor: Anchor, *, index: int, floor: int, mark: str | None) -> bool:
    """Whether a store with the epoch of this anchor, and these newest and oldest indexes, is an older copy.

    `mark` is what the store has at the anchor's index now; None if there is no such commit.
    Of what lies below the floor nobody can tell.
    """
    return anchor.index >= floor and (anchor.index > index or mark != anchor.mark)
