"""Which subscriptions are open, by the token they were made with; and which tokens were revoked lately."""

from collections.abc import Collection
from itertools import islice
from typing import Any, Final, Generic, Protocol
from weakref import WeakKeyDictionary

from typing_extensions import TypeVar

from ._events import Topic
from ._request import SubscribeRequest


class Opened(Protocol):
    """What is registered here: a subscription."""

    @property
    def request(self) -> SubscribeRequest[Any]:
        """What it asks for."""
        ...


T = TypeVar("T", bound=Opened)


class Tokens(Generic[T]):
    """A multiset of what was made with which token; without empty entries."""

    def __init__(self) -> None:
        # {token: what was made with it}
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
        self._made.setdefault(token, {})[item] = None
        self._count += 1

    def remove(self, token: str, item: T) -> None:
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
        self._loose.setdefault(token, WeakKeyDictionary())[item] = None

    def take(self, tokens: Collection[str]) -> list[T]:
        """Takes out what was made with one of these tokens, each of which is named once."""
        taken: list[T] = []
        for token in tokens:
            if made := self._made.pop(token, None):
                taken += made
        self._count -= len(taken)
        if self._loose:
            taken += [item for token in tokens for item in self._loose.pop(token, ())]
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

    A token is remembered by its hash of 64 bits, which is keyed anew in each process.
    If two have the same, one of them is handed a snapshot that it need not have had.
    Of what is forgotten a floor remains: a cursor at or below it is no good under any token.
    """

    __slots__ = ("_floor", "_indexes")

    def __init__(self) -> None:
        self._floor: int = 0
        # {the hash of a token: the index at which it was revoked}, oldest first.
        self._indexes: dict[int, int] = {}

    def add(self, tokens: Collection[str], index: int) -> None:
        """These are revoked at this index, which is at least that of the ones before."""
        indexes = self._indexes
        if len(tokens) == 1 and len(indexes) < MOST_REVOKED:  # the common case, in a fraction of the time
            for token in tokens:
                digest = str.__hash__(token)
                indexes.pop(digest, None)
                indexes[digest] = index
            return
        if len(tokens) > MOST_REVOKED:
            indexes.clear()
            self._floor = index
            return
        # Without a step of Python for each token: very many may be revoked at once.
        revoked = dict.fromkeys(map(str.__hash__, tokens), index)
        for digest in revoked.keys() & indexes.keys():
            del indexes[digest]
        indexes.update(revoked)
        forgotten = list(islice(indexes, max(0, len(indexes) - MOST_REVOKED)))
        for digest in forgotten:
            self._floor = indexes.pop(digest)

    def has(self, token: str, index: int) -> bool:
        """Whether a cursor at this index was reached before the token was revoked for the last time."""
        indexes = self._indexes
        if not indexes:
            return index <= self._floor
        return index <= self._floor or index <= indexes.get(str.__hash__(token), -1)

    def clear(self) -> None:
        """Another timeline begins: no cursor of the old one is good."""
        self._floor = 0
        self._indexes.clear()
