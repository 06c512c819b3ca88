"""Which subscriptions are open, by the token they were made with; and which tokens were revoked lately.

Both know tokens by their *names*.
That is the token itself, or what the publisher's function makes of it: a store names what it revokes by digests.
The function is asked about tokens of requests; what is revoked is given by name.
It may answer differently on another timeline, where no subscription of the old one is open.
"""

from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any, Final, Generic, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from typing_extensions import TypeVar

from ._arguments import check_index
from ._events import Topic
from ._request import SubscribeRequest


class Opened(Protocol):
    """What is registered here: a subscription."""

    @property
    def request(self) -> SubscribeRequest[Any]:
        """What it asks for."""
        ...


T = TypeVar("T", bound=Opened)

Digest: TypeAlias = Callable[[str], str]
"""The name of a token."""


def check_digest(digest: Digest, token: str) -> None:
    """Raises what the function raises, and `TypeError` unless it gives a string."""
    name: object = digest(token)
    if not isinstance(name, str):
        raise TypeError(f"the digest of a token is a string, not {type(name).__name__}")


class Tokens(Generic[T]):
    """A multiset of what was made with which token; without empty entries."""

    def __init__(self, digest: Digest | None = None) -> None:
        """`digest` gives the names of tokens; None if they are their own."""
        self.digest: Digest | None = digest
        # {the name of a token: what was made with it}
        self._made: dict[str, dict[T, None]] = {}
        self._count: int = 0
        # The same, of what is not to be kept alive. A `WeakSet` cannot be listed in another thread.
        self._loose: dict[str, WeakKeyDictionary[T, None]] = {}

    def __len__(self) -> int:
        """How many tokens there are."""
        return len({*self._made, *(token for token, made in list(self._loose.items()) if made)})

    def all(self) -> list[T]:
        """All that is there now. Any thread may ask."""
        groups = list(self._made.values())
        try:
            kept = [item for made in groups for item in made]
        except RuntimeError:  # another thread asks while this one changes
            kept = [item for made in groups for item in list(made)]
        loose = [reference() for made in list(self._loose.values()) for reference in made.keyrefs()]
        return kept + [item for item in loose if item is not None]

    @property
    def count(self) -> int:
        """How many items there are."""
        return self._count + sum(map(len, list(self._loose.values())))

    def add(self, token: str, item: T) -> None:
        if self.digest is not None:
            token = self.digest(token)
        self._made.setdefault(token, {})[item] = None
        self._count += 1

    def remove(self, token: str, item: T) -> None:
        if self.digest is not None:
            token = self.digest(token)
        made = self._made.get(token, {})
        if item in made:
            del made[item]
            self._count -= 1
            if not made:
                del self._made[token]
        else:
            loose = self._loose[token]
            del loose[item]
            if not loose:
                del self._loose[token]

    def loosen(self, token: str, item: T) -> None:
        """From now on it stays only as long as somebody else keeps it."""
        self.remove(token, item)
        if self.digest is not None:
            token = self.digest(token)
        self._loose.setdefault(token, WeakKeyDictionary())[item] = None

    def take(self, names: Collection[str]) -> list[T]:
        """Takes out what was made with one of the tokens of these names, each of which is given once."""
        taken: list[T] = []
        for name in names:
            if made := self._made.pop(name, None):
                taken += made
        self._count -= len(taken)
        if self._loose:
            taken += [item for name in names for item in self._loose.pop(name, ())]
        return taken

    def take_all(self) -> list[T]:
        taken = [item for made in self._made.values() for item in made]
        self._made.clear()
        self._count = 0
        return taken

    def take_of(self, topic: Topic[Any]) -> list[T]:
        """Takes out those that ask for something of this topic; nothing is loose."""
        taken: list[T] = []
        rest: dict[str, dict[T, None]] = {}
        for token, made in self._made.items():
            for item in made:
                if any(interest.topic == topic for interest in item.request.interests):
                    taken.append(item)
                else:
                    rest.setdefault(token, {})[item] = None
        self._made = rest
        self._count -= len(taken)
        return taken


MOST_REVOKED: Final = 65_536  # tokens that are remembered


class Revocations:
    """When which token was revoked: a cursor that was reached before, or just then, is no good under it (D20).

    A token is remembered by the hash of its name, of 64 bits, which is keyed anew in each process.
    If two have the same, one of them is handed a snapshot that it need not have had.
    Of what is forgotten a floor remains: a cursor at or below it is no good under any token.
    """

    __slots__ = ("_digest", "_floor", "_indexes")

    def __init__(self, digest: Digest | None = None) -> None:
        """`digest`: see `Tokens`."""
        self._digest: Digest | None = digest
        self._floor: int = 0
        # {the hash of a token's name: the index at which it was revoked}, oldest first.
        self._indexes: dict[int, int] = {}

    def add(self, names: Collection[str], index: int) -> None:
        """These are revoked at this index, or at that of the newest of the ones before, if that is greater."""
        index = max(index, self._newest)
        indexes = self._indexes
        if len(names) == 1 and len(indexes) < MOST_REVOKED:  # the common case, in a fraction of the time
            for name in names:
                digest = str.__hash__(name)
                indexes.pop(digest, None)
                indexes[digest] = index
            return
        if len(names) > MOST_REVOKED:
            indexes.clear()
            self._floor = max(self._floor, index)
            return
        # Without a step of Python for each token: very many may be revoked at once.
        self._update(dict.fromkeys(map(str.__hash__, names), index))

    def remember(self, revoked: Mapping[str, int], floor: int) -> None:
        """Names that were revoked before, oldest first, with the indexes; what is older than the floor is forgotten.

        Raises unless that is what they are, and none is older than one that is known.
        """
        check_index(floor)
        if not isinstance(revoked, Mapping):
            raise TypeError(
                f"what is revoked is a mapping of tokens to indexes, not {type(revoked).__name__}"
            )
        names, indexes = list(revoked.keys()), list(revoked.values())
        for kind in set(map(type, names)):
            if not issubclass(kind, str):
                raise TypeError(f"a token is a string, not {kind.__name__}")
        for index in indexes if set(map(type, indexes)) - {int} else indexes[:1]:
            check_index(index)
        if indexes != sorted(indexes):
            raise ValueError("what is revoked is given oldest first")
        if indexes and indexes[0] < self._newest:
            raise ValueError(
                f"index {indexes[0]} is older than {self._newest}, that of a revocation that is known"
            )
        self._floor = max(self._floor, floor)
        self._update(dict(zip(map(str.__hash__, names), indexes, strict=True)))

    def has(self, token: str, index: int) -> bool:
        """Whether a cursor at this index was reached before the token was revoked for the last time."""
        indexes = self._indexes
        if not indexes or index <= self._floor:
            return index <= self._floor
        name = token if self._digest is None else self._digest(token)
        return index <= indexes.get(str.__hash__(name), -1)

    def clear(self) -> None:
        """Another timeline begins: no cursor of the old one is good."""
        self._floor = 0
        self._indexes.clear()

    @property
    def _newest(self) -> int:
        """The index of the newest one that is known; 0 if there is none."""
        return next(reversed(self._indexes.values()), 0)

    def _update(self, revoked: dict[int, int]) -> None:
        """These hashes, oldest first; the oldest of all are forgotten if there are too many."""
        indexes = self._indexes
        for digest in revoked.keys() & indexes.keys():
            del indexes[digest]
        indexes.update(revoked)
        forgotten = list(islice(indexes, max(0, len(indexes) - MOST_REVOKED)))
        for digest in forgotten:
            self._floor = max(self._floor, indexes.pop(digest))
