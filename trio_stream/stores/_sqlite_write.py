"""Commits, inside a transaction of SQLite's that somebody else begins and ends.

Everything here blocks and belongs in a worker thread.
"""

import os
import sqlite3
import time
from collections.abc import Sequence
from typing import Final

from ._errors import ConflictError, LimitExceededError
from ._orders import Draft, Effects, Present, settle
from ._sqlite_statements import first_row, run, run_for_each
from ._values import MOST_REVOKED, Delete, EpochIndex, Limits, Name, Put, token_digest

LIMITS: Final = Limits(operations=1_000_000, commit=256 << 20, key=64 << 10, value=64 << 20)
"""SQLite takes 1 GB in one text, and the log has what a commit replaces beside what it puts."""

# Names that are looked up by one statement. SQLite before 3.32 takes 999 parameters, and each name is three.
_LOOKS: Final = (256, 16, 1)

_LOOK: Final = {
    size: "SELECT topic, key, namespace, CAST(value AS BLOB), idx, final FROM ts_state"
    " WHERE topic = ? AND key = ? AND namespace = ?"
    if size == 1
    else f"WITH names (t, k, n) AS (VALUES {', '.join(['(?, ?, ?)'] * size)})"  # noqa: S608 - question marks
    " SELECT topic, key, namespace, CAST(value AS BLOB), idx, final FROM names"
    " CROSS JOIN ts_state ON topic = t AND namespace = n AND key = k"
    for size in _LOOKS
}

_PUT: Final = (
    "INSERT OR REPLACE INTO ts_state (topic, namespace, key, value, idx, final) VALUES (?, ?, ?, ?, ?, ?)"
)
_DELETE: Final = "DELETE FROM ts_state WHERE topic = ? AND namespace = ? AND key = ?"
_LOG: Final = "INSERT INTO ts_log (idx, mark, operations, at, revoked) VALUES (?, ?, ?, ?, ?)"

_FORGET: Final = "SELECT idx, rowid FROM ts_revoked ORDER BY idx DESC, rowid DESC LIMIT 1 OFFSET ?"


class Writer:
    """The commits of one transaction, one after the other. Whoever begins the transaction has the lock for writing."""

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

    @property
    def count(self) -> int:
        """Commits that were made."""
        return self.index - self._first

    @property
    def newest(self) -> EpochIndex:
        """The newest commit, as the transaction has it."""
        return EpochIndex(self.index, self._epoch, self.mark)

    def write(self, draft: Draft) -> EpochIndex | ConflictError | LimitExceededError:
        """Its index, or that of the commit before which did it; why it is refused, and then nothing was changed."""
        made = self._made(draft)
        if made is not None:
            return made
        try:
            present = look(self._connection, draft.names)
            effects = settle(draft, present, self._epoch, LIMITS, self._store)
        except (ConflictError, LimitExceededError) as error:
            return error
        if effects is not None:
            self._make(draft, effects)
        return self.newest

    def finish(self) -> None:
        """Writes down how far it came; must be called before the transaction ends."""
        if self.count:
            run(self._connection, "UPDATE ts_head SET idx = ?, at = ?", (self.index, self.at))
        if self._has_revoked:
            self._forget_revocations()

    def _made(self, draft: Draft) -> EpochIndex | None:
        """The commit that had the same id, if there was one."""
        if draft.order.id is None:
            return None
        found = first_row(
            self._connection,
            "SELECT idx, (SELECT mark FROM ts_log WHERE ts_log.idx = ts_ids.idx) FROM ts_ids WHERE id = ?",
            (draft.order.id.bytes,),
        )
        return None if found is None else EpochIndex(found[0], self._epoch, (found[1] or b"").hex())

    def _make(self, draft: Draft, effects: Effects) -> None:
        connection = self._connection
        self.index += 1
        mark = os.urandom(8)
        self.mark = mark.hex()
        puts: list[Sequence[object]] = []
        deletes: list[Sequence[object]] = []
        for each in effects.changes:
            topic, key, namespace = each.name
            match each.change:
                case Put() as put:
                    puts.append((topic, namespace, key, each.value, self.index, put.final))
                case Delete():
                    deletes.append((topic, namespace, key))
        if puts:
            run_for_each(connection, _PUT, puts)
        if deletes:
            run_for_each(connection, _DELETE, deletes)
        revoked = self._revoke(effects.tokens) if effects.tokens else ""
        run(connection, _LOG, (self.index, mark, effects.text, self.at, revoked))
        if draft.order.id is not None:
            run(
                connection,
                "INSERT INTO ts_ids (id, idx, at) VALUES (?, ?, ?)",
                (draft.order.id.bytes, self.index, self.at),
            )

    def _revoke(self, tokens: Sequence[str]) -> str:
        if not self._salt:
            (self._salt,) = first_row(self._connection, "SELECT salt FROM ts_head")
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


def look(connection: sqlite3.Connection, names: Sequence[Name]) -> dict[Name, Present]:
    """What is there under these names."""
    present: dict[Name, Present] = {}
    begin = 0
    for size in _LOOKS:
        while len(names) - begin >= size:
            some = names[begin : begin + size]
            begin += size
            if size == 1:
                row = first_row(connection, _LOOK[1], some[0])
                if row is not None:
                    present[some[0]] = _present(*row[3:])
                continue
            parameters = [part for name in some for part in name]
            cursor = connection.execute(_LOOK[size], parameters)
            for topic, key, namespace, *rest in cursor.fetchall():
                present[Name(topic, key, namespace)] = _present(*rest)
            cursor.close()
    return present


def _present(value: bytes, index: int, final: int) -> Present:
    try:
        return Present(value.decode(), index, final != 0)
    except UnicodeDecodeError:  # what is damaged can be overwritten
        return Present("", index, final != 0)
