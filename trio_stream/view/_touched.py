"""Which keys have changed: one log for all readers of a view, each of which is at a position of its own."""

from collections import deque
from collections.abc import Collection, Hashable, Sequence
from itertools import islice
from typing import Any, Final, Generic

from typing_extensions import TypeVar

K = TypeVar("K", bound=Hashable, default=Any)

_LEAST: Final = 4096  # keys that are kept at least, for readers that are behind
_SHARE: Final = (
    4  # of a large view one key in so many is kept: to compare all of it takes a few times as long
)


class Touched(Generic[K]):
    """The keys that each new state may have different from the one before.

    A position counts states; those before the log begins are gone, and whoever stands there has to compare all keys.
    """

    def __init__(self) -> None:
        self._log: deque[Collection[K]] = deque()
        self._begin = 0
        # How large the log is: the keys in it, and one for each state without any.
        self._size = 0

    @property
    def end(self) -> int:
        """The position of whoever has seen everything."""
        return self._begin + len(self._log)

    def add(self, keys: Collection[K], count: int) -> None:
        """A new state, with these keys touched, of a view with `count` keys."""
        most = max(_LEAST, count // _SHARE)
        if len(keys) > most:
            self.skip()
            return
        self._log.append(tuple(keys))
        self._size += max(1, len(keys))
        while self._size > most:
            self._size -= max(1, len(self._log.popleft()))
            self._begin += 1

    def skip(self) -> None:
        """A new state in which any key may be another."""
        self._begin = self.end + 1
        self._log.clear()
        self._size = 0

    def since(self, position: int) -> Sequence[Collection[K]] | None:
        """The keys that each state from this position on has touched; None if that is not known."""
        if position < self._begin:
            return None
        return list(islice(self._log, position - self._begin, None))
