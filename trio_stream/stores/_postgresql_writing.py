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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from ._anchors import Anchor, Known, is_forked
from ._errors import StoreError
from ._orders import Draft, Effects, Key, Outcome, Present, settle
from ._values import MOST_REVOKED, EpochIndex, Limits, Put, token_digest

LIMITS: Final = Limits(operations=100_000, commit=64 << 20, key=512, value=16 << 20)
"""A row of an index has at most a third of a page of 8 KiB, and the three parts of a name are in one."""


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
        # The fields below are written by `decide`.
        self._head = Head("", 0, "", 0, "", b"", "", "")
        self._present: dict[Key, Present] = {}
        self._touched: dict[Key, None] = {}
        self._made: dict[UUID, EpochIndex] = {}
        self._revoked: dict[str, tuple[int, int]] = {}  # {digest: index, place in the commit}
        self._entries: list[tuple[int, str, list[str], str, str]] = []  # rows of the log
        self._new_ids: list[tuple[UUID, int, str]] = []
        self._is_new_epoch = False
        self._newest = EpochIndex(0, "")

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
        names = _table("n (topic, key, namespace)", self._names, ("text", "text", "text"))
        found = [
            Statement(
                "SELECT epoch, idx, mark, floor, floor_mark, salt, recorded,"
                f" pg_current_xact_id()::text || ' ' || now()::text FROM {t.head} FOR UPDATE"
            ),
            Statement(
                "SELECT s.topic, s.key, s.namespace, s.value, s.idx, s.final"
                f" FROM {names.sql} JOIN {t.state} AS s USING (topic, key, namespace)",
                names.parameters,
            ),
        ]
        if self._ids:
            found.append(
                Statement(f"SELECT id, idx, mark FROM {t.ids} WHERE id = ANY(%s::uuid[])", [self._ids])
            )
        return found

    def doubt(self, rows: Sequence[Sequence[Any]]) -> Statement | None:
        """Given what `locking` has found, what `decide` has to know besides; None if nothing."""
        (head, *_) = rows[0] or (None,)
        if head is None:
            raise StoreError(f"{self._store}: damaged: it has no head")
        self._head = Head(*head)
        anchor = self.known.of(self._head.epoch)
        if anchor is None or (anchor.index, anchor.mark) == (self._head.index, self._head.mark):
            return None
        return Statement(f"SELECT idx, mark FROM {self._tables.log} WHERE idx = %s", [anchor.index])

    def decide(self, rows: Sequence[Sequence[Any]], doubt: Sequence[Any] | None) -> None:
        """Given what `locking` and `doubt` have found, what becomes of each commit."""
        self.epoch = self._head.epoch
        if doubt is not None:
            self._look_for_fork(dict(doubt))
        self._newest = EpochIndex(self._head.index, self.epoch, self._head.mark)
        self._present = {row[:3]: Present(*row[3:]) for row in rows[1]}
        for id_, index, mark in rows[2] if self._ids else ():
            self._made[id_] = EpochIndex(index, self.epoch, mark)
        self.outcomes = [self._outcome(each) for each in self._drafts]

    def writing(self) -> Sequence[Statement]:
        """The second go; nothing if nothing is to be written."""
        if not self._entries and not self._is_new_epoch:
            return ()
        return [*self._write_revoked(), self._write_head([*self._write_state(), *self._write_log()])]

    def _look_for_fork(self, marks: Mapping[int, str]) -> None:
        head = self._head
        anchor = self.known.of(head.epoch)
        assert anchor is not None
        if is_forked(anchor, index=head.index, floor=head.floor, mark=mark_at(anchor.index, head, marks)):
            self.epoch = os.urandom(16).hex()
            self._is_new_epoch = True

    def _outcome(self, each: Draft | Exception) -> Outcome:
        if isinstance(each, Exception):
            return each
        if each.order.id is not None and each.order.id in self._made:
            return self._made[each.order.id]
        try:
            effects = settle(each, self._present, self.epoch, LIMITS, self._store)
        except (StoreError, ValueError) as error:
            return error
        if effects is not None:
            self._newest = EpochIndex(self._newest + 1, self.epoch, os.urandom(8).hex())
            self._make(effects, self._newest, each.order.id)
        return self._newest

    def _make(self, effects: Effects, made: EpochIndex, id_: UUID | None) -> None:
        for each in effects.changes:
            self._touched[each.name] = None
            if isinstance(each.change, Put):
                self._present[each.name] = Present(each.value, int(made), each.change.final)
            else:
                self._present.pop(each.name, None)
        digests = [token_digest(token, self._head.salt) for token in effects.tokens]
        for place, digest in enumerate(digests):
            self._revoked[digest] = (int(made), place)
        topics = list(dict.fromkeys(each.change.topic for each in effects.changes))
        self._entries.append((int(made), made.mark, topics, effects.text, " ".join(digests)))
        if id_ is not None:
            self._made[id_] = made
            self._new_ids.append((id_, int(made), made.mark))

    def _write_state(self) -> Iterator[Statement]:
        state = self._tables.state
        gone = [name for name in self._touched if name not in self._present]
        if gone:
            names = _table("n (topic, key, namespace)", gone, ("text", "text", "text"))
            yield Statement(
                f"DELETE FROM {state} AS s USING {names.sql}"
                " WHERE s.topic = n.topic AND s.key = n.key AND s.namespace = n.namespace",
                names.parameters,
            )
        put = [(*name, *self._present[name]) for name in self._touched if name in self._present]
        if put:
            rows = _table("n", put, ("text", "text", "text", "text", "bigint", "boolean"))
            yield Statement(
                f"INSERT INTO {state} (topic, key, namespace, value, idx, final) SELECT * FROM {rows.sql}"
                " ON CONFLICT (topic, namespace, key)"
                " DO UPDATE SET value = excluded.value, idx = excluded.idx, final = excluded.final",
                rows.parameters,
            )

    def _write_log(self) -> Iterator[Statement]:
        t = self._tables
        if self._entries:
            alias, topics = "n (idx, mark, topics, operations, revoked)", "n.topics"
            if len(self._entries) == 1:
                rows = _table(alias, self._entries, ("bigint", "text", "text[]", "text", "text"))
            else:  # arrays of different lengths cannot be in one
                topics = "ARRAY(SELECT json_array_elements_text(n.topics::json))"
                entries = [(*each[:2], json.dumps(each[2]), *each[3:]) for each in self._entries]
                rows = _table(alias, entries, ("bigint", "text", "text", "text", "text"))
            yield Statement(
                f"INSERT INTO {t.log} (idx, mark, at, topics, operations, revoked)"
                f" SELECT n.idx, n.mark, greatest(clock_timestamp(), h.at), {topics}, n.operations, n.revoked"
                f" FROM {t.head} AS h, {rows.sql}",
                rows.parameters,
            )
        if self._new_ids:
            rows = _table("n", self._new_ids, ("uuid", "bigint", "text"))
            yield Statement(
                f"INSERT INTO {t.ids} (id, idx, mark, at) SELECT n.*, clock_timestamp() FROM {rows.sql}",
                rows.parameters,
            )

    def _write_revoked(self) -> Iterator[Statement]:
        t = self._tables
        if self._revoked:
            revoked = [(digest, *where) for digest, where in self._revoked.items()]
            rows = _table("n", revoked, ("text", "bigint", "integer"))
            yield Statement(
                f"INSERT INTO {t.revoked} (digest, idx, place) SELECT * FROM {rows.sql}"
                " ON CONFLICT (digest) DO UPDATE SET idx = excluded.idx, place = excluded.place",
                rows.parameters,
            )
            yield Statement(
                f"WITH forgotten AS (DELETE FROM {t.revoked} WHERE digest IN (SELECT digest FROM {t.revoked}"
                f" ORDER BY idx DESC, place DESC OFFSET {MOST_REVOKED}) RETURNING idx)"
                f" UPDATE {t.head} SET rights_floor = greatest(rights_floor, (SELECT max(idx) FROM forgotten))"
                " WHERE EXISTS (SELECT 1 FROM forgotten)"
            )

    def _write_head(self, others: Sequence[Statement]) -> Statement:
        """With what is written besides, in one statement: to send many takes longer than to do them."""
        parts = ", ".join(f"w{number} AS ({each.sql})" for number, each in enumerate(others))
        before = [parameter for each in others for parameter in each.parameters]
        # The notice is sent with the commit. It names the table, which is the store, and has no content.
        return Statement(
            f"{f'WITH {parts} ' if parts else ''}UPDATE {self._tables.head}"
            " SET epoch = %s, idx = %s, mark = %s, recorded = %s,"
            f" at = greatest(clock_timestamp(), at) RETURNING pg_notify({CHANNEL}, '')",
            [*before, self.epoch, int(self._newest), self._newest.mark, self._head.transaction],
        )


CHANNEL: Final = "'trio_stream_' || tableoid"
"""Where commits are told of: an expression for a row of `ts_head`."""


def mark_at(index: int, head: Any, marks: Mapping[int, str]) -> str | None:
    """The mark that the store has at this index; None if there is no such commit, "" where it begins."""
    if index == head.index:
        return str(head.mark)  # whether the log has that commit or has lost it
    if index == 0:
        return "" if head.floor == 0 else None
    return head.floor_mark if index == head.floor else marks.get(index)


def _table(alias: str, rows: Sequence[Sequence[object]], types: Sequence[str]) -> Statement:
    """Something to select from. One row is sent as it is, any other number in a list for each column."""
    if len(rows) == 1:
        values = ", ".join(f"%s::{each}" for each in types)
        return Statement(f"(VALUES ({values})) AS {alias}", rows[0])
    lists = ", ".join(f"%s::{each}[]" for each in types)
    return Statement(
        f"unnest({lists}) AS {alias}", [[row[column] for row in rows] for column in range(len(types))]
    )
