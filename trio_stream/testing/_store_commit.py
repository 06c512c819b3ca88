"""Checks of `Store.commit`: atomic, in one order, refused as a whole, and expectations."""

import inspect
from collections.abc import Sequence
from typing import Final, TypeVar

import anyio
import anyio.lowlevel

from trio_stream.stores import (
    JSON,
    ConflictError,
    Delete,
    Name,
    Operation,
    Put,
    Revoke,
    Store,
)

from ._store_guard import Guarded, brief
from ._store_samples import KEYS, VALUES
from ._store_trial import StoreCheck, Trial, check

T = TypeVar("T")

_PLACES: Final = (0, 1, 15, 31, 32, 33, 63, 64, 65, 99, 100, 126, 127, 128, 199, 255, 256, 257, 298, 299)


@check("the protocol is all there")
async def the_protocol_is_all_there(t: Trial) -> None:
    """Every member of `Store`, with all its parameters."""
    store = t.store.store
    await anyio.lowlevel.checkpoint()
    for name, member in inspect.getmembers(Store, inspect.isfunction):
        if name.startswith("_"):
            continue
        found = getattr(store, name, None)
        t.holds(callable(found), f"there is no `{name}`, which the protocol `Store` asks for")
        missing = _parameters(member) - _parameters(found)
        t.holds(not missing, f"`{name}` takes no {' and no '.join(sorted(missing))}")
    t.holds(t.store.limits, "limits are none")


def _parameters(function: object) -> set[str]:
    """The keyword parameters that a call may have; all that there are if it takes any."""
    assert callable(function)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set(_OPTIONS)  # of a builtin; the other checks call it
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return set(_OPTIONS)
    return {each.name for each in parameters if each.name in _OPTIONS}


_OPTIONS: Final = ("expect", "id", "if_changed", "namespace", "prefix")


@check("indexes increase")
async def indexes_increase(t: Trial) -> None:
    """Every commit has a higher index, which is that of the head, also one that deletes nothing."""
    for n in range(6):
        operation = Delete(t.topic, "never there") if n == 3 else t.put("a", n)
        index = await t.commit(operation)
        head = await t.store.head()
        t.equal("the head after a commit", head.index, int(index), index)
        t.equal("the epoch", head.epoch, t.start.epoch, index)
        t.holds(
            index.epoch in ("", head.epoch), f"an index of epoch {index.epoch!r}, not {head.epoch!r}", index
        )
    await t.agrees()


@check("operations of one name")
async def of_operations_with_one_name_the_last_counts(t: Trial) -> None:
    """It counts where it stands, for the state and in the log; a delete of what is not there is not in the log."""
    await t.commit(t.put("old", 0), t.put("older", [1]), t.put("a", 0, "n"))
    await t.commit(
        t.put("gone", 1), Delete(t.topic, "kept"), Delete(t.topic, "gone"), t.put("kept", 1), t.put("kept", 2)
    )
    await t.agrees("after several operations of one name")
    await t.commit(t.put("old", 1), t.put("b", 1), Delete(t.topic, "old"), t.put("old", 2), t.put("b", 2))
    await t.commit(
        Delete(t.topic, "older"), Delete(t.topic, "older"), Delete(t.topic, "a"), t.put("a", 1, "m")
    )
    await t.commit(Delete(t.topic, "never there"), Delete(t.topic, "nor this", "n"))
    await t.agrees("after deletes of what was not there")
    many: list[Operation] = [t.put(f"{n % 7}", n) for n in range(t.most(90))]
    await t.commit(*many, Delete(t.topic, "3"), t.put("3", "last"))
    await t.commit(*(Delete(t.topic, f"{n}") for n in range(5)), *(t.put(f"{n}", "new") for n in range(3, 9)))
    await t.agrees("after many operations of one name")


@check("values come back as they are")
async def values_come_back_as_they_are(t: Trial) -> None:
    """Every JSON value, of the type that it had, by `get`, `list`, `snapshot` and `changes`."""
    values = {f"{n:03}": value for n, value in enumerate(VALUES)}
    for chunk in _chunks(list(values.items()), t.most(40)):
        await t.commit(*(t.put(key, value) for key, value in chunk))
    for key, value in values.items():
        entry = await t.store.get(t.topic, key)
        t.holds(entry is not None, f"get of {brief(value)}: nothing there")
        t.equal(f"get of {brief(value)}", entry and entry.value, value)
    await t.agrees()
    _, sink = await t.look()
    found = {subject.key: value for subject, (value, _) in sink.state.items()}
    t.equal("the values of a snapshot", found, values)
    await t.commit(*(t.put(f"{n:03}", 0) for n in range(min(40, t.store.limits.operations))))
    await t.commit(t.put("tuple", (1, (2, [3])), "n"))
    entry = await t.store.get(t.topic, "tuple", namespace="n")
    t.equal("a tuple", entry and entry.value, [1, [2, [3]]])
    log = await t.log(t.start.index, t.newest)
    t.equal("what was replaced", log[:-1], t.model.log[:-1])


@check("what was put does not change later")
async def what_was_put_does_not_change_later(t: Trial) -> None:
    """A value that is changed by the caller after the commit has not changed in the store."""
    value: list[JSON] = [1, {"a": 1}]
    index = await t.commit(t.put("a", value))
    value.append(2)
    t.model.log.clear()
    entry = await t.store.get(t.topic, "a")
    t.equal("get", entry and entry.value, [1, {"a": 1}], index)
    (commit,) = await t.log(t.start.index, int(index))
    (operation,) = commit.operations
    t.equal("the log", isinstance(operation, Put) and operation.value, [1, {"a": 1}], index)


@check("names are kept apart")
async def names_are_kept_apart(t: Trial) -> None:
    """Keys, namespaces and topics that differ by case, by what looks alike or by what means something elsewhere."""
    keys = [key for key in KEYS if len(key.encode()) <= t.store.limits.key]
    for chunk in _chunks(keys, t.most(40)):
        await t.commit(*(t.put(key, f"key {key}") for key in chunk))
        await t.commit(*(t.put("a", f"namespace {key}", key) for key in chunk))
        await t.commit(*(t.put("a", f"topic {key}", to=key) for key in chunk))
    await t.agrees()
    for key in keys:
        entry = await t.store.get(t.topic, key)
        t.equal(f"get of key {key!r}", entry and entry.value, f"key {key}")
        entry = await t.store.get(t.topic, "a", namespace=key)
        t.equal(f"get of namespace {key!r}", entry and entry.value, f"namespace {key}")
        entry = await t.store.get(t.topic + key, "a")
        t.equal(f"get of topic {key!r}", entry and entry.value, f"topic {key}")
    await _split_elsewhere(t)
    for chunk in _chunks(keys[::3], t.most(40)):
        await t.commit(*(Delete(t.topic, key) for key in chunk))
        await t.commit(*(Delete(t.topic, "a", key) for key in chunk))
        await t.commit(*(Delete(t.topic + key, "a") for key in chunk))
    await t.agrees("after deletes")


async def _split_elsewhere(t: Trial) -> None:
    """Names that are the same once their parts stand one behind the other."""
    for between in (
        "/",
        ":",
        ".",
        "|",
        ",",
        ";",
        "-",
        "_",
        " ",
        "%",
        "#",
        "\t",
        "\x01",
        "\x1f",
        "::",
        "/default/",
    ):
        names: list[Name] = []
        for first, second, third in (("x", "y", "z"), ("y", "z", "x"), ("z", "x", "y")):
            names += [
                Name(t.topic + between + first, second, third),
                Name(t.topic, first + between + second, third),
                Name(t.topic, first, second + between + third),
            ]
        await t.commit(*(Put(name.topic, name.key, [*name], name.namespace) for name in names))
        for name in names:
            entry = await t.store.get(name.topic, name.key, namespace=name.namespace)
            t.equal(f"get of {name}", entry and entry.value, [*name])


@check("long names are whole")
async def long_names_are_whole(t: Trial) -> None:
    """Keys, namespaces and topics up to the limit, of several lengths, that differ at their end only."""
    limit = t.store.limits.key
    lengths = [n for n in (60, 127, 255, 256, 512, 1000, 2048, 4096, 16_384, 65_535, limit) if n <= limit]
    for length in dict.fromkeys(lengths):
        for fill in ("x", "ü", "😀"):
            room = length - len(t.topic)
            key = fill * ((length - 2) // len(fill.encode()))
            rest = fill * ((room - 2) // len(fill.encode()))
            operations: list[Operation] = [t.put(key + end, f"key {end}") for end in ("", "a", "b", "bb")]
            if rest:
                operations += [t.put("a", f"namespace {end}", key + end) for end in ("", "a", "b")]
                operations += [t.put("a", f"topic {end}", to=rest + end) for end in ("", "a", "b")]
            for operation in operations:
                await t.commit(operation)
    await t.agrees()
    await t.commit(t.put("x" * limit, "the longest"))
    entry = await t.store.get(t.topic, "x" * limit)
    t.equal("get of the longest key", entry and entry.value, "the longest")


@check("large values are whole")
async def large_values_are_whole(t: Trial) -> None:
    """Values of up to 1 MB, and commits of several of them, by every way there is to read them."""
    limits = t.store.limits
    room = min(limits.value, limits.commit // 4, 1_050_000) - 100
    sizes = [size for size in (60_000, 130_000, 270_000, 530_000) if size < room]
    for n, size in enumerate([*sizes, room]):
        text = f"{n}" * (size // 2) + "ü" * (size // 8)
        await t.commit(t.put("a", text), t.put(f"{n}", {"text": text[: size // 2], "n": n}), t.put("z", n))
    for n in range(6):
        await t.commit(t.put(f"many {n}", [f"{n}{m}" * 20 for m in range(room // 200)]), t.put("z", n))
    await t.agrees()
    for key, expected in t.model.rows(t.topic):
        t.equal(f"get of {key}", await t.store.get(t.topic, key), expected)
    index, sink = await t.look()
    t.equal("the index of a snapshot", int(index), t.newest)
    found = {subject.key: value for subject, (value, _) in sink.state.items()}
    t.equal("a snapshot", found, {key: entry.value for key, entry in t.model.rows(t.topic)})
    await t.commit(Delete(t.topic, "a"), Delete(t.topic, "0"))
    await t.agrees("after a delete of large ones")


@check("what is invalid is refused as a whole")
async def what_is_invalid_is_refused_as_a_whole(t: Trial) -> None:
    """No operation, what is not JSON: a `ValueError` before anything is written, however much is right before it."""
    await t.raises(ValueError, "a commit without operations", t.store.commit([]))
    too_deep: list[object] = []
    for _ in range(100_000):
        too_deep = [too_deep]
    broken: Sequence[object] = (
        float("nan"),
        float("inf"),
        -float("inf"),
        [1, {"a": [float("nan")]}],
        "\ud800",
        ["a\udfff"],
        {"\ud800": 1},
        {1: 2},
        {None: 2},
        {"a": {True: 1}},
        {"a": object()},
        b"bytes",
        bytearray(b"bytes"),
        {1, 2},
        1j,
        range(3),
        too_deep,
    )
    await t.commit(t.put("was there", 1))
    before = await t.store.head()
    right = [t.put(f"{n}", n) for n in range(t.most(300) - 2)]
    for value in broken:
        operation = Put(t.topic, "b", value)  # type: ignore[arg-type]
        asked: list[list[Operation]] = [[operation], [*right, Delete(t.topic, "was there"), operation]]
        for operations in asked:
            call = t.store.commit(operations)
            await t.raises(ValueError, f"a value {type(value).__name__} that is no JSON", call)
    await t.raises(ValueError, "a delete, a revocation and no JSON", t.store.commit(
        [Delete(t.topic, "was there"), Revoke("token"), Put(t.topic, "b", float("nan"))]
    ))  # fmt: skip
    t.equal("the head after what was refused", await t.store.head(), before)
    await t.agrees("after what was refused")


@check("an expectation holds or nothing changes")
async def an_expectation_holds_or_nothing_changes(t: Trial) -> None:
    """`expect` of the right index commits; of a wrong one it is a `ConflictError` with the numbers."""
    a, b, other = Name(t.topic, "a"), Name(t.topic, "b"), Name(t.topic, "a", "check")
    elsewhere = Name(f"{t.topic} elsewhere", "a")
    first = await t.commit(t.put("a", 1), expect={a: 0, b: 0, other: 0, elsewhere: 0})
    second = await t.commit(t.put("b", 1), t.put("a", 5, to=" elsewhere"), expect={a: first, b: 0})
    await t.commit(t.put("c", 1), expect={a: first, b: second, elsewhere: second, other: 0})
    before = await t.store.head()
    wrong: list[tuple[Name, int, int]] = [
        (a, 0, first),
        (a, int(second), first),
        (b, int(first), second),
        (b, 0, second),
        (other, int(first), 0),
        (elsewhere, int(first), second),
        (elsewhere, 0, second),
        (b, second + 1, second),
        (b, second - 1, second),
        (a, before.index, first),
        (Name(t.topic, "never there"), before.index, 0),
    ]
    for name, expected, actual in wrong:
        asked: list[list[Operation]] = [
            [t.put("a", 2), Delete(t.topic, "b")],
            [t.put("d")],
            [Delete(*name)],
            [Revoke("token")],
        ]
        for operations in asked:
            call = t.store.commit(operations, expect={a: first, name: expected})
            error = await t.raises(ConflictError, f"expect {expected} where it is {int(actual)}", call)
            found = (tuple(error.name), int(error.expected), int(error.actual))
            t.equal("name, expected, actual of the error", found, (tuple(name), expected, int(actual)))
            t.holds(not error.is_final, "is_final of the error is true, and nothing is final here")
    t.equal("the head after what was refused", await t.store.head(), before)
    await t.agrees("after what was refused")
    await t.commit(Delete(t.topic, "a"), expect={a: first})
    gone = t.store.commit([t.put("a")], expect={a: first})
    await t.raises(ConflictError, "expect of what was deleted", gone)
    again = await t.commit(t.put("a", 3), expect={a: 0})
    gone = t.store.commit([t.put("a")], expect={a: first})
    await t.raises(ConflictError, "expect of what was deleted and put again", gone)
    await t.commit(t.put("a", 3), expect={a: again})
    await t.raises(
        ConflictError,
        "expect of what was put again as it is",
        t.store.commit([t.put("a")], expect={a: again}),
    )
    await t.agrees()


@check("indexes that were read can be expected")
async def indexes_that_were_read_can_be_expected(t: Trial) -> None:
    """What `get`, `list` and `commit` return, and the same as plain numbers, at any handle, for plain tuples too."""
    async with t.open() as other:
        await t.commit(t.put("a", 1), t.put("b", 1, "n"), t.put("c", 1, to=" elsewhere"))
        for n in range(2, 4):
            for store in (t.store, other):
                a = await store.get(t.topic, "a")
                (_, b), *_ = await t.rows(store, namespace="n")
                c = await store.get(f"{t.topic} elsewhere", "c")
                t.holds(a is not None and c is not None, "what was put is not there")
                assert a is not None
                assert c is not None
                expect: dict[tuple[str, ...], int] = {
                    (t.topic, "a"): a.index,
                    (t.topic, "b", "n"): int(b.index),
                    (f"{t.topic} elsewhere", "c", "default"): c.index,
                    (t.topic, "never there"): 0,
                }
                for key, index in expect.items():
                    wrong = {**expect, key: index + 1}
                    call = store.commit([t.put("wrong")], expect=wrong)  # type: ignore[arg-type]
                    error = await t.raises(ConflictError, f"a wrong index for the plain tuple {key}", call)
                    t.equal("the name of the error", tuple(error.name), tuple(Name(*key)))
                await t.commit(
                    t.put("a", n), t.put("b", n, "n"), t.put("c", n, to=" elsewhere"), store=other, expect=expect  # type: ignore[arg-type]
                )  # fmt: skip
        await t.agrees("", t.store, other)


@check("every name that is expected counts")
async def every_name_that_is_expected_counts(t: Trial) -> None:
    """Of 300 names, in several topics and namespaces, one is wrong, wherever it stands."""
    names = [
        Name(t.topic + ("", " elsewhere", "2")[n % 3], f"{n}", ("default", "n")[n // 3 % 2])
        for n in range(300)
    ]
    for chunk in _chunks(names[:200], t.most(100)):
        await t.commit(*(Put(name.topic, name.key, 1, name.namespace) for name in chunk))
    right = {name: t.model.index_of(name) for name in names}
    before = await t.store.head()
    for place in _PLACES:
        for wrong in (right[names[place]] + 1, 0 if right[names[place]] else 1):
            expect: dict[Name, int] = {**right, names[place]: wrong}
            call = t.store.commit([t.put("a")], expect=expect)
            error = await t.raises(ConflictError, f"of 300 names number {place} is wrong, and commit()", call)
            t.equal("the name of the error", tuple(error.name), tuple(names[place]))
    t.equal("the head after what was refused", await t.store.head(), before)
    await t.commit(t.put("a"), expect=right)
    await t.agrees()


@check("of writers with one expectation one wins")
async def of_writers_with_one_expectation_one_wins(t: Trial) -> None:
    """Counting up by read and conditional write, in several tasks and two handles, loses no count."""
    name, each = Name(t.topic, "count"), 5
    await t.commit(t.put("count", 0))
    made: list[tuple[int, int]] = []
    conflicts = 0

    async def count(store: Guarded) -> None:
        nonlocal conflicts
        await anyio.lowlevel.checkpoint()
        done = 0
        while done < each:
            entry = await store.get(*name[:2])
            if entry is None or not isinstance(entry.value, int):
                t.fail(f"the count is {entry!r}")
            try:
                index = await store.commit([t.put("count", entry.value + 1)], expect={name: entry.index})
            except ConflictError as error:
                # Each of them means that another commit was made since `get`.
                conflicts += 1
                t.holds(conflicts < 2_000, f"conflicts without an end: {error}")
                continue
            made.append((int(index), entry.value + 1))
            done += 1

    async with t.open() as other:
        async with anyio.create_task_group() as tasks:
            for store in (t.store, t.store, other, other):
                tasks.start_soon(count, store)
        for _, (index, value) in enumerate(sorted(made)):
            t.model.add(index, [t.put("count", value)])
        t.equal("the counts, by index", [value for _, value in sorted(made)], [*range(1, 4 * each + 1)])
        await t.agrees("", t.store, other)


def _chunks(items: Sequence[T], size: int) -> Sequence[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


COMMIT_CHECKS: Final[Sequence[StoreCheck]] = (
    the_protocol_is_all_there,
    indexes_increase,
    of_operations_with_one_name_the_last_counts,
    values_come_back_as_they_are,
    what_was_put_does_not_change_later,
    names_are_kept_apart,
    long_names_are_whole,
    large_values_are_whole,
    what_is_invalid_is_refused_as_a_whole,
    an_expectation_holds_or_nothing_changes,
    indexes_that_were_read_can_be_expected,
    every_name_that_is_expected_counts,
    of_writers_with_one_expectation_one_wins,
)
