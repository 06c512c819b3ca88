"""Checks of what reads the state: `get`, `list`, `topics`, `snapshot`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
import anyio.lowlevel

from trio_stream import ALL, Cursor, SnapshotAppender, Subject, SubscribeRequest
from trio_stream.stores import Delete, Entry, Operation, Put, Record, WideStore, topic

from ._broken import PromiseBroken
from ._handler import check_snapshot_handler
from ._store_guard import Guarded
from ._store_samples import KEYS
from ._store_trial import StoreCheck, Trial, check

_LONG: Final = 5_200  # rows: more than an engine is likely to read in one go, several times
_READERS: Final = 66  # that are slow at the same time


@check("what was committed is read")
async def what_was_committed_is_read(t: Trial) -> None:
    """`get` and `list` have the newest value and the index of its commit, and nothing of what was deleted."""
    t.equal("get of nothing", await t.store.get(t.topic, "a"), None)
    t.equal("list of nothing", await t.rows(), [])
    first = await t.commit(t.put("a", 1), t.put("b", 1), t.put("null", None))
    t.equal("get", await t.store.get(t.topic, "a"), Entry(1, first), first)
    t.equal("get of a None", await t.store.get(t.topic, "null"), Entry(None, first), first)
    second = await t.commit(t.put("a", 2), t.put("b", 3, "n"))
    t.equal("get", await t.store.get(t.topic, "a"), Entry(2, second), second)
    t.equal("get of what stayed", await t.store.get(t.topic, "b"), Entry(1, first), second)
    t.equal("get of a namespace", await t.store.get(t.topic, "b", namespace="n"), Entry(3, second), second)
    t.equal("get of another namespace", await t.store.get(t.topic, "a", namespace="n"), None, second)
    third = await t.commit(Delete(t.topic, "a"), Delete(t.topic, "b", "n"))
    t.equal("get of what was deleted", await t.store.get(t.topic, "a"), None, third)
    t.equal("get of what was deleted", await t.store.get(t.topic, "b", namespace="n"), None, third)
    t.equal("get of what stayed", await t.store.get(t.topic, "b"), Entry(1, first), third)
    await t.commit(t.put("a", 2))
    await t.agrees()
    entries = [await t.store.get(t.topic, "a"), *(entry for _, entry in await t.rows())]
    for entry in entries:
        epoch = getattr(entry and entry.index, "epoch", "")
        t.holds(
            epoch in ("", t.start.epoch),
            f"an index that was read is of epoch {epoch!r}, not {t.start.epoch!r}",
        )


@check("a list is in the order of characters")
async def a_list_is_in_the_order_of_characters(t: Trial) -> None:
    """Of their numbers, Unicode code points; whatever the language, and in whatever order they were put."""
    keys = [key for key in KEYS if len(key.encode()) <= t.store.limits.key]
    for start in range(0, len(keys), t.most(50)):
        await t.commit(*(t.put(key, 1) for key in reversed(keys[start : start + t.most(50)])))
    t.equal("the keys", [key for key, _ in await t.rows()], sorted(keys))
    _, sink = await t.look()
    t.equal("the keys of a snapshot", sorted(subject.key for subject in sink.state), sorted(keys))


@check("a list is whole, however long")
async def a_list_is_whole_however_long(t: Trial) -> None:
    """Thousands of rows, with other namespaces and topics before and behind them; and many large ones."""
    places = (("", "default"), ("", "defaulu"), ("", "defaul"), ("!", "default"), ("2", "default"))
    operations: list[Operation] = [
        Put(t.topic + to, f"{n * 7919 % _LONG:05}", n, namespace)
        for to, namespace in places
        for n in range(_LONG if not to and namespace == "default" else 1_100)
    ]
    for start in range(0, len(operations), t.most(2_000)):
        await t.commit(*operations[start : start + t.most(2_000)])
    await t.commit(*(t.put(f"{n:05}", "changed") for n in range(1000, 1000 + t.most(100))))
    await t.commit(*(Delete(t.topic, f"{n:05}") for n in range(990, 990 + t.most(40))))
    async with t.open() as other:
        for store in (t.store, other):
            await _is_whole(t, store)
    large: list[Operation] = [t.put(f"{n:03}", f"{n}" * 10_000, "large") for n in range(120)]
    size = max(1, min(t.most(40), t.store.limits.commit // 60_000))
    for start in range(0, len(large), size):
        await t.commit(*large[start : start + size])
    await _is_whole(t, t.store)


async def _is_whole(t: Trial, store: Guarded) -> None:
    await t.agrees("", store)
    for topic_name, namespace in t.places():
        index, sink = await t.look(store=store, to=topic_name.removeprefix(t.topic), namespace=namespace)
        expected = {
            key: (entry.value, int(entry.index)) for key, entry in t.model.rows(topic_name, namespace)
        }
        found = {subject.key: value for subject, value in sink.state.items()}
        t.equal(f"a snapshot of {topic_name!r}, {namespace!r}", found, expected, index)
    for prefix in ("0", "00", "01", "050", "0519"):
        rows = await t.rows(store, prefix=prefix)
        t.equal(f"list with prefix {prefix!r}", rows, t.model.rows(t.topic, prefix=prefix))


@check("a list is of one index")
async def a_list_is_of_one_index(t: Trial) -> None:
    """All keys in order as of one commit, although others are made, and the log is compacted, while it is read."""
    keys = [f"{n:04}" for n in range(2_100)]
    for start in range(0, len(keys), t.most(700)):
        await t.commit(*(t.put(key, 0) for key in reversed(keys[start : start + t.most(700)])))
    async with t.open() as other:
        for at, store in ((1, other), (2, t.store), (700, other), (1_050, t.store), (2_099, t.store)):
            expected = t.model.rows(t.topic)
            async with store.list(t.topic) as entries:
                found = [await anext(entries) for _ in range(at)]
                for writer in (t.store, other):
                    await t.commit(
                        *(t.put(key, at) for key in keys[: t.most(600) : 2]),
                        Delete(t.topic, keys[min(at + 3, 2_098)]),
                        t.put(f"{at:04} new", at),
                        t.put("9999", at),
                        store=writer,
                    )
                    await t.commit(*(t.put(key, at) for key in keys[-t.most(600) :: 3]), store=writer)
                    await t.store.compact(t.newest)
                found += [row async for row in entries]
            t.equal(f"a list during which commits came after {at} rows", found, expected)
        await t.agrees("", t.store, other)


@check("a snapshot is of the index that it returns")
async def a_snapshot_is_of_the_index_that_it_returns(t: Trial) -> None:
    """Also while commits and compactions go on, for all keys and for one, and for its namespace and topic only."""
    for number in range(8):
        await t.commit(*(t.put(f"{n:04}", number) for n in range(number, 1_700, 8)[: t.most(220)]))
    await t.commit(t.put("a", 0, "check"), t.put("0000", 0, "check"), t.put("0000", 0, to="2"))
    async with t.open() as other:
        for asked in (
            {"key": ""},
            {"key": "0000"},
            {"key": "never there"},
            {"key": "", "namespace": "check"},
        ):
            for is_compacting in (False, True):
                for store in (t.store, other):
                    await _look_while_commits_go_on(t, store, asked, is_compacting=is_compacting)
        elsewhere, sink = await t.look(partition="another")
        t.equal("a snapshot of another partition", (int(elsewhere), sink.events), (t.newest, []))
        await t.agrees("", t.store, other)


async def _look_while_commits_go_on(
    t: Trial, store: Guarded, asked: Mapping[str, Any], *, is_compacting: bool
) -> None:
    states = {t.newest: {**t.model.state}}
    count = 0

    async def commit() -> None:
        nonlocal count
        count += 1
        await anyio.lowlevel.checkpoint()
        if count > 6:
            return
        number = t.newest
        await t.commit(
            *(t.put(f"{n:04}", number) for n in range(0, 1_700, 97)),
            t.put("a", number, "check"),
            Delete(t.topic, f"{1_500 + number % 150:04}"),
            t.put(f"new {number}", number),
        )
        states[t.newest] = {**t.model.state}
        if is_compacting:
            await t.store.compact(t.newest)

    index, sink = await t.look(store=store, at_append=commit, **asked)
    t.holds(
        int(index) in states, f"a snapshot of {asked} returned an index that is none of {[*states]}", index
    )
    request = SubscribeRequest(topic(t.topic), **asked)
    expected = {
        Subject(name.key, name.namespace): (entry.value, int(entry.index))
        for name, entry in states[int(index)].items()
        if request.covers(topic(name.topic), Subject(name.key, name.namespace))
    }
    t.equal(f"a snapshot of {asked}, while commits came", sink.state, expected, index)
    if index.mark:
        log = {commit.index: commit.mark for commit in t.model.log}
        t.equal("the mark of a snapshot", index.mark, log[int(index)] or index.mark, index)


@check("a snapshot is well formed")
async def a_snapshot_is_well_formed(t: Trial) -> None:
    """What `check_snapshot_handler` asks of every snapshot function."""
    for n in range(3):
        await t.commit(t.put(f"a{n}", n), t.put(f"b{n}", n))
    await t.commit(Delete(t.topic, "a1"), t.put("last", 1, final=True))

    async def handler(request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> Cursor | int:
        index = await t.store.snapshot(request, snapshot)
        return index.cursor if index.epoch else int(index)

    for key in ("", "a2", "a1", "last"):
        request = SubscribeRequest(topic(t.topic), key)
        try:
            await check_snapshot_handler(handler, request, finishes=True)
        except PromiseBroken as error:
            t.fail_from(error, str(error))


@check("a prefix is taken literally")
async def a_prefix_is_taken_literally(t: Trial) -> None:
    """`list` with a prefix: `%`, `_`, `*` and case mean nothing, and the highest characters are no bound."""
    keys = sorted({key + more for key in KEYS for more in ("", "b", "\U0010ffff")} | {*KEYS})
    keys = [key for key in keys if len(key.encode()) <= t.store.limits.key]
    for start in range(0, len(keys), t.most(100)):
        await t.commit(*(t.put(key, 1) for key in keys[start : start + t.most(100)]))
    await t.commit(t.put("ab", 1, "n"), t.put("a", 1, "n"), t.put("ab", 1, to="2"))
    prefixes = {key[:length] for key in keys for length in (1, 2, 3)} | {*KEYS}
    for prefix in sorted(prefixes):
        expected = [key for key in keys if key.startswith(prefix)]
        found = [key for key, _ in await t.rows(prefix=prefix)]
        t.equal(f"the keys with prefix {prefix!r}", found, expected)
    t.equal(
        "a namespace with a prefix",
        await t.rows(namespace="n", prefix="ab"),
        t.model.rows(t.topic, "n", "ab"),
    )


@check("topics are those that have a key")
async def topics_are_those_that_have_a_key(t: Trial) -> None:
    """In any namespace; in order, each once, and none any more when its last key is gone."""

    async def mine(store: Guarded) -> list[str]:
        topics = [*await store.topics()]
        t.holds(len({*topics}) == len(topics), "topics() has one twice")
        t.equal("the order of topics()", topics, sorted(topics))
        return [name for name in topics if name.startswith(t.topic)]

    async with t.open() as other:
        t.equal("the topics before there are any", await mine(other), [])
        names = sorted({t.topic + key for key in KEYS if len((t.topic + key).encode()) <= t.store.limits.key})
        for start in range(0, len(names), t.most(30)):
            chunk = names[start : start + t.most(30)]
            await t.commit(
                *(Put(name, "a", 1, ("default", "n")[number % 2]) for number, name in enumerate(chunk))
            )
        t.equal("the topics", await mine(t.store), names)
        t.equal("the topics at another handle", await mine(other), names)
        await t.commit(Put(names[0], "b", 1, "m"), Put(names[1], "b", 1, "m"), Put(names[2], "b", 1))
        await t.commit(Delete(names[0], "a"), Delete(names[1], "a", "n"), Delete(names[3], "a"))
        t.equal("the topics, of which some keys are deleted", await mine(t.store), names)
        await t.commit(Delete(names[0], "b", "m"), Delete(names[3], "a", "n"), Delete(names[4], "a"))
        left = [names[1], names[2], *names[5:]]
        many = [f"{t.topic} {n:04}" for n in range(1_100)]
        for start in range(0, len(many), t.most(1_100)):
            await t.commit(*(Put(name, "a", 1) for name in many[start : start + t.most(1_100)]))
        left = sorted([*left, *many])
        t.equal("the topics, of which two are empty now", await mine(t.store), left)
        t.equal("the topics, of which two are empty now, at another handle", await mine(other), left)


@check("wide snapshots")
async def wide_snapshots_have_what_they_are_asked_for(t: Trial) -> str | None:
    """Of prefixes and of all namespaces and partitions, if the store says that it is wide."""
    if not (isinstance(t.store.store, WideStore) and t.store.store.is_wide):
        await anyio.lowlevel.checkpoint()
        return "the store does not say that it is wide"
    keys = [key for key in KEYS if len(key.encode()) <= t.store.limits.key - 8][::6]
    operations: list[Operation] = [
        Put(t.topic, key + more, [key, more], namespace)
        for namespace in ("default", "n", "N", "n%")
        for key in keys
        for more in ("", "b")
    ]
    operations += [t.put(f"row {n:04}", n, "n") for n in range(1_500)]
    for start in range(0, len(operations), t.most(300)):
        await t.commit(*operations[start : start + t.most(300)])
    await t.commit(t.put("last", 1, final=True), t.put("a", 1, to="2"))
    asked: list[dict[str, Any]] = [
        {"namespace": ALL},
        {"key": "a", "namespace": ALL},
        {"key": "last", "namespace": ALL},
        {"key": "last", "prefix": True},
        {"partition": ALL},
        {"key": "a", "partition": ALL},
        {"namespace": ALL, "partition": ALL},
        {"partition": "another", "namespace": ALL},
        *({"key": key, "prefix": True} for key in keys),
        *({"key": key, "prefix": True, "namespace": ALL} for key in keys),
        {"key": "row ", "prefix": True, "namespace": "n"},
        {"key": "row 0", "prefix": True, "namespace": ALL, "partition": ALL},
    ]
    for each in asked:
        await _look_while_commits_go_on(t, t.store, {"key": "", **each}, is_compacting="namespace" in each)
        _, sink = await t.look(**each)
        t.holds(not sink.is_finished, f"a snapshot of {each} says that it is finished")
    return None


@check("slow readers hold nobody up")
async def slow_readers_hold_nobody_up(t: Trial) -> None:
    """66 lists and 66 snapshots that nobody goes on with, and everything else works; later they have what was there."""
    for start in range(0, 1_100, t.most(650)):
        await t.commit(*(t.put(f"{n:04}", n) for n in range(start, min(1_100, start + t.most(650)))))
    expected = t.model.rows(t.topic)
    values = {key: entry.value for key, entry in expected}
    stalled, may_go_on = 0, anyio.Event()
    all_stalled = anyio.Event()

    def count() -> None:
        nonlocal stalled
        stalled += 1
        if stalled == 2 * _READERS:
            all_stalled.set()

    async def read_list(store: Guarded) -> None:
        async with store.list(t.topic) as entries:
            found = [await anext(entries)]
            count()
            await may_go_on.wait()
            found += [row async for row in entries]
        t.equal("a list that was read slowly", found, expected)

    async def read_snapshot(store: Guarded) -> None:
        has_stalled = False

        async def stall() -> None:
            nonlocal has_stalled
            if not has_stalled:
                has_stalled = True
                count()
            await may_go_on.wait()

        _, sink = await t.look(store=store.patient(), at_append=stall)
        found = {subject.key: value for subject, (value, _) in sink.state.items()}
        t.equal("a snapshot that was read slowly", found, values)

    async with t.open() as other, anyio.create_task_group() as tasks:
        for n in range(_READERS):
            tasks.start_soon(read_list, (t.store, other)[n % 2])
            tasks.start_soon(read_snapshot, (t.store, other)[n % 2])
        with t.within(t.patience, f"{2 * _READERS} readers of which each begins"):
            await all_stalled.wait()
        for store in (t.store, other):
            cursor = (await store.head()).cursor
            await t.commit(*(t.put(f"{n:04}", "new") for n in range(0, 1_100, 7)), store=store)
            t.equal("the log", await t.log(cursor, t.newest, store), t.model.log[-1:])
            await store.compact(t.newest)
            await t.agrees("while others read slowly", store)
            _, sink = await t.look("0007", store=store)
            t.equal("a snapshot while others read slowly", len(sink.state), 1)
            _, sink = await t.look(store=store)
            t.equal("a snapshot while others read slowly", len(sink.state), 1_100)
        may_go_on.set()


READ_CHECKS: Final[Sequence[StoreCheck]] = (
    what_was_committed_is_read,
    a_list_is_in_the_order_of_characters,
    a_list_is_whole_however_long,
    a_list_is_of_one_index,
    a_snapshot_is_of_the_index_that_it_returns,
    a_snapshot_is_well_formed,
    a_prefix_is_taken_literally,
    topics_are_those_that_have_a_key,
    wide_snapshots_have_what_they_are_asked_for,
    slow_readers_hold_nobody_up,
)
