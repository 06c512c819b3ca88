"""Commits, inside a transaction of SQLite's that somebody else begins and ends.

Everything here blocks and belongs in a worker thread.
"""

import os
import sqlite3
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final
from uuid import UUID

from ._errors import ConflictError, LimitExceededError, StoreError
from ._orders import Draft, Effects, Key, Present, settle
from ._sqlite_statements import first_row, run, run_for_each
from ._values import MOST_REVOKED, EpochIndex, Limits, Put, token_digest

LIMITS: Final = Limits(operations=1_000_000, commit=256 << 20, key=64 << 10, value=64 << 20)
"""SQLite takes 1 GB in one text, and the log has what a commit replaces beside what it puts."""

_FEW: Final = 16  # names of a commit that are looked up together with those of others
_MOST_COLLECTED: Final = 4 << 20  # characters of the log, in one go

# Names that are looked up by one statement. SQLite before 3.32 takes 999 parameters, and each name is three.
_LOOKS: Final = (256, 16, 1)


def _looks(value: str) -> dict[int, str]:
    """{number of names: the statement}."""
    columns = f"topic, key, namespace, {value}, idx, final"
    return {
        size: f"WITH names (t, k, n) AS (VALUES {', '.join(['(?, ?, ?)'] * size)}) SELECT {columns}"  # noqa: S608
        " FROM names CROSS JOIN ts_state ON topic = t AND namespace = n AND key = k"
        if size > 1
        else f"SELECT {columns} FROM ts_state WHERE topic = ? AND key = ? AND namespace = ?"  # noqa: S608
        for size in _LOOKS
    }


_LOOK: Final = _looks("value")
_LOOK_AT_BYTES: Final = _looks("CAST(value AS BLOB)")
_PUT: Final = (
    "INSERT OR REPLACE INTO ts_state (topic, namespace, key, value, idx, final) VALUES (?, ?, ?, ?, ?, ?)"
)
_DELETE: Final = "DELETE FROM ts_state WHERE topic = ? AND namespace = ? AND key = ?"
_LOG: Final = "INSERT INTO ts_log (idx, mark, operations, at, revoked) VALUES (?, ?, ?, ?, ?)"

_FORGET: Final = "SELECT idx, rowid FROM ts_revoked ORDER BY idx DESC, rowid DESC LIMIT 1 OFFSET ?"


class Writer:
    """The commits of one transaction, one after the other. Whoever begins the transaction has the lock for writing.

    What they put and log is collected, and written in few statements; each sees what those before it have done.
    """

    def __init__(
        self, connection: sqlite3.Connection, store: str, *, epoch: str, index: int, mark: str, at: float
    ) -> None:
        """`store` is its name in errors; what follows is of the newest commit."""
        self._connection = connection
        self._store = store
        self._epoch = epoch
        self._first = index
        self.index = index
        self.mark = mark
        # A clock that was set back must not make a commit older than the one before it.
        self.at = max(at, time.time())
        self._salt = b""  # read when it is needed
        self._has_revoked = False
        # What is there under the names that were looked at, with what was collected; None: nothing is.
        self._present: dict[Key, Present | None] = {}
        # What was collected: {name: its row, None to delete it}, rows of the log, and how many characters that is.
        self._state: dict[Key, Sequence[object] | None] = {}
        self._log: list[Sequence[object]] = []
        self._characters = 0
        # The commits of this transaction that have an id.
        self._ids: dict[UUID, EpochIndex] = {}

    @property
    def newest(self) -> EpochIndex:
        """The newest commit, as the transaction has it."""
        return EpochIndex(self.index, self._epoch, self.mark)

    @property
    def count(self) -> int:
        """Commits that were made."""
        return self.index - self._first

    def write(self, drafts: Sequence[Draft | Exception]) -> list[EpochIndex | Exception]:
        """What becomes of each: its index, or the error that refuses it, and then it has changed nothing.

        The index is that of an earlier commit with the same id, if there was one.
        An exception that stands for a draft stays as it is.
        """
        few = [
            name
            for each in drafts
            if not isinstance(each, Exception) and len(each.names) <= _FEW
            for name in each.names
        ]
        self._look(few)
        return [each if isinstance(each, Exception) else self._write(each) for each in drafts]

    def finish(self) -> None:
        """Writes down what there is left to write; must be called before the transaction ends."""
        self._flush()
        if self.count:
            run(self._connection, "UPDATE ts_head SET idx = ?, at = ?", (self.index, self.at))
        if self._has_revoked:
            self._forget_revocations()

    def _write(self, draft: Draft) -> EpochIndex | ConflictError | LimitExceededError:
        made = self._made(draft)
        if made is not None:
            return made
        self._look(draft.names)
        try:
            effects = settle(draft, self._present, self._epoch, LIMITS, self._store)
        except (ConflictError, LimitExceededError) as error:
            return error
        if effects is not None:
            self._make(draft, effects)
        return self.newest

    def _made(self, draft: Draft) -> EpochIndex | None:
        """The commit that had the same id, if there was one."""
        if draft.order.id is None:
            return None
        if draft.order.id in self._ids:
            return self._ids[draft.order.id]
        found = first_row(
            self._connection,
            "SELECT idx, (SELECT mark FROM ts_log WHERE ts_log.idx = ts_ids.idx) FROM ts_ids WHERE id = ?",
            (draft.order.id.bytes,),
        )
        return None if found is None else EpochIndex(found[0], self._epoch, (found[1] or b"").hex())

    def _make(self, draft: Draft, effects: Effects) -> None:
        self.index = index = self.index + 1
        mark = os.urandom(8)
        self.mark = mark.hex()
        for change, name, value, _ in effects.changes:
            if isinstance(change, Put):
                self._present[name] = Present(value, index, change.final)
                self._state[name] = (name[0], name[2], name[1], value, index, change.final)
            else:
                self._present[name] = self._state[name] = None
        revoked = self._revoke(effects.tokens) if effects.tokens else ""
        self._log.append((index, mark, effects.text, self.at, revoked))
        if draft.order.id is not None:
            self._ids[draft.order.id] = self.newest
            run(
                self._connection,
                "INSERT INTO ts_ids (id, idx, at) VALUES (?, ?, ?)",
                (draft.order.id.bytes, index, self.at),
            )
        self._characters += len(effects.text)
        if self._characters > _MOST_COLLECTED:
            self._flush()

    def _look(self, names: Sequence[Key]) -> None:
        """Reads what is there under those of them that are not known yet."""
        unknown = list(dict.fromkeys([name for name in names if name not in self._present]))
        if unknown:
            self._present |= dict.fromkeys(unknown)
            self._present |= look(self._connection, unknown)

    def _flush(self) -> None:
        """Writes what was collected, and forgets it."""
        puts = [row for row in self._state.values() if row is not None]
        if puts:
            run_for_each(self._connection, _PUT, puts)
        if len(puts) < len(self._state):
            deletes = [(name[0], name[2], name[1]) for name, row in self._state.items() if row is None]
            run_for_each(self._connection, _DELETE, deletes)
        if self._log:
            run_for_each(self._connection, _LOG, self._log)
        self._state.clear()
        self._log.clear()
        self._present.clear()
        self._characters = 0

    def _revoke(self, tokens: Sequence[str]) -> str:
        if not self._salt:
            (self._salt,) = first_row(self._connection, "SELECT salt FROM ts_head")
            if not isinstance(self._salt, bytes):
                raise StoreError(f"{self._store}: damaged: its head has no salt")
        digests = [token_digest(token, self._salt) for token in tokens]
        run_for_each(
            self._connection,
            "INSERT OR REPLACE INTO ts_revoked (digest, idx) VALUES (?, ?)",
            [(digest, self.index) for digest in digests],
        )
        self._has_revoked = True
        return " ".join(digests)

    def _forget_revocations(self) -> None:
        """Those that are too many."""
        found = first_row(self._connection, _FORGET, (MOST_REVOKED,))
        if found is not None:
            index, number = found
            run(
                self._connection,
                "DELETE FROM ts_revoked WHERE idx < ? OR (idx = ? AND rowid <= ?)",
                (index, index, number),
            )
            run(self._connection, "UPDATE ts_head SET revoked_floor = ?", (index,))


def look(connection: sqlite3.Connection, names: Sequence[Key]) -> dict[Key, Present]:
    """What is there under these names."""
    present: dict[Key, Present] = {}
    begin = 0
    for size in _LOOKS:
        while len(names) - begin >= size:
            parameters = list(chain.from_iterable(names[begin : begin + size]))
            try:
                rows = _look(connection, _LOOK[size], parameters)
            except sqlite3.OperationalError:
                rows = _look_at_damaged(connection, size, parameters)
            for row in rows:
                present[row[:3]] = Present(*row[3:])
            begin += size
    return present


def _look(connection: sqlite3.Connection, sql: str, parameters: Sequence[str]) -> Sequence[Any]:
    cursor = connection.execute(sql, parameters)
    rows = cursor.fetchall()
    cursor.close()
    return rows


def _look_at_damaged(connection: sqlite3.Connection, size: int, parameters: Sequence[str]) -> Sequence[Any]:
    """The same where a value is no UTF-8: it can be overwritten."""

    def text(value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            return ""

    rows = _look(connection, _LOOK_AT_BYTES[size], parameters)
    return [(*row[:3], text(row[3]), *row[4:]) for row in rows]
