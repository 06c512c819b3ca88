"""The transactions of a store in PostgreSQL, and the timeline that they are on.

Everything here blocks and belongs in a worker thread.

Whoever reads does it in one transaction that sees one state (REPEATABLE READ, READ ONLY), and looks there whether the
store went back; see `_anchors`.
That is so on a standby, too; but one that is behind what this process has seen has lost nothing: it is an error until
it has caught up.

A commit whose connection goes after it was sent may be made or not.
Its transaction has the head locked until it is over.
So a second connection that gets that lock knows: either the commit is in the log, or it will never be.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg

from ._anchors import Anchor, Anchors, Known, is_forked
from ._errors import BehindError, CommitUnknownError, StoreError, again
from ._orders import Draft, Order, Outcome, draft
from ._postgresql_schema import VERSION, create, prefix
from ._postgresql_server import Connection, MayNotWriteError, Pool, Server, is_lost
from ._postgresql_writing import CHANNEL, LIMITS, Group, Statement, Tables, mark_at
from ._retention import Retention
from ._status import StoreStatus
from ._values import JSON, Entry, EpochIndex, Head, Name, Revocations

_READERS: Final = 3  # connections that read something small
_SETTLING: Final = 5.0  # seconds in which to find out what became of a commit
_EVERY: Final = 64  # commits of a process, of which the first one sees to the retention
_RETAINING: Final = 0.1  # seconds that it waits for the lock
_SHORTENED: Final = 2048  # commits that one commit removes beside, at most
_LONGEST_AGE: Final = 1e9  # seconds; more is as good as for ever
IDS_KEPT: Final = 600.0
"""Seconds that the id of a commit is remembered at least."""
ATTEMPTS: Final = 4
"""To read something, until the store has a new epoch where it went back."""
_PAUSE: Final = 0.1  # seconds between two attempts
_MOST_BYTES: Final = 64 << 20  # of the log, that one transaction writes, unless one commit has more


@dataclass(frozen=True, slots=True)
class Row:
    """The head as a transaction sees it."""

    epoch: str
    index: int
    mark: str
    floor: int
    floor_mark: str
    is_standby: bool
    channel: str
    """What is notified of each commit."""

    @property
    def head(self) -> Head:
        """For the users of the store."""
        return Head(self.index, self.floor, self.epoch, self.mark)


class Database:
    """The transactions; any number of threads may call them."""

    def __init__(
        self, server: Server, schema: str | None, *, read_only: bool, retention: Retention | None
    ) -> None:
        self.server = server
        self._retention = retention
        self._made = 0  # commits; counted by the thread that writes
        self.is_read_only = read_only
        self.readers = Pool(server, _READERS)
        self._writer = Pool(server, 1)
        self._cleaner = Pool(server, 1)
        self._anchors = Anchors()
        # {epoch in the store: what this process calls it}, after forks that it may not write down.
        self._renamed: dict[str, str] = {}
        # Written by `open`, once.
        self._schema = schema
        self.tables = Tables("")

    @property
    def epoch(self) -> str:
        """The one that was seen last."""
        return self._anchors.known.newest.epoch

    @property
    def known(self) -> Known:
        """What `judge` compares with; take it before the transaction begins."""
        return self._anchors.known

    def close(self) -> None:
        """Closes the connections; what is called later raises."""
        for pool in (self.readers, self._writer, self._cleaner):
            pool.close()

    def open(self) -> None:
        """Finds the tables, or makes them."""
        schema = self.readers.run(self._find_schema)
        self.tables = Tables(prefix(schema))
        if not self.readers.run(self._has_tables):
            if self.is_read_only:
                raise self.server.error(
                    "not a store of trio_stream: it has no tables, and is opened for reading"
                )
            self._writer.run(lambda connection: create(connection, schema))
        self.readers.run(self._check_version)

    def head(self, stop: threading.Event | None = None) -> Head:
        """See `Store.head`."""
        return self.look(stop).head

    def look(self, stop: threading.Event | None = None) -> Row:
        """The head."""
        row, _ = self.read((), stop)
        return row

    def get(self, name: Name, stop: threading.Event | None = None) -> tuple[EpochIndex, Entry | None]:
        """See `Store.get`; with the index of the state that it was read in."""
        sql = f"SELECT value, idx, final FROM {self.tables.state} WHERE topic = %s AND key = %s AND namespace = %s"
        row, (found,) = self.read([Statement(sql, name)], stop)
        entry = None
        if found:
            text, index, final = found[0]
            entry = Entry(self.value(text, index), EpochIndex(index, row.epoch), final)
        return EpochIndex(row.index, row.epoch, row.mark), entry

    def topics(self, stop: threading.Event | None = None) -> Sequence[str]:
        """See `Store.topics`: one look into the index for each."""
        state = self.tables.state
        sql = (
            f"WITH RECURSIVE found (topic) AS ((SELECT topic FROM {state} ORDER BY topic LIMIT 1) UNION ALL SELECT"
            f" (SELECT s.topic FROM {state} AS s WHERE s.topic > found.topic ORDER BY s.topic LIMIT 1) FROM found"
            " WHERE topic IS NOT NULL) SELECT topic FROM found WHERE topic IS NOT NULL"
        )
        _, (found,) = self.read([Statement(sql)], stop)
        return [topic for (topic,) in found]

    def revocations(self, stop: threading.Event | None = None) -> Revocations:
        """See `Store.revocations`."""
        _, (((salt, floor),), found) = self.read(
            [
                Statement(f"SELECT salt, rights_floor FROM {self.tables.head}"),
                Statement(f"SELECT digest, idx FROM {self.tables.revoked} ORDER BY idx, place"),
            ],
            stop,
        )
        return Revocations(salt, floor, dict(found))

    def status(self, stop: threading.Event | None = None) -> StoreStatus:
        """What the store says of itself."""
        size = "SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest(%s::text[]) AS name"
        row, (((size_,),), ((version,),)) = self.read(
            [Statement(size, [self.tables.names]), Statement("SELECT current_setting('server_version')")],
            stop,
        )
        return StoreStatus(
            "postgresql", version, self.server.name, row.head, row.index - row.floor, {"tables": int(size_)}
        )

    def read(
        self, found: Sequence[Statement], stop: threading.Event | None = None
    ) -> tuple[Row, Sequence[Sequence[Any]]]:
        """The head and what the statements find, in one transaction."""
        for _ in range(ATTEMPTS):
            # Taken first: a transaction that begins later sees its commits if the store has them.
            known = self._anchors.known

            def work(connection: Connection, known: Known = known) -> tuple[Row | None, Sequence[Any]]:
                rows = self.send(
                    connection,
                    [
                        Statement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
                        self.head_statement(known),
                        *found,
                        Statement("COMMIT"),
                    ],
                )
                return self.judge(known, rows[1]), rows[2:-1]

            row, rows = self.readers.run(work, stop)
            if row is not None:
                self.advance(known, row)
                return row, rows
            self.change_epoch()
            self.readers.forget()
        raise self.two_copies()

    def two_copies(self) -> StoreError:
        """Why nothing can be read: after an attempt or two everybody knows a new epoch, or has a new connection."""
        return self.server.error(
            "went back, but not where it is written to: its URL leads to two servers that go different ways"
        )

    def head_statement(self, known: Known) -> Statement:
        """What `judge` is given the rows of."""
        t = self.tables
        anchors = [known.newest.index, *(each.index for each in known.earlier.values())]
        return Statement(
            f"SELECT epoch, idx, mark, floor, floor_mark, pg_is_in_recovery(), {CHANNEL},"
            f" (SELECT coalesce(json_object_agg(idx, mark), '{{}}') FROM {t.log} WHERE idx = ANY(%s::bigint[]))"
            f" FROM {t.head}",
            [anchors],
        )

    def judge(self, known: Known, rows: Sequence[Any]) -> Row | None:
        """The head that was read; None if the store went back, and has no new epoch yet."""
        if not rows:
            raise self.server.error("damaged: it has no head")
        *fields, marks = rows[0]
        row = Row(*fields)
        row = replace(row, epoch=self._renamed.get(row.epoch, row.epoch))
        anchor = known.of(row.epoch)
        if anchor is None:
            return row
        if row.is_standby and row.index < anchor.index:
            raise BehindError(
                f"{self.server.name}: the standby is behind: it has commits up to {row.index},"
                f" and {anchor.index} was seen before"
            )
        found = {int(index): mark for index, mark in marks.items()}
        mark = mark_at(anchor.index, row, found)
        return None if is_forked(anchor, index=row.index, floor=row.floor, mark=mark) else row

    def advance(self, known: Known, row: Row) -> None:
        """A transaction that took `known` has seen this."""
        self._anchors.advance(known, Anchor(row.epoch, row.index, row.mark))

    def change_epoch(self) -> None:
        """Gives the store a new epoch, if it (still) has an older copy's; one for this process, where it may not."""
        if not self.is_read_only:
            with suppress(MayNotWriteError):
                self._write([])
                return
        known = self._anchors.known

        def rename(connection: Connection) -> None:
            rows = self.send(connection, [self.head_statement(known)])[0]
            if self.judge(known, rows) is None:
                self._renamed[rows[0][0]] = os.urandom(16).hex()

        self.readers.run(rename)

    def commit(self, orders: Sequence[Order]) -> Sequence[Outcome]:
        """All of them in one transaction, one after the other; what became of each.

        An order that cannot be done leaves the others alone. Whatever goes wrong is an outcome, and not raised.
        """
        drafts = [self._draft(each) for each in orders]
        outcomes: list[Outcome] = []
        while len(outcomes) < len(drafts):
            outcomes += self._commit(_portion(drafts[len(outcomes) :]))
        self._retain(sum(isinstance(each, EpochIndex) for each in outcomes))
        return outcomes

    def raise_floor(self, index: int) -> None:
        """Makes the commits up to `index` unreadable; `trim` removes them."""
        t = self.tables

        def work(connection: Connection) -> None:
            rows = self.send(
                connection,
                [
                    Statement("BEGIN ISOLATION LEVEL READ COMMITTED"),
                    Statement(f"SELECT idx, floor FROM {t.head} FOR UPDATE"),
                    Statement(f"SELECT mark FROM {t.log} WHERE idx = %s", [index]),
                ],
            )
            ((newest, floor),), found = rows[1:]
            if index > newest:
                raise ValueError(f"cannot compact up to {index}: the newest commit is {newest}")
            if index > floor:
                if not found:
                    raise self.server.error(f"damaged: commit {index} is missing from the log")
                update = f"UPDATE {t.head} SET floor = %s, floor_mark = %s"
                self.send(connection, [Statement(update, [index, found[0][0]]), Statement("COMMIT")])

        self._cleaner.run(work)

    def shorten(self, retention: Retention) -> None:
        """Raises the floor to what is to be kept, for some commits at once at most where that goes by age.

        Those whose commits are made wait for this: a store that others keep locked is an error soon.
        """
        t = self.tables
        oldest = f"SELECT idx, at FROM {t.log} WHERE idx > (SELECT floor FROM {t.head}) ORDER BY idx LIMIT {_SHORTENED}"
        age = min(retention.seconds, _LONGEST_AGE)

        def work(connection: Connection) -> None:
            rows = self.send(
                connection,
                [
                    Statement("BEGIN ISOLATION LEVEL READ COMMITTED"),
                    Statement(f"SET LOCAL lock_timeout = '{_RETAINING:g}s'"),
                    Statement(f"SELECT idx, floor FROM {t.head} FOR UPDATE"),
                    Statement(
                        f"SELECT max(idx) FROM ({oldest}) AS o"
                        " WHERE at < clock_timestamp() - make_interval(secs => %s)",
                        [age],
                    ),
                ],
            )
            (((newest, floor),), ((old,),)) = rows[2:]
            index = max(old or 0, 0 if retention.commits is None else newest - retention.commits)
            if index > floor:
                update = f"UPDATE {t.head} SET floor = l.idx, floor_mark = l.mark FROM {t.log} AS l WHERE l.idx = %s"
                self.send(connection, [Statement(update, [index]), Statement("COMMIT")])

        self._writer.run(work)

    def trim(self, most: int) -> tuple[float, bool]:
        """Removes some commits below the floor, at most so many: how long that took, and whether it was the last."""
        t = self.tables
        sql = (
            f"DELETE FROM {t.log} WHERE idx IN (SELECT l.idx FROM {t.log} AS l WHERE l.idx <="
            f" (SELECT floor FROM {t.head}) ORDER BY l.idx LIMIT %s) RETURNING 1"
        )

        def work(connection: Connection) -> tuple[float, bool]:
            begin = time.perf_counter()
            (rows,) = self.send(connection, [Statement(sql, [most])])
            return time.perf_counter() - begin, len(rows) < most

        return self._cleaner.run(work)

    def forget_ids(self, age: float) -> None:
        """Removes the ids of commits that the log no longer has, if they are so many seconds old."""
        t = self.tables
        sql = (
            f"DELETE FROM {t.ids} WHERE idx <= (SELECT floor FROM {t.head})"
            " AND at < clock_timestamp() - make_interval(secs => %s)"
        )
        self._cleaner.run(lambda connection: self.send(connection, [Statement(sql, [age])]))

    def value(self, text: str, index: int) -> JSON:
        """The value of a row of `ts_state`."""
        try:
            value: JSON = json.loads(text)
        except ValueError as error:
            raise self.server.error(f"damaged: a value of commit {index} is not JSON") from error
        return value

    def send(self, connection: Connection, statements: Sequence[Statement]) -> Sequence[Sequence[Any]]:
        """The rows of each; sent together where that is possible."""
        with self.server.pipeline(connection):
            # What has no parameters is not prepared: it is parsed in no time.
            cursors = [
                connection.execute(sql, parameters, prepare=None if parameters else False)
                for sql, parameters in statements
            ]
        return [cursor.fetchall() if cursor.description else [] for cursor in cursors]

    def _find_schema(self, connection: Connection) -> str | None:
        if self._schema is not None:
            return self._schema
        sql = (
            "SELECT coalesce((SELECT nspname::text FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace"
            " WHERE pg_class.oid = to_regclass('ts_head')), current_schema()::text)"
        )
        ((schema,),) = self.send(connection, [Statement(sql)])[0]
        if schema is None:
            raise self.server.error("no schema of the search_path exists: name one with ?schema=")
        return str(schema)

    def _has_tables(self, connection: Connection) -> bool:
        sql = "SELECT to_regclass(%s) IS NOT NULL"
        ((found,),) = self.send(connection, [Statement(sql, [self.tables.names[0]])])[0]
        return bool(found)

    def _check_version(self, connection: Connection) -> None:
        rows = self.send(connection, [Statement(f"SELECT version FROM {self.tables.head}")])[0]
        if not rows:
            raise self.server.error("damaged: it has no head")
        ((version,),) = rows
        if version > VERSION:
            raise self.server.error(
                f"written by a newer trio_stream (schema {version}; this one knows {VERSION})"
            )

    def _retain(self, made: int) -> None:
        """Applies the retention now and then; what fails is done by the next one."""
        before, self._made = self._made, self._made + made
        is_due = before == 0 or before // _EVERY < self._made // _EVERY
        if self._retention is not None and made and is_due:
            with suppress(Exception):  # whatever it is, the commits are made
                self.shorten(self._retention)
                self.trim(_SHORTENED)
                self.forget_ids(IDS_KEPT)

    def _draft(self, order: Order) -> Draft | Exception:
        try:
            return draft(order, LIMITS, self.server.name)
        except Exception as error:  # noqa: BLE001 - a value may be of any class that is a list or a dict
            return error

    def _commit(self, drafts: Sequence[Draft | Exception]) -> Sequence[Outcome]:
        try:
            return self._write(drafts).outcomes
        except Refused as refused:
            if len(drafts) > 1:  # nothing is done, and some of them can perhaps be done without the others
                return [outcome for each in drafts for outcome in self._commit([each])]
            return [refused.error]
        except Exception as error:  # noqa: BLE001 - for those who wait
            return [again(error) for _ in drafts]

    def _write(self, drafts: Sequence[Draft | Exception]) -> Group:
        """Writes them, or raises why not: then nothing is done, unless it is a `CommitUnknownError`."""
        try:
            group = self._writer.run(lambda connection: self._write_on(connection, drafts))
        except _InterruptedError as interrupted:
            group = interrupted.group
            self._settle(group, interrupted.cause)
        self._anchors.advance(group.known, group.anchor)
        return group

    def _write_on(self, connection: Connection, drafts: Sequence[Draft | Exception]) -> Group:
        group = Group(self.tables, self.server.name, drafts, self._anchors.known)
        begin = Statement("BEGIN ISOLATION LEVEL READ COMMITTED")
        rows = self.send(connection, [begin, *group.locking()])[1:]
        if not rows[0]:  # while it waited for the head somebody put another one in its place: a restore
            rows = self.send(connection, [Statement("ROLLBACK"), begin, *group.locking()])[2:]
        doubt = group.doubt(rows)
        group.decide(rows, None if doubt is None else self.send(connection, [doubt])[0])
        writing = group.writing()
        try:
            if writing:
                self.send(connection, [*writing, Statement("COMMIT")])
        except psycopg.Error as error:
            if is_lost(connection, error):
                connection.close()
                raise _InterruptedError(self.server.cause(error), group) from None
            raise Refused(self.server.named(error)) from None
        return group

    def _settle(self, group: Group, cause: str) -> None:
        """Finds out whether it was committed; returns if it was."""
        end = time.monotonic() + _SETTLING
        while True:
            try:
                is_made = self._writer.run(lambda connection: self._has(connection, group))
            except StoreError:
                is_made = None
            if is_made:
                return
            if is_made is False:
                raise self.server.error(f"{cause}; the commit was not made")
            if time.monotonic() > end:
                raise CommitUnknownError(
                    f"{self.server.name}: {cause}; whether the commit was made is not known"
                )
            time.sleep(_PAUSE)

    def _has(self, connection: Connection, group: Group) -> bool | None:
        """Whether the commits of the group are in the store; None if that cannot be known any more."""
        t = self.tables
        rows = self.send(
            connection,
            [
                Statement("BEGIN ISOLATION LEVEL READ COMMITTED"),
                Statement(f"SET LOCAL lock_timeout = '{_SETTLING:g}s'"),
                Statement(f"SELECT epoch, floor FROM {t.head} FOR SHARE"),
                Statement(f"SELECT mark FROM {t.log} WHERE idx = %s", [group.anchor.index]),
                Statement("COMMIT"),
            ],
        )
        (((epoch, floor),), found) = rows[2:4]
        if not group.has_commits:  # it was about the epoch only
            return bool(epoch == group.anchor.epoch)
        return None if floor >= group.anchor.index else found == [(group.anchor.mark,)]


class Refused(Exception):
    """The server has refused to write something; the connection is as good as before."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(error)
        self.error = error


class _InterruptedError(Exception):
    """The connection went after the commit was sent."""

    def __init__(self, cause: str, group: Group) -> None:
        super().__init__(cause)
        self.cause = cause
        self.group = group


def _portion(drafts: Sequence[Draft | Exception]) -> Sequence[Draft | Exception]:
    """As many of the first as one transaction should write."""
    size = 0
    for count, each in enumerate(drafts):
        size += sum(len(written.item) for written in each.changes) if isinstance(each, Draft) else 0
        if count and size > _MOST_BYTES:
            return drafts[:count]
    return drafts
