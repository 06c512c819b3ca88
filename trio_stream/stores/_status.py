"""What a store says of itself, for people and for those who watch over it: what every engine here offers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ._values import Head


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How far a store has come, and how large it is."""

    engine: str
    """The scheme of its URL: "sqlite" or "postgresql"."""
    version: str
    """Of the engine: of the SQLite library that this process uses, or of the server."""
    place: str
    """The file; or the server, the database and the schema, without a password."""
    head: Head
    commits: int
    """Commits in the log: those that `changes` can give."""
    sizes: Mapping[str, int]
    """Bytes by what takes them: "file" and "write_ahead_log", or "tables"."""


@runtime_checkable
class DescribedStore(Protocol):
    """A store that says what it is."""

    async def status(self) -> StoreStatus:
        """What is so now."""
        ...
