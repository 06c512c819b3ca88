"""Stores of every engine, to be opened, copied, and put back: what tests of a store's publisher need of an engine.

Another engine is one more `House`, in `HOUSES`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

from stores.storehouse import copy, open_at
from testing.memory_store import Disk, MemoryStore
from typing_extensions import override

from trio_stream.stores import Store


class House(ABC):
    """One store; whatever is opened here is that."""

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[Store]:
        """As another process would."""

    @abstractmethod
    def copy(self) -> object:
        """As the store is now."""

    @abstractmethod
    def put_back(self, copy: object) -> None:
        """Puts an older copy in the place of the store, with the epoch that it has.

        Nobody has the store open, unless `is_noticed`.
        """

    is_noticed: bool
    """Whether those who have the store open see at once that it was replaced; if not, when it comes as far again."""


class SQLiteHouse(House):
    is_noticed = True

    def __init__(self, folder: Path) -> None:
        self.path = folder / "house.db"
        self._copies = count()

    @override
    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_at(self.path)

    @override
    def copy(self) -> Path:
        return copy(self.path, self.path.with_name(f"copy{next(self._copies)}.db"))

    @override
    def put_back(self, copy: object) -> None:
        assert isinstance(copy, Path)
        copy.replace(self.path)


class MemoryHouse(House):
    is_noticed = False

    def __init__(self, folder: Path, *, has_gaps: bool = False) -> None:
        self.has_gaps = has_gaps
        self._disk: Disk | None = None

    @property
    def disk(self) -> Disk:
        """Needs an event loop."""
        if self._disk is None:
            self._disk = Disk(has_gaps=self.has_gaps)
        return self._disk

    @override
    def open(self) -> AbstractAsyncContextManager[Store]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Store]:
        yield MemoryStore(self.disk)

    @override
    def copy(self) -> Disk:
        return self.disk.copy()

    @override
    def put_back(self, copy: object) -> None:
        assert isinstance(copy, Disk)
        self.disk.put_back(copy)


def with_gaps(folder: Path) -> MemoryHouse:
    return MemoryHouse(folder, has_gaps=True)


HOUSES: Final[dict[str, Callable[[Path], House]]] = {
    "sqlite": SQLiteHouse,
    "memory": MemoryHouse,
    "memory with gaps": with_gaps,
}
