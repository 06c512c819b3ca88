"""Which subscriptions are open, by the token they were made with."""

from typing import Generic

from typing_extensions import TypeVar

T = TypeVar("T")


class Tokens(Generic[T]):
    """A multiset of what was made with which token; without empty entries."""

    def __init__(self) -> None:
        self._made: dict[str, dict[T, None]] = {}
        # How many there are with any token.
        self.count: int = 0

    def __len__(self) -> int:
        return len(self._made)

    def add(self, token: str, item: T) -> None:
        self._made.setdefault(token, {})[item] = None
        self.count += 1

    def remove(self, token: str, item: T) -> None:
        made = self._made[token]
        del made[item]
        self.count -= 1
        if not made:
            del self._made[token]

    def made_with(self, token: str) -> list[T]:
        return list(self._made.get(token, ()))

    def all(self) -> list[T]:
        return [item for made in self._made.values() for item in made]
