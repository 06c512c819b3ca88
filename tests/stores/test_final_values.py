"""The last value of a key: nobody puts another one there, until it is deleted."""

import pytest
from stores.storehouse import JOBS, Sink, put
from typing_extensions import override

from trio_stream import ALL, SubscribeRequest
from trio_stream.stores import ConflictError, Delete, Name, Put, Store

pytestmark = pytest.mark.anyio


class Finishing(Sink):
    """Of a source whose subjects can finish."""

    is_finished = False

    @override
    def finish(self) -> None:
        self.is_finished = True


def final(key: str, value: int = 1) -> Put:
    return Put("jobs", key, value, final=True)


async def conflict(store: Store, operation: Put, **options: object) -> ConflictError:
    before = await store.head()
    with pytest.raises(ConflictError) as caught:
        await store.commit([put("other"), operation], **options)  # type: ignore[arg-type]
    assert await store.head() == before
    assert await store.get("jobs", "other") is None
    return caught.value


async def test_a_finished_key_is_read_as_such(store: Store) -> None:
    await store.commit([final("a"), put("b")])
    async with store.list("jobs") as entries:
        assert {key: entry.final async for key, entry in entries} == {"a": True, "b": False}
    entry = await store.get("jobs", "a")
    assert entry is not None
    assert entry.final
    async with store.changes(0) as commits:
        assert (await anext(commits)).operations == (final("a"), put("b"))


@pytest.mark.parametrize("is_final", [False, True])
async def test_a_finished_key_cannot_be_put(store: Store, is_final: bool) -> None:
    index = await store.commit([final("a")])
    error = await conflict(store, Put("jobs", "a", 2, final=is_final))
    assert (error.name, error.expected, error.actual) == (Name("jobs", "a"), index, index)
    assert error.is_final
    assert "finished since commit 1" in str(error)


async def test_an_expectation_does_not_open_a_finished_key(store: Store) -> None:
    index = await store.commit([final("a")])
    assert (await conflict(store, put("a"), expect={Name("jobs", "a"): index})).is_final
    assert not (await conflict(store, put("a"), expect={Name("jobs", "a"): 0})).is_final


async def test_a_delete_frees_a_finished_key(store: Store) -> None:
    await store.commit([final("a")])
    await store.commit([Delete("jobs", "a")])
    await store.commit([put("a", 2)])
    entry = await store.get("jobs", "a")
    assert entry is not None
    assert not entry.final


async def test_a_finished_key_is_freed_by_a_commit_of_its_own(store: Store) -> None:
    """Of several operations on one name only the last counts."""
    await store.commit([final("a")])
    with pytest.raises(ConflictError):
        await store.commit([Delete("jobs", "a"), put("a", 2)])


async def test_a_key_can_be_finished_that_was_there(store: Store) -> None:
    await store.commit([put("a", 0)])
    await store.commit([final("a")])
    async with store.changes(1) as commits:
        (change,) = (await anext(commits)).operations
    assert change == final("a")
    assert change.previous == 0


async def test_a_snapshot_of_a_finished_key_says_that_it_is_finished(store: Store) -> None:
    await store.commit([final("a"), put("b")])
    for key, expected in {"a": True, "b": False, "missing": False}.items():
        sink = Finishing()
        await store.snapshot(SubscribeRequest(JOBS, key=key), sink)
        assert sink.is_finished == expected


@pytest.mark.parametrize(
    "request_",
    [
        SubscribeRequest(JOBS),
        SubscribeRequest(JOBS, key="a", prefix=True),
        SubscribeRequest(JOBS, key="a", namespace=ALL),
        SubscribeRequest(JOBS, key="a", partition=ALL),
    ],
)
async def test_only_a_request_of_one_key_can_be_finished(store: Store, request_: "SubscribeRequest") -> None:
    await store.commit([final("a")])
    sink = Finishing()
    await store.snapshot(request_, sink)
    assert len(sink.records) == 1
    assert not sink.is_finished
