"""What a transaction that commits sends to PostgreSQL, in two goes.

The first one locks the head, and reads what is there under the names that the commits are about.
The second one writes what they come to, all of them together.

Whoever writes locks the head before it touches anything else, so that two that write wait for each other there and
nowhere else: that cannot be a deadlock, whatever names they are about.
Each statement sees what was committed before it began (READ COMMITTED): those behind the lock see all commits that
were made before.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from ._anchors import Anchor, Known, is_forked
from ._errors import StoreError
from ._orders import Draft, Effects, Outcome, Present, settle
from ._values import MOST_REVOKED, EpochIndex, Limits, Name, Put, token_digest

LIMITS: Final = Limits(operations=100_000, commit=64 << 20, key=512, value=16 << 20)
"""A row of an index has at most a third of a page of 8 KiB, and the three parts of a name are in one."""

# What is sent once: its parameters are lists, so that it is one statement for any number of rows.
_NAMES: Final = "unnest(%s::text[], %s::text[], %s::text[])"


class Statement(NamedTuple):
    """SQL, and what stands for each `%s`."""

    sql: str
    parameters: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """The row of `ts_head` as it was locked."""

    epoch: str
    index: int
    mark: str
    floor: int
    floor_mark: str
    salt: bytes
    recorded: str
    transaction: str
    """What `recorded` is after this transaction has recorded something."""


class Tables:
    """SQL with the names of the tables."""

    def __init__(self, schema: str) -> None:
        """`schema` is empty, or quoted and with its dot."""
        self.names = [f"{schema}{each}" for each in ("ts_head", "ts_log", "ts_state", "ts_revoked", "ts_ids")]
        """As they are; the fields below are for SQL with parameters."""
        self.head, self.log, self.state, self.revoked, self.ids = (
            each.replace("%", "%%") for each in self.names
        )


class Group:
    """Some commits that are written in one transaction, in order."""

    def __init__(self, tables: Tables, store: str, drafts: Sequence[Draft | Exception], known: Known) -> None:
        self.outcomes: list[Outcome] = []
        """What becomes of each, from `decide` on; they hold when the transaction was committed."""
        self.epoch = ""
        """The one that the store has with this transaction."""
        self._tables = tables
        self._store = store
        self._drafts = drafts
        self.known = known
        self._names = list(dict.fromkeys(n for each in drafts if isinstance(each, Draft) for n in each.names))
        self._ids = [
            each.order.id for each in drafts if isinstance(each, Draft) and each.order.id is not None
        ]
        self._anchors = {known.newest.index, *(each.index for each in known.earlier.values())} - {0}
        # The fields below are written by `decide`.
        self._head = Head("", 0, "", 0, "", b"", "", "")
        self._newest = EpochIndex(0, "")
        self._present: dict[Name, Present] = {}
        self._touched: dict[Name, None] = {}
        self._made: dict[UUID, EpochIndex] = {}
        self._revoked: dict[str, int] = {}
        self._entries: list[tuple[object, ...]] = []  # rows of the log
        self._new_ids: list[tuple[UUID, int, str]] = []
        self._is_new_epoch = False

    @property
    def head(self) -> Head:
        """As it was before."""
        return self._head

    @property
    def anchor(self) -> Anchor:
        """The newest commit of the store with this transaction."""
        return Anchor(self.epoch, int(self._newest), self._newest.mark)

    @property
    def has_commits(self) -> bool:
        """Whether any commit is made."""
        return bool(self._entries)

    def locking(self) -> Sequence[Statement]:
        """The first go."""
        t = self._tables
        found = [
            Statement(
                "SELECT epoch, idx, mark, floor, floor_mark, salt, recorded,"
                f" pg_current_xact_id()::text || ' ' || now()::text FROM {t.head} FOR UPDATE"
            ),
            Statement(f"SELECT idx, mark FROM {t.log} WHERE idx = ANY(%s::bigint[])", [list(self._anchors)]),
            Statement(
                f"SELECT s.topic, s.key, s.namespace, s.value, s.idx, s.final FROM {_NAMES}"
                f" AS n (topic, key, namespace) JOIN {t.state} AS s USING (topic, key, namespace)",
                columns(self._names, 3),
            ),
        ]
        if self._ids:
            found.append(
                Statement(f"SELECT id, idx, mark FROM {t.ids} WHERE id = ANY(%s::uuid[])", [self._ids])
            )
        return found

    def decide(self, rows: Sequence[Sequence[Any]]) -> None:
        """Given what `locking` has found, what becomes of each commit."""
        (head, *_) = rows[0] or (None,)
        if head is None:
            raise StoreError(f"{self._store}: damaged: it has no head")
        self._head = Head(*head)
        self._look_for_fork(dict(rows[1]))
        self._present = {Name(*row[:3]): Present(*row[3:]) for row in rows[2]}
        for id_, index, mark in rows[3] if self._ids else ():
            self._made[id_] = EpochIndex(index, self.epoch, mark)
        newest = EpochIndex(self._head.index, self.epoch, self._head.mark)
        for each in self._drafts:
            outcome = self._outcome(each, newest)
            if isinstance(outcome, EpochIndex) and outcome > newest:
                newest = outcome
            self.outcomes.append(outcome)
        self._newest = newest

    def writing(self) -> Sequence[Statement]:
        """The second go; nothing if nothing is to be written."""
        if not self._entries and not self._is_new_epoch:
            return ()
        return [*self._write_state(), *self._write_log(), *self._write_revoked(), self._write_head()]

    def _look_for_fork(self, marks: Mapping[int, str]) -> None:
        head = self._head
        anchor = self.known.of(head.epoch)
        self.epoch = head.epoch
        if anchor is None:
            return
        if is_forked(anchor, index=head.index, floor=head.floor, mark=mark_at(anchor.index, head, marks)):
            self.epoch = os.urandom(16).hex()
            self._is_new_epoch = True

    def _outcome(self, each: Draft | Exception, newest: EpochIndex) -> Outcome:
        if isinstance(each, Exception):
            return each
        if each.order.id is not None and each.order.id in self._made:
            return self._made[each.order.id]
        try:
            effects = settle(each, self._present, self.epoch, LIMITS, self._store)
        except (StoreError, ValueError) as error:
            return error
        if effects is None:
            return newest
        made = EpochIndex(newest + 1, self.epoch, os.urandom(8).hex())
        self._make(effects, made, each.order.id)
        return made

    def _make(self, effects: Effects, made: EpochIndex, id_: UUID | None) -> None:
        for each in effects.changes:
            self._touched[each.name] = None
            if isinstance(each.change, Put):
                self._present[each.name] = Present(each.value, int(made), each.change.final)
            else:
                self._present.pop(each.name, None)
        digests = [token_digest(token, self._head.salt) for token in effects.tokens]
        for digest in digests:
            self._revoked[digest] = int(made)
        topics = json.dumps(sorted({each.name.topic for each in effects.changes}))
        self._entries.append((int(made), made.mark, topics, effects.text, " ".join(digests)))
        if id_ is not None:
            self._made[id_] = made
            self._new_ids.append((id_, int(made), made.mark))

    def _write_state(self) -> Sequence[Statement]:
        t = self._tables
        found: list[Statement] = []
        gone = [name for name in self._touched if name not in self._present]
        if gone:
            found.append(
                Statement(
                    f"DELETE FROM {t.state} AS s USING {_NAMES} AS n (topic, key, namespace)"
                    " WHERE s.topic = n.topic AND s.key = n.key AND s.namespace = n.namespace",
                    columns(gone, 3),
                )
            )
        put = [(*name, *self._present[name]) for name in self._touched if name in self._present]
        if put:
            found.append(
                Statement(
                    f"INSERT INTO {t.state} (topic, key, namespace, value, idx, final) SELECT * FROM"
                    " unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::boolean[])"
                    " ON CONFLICT (topic, namespace, key)"
                    " DO UPDATE SET value = excluded.value, idx = excluded.idx, final = excluded.final",
                    columns(put, 6),
                )
            )
        return found

    def _write_log(self) -> Sequence[Statement]:
        if not self._entries:
            return ()
        t = self._tables
        found = [
            Statement(
                f"INSERT INTO {t.log} (idx, mark, at, topics, operations, revoked)"
                " SELECT n.idx, n.mark, greatest(clock_timestamp(), h.at),"
                " ARRAY(SELECT json_array_elements_text(n.topics::json)), n.operations, n.revoked"
                f" FROM {t.head} AS h, unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[])"
                " AS n (idx, mark, topics, operations, revoked)",
                columns(self._entries, 5),
            )
        ]
        if self._new_ids:
            found.append(
                Statement(
                    f"INSERT INTO {t.ids} (id, idx, mark, at) SELECT n.*, clock_timestamp()"
                    " FROM unnest(%s::uuid[], %s::bigint[], %s::text[]) AS n",
                    columns(self._new_ids, 3),
                )
            )
        return found

    def _write_revoked(self) -> Sequence[Statement]:
        if not self._revoked:
            return ()
        t = self._tables
        return [
            Statement(
                f"INSERT INTO {t.revoked} (digest, idx) SELECT * FROM unnest(%s::text[], %s::bigint[])"
                " ON CONFLICT (digest) DO UPDATE SET idx = excluded.idx",
                columns(list(self._revoked.items()), 2),
            ),
            Statement(
                f"WITH forgotten AS (DELETE FROM {t.revoked} WHERE digest IN (SELECT digest FROM {t.revoked}"
                f" ORDER BY idx DESC OFFSET {MOST_REVOKED}) RETURNING idx)"
                f" UPDATE {t.head} SET rights_floor = greatest(rights_floor, (SELECT max(idx) FROM forgotten))"
                " WHERE EXISTS (SELECT 1 FROM forgotten)"
            ),
        ]

    def _write_head(self) -> Statement:
        # The notice is sent with the commit. It names the table, which is the store, and has no content.
        return Statement(
            f"UPDATE {self._tables.head} SET epoch = %s, idx = %s, mark = %s, recorded = %s,"
            f" at = greatest(clock_timestamp(), at) RETURNING pg_notify({CHANNEL}, '')",
            [self.epoch, int(self._newest), self._newest.mark, self._head.transaction],
        )


CHANNEL: Final = "'trio_stream_' || tableoid"
"""Where commits are told of: an expression for a row of `ts_head`."""


def mark_at(index: int, head: Any, marks: Mapping[int, str]) -> str | None:
    """The mark that the store has at this index; None if there is no such commit, "" where it begins."""
    if index == 0:
        return "" if head.floor == 0 else None
    return head.floor_mark if index == head.floor else marks.get(index)


def columns(rows: Sequence[Sequence[object]], count: int) -> Sequence[list[object]]:
    """The same, a list for each column."""
    return [[row[n] for row in rows] for n in range(count)]
