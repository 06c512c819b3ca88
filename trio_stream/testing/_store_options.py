"""Checks of what a commit can say: ids, `if_changed`, final values, revocations and limits."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid4

import anyio
import anyio.lowlevel

from trio_stream.stores import (
    JSON,
    MOST_REVOKED,
    ConflictError,
    Delete,
    Entry,
    LimitExceededError,
    Name,
    Operation,
    Put,
    Revoke,
    token_digest,
)

from ._store_guard import Guarded
from ._store_trial import StoreCheck, Trial, check

_LARGEST: Final = 300 << 20  # bytes that a check may take to exceed a limit


@check("an id is of one commit")
async def an_id_is_of_one_commit(t: Trial) -> None:
    """The same id again does nothing and returns the first index; whatever the operations, by whomever, whenever."""
    by = uuid4()
    await t.commit(t.put("last", 1, final=True))
    first = await t.commit(t.put("a", 1), id=by)
    async with t.open() as other:
        for round_ in range(3):
            for store in (t.store, other):
                asked: list[list[Operation]] = [
                    [t.put("a", 1)],
                    [t.put("b", 2), Delete(t.topic, "a")],
                    [t.put("last", 2)],
                    [Revoke("token")],
                ]
                for operations in asked:
                    head = await store.head()
                    index = await store.commit(operations, id=UUID(str(by)))
                    t.equal("the index of a commit with the id of another", int(index), int(first))
                    t.holds(index.mark in ("", first.mark), "its mark is not that of the first", index)
                    await store.commit([t.put("c", 1)], id=by, expect={Name(t.topic, "a"): 0})
                    t.equal("the head after a commit with the id of another", await store.head(), head)
                await t.agrees("after commits with the id of another", store)
            if round_ == 0:
                await t.commit(t.put("a", 3))
                await t.store.compact(t.newest)
        async with t.open() as third:
            t.equal("the id at another handle", int(await third.commit([t.put("a")], id=by)), int(first))
            await t.agrees("", third)


@check("every id is remembered")
async def every_id_is_remembered(t: Trial) -> None:
    """400 of them, some of which differ in one digit only, after other commits and a compaction."""
    lead = uuid4().int
    made: dict[UUID, int] = {}
    async with t.open() as other:
        for n in range(400):
            by = UUID(int=lead ^ (1 << n % 128)) if n < 256 and n % 2 else uuid4()
            made[by] = made.get(by) or int(
                await t.commit(t.put(f"{n}", n), id=by, store=(t.store, other)[n % 2])
            )
        for is_compacted in (False, True):
            if is_compacted:
                await t.store.compact(t.newest)
            for n, (by, index) in enumerate(made.items()):
                found = await (t.store, other)[n // 2 % 2].commit([t.put("again", n)], id=by)
                t.equal("the index of a commit with the id of another", int(found), index)
        await t.agrees("", t.store, other)


@check("an id that was refused is free")
async def an_id_that_was_refused_is_free(t: Trial) -> None:
    """A commit that is not made leaves its id for one that is."""
    by = uuid4()
    await t.commit(t.put("last", 1, final=True))
    wrong = {Name(t.topic, "never there"): 1}
    await t.raises(ConflictError, "a wrong expectation", t.store.commit([t.put("a", 1)], id=by, expect=wrong))
    await t.raises(ConflictError, "a put of what is finished", t.store.commit([t.put("last", 2)], id=by))
    await t.raises(ValueError, "no JSON", t.store.commit([t.put("a", float("nan"))], id=by))
    await t.commit(t.put("a", 2), id=by)
    await t.agrees()


@check("an id that many use at once is of one commit")
async def an_id_that_many_use_at_once_is_of_one_commit(t: Trial) -> None:
    """100 tasks of two handles, each with an operation of its own: one is made, and all get its index."""
    async with t.open() as other:
        for _ in range(4):
            by, found = uuid4(), set[int]()

            async def commit(store: Guarded, number: int, by: UUID = by, found: set[int] = found) -> None:
                found.add(int(await store.commit([t.put("a", number), t.put(f"{number}", number)], id=by)))

            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(commit, (t.store, other)[number % 2], number)
            t.equal("the number of indexes that commits of one id have", len(found), 1)
            (index,) = found
            (made,) = await t.log(t.newest, (await t.store.head()).index)
            t.equal("the index of the one commit", made.index, index)
            t.model.add(index, made.operations)
            t.equal("the number of its operations", len(made.operations), 2)
        await t.agrees("", t.store, other)


@check("what changes nothing is left out if asked for so")
async def what_changes_nothing_is_left_out(t: Trial) -> None:
    """`if_changed`: equal values and deletes of nothing are no commit; 1, 1.0, True and "1" are not equal."""
    values: Sequence[JSON] = (
        None,
        False,
        0,
        0.0,
        "",
        "0",
        [],
        {},
        [0],
        [0.0],
        [False],
        {"a": 0},
        {"a": None},
        True,
        1,
    )
    more: Sequence[JSON] = (
        1.0,
        "1",
        "x" * 70_000,
        "x" * 70_000 + "y",
        2**64,
        float(2**64),
        [[1]],
        [[True]],
        {"a": [1.0]},
    )
    async with t.open() as other:
        await t.commit(t.put("b", "stays"))
        for value in (*values, *more):
            await _changes(t, t.put("a", value))
            for store in (t.store, other):
                await _changes_nothing(t, store, t.put("a", value))
                again = (
                    t.put("a", "other"),
                    t.put("a", value),
                    t.put("b", "stays"),
                    Delete(t.topic, "never there"),
                )
                await _changes_nothing(t, store, *again)
        await _changes(t, t.put("a", 1, final=True))
        await _changes(t, t.put("final", 1))
        await _changes(t, t.put("final", 1, final=True))
        await _changes_nothing(t, other, Delete(t.topic, "a", "n"), Delete(f"{t.topic} elsewhere", "a"))
        await _changes(t, t.put("b", "stays", "n"), t.put("b", "stays"))
        await _changes(
            t, Delete(t.topic, "never there"), t.put("b", "changed"), t.put("c", None), Delete(t.topic, "d")
        )
        await _changes(t, Delete(t.topic, "a"), t.put("c", None))
        await t.know_salt()
        for _ in range(2):
            await _changes(t, Revoke("token"), t.put("c", None))
        many = [t.put(f"{n}", n) for n in range(t.most(200))]
        await t.commit(*many)
        await _changes_nothing(t, t.store, *many)
        await _changes(t, *many[:-1], t.put(many[-1].key, "changed"))
        wrong = t.store.commit([t.put("c", None)], if_changed=True, expect={Name(t.topic, "c"): t.newest + 1})
        await t.raises(ConflictError, "a wrong expectation of what changes nothing", wrong)
        await t.agrees("", t.store, other)


async def _changes(t: Trial, *operations: Operation) -> None:
    index = await t.commit(*operations, if_changed=True)
    (commit,) = await t.log(t.model.log[-2].index, int(index))
    t.equal("what a commit with if_changed has done", commit, t.model.log[-1], index)
    await t.agrees()


async def _changes_nothing(t: Trial, store: Guarded, *operations: Operation) -> None:
    head = await store.head()
    index = await store.commit(operations, if_changed=True)
    t.equal("what a commit that changes nothing returns", int(index), head.index)
    t.equal("the head after a commit that changes nothing", await store.head(), head)


@check("what is final stays")
async def what_is_final_stays(t: Trial) -> None:
    """A put to a finished key is a `ConflictError` and does nothing, at any handle; a delete frees it."""
    names = [
        Name(t.topic, "a"),
        Name(t.topic, "a", "n"),
        Name(f"{t.topic} elsewhere", "a"),
        Name(t.topic, "null"),
    ]
    first = await t.commit(t.put("a", 0), t.put("b", 0), t.put("free", 1, "n"))
    index = await t.commit(
        *(Put(*name[:2], None if name.key == "null" else 1, name.namespace, final=True) for name in names),
        t.put("many", 0),
    )
    await t.agrees("after final puts")
    async with t.open() as other:
        for is_compacted in (False, True):
            if is_compacted:
                await other.compact(t.newest)
            for store in (t.store, other):
                for name in names:
                    entry = await store.get(name.topic, name.key, namespace=name.namespace)
                    t.holds(entry is not None and entry.final, f"get of what is final: {entry!r}")
                    await _refuses(t, store, name, index, first)
            await t.agrees("after what was refused", t.store, other)
            await t.commit(t.put("b", 1), t.put("free", 2), t.put("a", 1, "free"), t.put("a", 1, to="free"))
        many: list[Operation] = [t.put(f"{n}", n) for n in range(t.most(300) - 1)]
        await t.raises(
            ConflictError, "many puts, one of what is finished", other.commit([*many, t.put("a", 1)])
        )
        await t.raises(
            ConflictError, "many puts, one of what is finished", other.commit([t.put("a", 1), *many])
        )
        await t.agrees("after what was refused", t.store, other)
        await t.commit(*(Delete(*name[:2], name.namespace) for name in names))
        for name in names:
            await t.commit(Put(*name[:2], 2, name.namespace), store=other)
        await t.commit(t.put("a", 3, final=True), expect={names[0]: t.model.index_of(names[0])})
        await t.commit(Delete(t.topic, "a"), expect={names[0]: t.newest})
        await t.commit(t.put("a", 4))
        await t.agrees("after deletes of what was final", t.store, other)


async def _refuses(t: Trial, store: Guarded, name: Name, index: int, before: int) -> None:
    topic, key, namespace = name
    entry = t.model.state[name]
    asked: list[list[Operation]] = [
        [Put(topic, key, 2, namespace)],
        [Put(topic, key, entry.value, namespace)],
        [Put(topic, key, entry.value, namespace, final=True)],
        [Delete(topic, key, namespace), Put(topic, key, 2, namespace)],
        [t.put("b", 1), Revoke("token"), Put(topic, key, 2, namespace), t.put("c", 1)],
    ]
    for operations in asked:
        for expect in ({}, {name: int(index)}):
            call = store.commit(operations, expect=expect)
            error = await t.raises(ConflictError, f"a put of {name}, which is finished,", call)
            t.equal("name and actual of the error", (*error.name, int(error.actual)), (*name, int(index)))
            t.equal("expected of the error", int(error.expected), int(index))
            t.holds(error.is_final, "is_final of the error is false, and the key is finished")
    call = store.commit([Delete(topic, key, namespace)], expect={name: int(before)})
    await t.raises(ConflictError, "a delete of what is finished, with a wrong expectation,", call)


@check("a snapshot says whether its key is final")
async def a_snapshot_says_whether_its_key_is_final(t: Trial) -> None:
    """To a request of just that key; not to one of more, and not when a delete has freed it."""
    await t.commit(
        t.put("a", 1, final=True), t.put("b", 1), t.put("a", 1, to="2"), t.put("b", 2, "n", final=True)
    )
    async with t.open() as other:
        for store in (t.store, other):
            for key, namespace, to, is_final in (
                ("a", "default", "", True),
                ("b", "n", "", True),
                ("b", "default", "", False),
                ("a", "n", "", False),
                ("a", "default", "2", False),
                ("", "default", "", False),
                ("", "n", "", False),
            ):
                _, sink = await t.look(key, store=store, to=to, namespace=namespace)
                what = f"whether a snapshot of key {key!r} in {namespace!r} says that it is finished"
                t.holds(sink.is_finished == is_final, f"{what}: {sink.is_finished}")
        await t.commit(Delete(t.topic, "a"))
        for store in (t.store, other):
            _, sink = await t.look("a", store=store)
            t.equal("a snapshot of what was freed", (sink.is_finished, sink.events), (False, []))
        await t.commit(t.put("a", 2))
        _, sink = await t.look("a", store=other)
        t.holds(not sink.is_finished, "a snapshot says that what was freed and put again is finished")


@check("what is revoked is told")
async def what_is_revoked_is_told(t: Trial) -> None:
    """In the log, each digest once, and by `revocations`, newest last, whatever is compacted; never the token."""
    await t.know_salt()
    floor = (await t.store.revocations()).floor
    tokens = ["secret-one", "", "токен 🚀", "secret-one ", "SECRET-ONE", "x" * 3000]
    async with t.open() as other:
        await t.commit(Revoke("secret-one"))
        await t.commit(
            t.put("a", 1), Revoke(tokens[1]), t.put("b", 2), Revoke("secret-one"), Revoke(tokens[1])
        )
        await t.commit(*(Revoke(token) for token in tokens), store=other)
        await t.commit(Revoke("secret-one"), Delete(t.topic, "never there"))
        await _tells_revoked(t, (t.store, other), floor)
        for start in range(0, 1_200, t.most(1_200)):
            await t.commit(*(Revoke(f"token {n}") for n in range(start, min(1_200, start + t.most(1_200)))))
        for n in range(60):
            await t.commit(
                *(Revoke(f"more {n} {m}") for m in range(t.most(20))), store=(t.store, other)[n % 2]
            )
        await t.commit(Revoke(tokens[2]), t.put("a", 3))
        await _tells_revoked(t, (t.store, other), floor)
        await t.store.compact(t.newest)
        await t.commit(Revoke(tokens[3]))
        async with t.open() as third:
            await _tells_revoked(t, (t.store, other, third), floor)


async def _tells_revoked(t: Trial, stores: Sequence[Guarded], floor: int) -> None:
    await anyio.lowlevel.checkpoint()
    for store in stores:
        await t.agrees("", store)
        found = await store.revocations()
        t.equal("the salt", found.salt, t.model.salt)
        newest = {digest: int(index) for digest, index in found.newest.items() if index > t.start.index}
        t.equal("the digests of revoked tokens and their indexes", newest, t.model.revoked)
        t.equal("the order of revocations, oldest first", [*newest], [*t.model.revoked])
        order = [int(index) for index in found.newest.values()]
        t.equal("the order of revocations, oldest first", order, sorted(order))
        if len(found.newest) < MOST_REVOKED:
            t.equal("the floor of revocations, where none was forgotten", found.floor, floor)


@check("the newest revocations are remembered")
async def the_newest_revocations_are_remembered(t: Trial) -> None:
    """65,536 of them; the index of the newest that is forgotten is their floor."""
    await t.know_salt()
    tokens = iter(range(MOST_REVOKED + 1_000))
    size = t.most(8_000)
    while chunk := [Revoke(f"{t.topic} {n}") for n, _ in zip(tokens, range(size), strict=False)]:
        await t.commit(*chunk)
    async with t.open() as other:
        for store in (t.store, other):
            found = await store.revocations()
            t.equal("how many are remembered", len(found.newest), MOST_REVOKED)
            kept = dict([*t.model.revoked.items()][-MOST_REVOKED:])
            newest = {digest: int(index) for digest, index in found.newest.items()}
            t.equal("the newest of them", newest, kept)
            forgotten = [*t.model.revoked.values()][-MOST_REVOKED - 1]
            t.equal("their floor, the index of the newest that is forgotten", int(found.floor), forgotten)
        again = f"{t.topic} 5000"
        index = await t.commit(Revoke(again))
        newest = {**(await other.revocations()).newest}
        t.equal("a token that is revoked again", newest.get(token_digest(again, t.model.salt)), int(index))


async def _exceeds(t: Trial, what: str, limit: int, *operations: Operation) -> None:
    """The commit is refused by this limit, and nothing of it is done."""
    await t.commit(t.put("a", "was there"))
    head = await t.store.head()
    call = t.store.commit(operations)
    error = await t.raises(LimitExceededError, f"a commit with more than the limit of {what}, {limit},", call)
    t.equal("what and limit of the error", (error.what, error.limit), (what, limit))
    t.holds(
        error.actual > limit, f"actual of the error is {error.actual}, and more than {limit} were asked for"
    )
    t.equal("the head after what was refused", await t.store.head(), head)
    await t.agrees("after what was refused")


@check("no more operations than the limit")
async def no_more_operations_than_the_limit(t: Trial) -> None:
    """One more is a `LimitExceededError`, and nothing is done; as many as the limit are done."""
    limit = t.store.limits.operations
    if limit > 200_000:
        few = [t.put(f"{n}", n) for n in range(1_000)]
        operations: list[Operation] = [few[n % 1_000] for n in range(limit + 1)]
    else:
        operations = [t.put(f"{n}", n) for n in range(limit + 1)]
    await _exceeds(t, "operations", limit, *operations)
    if limit <= 20_000:
        await t.commit(*operations[:-1])
        await t.agrees("after a commit with as many operations as the limit")


@check("no longer names than the limit")
async def no_longer_names_than_the_limit(t: Trial) -> None:
    """In bytes of UTF-8: one more in a topic, a namespace or a key is a `LimitExceededError`, and nothing is done."""
    limit = t.store.limits.key
    for long in ("x" * (limit + 1), "ü" * (limit // 2 + 1), "😀" * (limit // 4 + 1)):
        for operation in (
            t.put(long, 1),
            t.put("b", 1, long),
            Put(long, "b", 1),
            Delete(t.topic, long),
            t.put(long, 1, final=True),
        ):
            await _exceeds(t, "key", limit, t.put("b", 1), operation, Delete(t.topic, "a"))
    await t.commit(
        t.put("x" * limit, 1), t.put("b", 1, "ü" * (limit // 2)), Delete(t.topic, "😀" * (limit // 4))
    )
    await t.agrees("after names as long as the limit")


@check("no larger values than the limit")
async def no_larger_values_than_the_limit(t: Trial) -> str | None:
    """One byte of JSON more is a `LimitExceededError`, and nothing is done."""
    await anyio.lowlevel.checkpoint()
    limit = t.store.limits.value
    if limit > _LARGEST:
        await anyio.lowlevel.checkpoint()
        return f"the limit of {limit} bytes is more than the {_LARGEST} that are tried"
    values: list[JSON] = ["x" * (limit - 1), ["x" * (limit - 3)], "ü" * (limit // 2)]
    for value in values:
        await _exceeds(t, "value", limit, t.put("b", 1), t.put("c", value), Delete(t.topic, "a"))
    if limit <= min(32 << 20, t.store.limits.commit // 2):
        index = await t.commit(t.put("a", "x" * (limit - 2)))
        entry = await t.store.get(t.topic, "a")
        t.equal("a value as large as the limit", entry, Entry("x" * (limit - 2), index))
    return None


@check("no larger commits than the limit")
async def no_larger_commits_than_the_limit(t: Trial) -> str | None:
    """More bytes of JSON in all are a `LimitExceededError`, and nothing is done."""
    limits = t.store.limits
    size = min(limits.value - 2, limits.commit)
    count = limits.commit // size + 1
    if limits.commit > _LARGEST:
        await anyio.lowlevel.checkpoint()
        return f"the limit of {limits.commit} bytes is more than the {_LARGEST} that are tried"
    if count > limits.operations:
        await anyio.lowlevel.checkpoint()
        return f"as many bytes as {limits.commit} are more than {limits.operations} operations"
    text = "x" * size
    await _exceeds(t, "commit", limits.commit, *(t.put(f"{n}", text) for n in range(count)))
    return None


OPTION_CHECKS: Final[Sequence[StoreCheck]] = (
    an_id_is_of_one_commit,
    every_id_is_remembered,
    an_id_that_was_refused_is_free,
    an_id_that_many_use_at_once_is_of_one_commit,
    what_changes_nothing_is_left_out,
    what_is_final_stays,
    a_snapshot_says_whether_its_key_is_final,
    what_is_revoked_is_told,
    the_newest_revocations_are_remembered,
    no_more_operations_than_the_limit,
    no_longer_names_than_the_limit,
    no_larger_values_than_the_limit,
    no_larger_commits_than_the_limit,
)
