"""Which subscriptions are open, by the token they were made with."""

from collections.abc import Collection
from typing import Any, Generic, Protocol
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
