"""Checks of `Store.changes` and `Store.compact`: every commit once and in order, or an error."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import anyio
import anyio.lowlevel

from trio_stream import Cursor, Subject, SubscribeRequest
from trio_stream.stores import (
    Change,
    Commit,
    Delete,
    HistoryLostError,
    Operation,
    PagedLog,
    Record,
    Revoke,
    TopicLog,
    topic,
)

from ._store_guard import Guarded
from ._store_trial import StoreCheck, Trial, check, take

_MANY: Final = 1_200  # commits: more than an engine is likely to read in one go
_WAITING: Final = 130  # readers that wait at the same time
_PAUSES: Final = 9  # of 0, 1, 2, ... checkpoints before a commit


@check("changes follow every index")
async def changes_follow_every_index(t: Trial) -> None:
    """From wherever one begins, by number or by cursor, the same commits come, in order, each as it was made."""
    await _some_commits(t)
    cursors = [t.start.cursor, *(await _cursors(t))]
    async with t.open() as other:
        for number, cursor in enumerate(cursors):
            expected = t.model.log[number:]
            for store in (t.store, other):
                for after in (cursor.index, cursor, Cursor(cursor.index, t.start.epoch)):
                    found = await t.log(after, t.newest, store)
                    t.equal(f"the changes after {after!r}", found, expected, cursor.index)


@check("what is replaced is told")
async def what_is_replaced_is_told(t: Trial) -> None:
    """Each operation of the log has the value before it, None included, as of the commit before; or none."""
    await _some_commits(t)
    await t.commit(t.put("null", None), t.put("a", 1, "n"), t.put("a", 2, to="2"))
    await t.commit(t.put("null", 1), t.put("null", None), t.put("a", {"new": True}))
    await t.commit(t.put("null", None), Delete(t.topic, "a", "n"))
    await t.commit(Delete(t.topic, "null"), t.put("a", [None], "n"), Delete(t.topic, "b"))
    await t.commit(t.put("null", "again"), t.put("b", 1), t.put("a", 1.0, to="2"))
    await t.commit(t.put("large", "x" * 300_000))
    await t.commit(t.put("large", "y" * 300_000), Delete(t.topic, "a"))
    await t.commit(Delete(t.topic, "large"), t.put("a", "was deleted"))
    many = [t.put(f"{n}", n) for n in range(t.most(500))]
    await t.commit(*many)
    await t.commit(*(t.put(f"{n}", [n]) if n % 3 else Delete(t.topic, f"{n}") for n in range(t.most(500))))
    async with t.open() as other:
        await t.agrees("", t.store, other)
        await t.store.compact(t.model.log[-2].index)
        await t.commit(*many, store=other)
        await t.agrees("after a compaction", t.store, other)


@check("changes go on and on")
async def changes_go_on_and_on(t: Trial) -> None:
    """1,200 commits: for who waits, for who comes late, and for who leaves and comes back again and again."""
    live: list[list[Commit]] = []
    made: dict[int, tuple[Operation, ...]] = {}
    ids: dict[UUID, int] = {}
    numbers = iter(range(_MANY))

    async def write(store: Guarded) -> None:
        await anyio.lowlevel.checkpoint()
        for n in numbers:
            operations = (t.put(f"{n % 50}", n), *(t.put(f"{m}", n, "n") for m in range(n % 97 // 90 * 5)))
            by = uuid4()
            ids[by] = index = int(await store.commit(operations, id=by))
            made[index] = operations

    async def follow(store: Guarded) -> None:
        async with store.changes(t.start.cursor) as commits:
            live.append(await take(commits, _MANY))

    async with t.open() as other:
        async with anyio.create_task_group() as tasks:
            for store in (t.store, other):
                tasks.start_soon(follow, store)
            tasks.start_soon(_come_back, t, (t.store, other), live)
            for store in (t.store, other) * 12:
                tasks.start_soon(write, store)
        for index in sorted(made):
            t.model.add(index, made[index])
        for commits in live:
            t.equal("what came while it was waited for", commits, t.model.log)
        for by in [*ids][:: _MANY // 20]:
            t.equal(
                "the index of a commit with the id of another",
                int(await other.commit([t.put("a")], id=by)),
                ids[by],
            )
        await t.agrees("read later", t.store, other)
        for place in (1, 99, 128, 255, 500, 999, 1_000, 1_023, 1_024, 1_100, _MANY - 1):
            found = await t.log(t.model.log[place].index, t.newest, other)
            t.equal(f"the log without the first {place + 1}", found, t.model.log[place + 1 :])


async def _come_back(t: Trial, stores: Sequence[Guarded], live: list[list[Commit]]) -> None:
    """Adds what comes to who takes a few, leaves, and goes on from there at the other handle."""
    await anyio.lowlevel.checkpoint()
    found: list[Commit] = []
    while len(found) < _MANY:
        size = len(found) % 13 + 1
        after = Cursor(int(found[-1].index), t.start.epoch, found[-1].mark) if found else t.start.cursor
        async with stores[size % 2].changes(after) as commits:
            found += await take(commits, min(size, _MANY - len(found)))
    live.append(found)


@check("changes wait for what is to come")
async def changes_wait_for_what_is_to_come(t: Trial) -> None:
    """130 readers, of this handle and of another, that wait, or are about to, get each commit, whoever makes it."""
    crowd = _Crowd(t)
    async with t.open() as other:
        async with anyio.create_task_group() as tasks:
            for number in range(_WAITING):
                tasks.start_soon(crowd.follow, (t.store, other)[number % 2])
            for n in range(2 * _PAUSES):
                with t.within(t.patience, f"{_WAITING} readers of changes(), which all wait for commit {n}"):
                    await crowd.all_have(n)
                for _ in range(n % _PAUSES):
                    await anyio.lowlevel.checkpoint()
                await t.commit(t.put("a", n), store=(t.store, other, other)[n % 3])
            for n in range(5):
                await t.commit(t.put("b", n), store=(t.store, other)[n % 2])
            with t.within(t.patience, f"{_WAITING} readers of changes(), which all wait for the last commit"):
                await crowd.all_have(2 * _PAUSES + 5)
            tasks.cancel_scope.cancel()
        for commits in crowd.found:
            t.equal("what one of the readers got", commits, t.model.log)


@dataclass
class _Crowd:
    """Readers of changes, and how far all of them have come."""

    trial: Trial
    found: list[list[Commit]] = field(default_factory=list)
    # How many readers have so many commits, {number of commits: readers}.
    counts: Counter[int] = field(default_factory=Counter)
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def follow(self, store: Guarded) -> None:
        """One more reader."""
        mine: list[Commit] = []
        self.found.append(mine)
        async with store.changes(self.trial.start.cursor) as commits:
            self._has(0)
            async for commit in commits:
                mine.append(commit)
                self._has(len(mine))

    def _has(self, number: int) -> None:
        self.counts[number] += 1
        if self.counts[number] == _WAITING:
            changed, self.changed = self.changed, anyio.Event()
            changed.set()

    async def all_have(self, number: int) -> None:
        """Returns when each of the readers has so many commits."""
        await anyio.lowlevel.checkpoint()
        while self.counts[number] < _WAITING:
            await self.changed.wait()


@check("changes outlast silence")
async def changes_outlast_silence(t: Trial) -> None:
    """A reader that waited a second, and two, gets what comes then; of either handle, for a commit of either."""
    async with (
        t.open() as other,
        t.store.changes(t.start.cursor) as mine,
        other.changes(t.start.cursor) as its,
    ):
        for seconds, store in ((0.0, t.store), (1.2, other), (2.1, t.store), (0.1, other)):
            found: list[list[Commit]] = []

            async def follow(commits: AsyncIterator[Commit], found: list[list[Commit]] = found) -> None:
                found.append(await take(commits, 1))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, mine)
                tasks.start_soon(follow, its)
                await anyio.sleep(seconds)
                size = min(700_000, t.store.limits.value - 10)
                await t.commit(t.put("a", "x" * size), t.put("b", seconds), store=store)
            for commits in found:
                t.equal(f"what came after {seconds} s of silence", commits, t.model.log[-1:])
            await t.agrees(f"after {seconds} s of silence", t.store, other)


@check("changes wait for an index to come")
async def changes_wait_for_an_index_to_come(t: Trial) -> None:
    """An `after` that the store has yet to reach is waited for; nothing older is given."""
    later = t.start.index + 7
    first: list[Commit] = []

    async def follow(store: Guarded) -> None:
        async with store.changes(later) as commits:
            first.append(await anext(commits))

    async with t.open() as other, anyio.create_task_group() as tasks:
        for store in (t.store, other):
            tasks.start_soon(follow, store)
        while t.newest <= later:
            await t.commit(t.put("a", t.newest), store=other)
    for commit in first:
        t.equal(f"the first change after {later}", commit, t.model.log[-1])


@check("compaction loses history and says so")
async def compaction_loses_history_and_says_so(t: Trial) -> None:
    """At the floor one goes on, below it is `HistoryLostError` with the numbers, at every handle; the state stays."""
    await _some_commits(t)
    await t.raises(ValueError, "compact beyond the newest", t.store.compact(t.newest + 1))
    await t.raises(ValueError, "compact far beyond the newest", t.store.compact(t.newest + 10**6))
    await t.store.compact(0)
    t.equal("the floor after compact(0)", (await t.store.head()).floor, t.start.floor)
    log, cursors = [*t.model.log], await _cursors(t)
    async with t.open() as other:
        for place, store, asked in (
            (1, t.store, 1),
            (1, other, 0),
            (6, other, 6),
            (len(log) - 3, t.store, -3),
        ):
            await store.compact(log[asked].index)
            async with t.open() as third:
                for handle in (t.store, other, third):
                    await _has_floor(t, handle, log, cursors, place)
        await t.agrees("after compactions", t.store, other)
        await t.store.compact(t.newest)
        for handle in (t.store, other):
            head = await handle.head()
            t.equal(
                "floor and index of a log without commits", (head.floor, head.index), (t.newest, t.newest)
            )
            t.equal("the mark of the head of a log without commits", head.mark, log[-1].mark or head.mark)
            await t.agrees("after a compaction of all", handle)
            lost = _first(handle, log[-2].index)
            await t.raises(HistoryLostError, "changes() from below the floor", lost)
        cursor = (await other.head()).cursor
        await t.commit(t.put("a", "new"))
        for after in (cursor, cursor.index):
            t.equal("the log after the floor", await t.log(after, t.newest, other), t.model.log[-1:])


async def _has_floor(
    t: Trial, store: Guarded, log: Sequence[Commit], cursors: Sequence[Cursor], place: int
) -> None:
    head = await store.head()
    t.equal("the floor", head.floor, log[place].index)
    t.equal("the head", (head.index, head.epoch), (t.newest, t.start.epoch))
    for number, cursor in enumerate(cursors):
        for after in (cursor, cursor.index):
            if number < place:
                error = await t.raises(HistoryLostError, f"changes({after!r})", _first(store, after))
                found = int(error.after), int(error.floor), error.epoch
                t.equal("after, floor, epoch of the error", found, (cursor.index, head.floor, head.epoch))
            else:
                t.equal(f"changes({after!r})", await t.log(after, t.newest, store), list(log[number + 1 :]))


@check("there is no gap where the log is compacted")
async def there_is_no_gap_where_the_log_is_compacted(t: Trial) -> None:
    """While a log is compacted, and wherever that is cancelled, a reader gets every commit, or `HistoryLostError`."""
    for n in range(120):
        await t.commit(t.put(f"{n % 5}", n), t.put("all", n))
    log = [*t.model.log]
    cursors = [t.start.cursor, *(await _cursors(t))]
    async with t.open() as other:

        async def look(_: bool) -> None:
            for store in (t.store, other):
                await _are_whole_or_lost(t, store, cursors, (0, 3, 9, 20))

        async def read(store: Guarded) -> None:
            while True:
                await _are_whole_or_lost(t, store, cursors, (0, 1, 5, 40, 77, 119))

        for number in (0, 4, 12):
            await t.sweep(partial(t.store.compact, log[number].index), after_each=look)
        async with anyio.create_task_group() as tasks:
            for store in (t.store, other):
                tasks.start_soon(read, store)
            for number in (30, 60, 118):
                await other.compact(log[number].index)
                await look(False)  # noqa: FBT003
            tasks.cancel_scope.cancel()
        await t.agrees("", t.store, other)


async def _are_whole_or_lost(
    t: Trial, store: Guarded, cursors: Sequence[Cursor], numbers: Sequence[int]
) -> None:
    await anyio.lowlevel.checkpoint()
    for number in numbers:
        await anyio.lowlevel.checkpoint()
        try:
            found = await t.log(cursors[number], t.newest, store)
        except HistoryLostError:
            continue
        t.equal(f"the log after {cursors[number]!r}", found, t.model.log[number:])


@check("commits go on while the log is compacted")
async def commits_go_on_while_the_log_is_compacted(t: Trial) -> None:
    """None is lost, and neither is what is read meanwhile; a feed gets every commit, or `HistoryLostError`."""
    made: dict[int, tuple[Operation, ...]] = {}
    seen: list[list[Commit]] = []

    async def write(store: Guarded, number: int) -> None:
        for n in range(40):
            operations = (t.put(f"{number}", n), t.put("all", [number, n]), Delete(t.topic, f"{n}"))
            made[int(await store.commit(operations))] = operations

    async def compact(store: Guarded, behind: int) -> None:
        await anyio.lowlevel.checkpoint()
        while len(made) < 150:
            is_there = bool(made)
            await store.compact(max((await store.head()).index - behind, 0))
            entry = await store.get(t.topic, "all")
            t.holds(entry is not None or not is_there, "what was put is gone after a compaction")

    async with t.open() as other:
        async with anyio.create_task_group() as tasks:
            for store in (t.store, other):
                tasks.start_soon(_follow_until_lost, t, store, seen)
            async with anyio.create_task_group() as writers:
                for number in range(4):
                    writers.start_soon(write, (t.store, other)[number % 2], number)
                writers.start_soon(compact, other, 7)
                writers.start_soon(compact, t.store, 0)
            tasks.cancel_scope.cancel()
        for index in sorted(made):
            t.model.add(index, made[index])
        for mine in seen:
            t.equal("what a feed got", mine, t.model.log[: len(mine)])
        await t.agrees("", t.store, other)


async def _follow_until_lost(t: Trial, store: Guarded, seen: list[list[Commit]]) -> None:
    """Adds a list of what comes."""
    await anyio.lowlevel.checkpoint()
    mine: list[Commit] = []
    seen.append(mine)
    with suppress(HistoryLostError):
        async with store.changes(t.start.cursor) as commits:
            while True:
                mine.append(await anext(commits))


@check("a reader that was overtaken by compaction has no gap")
async def a_reader_that_was_overtaken_by_compaction_has_no_gap(t: Trial) -> None:
    """Whoever is inside the iteration gets every commit, or `HistoryLostError` instead of the first that is gone."""
    async with t.open() as other:
        for taken, store in ((1, t.store), (0, other), (5, other), (30, t.store)):
            cursor, start = (await t.store.head()).cursor, len(t.model.log)
            for n in range(40):
                await t.commit(t.put("a", n))
            async with store.changes(cursor) as commits:
                found = await take(commits, taken)
                for n in range(300):
                    await t.commit(t.put(f"{n}", n))
                await t.store.compact(t.model.log[-20].index)
                try:
                    # An engine may have read ahead; then nothing is missing.
                    while len(found) < 340:
                        found.append(await anext(commits))
                except HistoryLostError as error:
                    t.holds(
                        error.after <= error.floor and len(found) < 321,
                        f"{error!r} after {len(found)} of 340 commits, of which 20 were not compacted",
                    )
            t.equal("what came before the compaction told", found, t.model.log[start : start + len(found)])


@check("an iteration ends with its context")
async def an_iteration_ends_with_its_context(t: Trial) -> None:
    """What is used after it was left raises, and does not wait for ever; others are not concerned."""
    index = await t.commit(t.put("a"), t.put("b"))
    async with t.store.changes(t.start.index) as others, t.store.list(t.topic) as other_entries:
        async with t.store.changes(t.start.index) as commits:
            pass
        await t.raises(Exception, "a step of changes that were left", anext(commits))
        async with t.store.changes(index) as commits:
            pass
        await t.raises(Exception, "a step of changes that were left", anext(commits))
        async with t.store.list(t.topic) as entries:
            await anext(entries)
        await t.raises(Exception, "a step of a list that was left", anext(entries))
        t.equal("a step of other changes", await take(others, 1), t.model.log)
        t.equal("another list", [key async for key, _ in other_entries], ["a", "b"])


@check("the log can be read by topic")
async def the_log_can_be_read_by_topic(t: Trial) -> str | None:
    """`changes_of`, if the store offers it: every commit, with its mark and the operations of these topics."""
    if not isinstance(t.store.store, TopicLog):
        await anyio.lowlevel.checkpoint()
        return "the store does not offer to read its log by topic"
    await t.know_salt()
    topics = frozenset({t.topic, t.topic + "%", t.topic + "🚀"})
    for n in range(400):
        operations: list[Operation] = [t.put(f"{n % 7}", n, to=("", "2", "%", "_", "🚀", "")[n % 6])]
        operations += [t.put("more", n, to=more) for more in ("2", "🚀")[: n % 3]]
        await t.commit(*operations, *(Revoke(f"{n}") for _ in range(n % 50 == 7)))
    expected = [
        replace(each, operations=tuple([change for change in each.operations if change.topic in topics]))
        for each in t.model.log
    ]
    cursors = [t.start.cursor, *(await _cursors(t))]
    for place in (0, 1, 120, 399):
        for after in (cursors[place], cursors[place].index):
            async with t.store.changes_of(topics, after) as commits:
                found = await take(commits, 400 - place)
            t.equal(f"the log of some topics after {after!r}", found, expected[place:])
            marks = [commit.mark for commit in found]
            t.equal("their marks", marks, [cursor.mark for cursor in cursors[place + 1 :]])
    await t.store.compact(cursors[10].index)
    for wrong in (
        cursors[9],
        Cursor(cursors[20].index, t.start.epoch, "another"),
        Cursor(cursors[20].index, "another"),
    ):
        await t.raises(HistoryLostError, f"changes_of({wrong!r})", _first_of(t.store, topics, wrong))
    return None


async def _first_of(store: Guarded, topics: frozenset[str], after: Cursor) -> Commit:
    async with store.changes_of(topics, after) as commits:
        return await anext(commits)


@check("the log can be read by pages")
async def the_log_can_be_read_by_pages(t: Trial) -> str | None:
    """`page_of`, if the store offers it: page by page every commit that has what a request covers, and not a wait."""
    store = t.store.store
    if not isinstance(store, PagedLog):
        await anyio.lowlevel.checkpoint()
        return "the store does not offer pages of its log"
    for n in range(700):
        await t.commit(t.put(f"{n % 7}", n, to=("", "2", "")[n % 3]), t.put("a", n, "n"))
    await t.commit(t.put("large", "x" * min(600_000, t.store.limits.value - 10)), t.put("a", 1, to="2"))
    await t.commit(t.put("large", "y" * min(600_000, t.store.limits.value - 10)), t.put("a", 1, to="2"))
    await t.commit(t.put("a", 1, to="2"))
    cursors = [t.start.cursor, *(await _cursors(t))]
    for key, namespace in (("", "default"), ("3", "default"), ("a", "n"), ("never there", "default")):
        request = SubscribeRequest(topic(t.topic), key, namespace=namespace)
        for first, last in ((0, 703), (0, 300), (250, 703), (702, 703), (703, 703)):
            found = await _pages(t, store, request, cursors[first], cursors[last].index)
            expected = [
                (int(commit.index), mine)
                for commit in t.model.log[first:last]
                if (mine := _covered(request, commit))
            ]
            t.equal(f"pages of {request!r} after {cursors[first]!r}", found, expected)
    await t.store.compact(cursors[10].index)
    for wrong in (
        cursors[9],
        Cursor(cursors[20].index, t.start.epoch, "another"),
        Cursor(cursors[20].index, "another"),
    ):
        call = store.page_of(SubscribeRequest(topic(t.topic)), wrong, upto=t.newest)
        await t.raises(HistoryLostError, f"page_of({wrong!r})", call)
    return None


async def _pages(
    t: Trial, store: PagedLog, request: SubscribeRequest[Record], after: Cursor, upto: int
) -> list[tuple[int, list[Change]]]:
    """What the request covers of the commits that the pages have."""
    found: list[tuple[int, list[Change]]] = []
    while True:
        page = await t.store.bounded("page_of()", partial(store.page_of, request, after, upto=upto))
        for commit in page:
            t.holds(
                after.index < commit.index <= upto, f"a page after {after.index} up to {upto}", commit.index
            )
            after = Cursor(int(commit.index), t.start.epoch, commit.mark)
            if mine := _covered(request, commit):
                found.append((int(commit.index), mine))
        if not page:
            t.equal("where pages end", after.index, upto)
            return found


def _covered(request: SubscribeRequest[Record], commit: Commit) -> list[Change]:
    return [
        change
        for change in commit.operations
        if request.covers(topic(change.topic), Subject(change.key, change.namespace))
    ]


async def _some_commits(t: Trial) -> None:
    for n in range(3):
        await t.commit(t.put("a", n), t.put("c", n))
        await t.commit(t.put("b", [n]), t.put("a", n), Delete(t.topic, "b"))
        await t.commit(Delete(t.topic, "never there"))
        await t.commit(
            t.put("a", {"x": None}), t.put("a", 1, "n"), Delete(t.topic, "c"), t.put("a", n, to="2")
        )
        await t.commit(Delete(t.topic, "a", "n"), Delete(t.topic, "a"))


async def _cursors(t: Trial) -> list[Cursor]:
    """Of each commit of the model; the marks are those of the log."""
    log = await t.log(t.start.index, t.newest)
    return [Cursor(int(commit.index), t.start.epoch, commit.mark) for commit in log]


async def _first(store: Guarded, after: int | Cursor) -> Commit:
    async with store.changes(after) as commits:
        return await anext(commits)


CHANGES_CHECKS: Final[Sequence[StoreCheck]] = (
    changes_follow_every_index,
    what_is_replaced_is_told,
    changes_go_on_and_on,
    changes_wait_for_what_is_to_come,
    changes_outlast_silence,
    changes_wait_for_an_index_to_come,
    compaction_loses_history_and_says_so,
    there_is_no_gap_where_the_log_is_compacted,
    commits_go_on_while_the_log_is_compacted,
    a_reader_that_was_overtaken_by_compaction_has_no_gap,
    an_iteration_ends_with_its_context,
    the_log_can_be_read_by_topic,
    the_log_can_be_read_by_pages,
)
