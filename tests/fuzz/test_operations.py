"""Operations and expectations of any shape on a store: a typed error and nothing changed, or what was asked for."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from fuzz.fuzzing import fuzzed, json_values, nested, numbers, objects, texts
from hypothesis import given, strategies as st

from trio_stream.stores import ConflictError, Delete, Entry, Name, Put, Store, open_store

pytestmark = pytest.mark.slow

PATIENCE = 20.0  # seconds after which it hangs


def operation(kind: str, key: Any, value: Any) -> Any:
    """An operation, or what was given for one if that is refused."""
    try:
        return Put("jobs", key, value) if kind == "put" else Delete("jobs", key)
    except (TypeError, ValueError):
        assert not isinstance(key, str) or not key or "\0" in key or not is_unicode(key)
        return None


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


operations = st.builds(
    operation,
    st.sampled_from(["put", "put", "delete"]),
    st.sampled_from(["a", "b"]) | texts | objects,
    json_values | objects,
)
expectations = st.dictionaries(
    st.builds(Name, st.just("jobs"), st.sampled_from(["a", "b"]) | texts),
    st.integers(0, 6) | numbers,
    max_size=1,
)


@fuzzed
@given(st.lists(st.tuples(st.lists(operations, max_size=3), expectations), max_size=5))
def test_a_commit_is_whole_or_refused(commits: Sequence[tuple[list[Any], dict[Name, int]]]) -> None:
    with TemporaryDirectory() as folder:
        anyio.run(commit_all, Path(folder) / "jobs.db", commits)


async def commit_all(path: Path, commits: Sequence[tuple[list[Any], dict[Name, int]]]) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_store(f"sqlite:{path}", synchronous="OFF") as store:
            expected: dict[str, Entry] = {}
            for asked, expect in commits:
                before = await store.head()
                try:
                    index = await store.commit(asked, expect=expect)
                except (TypeError, ValueError, ConflictError):
                    assert await store.head() == before
                else:
                    assert index == before.index + 1
                    for each in asked:
                        expected.pop(each.key, None)
                        if isinstance(each, Put):
                            expected[each.key] = Entry(json.loads(json.dumps(each.value)), index)
                async with store.list("jobs") as entries:
                    assert {key: entry async for key, entry in entries} == expected


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    async with open_store(f"sqlite:{tmp_path / 'jobs.db'}", synchronous="OFF") as store:
        await store.commit([Put("jobs", "a", 1)])
        yield store


@pytest.mark.anyio
@pytest.mark.parametrize("after", [2, 2**31, 2**63 - 1, 2**63, 10**30])
async def test_however_far_an_index_is_away_it_is_waited_for(store: Store, after: int) -> None:
    """`Store.changes`: "an `after` that the store has yet to reach is waited for"."""
    async with store.changes(after) as commits:
        with anyio.move_on_after(0.05) as waited:
            await anext(commits)
    assert waited.cancelled_caught


@pytest.mark.anyio
@pytest.mark.parametrize("index", [2, 2**63, 10**30])
async def test_an_index_that_is_not_there_is_refused_however_great_it_is(store: Store, index: int) -> None:
    with pytest.raises(ValueError, match="cannot compact"):
        await store.compact(index)
    with pytest.raises(ConflictError):
        await store.commit([Put("jobs", "a", 2)], expect={Name("jobs", "a"): index})
    assert (await store.head()).index == 1


@pytest.mark.anyio
@pytest.mark.parametrize("depth", [10, 300, 3_000, 100_000])
async def test_a_value_of_any_depth_is_kept_or_refused(store: Store, depth: int) -> None:
    try:
        index = await store.commit([Put("jobs", "deep", nested(depth))])
    except ValueError:
        assert (await store.head()).index == 1
        assert await store.get("jobs", "deep") is None
    else:
        assert index == 2
        entry = await store.get("jobs", "deep")
        assert entry is not None
        async with store.changes(1) as commits:
            assert (await anext(commits)).index == 2
