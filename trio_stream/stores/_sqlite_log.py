"""Reading the log of the SQLite file, some commits at a time.

Everything here blocks and belongs in a worker thread.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from ._errors import HistoryLostError
from ._json import decode_operations
from ._sqlite_database import READ_CHARACTERS, Database
from ._values import Commit, Head

READ_COMMITS: Final = 512  # at most, in one go


class Log:
    """What `Store.changes` gives."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, after: int, epoch: str | None) -> tuple[str, Sequence[Commit]]:
        """The epoch, which must be `epoch` unless that is None, and some commits after `after` if any."""
        return self._database.read(lambda connection, head: self._read(connection, head, after, epoch))

    def _read(
        self, connection: sqlite3.Connection, head: Head, after: int, epoch: str | None
    ) -> tuple[str, Sequence[Commit]]:
        if epoch not in {None, head.epoch} or after < head.floor:
            raise HistoryLostError(after, head.floor, head.epoch)
        commits: list[Commit] = []
        characters = 0
        for index, text in connection.execute(
            'SELECT "index", operations FROM log WHERE "index" > ? ORDER BY "index" LIMIT ?',
            (after, READ_COMMITS),
        ):
            if index != after + 1:
                raise self._database.file.error(f"damaged: commit {after + 1} is missing from the log")
            after = index
            commits.append(self._commit(index, text))
            characters += len(text)
            if characters >= READ_CHARACTERS:
                break
        return head.epoch, commits

    def _commit(self, index: int, text: str) -> Commit:
        try:
            return Commit(index, decode_operations(text))
        except (TypeError, ValueError) as error:
            raise self._database.file.error(f"damaged: commit {index} of the log cannot be read") from error
