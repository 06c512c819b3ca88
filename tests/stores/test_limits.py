"""A commit has limits, and more is refused before anything is written."""

import anyio
import pytest
from stores.storehouse import put

from trio_stream.stores import Delete, LimitExceededError, Limits, Put, Store

pytestmark = pytest.mark.anyio

SMALL = Limits(operations=9, commit=200, key=40, value=60)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes little."""
    for module in ("sqlite", "_sqlite_write", "_sqlite_database"):
        monkeypatch.setattr(f"trio_stream.stores.{module}.LIMITS", SMALL)


async def refusal(store: Store, *operations: Put | Delete) -> tuple[str, int, int]:
    before = await store.head()
    with pytest.raises(LimitExceededError) as caught:
        await store.commit(operations)
    assert await store.head() == before
    assert "jobs.db" in str(caught.value)
    return caught.value.what, caught.value.limit, caught.value.actual


async def test_a_store_says_its_limits(store: Store) -> None:
    assert store.limits == Limits(1_000_000, 256 << 20, 64 << 10, 64 << 20)


@pytest.mark.usefixtures("small")
class TestSmall:
    async def test_as_much_as_the_limits_allow_is_taken(self, store: Store) -> None:
        assert store.limits == SMALL
        await store.commit([put("a"), put("b"), put("c"), put("c"), put("c")])
        await store.commit([put("k" * 40)])
        await store.commit([put("a", "v" * 58)])

    async def test_operations(self, store: Store) -> None:
        assert await refusal(store, *(put(key) for key in "abcdefghij")) == ("operations", 9, 10)

    async def test_operations_of_one_name_count_each(self, store: Store) -> None:
        assert await refusal(store, *(put("a") for _ in range(10))) == ("operations", 9, 10)

    @pytest.mark.parametrize(
        "put_",
        [
            Put("t", "k" * 41, 0),
            Put("t" * 41, "k", 0),
            Put("t", "k", 0, "n" * 41),
            Put("t", "ké" * 14, 0),
        ],
    )
    async def test_bytes_of_a_name(self, store: Store, put_: Put) -> None:
        what, limit, actual = await refusal(store, put_)
        assert (what, limit) == ("key", 40)
        assert actual in (41, 42)

    async def test_bytes_of_a_name_that_is_deleted(self, store: Store) -> None:
        assert await refusal(store, Delete("t", "k" * 41)) == ("key", 40, 41)

    async def test_bytes_of_a_value(self, store: Store) -> None:
        assert await refusal(store, put("a", "v" * 59)) == ("value", 60, 61)
        assert await refusal(store, put("a", "é" * 30)) == ("value", 60, 62)

    async def test_bytes_of_a_commit(self, store: Store) -> None:
        for character, count in (("v", 58), ("\u00e9", 29), ("\U0001f600", 14)):
            what, limit, actual = await refusal(store, *(put(key, character * count) for key in "abc"))
            assert (what, limit) == ("commit", 200)
            assert actual > 200
            await store.commit([put(key, character * count) for key in "ab"])

    async def test_what_a_commit_replaces_must_go_into_the_log_too(self, store: Store) -> None:
        """Each delete is small, and what they remove together is not."""
        for n in range(8):
            await store.commit([Put("t", f"{n}", "v" * 58, "n")])
        what, limit, actual = await refusal(store, *(Delete("t", f"{n}", "n") for n in range(8)))
        assert (what, limit) == ("commit", 600)
        assert actual > 8 * 60
        await store.commit([Delete("t", f"{n}", "n") for n in range(7)])

    async def test_one_that_is_refused_leaves_the_others_of_its_group_alone(self, store: Store) -> None:
        async def too_large() -> None:
            with pytest.raises(LimitExceededError):
                await store.commit([put("a", "v" * 59)])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.commit, [put("a")])
            tasks.start_soon(too_large)
            tasks.start_soon(store.commit, [put("b")])
        assert (await store.head()).index == 2
