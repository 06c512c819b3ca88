"""Checks of `Store.commit`: atomic, numbered without gaps, and refused as a whole."""

from collections.abc import Sequence
from typing import Final

import anyio
import anyio.lowlevel

from trio_stream.stores import JSON, ConflictError, Delete, Head, Name, Put, Store

from ._store_trial import StoreCheck, StoreFactory, Trial, trial

_VALUES: Final[Sequence[JSON]] = (
    None, True, False, 0, -1, 2**53, 1.5, -1e300, "", "text", "\0 \n \u2028 ü 😀", [], {}, [None, [1, {"a": []}]],
    {"": 1, "ключ": {"x": [1.25, "y"]}, "a.b/c": None}, "x" * 100_000,
)  # fmt: skip
_KEYS: Final = (
    "a",
    "A",
    "a/b",
    "a%b",
    "a_b",
    "a b",
    " a",
    "a'b",
    'a"b',
    "ä",
    "a\u0308",
    "😀",
    "\x01",
    "a\nb",
    "../a",
)


async def indexes_grow_by_one(factory: StoreFactory) -> None:
    """Every commit has the next index, which is also that of the head, and of a delete of nothing."""
    async with trial(factory, "indexes grow by one") as t:
        start = (await t.store.head()).index
        for n in range(1, 6):
            operation = t.put("a", n) if n != 3 else Delete(t.topic, "never there")
            index = await t.commit(operation)
            t.equal("the index of a commit", index, start + n, index)
            t.equal("the head after it", (await t.store.head()).index, index, index)


async def writers_share_one_order(factory: StoreFactory) -> None:
    """Commits of two handles at once get different indexes without a gap, and the log has each as it was made."""
    async with trial(factory, "writers share one order") as t, factory() as other:
        start = (await t.store.head()).index
        made: dict[int, JSON] = {}

        async def write(store: Store, name: str) -> None:
            for n in range(8):
                index = await store.commit([t.put(name, n)])
                if index in made:
                    t.fail("two commits have this index", index)
                made[index] = [name, n]

        async with anyio.create_task_group() as tasks:
            for number, store in enumerate((t.store, t.store, other, other)):
                tasks.start_soon(write, store, f"w{number}")
        t.equal("the indexes", sorted(made), list(range(start + 1, start + 33)))
        async with t.store.changes(start) as commits:
            for index in sorted(made):
                (operation,) = (await anext(commits)).operations
                assert isinstance(operation, Put)
                t.equal("the log", [operation.key, operation.value], made[index], index)


async def a_commit_is_seen_whole(factory: StoreFactory) -> None:
    """While commits of two keys go on, nobody sees one of them without the other."""
    async with trial(factory, "a commit is seen whole") as t, factory() as other:
        await t.commit(t.put("a", 0), t.put("b", 0))

        async def write(scope: anyio.CancelScope) -> None:
            for n in range(1, 25):
                await t.commit(t.put("a", n), Delete(t.topic, f"{n - 1}"), t.put(f"{n}"), t.put("b", n))
            scope.cancel()

        async def read(store: Store) -> None:
            while True:
                state = await t.state(store)
                if state["a"] != state["b"]:
                    t.fail(f"a torn commit: a is {state['a']}, b is {state['b']}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, t.store)
            tasks.start_soon(read, other)
            tasks.start_soon(write, tasks.cancel_scope)


async def operations_apply_in_order(factory: StoreFactory) -> None:
    """Where two operations of a commit have one name the later one holds."""
    async with trial(factory, "operations apply in order") as t:
        gone, kept = Delete(t.topic, "gone"), Delete(t.topic, "kept")
        index = await t.commit(t.put("gone", 1), kept, gone, t.put("kept", 1), t.put("kept", 2))
        t.equal("the state", await t.state(), {"kept": 2}, index)


async def values_come_back_as_they_are(factory: StoreFactory) -> None:
    """Every JSON value, also text of any characters, by `get`, `list` and `changes`."""
    async with trial(factory, "values come back as they are") as t:
        start = (await t.store.head()).index
        expected: dict[str, JSON] = {f"{n:02}": value for n, value in enumerate(_VALUES)}
        operations = tuple(t.put(key, value) for key, value in expected.items())
        index = await t.commit(*operations)
        listed = await t.state()
        for key, value in expected.items():
            entry = await t.store.get(t.topic, key)
            t.equal(f"get of {value!r:.50}", repr(entry and entry.value), repr(value), index)
            t.equal(f"list of {value!r:.50}", repr(listed.get(key)), repr(value), index)
        async with t.store.changes(start) as commits:
            t.equal("the log", repr((await anext(commits)).operations), repr(operations), index)


async def names_are_kept_apart(factory: StoreFactory) -> None:
    """Keys that differ by case, by what looks alike or by what means something elsewhere; namespaces; topics."""
    async with trial(factory, "names are kept apart") as t:
        elsewhere = Put(t.topic, "a", "elsewhere", "check"), Put(f"{t.topic}2", "a", "another topic")
        await t.commit(*(t.put(key, key) for key in _KEYS), *elsewhere)
        t.equal("the keys", await t.state(), {key: key for key in _KEYS})
        await t.commit(Delete(t.topic, "a"))
        entry = await t.store.get(t.topic, "a", namespace="check")
        t.equal("a key of another namespace", entry and entry.value, "elsewhere")
        entry = await t.store.get(f"{t.topic}2", "a")
        t.equal("a key of another topic", entry and entry.value, "another topic")


async def what_is_invalid_is_refused_as_a_whole(factory: StoreFactory) -> None:
    """No operation, what is not JSON: a `ValueError` before anything is written."""
    async with trial(factory, "what is invalid is refused as a whole") as t:
        before = await t.store.head()
        await t.raises(ValueError, "a commit without operations", t.commit())
        broken: Sequence[object] = (
            float("nan"),
            float("inf"),
            "\ud800",
            {1: 2},
            {"a": object()},
            b"bytes",
            {1, 2},
        )
        for value in broken:
            operation = Put(t.topic, "b", value)  # type: ignore[arg-type]
            await t.raises(ValueError, f"a value {value!r}", t.commit(t.put("a"), operation))
        await _unchanged(t, before)


async def an_expectation_holds_or_nothing_changes(factory: StoreFactory) -> None:
    """`expect` of the right index commits; of a wrong one it is a `ConflictError` with the numbers."""
    async with trial(factory, "an expectation holds or nothing changes") as t:
        a, b, other = Name(t.topic, "a"), Name(t.topic, "b"), Name(t.topic, "a", "check")
        first = await t.store.commit([t.put("a", 1)], expect={a: 0, b: 0, other: 0})
        second = await t.store.commit([t.put("b", 1)], expect={a: first, b: 0})
        before = await t.store.head()
        wrong = [
            (a, 0, first),
            (a, second, first),
            (b, first, second),
            (other, first, 0),
            (b, second + 1, second),
        ]
        for name, expected, actual in wrong:
            call = t.store.commit([t.put("a", 2), Delete(t.topic, "b")], expect={a: first, name: expected})
            error = await t.raises(ConflictError, f"expect {expected} where it is {actual}", call)
            found = (error.name, error.expected, error.actual)
            t.equal("name, expected and actual of the error", found, (name, expected, actual))
        await _unchanged(t, before, a=1, b=1)
        await t.store.commit([Delete(t.topic, "a")], expect={a: first})
        await t.raises(
            ConflictError, "expect of what was deleted", t.store.commit([t.put("a")], expect={a: first})
        )
        await t.store.commit([t.put("a", 3)], expect={a: 0})


async def of_writers_with_one_expectation_one_wins(factory: StoreFactory) -> None:
    """Counting up by read and conditional write, in several tasks and two handles, loses no count."""
    async with trial(factory, "of writers with one expectation one wins") as t, factory() as other:
        name = Name(t.topic, "count")
        await t.commit(t.put("count", 0))

        async def count(store: Store) -> None:
            done = 0
            await anyio.lowlevel.checkpoint()
            while done < 4:
                entry = await store.get(*name[:2])
                if entry is None or not isinstance(entry.value, int):
                    t.fail(f"the count is {entry!r}")
                try:
                    await store.commit([t.put("count", entry.value + 1)], expect={name: entry.index})
                except ConflictError:
                    continue
                done += 1

        async with anyio.create_task_group() as tasks:
            for store in (t.store, t.store, other):
                tasks.start_soon(count, store)
        t.equal("the count", await t.state(), {"count": 12})


async def _unchanged(t: Trial, before: Head, **state: JSON) -> None:
    t.equal("the head after what was refused", await t.store.head(), before)
    t.equal("the state after what was refused", await t.state(), state)


COMMIT_CHECKS: Final[Sequence[StoreCheck]] = (
    indexes_grow_by_one,
    writers_share_one_order,
    a_commit_is_seen_whole,
    operations_apply_in_order,
    values_come_back_as_they_are,
    names_are_kept_apart,
    what_is_invalid_is_refused_as_a_whole,
    an_expectation_holds_or_nothing_changes,
    of_writers_with_one_expectation_one_wins,
)
