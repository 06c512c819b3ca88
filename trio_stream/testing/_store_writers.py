"""Checks of what happens at the same time: writers at several handles, and readers of every kind while they write.

What the readers saw is kept, and judged when all commits are known: the log of those that were acknowledged, in the
order of their indexes, says what the state was at each index.
"""

import random
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from uuid import uuid4

import anyio
import anyio.lowlevel

from trio_stream.stores import (
    JSON,
    Commit,
    ConflictError,
    Delete,
    Entry,
    EpochIndex,
    Head,
    Name,
    Operation,
    Put,
    Revoke,
)

from ._store_guard import Guarded
from ._store_model import exact, rows_of, states_of
from ._store_trial import StoreCheck, Trial, check, take

_MANY: Final = 150  # tasks at once
_KEYS: Final = 400  # that are read while others write
_ROUNDS: Final = 6  # that each of the readers makes


@dataclass
class _Acknowledged:
    """The commits that tasks have made at the same time."""

    trial: Trial
    made: dict[int, tuple[Sequence[Operation], str]] = field(default_factory=dict)
    newest: int = 0

    async def commit(
        self, store: Guarded, *operations: Operation, expect: "dict[Name, int] | None" = None
    ) -> EpochIndex:
        """One more; what returned before this was asked for has a lower index."""
        before = self.newest
        index = await store.commit(operations, expect=expect)
        if index in self.made:
            self.trial.fail("two commits have this index", index)
        if index <= before:
            self.trial.fail(f"a commit asked for after {before} had returned has a lower index", index)
        self.made[int(index)] = operations, index.mark
        self.newest = max(self.newest, int(index))
        return index

    def settle(self) -> Sequence[Commit]:
        """All are made: the model has them; returns them in order."""
        return [
            self.trial.model.add(index, operations, mark=mark)
            for index, (operations, mark) in sorted(self.made.items())
        ]


@check("writers share one order")
async def writers_share_one_order(t: Trial) -> None:
    """Commits of several tasks and handles get different indexes, and everybody sees them in that order."""
    made = _Acknowledged(t)
    seen: list[list[Commit]] = []
    each, writers = 12, 9

    async def write(store: Guarded, number: int) -> None:
        await anyio.lowlevel.checkpoint()
        for n in range(each):
            size = (1, 1, 2, 60, 5)[(n + number) % 5]
            shared = [t.put(f"shared {m}", [number, n]) for m in range(t.most(size) - 1)]
            await made.commit(store, t.put(f"writer {number}", n), *shared)

    async def follow(store: Guarded) -> None:
        async with store.changes(t.start.cursor) as commits:
            seen.append(await take(commits, each * writers))

    async with t.open() as second, t.open() as third:
        stores = (t.store, second, third)
        async with anyio.create_task_group() as tasks:
            for number, store in enumerate(stores * 3):
                tasks.start_soon(follow, store)
                tasks.start_soon(write, store, number)
        log = list(made.settle())
        for commits in seen:
            t.equal("what came while they were made", commits, log)
        await t.agrees("", *stores)


@dataclass
class _Sights:
    """What readers saw while others wrote: from after this index, at the latest at that one."""

    lists: list[tuple[int, int, str, str, list[tuple[str, Entry]]]] = field(default_factory=list)
    gets: list[tuple[int, int, Name, Entry | None]] = field(default_factory=list)
    snapshots: list[tuple[int, int, EpochIndex, str, str, dict[str, tuple[JSON, int]]]] = field(
        default_factory=list
    )
    heads: list[Head] = field(default_factory=list)
    logs: list[tuple[int, int, list[Commit]]] = field(default_factory=list)


class _Pace:
    """Lets writers commit when readers read, now a little sooner and now a little later."""

    def __init__(self) -> None:
        self._random = random.Random(14)  # noqa: S311 - no secret, and the same each time
        self._commits = anyio.Semaphore(0)

    async def before_a_read(self) -> None:
        """A commit or two will come at about the same time."""
        await anyio.lowlevel.checkpoint()
        for _ in range(self._random.randint(1, 2)):
            self._commits.release()
        for _ in range(self._random.randrange(7)):
            await anyio.lowlevel.checkpoint()

    async def before_a_commit(self) -> None:
        """Somebody is about to read."""
        await self._commits.acquire()
        for _ in range(self._random.randrange(3)):
            await anyio.lowlevel.checkpoint()


@check("all agree while writers go on")
async def all_agree_while_writers_go_on(t: Trial) -> None:
    """`list`, `get`, `snapshot`, `head` and `changes` are of one index each, none older than what came before."""
    made, sights, pace = _Acknowledged(t), _Sights(), _Pace()
    for start in range(0, _KEYS, t.most(700)):
        await t.commit(*(t.put(f"{n:04}", 0) for n in range(start, min(_KEYS, start + t.most(700)))))

    async def write(store: Guarded, number: int) -> None:
        n = 0
        while True:
            n += 1
            await pace.before_a_commit()
            await made.commit(store, *_some_operations(t, number, n))

    async def read(reader: _Reader, store: Guarded) -> None:
        await anyio.lowlevel.checkpoint()
        for _ in range(_ROUNDS):
            await reader(t, store, sights, pace)

    async with t.open() as other:
        async with anyio.create_task_group() as writers:
            for number, store in enumerate((t.store, other) * 2, 1):
                writers.start_soon(write, store, number)
            async with anyio.create_task_group() as readers:
                for store in (t.store, other):
                    for reader in (_read_lists, _read_snapshots, _read_values, _read_log, _read_feed):
                        readers.start_soon(read, reader, store)
            writers.cancel_scope.cancel()
        await _settle(t, made)
        await t.agrees("", t.store, other)
        marks = {int(each.index): each.mark for each in await t.log(t.start.index, t.newest)}
    _judge(t, sights, states_of(t.model.log, t.start.index), {t.start.index: t.start.mark, **marks})


async def _settle(t: Trial, made: _Acknowledged) -> None:
    """Some writers were cancelled: what they have not made is not there."""
    log = await t.log(t.newest, (await t.store.head()).index)
    t.equal("the indexes of the log", [int(commit.index) for commit in log], sorted(made.made))
    made.settle()


def _some_operations(t: Trial, number: int, n: int) -> Sequence[Operation]:
    """Of one commit: in two topics, some of them many."""
    size = t.most((1, 3, 1, 150, 2, 1, 400, 1)[(n + number) % 8])
    operations: list[Operation] = [
        Put(t.topic + ("", "2")[m % 2], f"{(m * 13 + n) % _KEYS:04}", [number, n, m]) for m in range(size)
    ]
    operations[-1:] = [t.put("last", [number, n], to="2")]
    if size > 2:
        operations[0] = Delete(t.topic, f"{(n * number * 29) % _KEYS:04}")
    return operations


_Reader: TypeAlias = Callable[[Trial, Guarded, _Sights, _Pace], Awaitable[None]]


async def _read_lists(t: Trial, store: Guarded, sights: _Sights, pace: _Pace) -> None:
    for to, prefix in (("", ""), ("2", ""), ("", "00")):
        before = await _index(store)
        await pace.before_a_read()
        rows = await t.rows(store, to=to, prefix=prefix)
        sights.lists.append((before, await _index(store), t.topic + to, prefix, rows))


async def _read_snapshots(t: Trial, store: Guarded, sights: _Sights, pace: _Pace) -> None:
    for to, key in (("", ""), ("2", ""), ("2", "last"), ("", "0000")):
        before = await _index(store)
        await pace.before_a_read()
        index, sink = await t.look(key, store=store, to=to)
        after = await _index(store)
        state = {subject.key: found for subject, found in sink.state.items()}
        sights.snapshots.append((before, after, index, t.topic + to, key, state))


async def _read_values(t: Trial, store: Guarded, sights: _Sights, pace: _Pace) -> None:
    for name in (Name(t.topic, "0000"), Name(t.topic + "2", "last"), Name(t.topic, "0029")):
        before = await _index(store)
        await pace.before_a_read()
        entry = await store.get(name.topic, name.key)
        sights.gets.append((before, await _index(store), name, entry))


async def _read_log(t: Trial, store: Guarded, sights: _Sights, pace: _Pace) -> None:
    cursor = (await store.head()).cursor
    for _ in range(3):
        await pace.before_a_read()
        head = await store.head()
        sights.heads.append(head)
        sights.logs.append((cursor.index, head.index, await t.log(cursor, head.index, store)))


async def _read_feed(t: Trial, store: Guarded, sights: _Sights, pace: _Pace) -> None:
    """What comes there is in the state already, and in the head."""
    async with store.changes(await _index(store)) as commits:
        for _ in range(4):
            await pace.before_a_read()
            commit = await anext(commits)
            index, at = int(commit.index), await _index(store)
            t.holds(at >= index, f"changes() gives a commit while the head is at {at}", index)
            for change in commit.operations[:: max(1, len(commit.operations) // 3)]:
                entry = await store.get(change.topic, change.key)
                sights.gets.append((index, await _index(store), change.name, entry))


async def _index(store: Guarded) -> int:
    return (await store.head()).index


def _judge(t: Trial, sights: _Sights, states: dict[int, dict[Name, Entry]], marks: dict[int, str]) -> None:
    """Compares what was seen with what was there, at any index that it may be of."""
    indexes = sorted(states)

    def between(first: int, last: int) -> Sequence[int]:
        return indexes[bisect_right(indexes, first) - 1 : bisect_right(indexes, last)]

    for first, last, log in sights.logs:
        expected = [commit for commit in t.model.log if first < commit.index <= last]
        t.equal(f"the log from {first} up to the head {last}", log, expected, last)
    for head in sights.heads:
        t.equal("index and mark of a head", (head.index, head.mark), (head.index, marks.get(head.index)))
    for first, last, index, topic, key, found in sights.snapshots:
        t.holds(
            first <= index <= last,
            f"a snapshot between the heads {first} and {last} says that it is of {int(index)}",
            index,
        )
        t.holds(index in states, "a snapshot says that it is of this index, which is none", index)
        t.holds(index.mark in ("", marks[index]), "a snapshot has the mark of another index", index)
        rows = [row for row in rows_of(states[index], topic) if key in ("", row[0])]
        truth = {name: (entry.value, int(entry.index)) for name, entry in rows}
        t.equal(f"a snapshot of {topic!r}, key {key!r}", found, truth, index)
    for first, last, topic, prefix, rows in sights.lists:
        truths = [rows_of(states[at], topic, prefix=prefix) for at in between(first, last)]
        _is_one_of(t, f"list({topic!r}, {prefix!r}) between the heads {first} and {last}", rows, truths)
    for first, last, name, entry in sights.gets:
        entries = [[states[index].get(name)] for index in between(first, last)]
        _is_one_of(t, f"get of {name.key!r} between the heads {first} and {last}", [entry], entries)


def _is_one_of(t: Trial, what: str, found: Sequence[object], truths: Sequence[Sequence[object]]) -> None:
    """`==` first: it ends where two rows differ, and most of these do at the first."""
    if not any(found == truth and exact(found) == exact(truth) for truth in truths):
        t.equal(what, found, truths[-1])


@check("a commit is seen whole")
async def a_commit_is_seen_whole(t: Trial) -> None:
    """While large commits of two topics go on, nobody sees a part of one."""
    size, pace = t.most(600) // 2, _Pace()
    keys = [f"{n:04}" for n in range(size)]

    async def write_all() -> None:
        n = len(t.model.log)
        await t.commit(*(t.put(key, n, to=to) for key in keys for to in ("", "2")))

    async def write() -> None:
        while True:
            await pace.before_a_commit()
            await write_all()

    async def read(store: Guarded) -> None:
        await anyio.lowlevel.checkpoint()
        for _ in range(_ROUNDS // 2):
            await _look_for_parts(t, store, pace, keys)

    async def follow(store: Guarded) -> None:
        async with store.changes(await _index(store)) as commits:
            async for commit in commits:
                t.equal(
                    "the number of operations of a commit", len(commit.operations), 2 * size, commit.index
                )

    await write_all()
    async with t.open() as other:
        async with anyio.create_task_group() as tasks:
            for store in (t.store, other):
                tasks.start_soon(follow, store)
            tasks.start_soon(write)
            async with anyio.create_task_group() as readers:
                for store in (t.store, other):
                    readers.start_soon(read, store)
            tasks.cancel_scope.cancel()
        await t.agrees("", t.store, other)


async def _look_for_parts(t: Trial, store: Guarded, pace: _Pace, keys: Sequence[str]) -> None:
    for to in ("", "2"):
        await pace.before_a_read()
        values = {repr(entry.value) for _, entry in await t.rows(store, to=to)}
        t.holds(len(values) == 1, f"a torn commit: list() has {values} of the commits 0, 1, 2, ...")
        await pace.before_a_read()
        _, sink = await t.look(store=store, to=to)
        values = {repr(value) for value, _ in sink.state.values()}
        t.holds(len(values) == 1, f"a torn commit: snapshot() has {values} of the commits 0, 1, 2, ...")
    await pace.before_a_read()
    first = await store.get(t.topic, keys[-1])
    second = await store.get(t.topic + "2", keys[0])
    t.holds(
        first and second and first.index <= second.index,
        f"a torn commit: get() gives {first!r}, and then of the same commits {second!r}",
    )


@check("many commit at once")
async def many_commit_at_once(t: Trial) -> None:
    """Each of 150 tasks gets what its own commit deserves: an index, a conflict, or what is wrong with it."""
    made = _Acknowledged(t)
    await t.know_salt()
    first = await t.commit(t.put("a", 1), t.put("last", 1, final=True))
    refused = 0

    async def commit(store: Guarded, number: int) -> None:
        nonlocal refused
        mine = t.put(f"{number}", number)
        match number % 5:
            case 0:
                call = store.commit([mine, t.put("a", 2)], expect={Name(t.topic, "a"): first + 1})
                await t.raises(ConflictError, "a wrong expectation among many commits", call)
            case 1:
                call = store.commit([mine, t.put("last", 2)])
                await t.raises(ConflictError, "a put of what is finished among many commits", call)
            case 2:
                call = store.commit([mine, t.put("nan", float("nan"))])
                await t.raises(ValueError, "no JSON among many commits", call)
            case 3:
                await made.commit(store, mine, expect={Name(t.topic, "a"): int(first)})
                return
            case _:
                await made.commit(store, mine, t.put("b", number), Revoke(f"{number}"), Revoke("all"))
                return
        refused += 1

    async with t.open() as other:
        async with anyio.create_task_group() as tasks:
            for number in range(_MANY):
                tasks.start_soon(commit, (t.store, other)[number % 2], number)
        made.settle()
        t.equal("commits and refusals", (len(made.made), refused), (_MANY * 2 // 5, _MANY * 3 // 5))
        await t.agrees("", t.store, other)
        newest = (await other.revocations()).newest
        t.equal("the revocations of many at once", {**newest, **t.model.revoked}, {**newest})


@check("of many that finish a key one does")
async def of_many_that_finish_a_key_one_does(t: Trial) -> None:
    """And of many that put what one of them has put, if it is a change, one does."""
    finished: list[tuple[EpochIndex, Operation]] = []
    indexes: list[int] = []

    async def finish(store: Guarded, number: int) -> None:
        await anyio.lowlevel.checkpoint()
        operation = t.put("final", number, final=True)
        try:
            finished.append((await store.commit([operation]), operation))
        except ConflictError as error:
            t.holds(error.is_final, "is_final of the error is false, and the key is finished")

    async def change(store: Guarded) -> None:
        indexes.append(int(await store.commit([t.put("same", [1, None])], if_changed=True)))

    async with t.open() as other:
        async with anyio.create_task_group() as tasks:
            for number in range(80):
                tasks.start_soon(finish, (t.store, other)[number % 2], number)
        t.equal("how many of 80 have finished a key", len(finished), 1)
        t.model.add(int(finished[0][0]), [finished[0][1]])
        async with anyio.create_task_group() as tasks:
            for number in range(80):
                tasks.start_soon(change, (t.store, other)[number % 2])
        t.equal("the indexes of 80 that put the same, if it is a change", len({*indexes}), 1)
        t.model.add(indexes[0], [t.put("same", [1, None])])
        await t.agrees("", t.store, other)


@check("of many with one expectation one wins")
async def of_many_with_one_expectation_one_wins(t: Trial) -> None:
    """100 tasks at two handles expect the same, at the same time, of an old name and of a new one."""
    first = await t.commit(t.put("a", "old"))
    async with t.open() as other:
        await _one_wins(t, Name(t.topic, "a"), int(first), other)
        await _one_wins(t, Name(t.topic, "new"), 0, other)
        await t.agrees("", t.store, other)


async def _one_wins(t: Trial, name: Name, expected: int, other: Guarded) -> None:
    winners: list[tuple[EpochIndex, Operation]] = []
    losers: list[ConflictError] = []

    async def commit(store: Guarded, number: int) -> None:
        await anyio.lowlevel.checkpoint()
        operation = t.put(name.key, number)
        try:
            winners.append((await store.commit([operation], expect={name: expected}), operation))
        except ConflictError as error:
            losers.append(error)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(commit, (t.store, other)[number % 2], number)
    t.equal("the winners of 100", len(winners), 1)
    index, operation = winners[0]
    t.model.add(int(index), [operation], mark=index.mark)
    for error in losers:
        found = int(error.expected), int(error.actual)
        t.equal("expected and actual of an error", found, (expected, int(index)))


@check("many read at once")
async def many_read_at_once(t: Trial) -> None:
    """150 tasks of two handles get what they ask for, each its own."""
    await t.commit(*(t.put(f"{n}", n) for n in range(t.most(40))))
    expected = t.model.rows(t.topic)

    async def read(store: Guarded, number: int) -> None:
        key, entry = expected[number % len(expected)]
        t.equal(f"get of {key!r}", await store.get(t.topic, key), entry)
        t.equal(
            f"list with prefix {key!r}", await t.rows(store, prefix=key), t.model.rows(t.topic, prefix=key)
        )
        _, sink = await t.look(key, store=store)
        found = [value for value, _ in sink.state.values()]
        t.equal(f"a snapshot of {key!r}", found, [entry.value])
        t.equal("list", await t.rows(store), expected)

    async with t.open() as other, anyio.create_task_group() as tasks:
        for number in range(_MANY):
            tasks.start_soon(read, (t.store, other)[number % 2], number)


@check("one store, whoever opens it")
async def one_store_whoever_opens_it(t: Trial) -> None:
    """Twenty handles, opened and closed one after another, have one head, one state and one log."""
    await t.commit(t.put("a", 0))
    cursor = (await t.store.head()).cursor
    async with t.open() as other, other.changes(cursor) as commits:
        for n in range(1, 8):
            async with t.open() as third:
                await t.agrees("", third)
                await t.commit(t.put("a", n), t.put(f"{n}"), store=third)
                t.equal("the head", await third.head(), await t.store.head())
                t.equal("the head", await third.head(), await other.head())
            async with t.open() as fourth:
                await t.agrees("after the handle that committed was closed", fourth, t.store, other)
                await t.commit(t.put("b", n), Delete(t.topic, f"{n}"), store=(t.store, other, fourth)[n % 3])
            found = await take(commits, 2)
            t.equal("what came at another handle", found, t.model.log[-2:])
    await t.agrees()


@check("what was returned is durable", keeps_open=False)
async def what_was_returned_is_durable(t: Trial) -> None:
    """State, log, floor, epoch, marks, ids and revocations are the same after all handles were closed."""
    by = uuid4()
    async with t.open() as store:
        await t.know_salt(store)
        first = await t.commit(
            t.put("a", 1), t.put("b", [1, {"a": None}]), t.put("last", 1, "n", final=True), store=store
        )
        await store.compact(first)
        await t.commit(t.put("a", 2), Revoke("token"), store=store)
        made = await t.commit(Delete(t.topic, "b"), t.put("c", 1.0), store=store, id=by)
        heads = [await store.head()]
    for n in range(3):
        async with t.open() as store:
            t.equal("the head", await store.head(), heads[-1])
            await t.agrees("opened again", store)
            t.equal("get", await store.get(t.topic, "last", namespace="n"), t.model.rows(t.topic, "n")[0][1])
            t.equal("the log after a cursor", await t.log(heads[0].cursor, t.newest, store), t.model.log[3:])
            t.equal(
                "a commit with the id of another", int(await store.commit([t.put("a")], id=by)), int(made)
            )
            newest = (await store.revocations()).newest
            t.equal("revocations", {**newest, **t.model.revoked}, {**newest})
            again = store.commit([t.put("last", 2, "n")])
            await t.raises(ConflictError, "a put of what was finished before", again)
            await t.commit(t.put("a", n), store=store)
            heads.append(await store.head())
    t.equal("floors", {head.floor for head in heads}, {int(first)})
    t.equal("epochs", {head.epoch for head in heads}, {t.start.epoch})


WRITER_CHECKS: Final[Sequence[StoreCheck]] = (
    writers_share_one_order,
    all_agree_while_writers_go_on,
    a_commit_is_seen_whole,
    many_commit_at_once,
    of_many_that_finish_a_key_one_does,
    of_many_with_one_expectation_one_wins,
    many_read_at_once,
    one_store_whoever_opens_it,
    what_was_returned_is_durable,
)
