"""Commits: all or nothing, numbered without gaps, on conditions."""

import traceback
from typing import Any

import anyio
import pytest
from stores.storehouse import ALL_JOBS, JOBS, Sink, put, state, take

from trio_stream import SubscribeRequest
from trio_stream.stores import JSON, Commit, ConflictError, Delete, Entry, Head, Name, Put, Record, Store

pytestmark = pytest.mark.anyio


async def test_a_new_store_stands_at_index_0(store: Store) -> None:
    head = await store.head()
    assert (head.index, head.floor) == (0, 0)
    assert len(head.epoch) >= 16


async def test_commits_are_numbered_from_1_without_gaps(store: Store) -> None:
    assert [await store.commit([put(key)]) for key in "abc"] == [1, 2, 3]
    assert (await store.head()).index == 3


async def test_commits_at_once_over_two_openings_have_no_gaps_either(store: Store, other: Store) -> None:
    indexes: list[int] = []

    async def write(through: Store, key: str) -> None:
        indexes.extend([await through.commit([put(key)]) for _ in range(10)])

    async with anyio.create_task_group() as tasks:
        for n in range(3):
            tasks.start_soon(write, store, f"a{n}")
            tasks.start_soon(write, other, f"b{n}")
    assert sorted(indexes) == list(range(1, 61))


async def test_one_commit_covers_many_keys_and_topics_with_one_index(store: Store) -> None:
    await store.commit([Put("jobs", "a", 1), Put("users", "b", 2, "blue")])
    assert await store.get("jobs", "a") == Entry(1, 1)
    assert await store.get("users", "b", namespace="blue") == Entry(2, 1)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        10**30,
        "",
        "naïve \u2028 \0 text",
        [],
        [1, [2]],
        {},
        {"": {"a": None}},
        "x" * 100_000,
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_a_value_comes_back_as_it_was(store: Store, value: JSON) -> None:
    await store.commit([put("a", value)])
    assert await store.get("jobs", "a") == Entry(value, 1)
    async with store.changes(0) as commits:
        assert await anext(commits) == Commit(1, (put("a", value),))


async def test_a_tuple_comes_back_as_a_list(store: Store) -> None:
    await store.commit([put("a", (1, 2))])
    assert await store.get("jobs", "a") == Entry([1, 2], 1)


def circle() -> Any:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1: "a"}, {"a": {None: 1}}, {1, 2}, b"a", object(), "\ud800", circle()],
    ids=["NaN", "infinity", "key", "inner key", "set", "bytes", "object", "lone surrogate", "circle"],
)
async def test_a_value_that_is_not_json_is_refused_before_anything_is_written(
    store: Store, value: Any
) -> None:
    with pytest.raises(
        ValueError, match="the value of key 'b' in namespace 'default' of topic 'jobs' is not JSON"
    ):
        await store.commit([put("a"), put("b", value)])
    assert (await store.head()).index == 0
    assert await state(store) == {}


@pytest.mark.parametrize("value", [{"s3cret"}, [b"s3cret"], {("s3cret",): 1}], ids=["set", "bytes", "key"])
async def test_a_value_that_is_not_json_is_not_shown(store: Store, value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON") as raised:
        await store.commit([put("a", value)])
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))


async def test_a_commit_without_operations_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="stands for no change"):
        await store.commit([])
    assert (await store.head()).index == 0


@pytest.mark.parametrize(
    ("operations", "expect"),
    [
        (["a"], {}),
        ([put("a")], {"a": 0}),
        ([put("a")], {("jobs",): 0}),
        ([put("a")], {("jobs", 7): 0}),
        ([put("a")], {("jobs", "a", "default", "more"): 0}),
        ([put("a")], {Name("jobs", "a"): "1"}),
        ([put("a")], {Name("jobs", "a"): True}),
    ],
)
async def test_what_is_no_operation_or_expectation_is_refused(
    store: Store, operations: Any, expect: Any
) -> None:
    with pytest.raises(TypeError):
        await store.commit(operations, expect=expect)
    assert (await store.head()).index == 0


async def test_what_is_expected_may_be_named_by_a_plain_tuple(store: Store) -> None:
    plain: Any = {("jobs", "a"): 0, ("jobs", "b", "blue"): 0}
    await store.commit([put("a"), Put("jobs", "b", 1, "blue")], expect=plain)
    for name in (("jobs", "a"), ("jobs", "b", "blue")):
        plain = {name: 7}
        with pytest.raises(ConflictError) as caught:
            await store.commit([put("c")], expect=plain)
        assert caught.value.name == Name(*name)


async def test_two_expectations_for_one_name_are_refused(store: Store) -> None:
    twice: Any = {("jobs", "a"): 0, Name("jobs", "a"): 1}
    with pytest.raises(ValueError, match="twice"):
        await store.commit([put("a")], expect=twice)


async def test_a_negative_expectation_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="not negative"):
        await store.commit([put("a")], expect={Name("jobs", "a"): -1})


async def test_deleting_removes_a_key_from_the_state(store: Store) -> None:
    await store.commit([put("a"), put("b")])
    await store.commit([Delete("jobs", "a")])
    assert await store.get("jobs", "a") is None
    assert await state(store) == {"b": "x"}


async def test_deleting_what_is_not_there_is_a_commit_like_any_other(store: Store) -> None:
    assert await store.commit([Delete("jobs", "a")]) == 1
    async with store.changes(0) as commits:
        assert await anext(commits) == Commit(1, ())


async def test_of_several_operations_on_one_name_the_last_holds_and_is_what_readers_get(store: Store) -> None:
    await store.commit([put("a", 1), Delete("jobs", "a"), put("b", 1), put("a", 2), Delete("jobs", "b")])
    assert await state(store) == {"a": 2}
    async with store.changes(0) as commits:
        assert (await anext(commits)).operations == (put("a", 2),)


async def test_expectations_that_hold_let_the_commit_through(store: Store) -> None:
    await store.commit([put("a", 1)], expect={Name("jobs", "a"): 0})
    await store.commit([put("a", 2)], expect={Name("jobs", "a"): 1, Name("jobs", "elsewhere"): 0})
    assert await store.get("jobs", "a") == Entry(2, 2)


@pytest.mark.parametrize(
    ("key", "expected", "actual"), [("a", 0, 2), ("a", 1, 2), ("b", 1, 0), ("gone", 1, 0)]
)
async def test_an_expectation_that_fails_says_which_and_changes_nothing(
    store: Store, key: str, expected: int, actual: int
) -> None:
    await store.commit([put("a", 1), put("gone")])
    await store.commit([put("a", 2), Delete("jobs", "gone")])
    with pytest.raises(
        ConflictError, match=rf"key '{key}' in namespace 'default' of topic 'jobs' has index {actual}"
    ) as caught:
        await store.commit([put("a", 3), put("c")], expect={Name("jobs", key): expected})
    assert (caught.value.name, caught.value.expected, caught.value.actual) == (
        Name("jobs", key),
        expected,
        actual,
    )
    assert (await store.head()).index == 2
    assert await state(store) == {"a": 2}


async def test_errors_about_a_name_quote_it_escaped(store: Store) -> None:
    hostile = Name("a\x1b", "b\x9b", "c\u202e")
    assert str(ConflictError(hostile, 0, 1)).isprintable()
    with pytest.raises(ValueError) as caught:
        await store.commit([Put(*hostile[:2], float("nan"), hostile[2])])
    assert str(caught.value).isprintable()


async def test_of_many_who_expect_the_same_one_wins(store: Store, other: Store) -> None:
    await store.commit([put("a", 0)])
    won: list[int] = []

    async def take_over(through: Store, value: int) -> None:
        try:
            await through.commit([put("a", value)], expect={Name("jobs", "a"): 1})
        except ConflictError:
            return
        won.append(value)

    async with anyio.create_task_group() as tasks:
        for value in range(1, 6):
            tasks.start_soon(take_over, store, value)
            tasks.start_soon(take_over, other, -value)
    assert [await store.get("jobs", "a")] == [Entry(value, 2) for value in won]


async def test_a_namespace_keeps_equal_keys_apart(store: Store) -> None:
    await store.commit([Put("jobs", "a", 1), Put("jobs", "a", 2, "blue")])
    await store.commit([Delete("jobs", "a", "blue")])
    assert await store.get("jobs", "a") == Entry(1, 1)
    assert await store.get("jobs", "a", namespace="blue") is None


async def test_a_snapshot_has_a_key_or_all_keys_of_the_namespace_in_order(store: Store) -> None:
    await store.commit([put("b", 1), Put("jobs", "a", 2, "blue"), Put("users", "a", 3)])
    await store.commit([put("a", 4)])
    everything, one, nothing = Sink(), Sink(), Sink()
    assert await store.snapshot(ALL_JOBS, everything) == 2
    assert everything.records == [(2, Record("a", 4)), (1, Record("b", 1))]
    assert await store.snapshot(SubscribeRequest(JOBS, "a", namespace="blue"), one) == 2
    assert one.records == [(1, Record("a", 2, "put", "blue"))]
    assert await store.snapshot(SubscribeRequest(JOBS, partition="other"), nothing) == 2
    assert nothing.events == []


async def test_a_snapshot_of_a_store_without_commits_has_index_0(store: Store) -> None:
    sink = Sink()
    assert await store.snapshot(ALL_JOBS, sink) == 0
    assert sink.events == []


async def test_the_epoch_and_everything_committed_outlive_the_process(store: Store, other: Store) -> None:
    await store.commit([put("a")])
    head = await store.head()
    assert await other.head() == head == Head(1, 0, head.epoch, head.mark)
    assert await state(other) == {"a": "x"}
    async with other.changes(0) as commits:
        assert await take(commits, 1) == [1]
